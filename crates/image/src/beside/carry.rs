//! What stands beside an image, on its way to another place.
//!
//! Invariants: everything goes byte for byte, so every digest stays; all of it goes or there is an
//! error; blobs are in memory one at a time and bounded; a manifest comes after its blobs, and the
//! image's name after all of them.

use serde_json::{Value, json};
use strata_registry::{Client, EndpointError, ManifestName};
use strata_tree::BlobDigest;

use super::{Beside, BesideRoom, COUNT_MAX, Companion, ENDINGS, tag_of};
use crate::error::{Error, Result};
use crate::media::OCI_INDEX;

/// Bytes of one blob that is carried.
const CARRIED_MAX: u64 = 64 << 20;
/// How far signatures of signatures are followed.
const DEPTH: usize = 3;

/// All that goes along with an image.
pub(crate) struct Companions<'a> {
    side: Box<dyn Beside + 'a>,
    /// The image's manifest.
    of: BlobDigest,
    all: Vec<Companion>,
}

/// Writes a blob somewhere.
pub(crate) type CarriedBlob<'a> = dyn FnMut(&BlobDigest, &[u8]) -> Result<()> + 'a;

/// Looks for all that stands beside the image of a manifest.
///
/// # Errors
/// Those of fetching; `Limit`; `Signatures` if an index is among it.
pub(crate) fn companions<'a>(
    side: Box<dyn Beside + 'a>,
    manifest: BlobDigest,
) -> Result<Companions<'a>> {
    let mut all: Vec<Companion> = Vec::new();
    let mut room = BesideRoom::new(side.label(), "--signatures none");
    for ending in ENDINGS {
        if let Some(tagged) = side.tagged(&format!("{}.{ending}", tag_of(manifest)))? {
            keep(tagged, &mut room, &mut all)?;
        }
    }
    let too_much = |what: &str, limit: usize| Error::Limit {
        label: side.label().to_owned(),
        what: what.to_owned(),
        limit: limit as u64,
        option: "--signatures none",
    };
    let mut subjects = vec![manifest];
    for depth in 0.. {
        let mut next = Vec::new();
        for subject in subjects {
            let is_cut = side.referrers(subject, &mut |found| {
                if all.iter().all(|known| known.digest != found.digest) {
                    next.push(found.digest);
                    keep(found, &mut room, &mut all)?;
                }
                Ok(())
            })?;
            if is_cut || all.len() > COUNT_MAX {
                return Err(too_much("the number of manifests beside the image", COUNT_MAX));
            }
        }
        if next.is_empty() {
            break;
        }
        if depth == DEPTH {
            let what = "the number of manifests in a row that sign or describe each other";
            return Err(too_much(what, DEPTH));
        }
        subjects = next;
    }
    Ok(Companions { side, of: manifest, all })
}

fn keep(found: Companion, room: &mut BesideRoom<'_>, all: &mut Vec<Companion>) -> Result<()> {
    if found.is_index {
        let digest = found.digest;
        let why = format!("{digest} is an index, whose manifests would stay behind");
        return Err(Error::Signatures { image: room.label.to_owned(), why });
    }
    room.take(found.weight())?;
    all.push(found);
    Ok(())
}

impl Companions<'_> {
    /// Hands on the blobs and then the manifest of each.
    ///
    /// # Errors
    /// Those of reading and of `put`.
    pub(crate) fn each(&self, put: &mut CarriedBlob<'_>) -> Result<()> {
        for companion in &self.all {
            self.blobs(companion, put)?;
            put(&companion.digest, &companion.manifest)?;
        }
        Ok(())
    }

    fn blobs(&self, companion: &Companion, put: &mut CarriedBlob<'_>) -> Result<()> {
        let name = format!("manifest {}", companion.digest);
        let (config, layers) = companion.parts(self.side.label())?;
        for blob in config.iter().chain(&layers) {
            let digest = blob.check(self.side.label(), &name)?;
            put(&digest, &self.side.bytes(blob, CARRIED_MAX)?)?;
        }
        Ok(())
    }

    /// What an index lists of them.
    pub(crate) fn descriptors(&self) -> Vec<Value> {
        self.all.iter().map(descriptor).collect()
    }

    /// Puts all of it into a repository.
    ///
    /// # Errors
    /// What the registry said, and those of reading.
    pub(crate) fn push(
        &self,
        client: &Client,
        told: &dyn Fn(EndpointError) -> Error,
    ) -> Result<()> {
        for companion in &self.all {
            self.blobs(companion, &mut |digest, bytes| {
                client.put_small(*digest, bytes).map_err(told)
            })?;
            let name = match &companion.tag {
                Some(tag) => ManifestName::Tag(tag.clone()),
                None => ManifestName::Digest(companion.digest),
            };
            client.put_manifest(&name, &companion.media_type, &companion.manifest).map_err(told)?;
        }
        let mut subjects = vec![self.of];
        subjects.extend(self.all.iter().map(|one| one.digest));
        subjects.into_iter().try_for_each(|subject| self.list(client, subject, told))
    }

    /// Lists what refers to `subject` where the registry does not do so itself.
    fn list(
        &self,
        client: &Client,
        subject: BlobDigest,
        told: &dyn Fn(EndpointError) -> Error,
    ) -> Result<()> {
        let own = self.all.iter().filter(|one| one.tag.is_none() && one.is_about(subject));
        let own: Vec<Value> = own.map(descriptor).collect();
        let most = crate::limits::SourceLimits::default().document_bytes;
        if own.is_empty() || client.lists_referrers(subject).map_err(told)? {
            return Ok(());
        }
        let name = ManifestName::Tag(tag_of(subject));
        let mut listed: Vec<Value> = match client.manifest(&name, most) {
            Ok(found) => serde_json::from_slice::<Value>(&found.bytes)
                .ok()
                .and_then(|index| index.get("manifests")?.as_array().cloned())
                .unwrap_or_default(),
            Err(EndpointError::NotFound(_)) => Vec::new(),
            Err(why) => return Err(told(why)),
        };
        listed.retain(|known| own.iter().all(|one| known["digest"] != one["digest"]));
        listed.extend(own);
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
        client.put_manifest(&name, OCI_INDEX, index.to_string().as_bytes()).map_err(told)
    }
}

/// A companion as an index lists it.
fn descriptor(companion: &Companion) -> Value {
    let mut one = json!({
        "mediaType": companion.media_type,
        "digest": companion.digest.to_string(),
        "size": companion.manifest.len(),
    });
    if let Some(tag) = &companion.tag {
        one["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    } else if let Some(kind) = &companion.artifact_type {
        one["artifactType"] = json!(kind);
    }
    one
}
