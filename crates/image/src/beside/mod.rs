//! What stands beside an image: signatures, attestations, bills of materials.
//!
//! ```text
//! sha256-<hex>.sig, .att, .sbom   tags of the same repository or layout: cosign
//! subject                         manifests that refer to the image's: OCI 1.1; a registry that
//!                                 does not know them lists them under the tag sha256-<hex>
//! ```
//! (cosign, SIGNATURE_SPEC.md, "Storage"; image specification 1.1, manifest.md, `subject`;
//! distribution specification 1.1, "Referrers Tag Schema".)
//!
//! Invariants: every manifest and blob is verified by digest and size; their number is bounded, the
//! size of each, and what is kept of all; nothing here says whether a signature is good.

mod carry;
mod check;
mod gate;
mod layout;
mod registry;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde::de::IgnoredAny;
use strata_registry::or_default;
use strata_tree::BlobDigest;
use strata_trust::{Attachment, Signature, is_bundle};

pub use check::{TrustQuestion, check_trust, check_trust_of_all};

pub(crate) use carry::{Companions, companions};
pub(crate) use gate::{admit_files, admit_registry};
pub(crate) use layout::LayoutSide;
pub(crate) use registry::RegistrySide;

use crate::error::{Error, Result};
use crate::json;
use crate::oci::Descriptor;

/// Bytes of one signature, as containers/image bounds them.
const SIGNATURE_MAX: u64 = 4 << 20;
/// Signatures of one image, and manifests beside it, from each source.
const COUNT_MAX: usize = 128;
/// Bytes that may be in memory of all that stands beside an image.
const HELD_MAX: u64 = 64 << 20;
/// The endings of cosign's tags.
const ENDINGS: [&str; 3] = ["sig", "att", "sbom"];

/// A manifest that stands beside an image.
#[derive(Debug, Clone)]
pub(crate) struct Companion {
    /// The tag by which it is found; none for a referrer.
    pub(crate) tag: Option<String>,
    pub(crate) digest: BlobDigest,
    pub(crate) media_type: String,
    /// Its bytes. What they say in detail is read again where it is needed, as that takes many
    /// times the room.
    pub(crate) manifest: Vec<u8>,
    /// What an index says of its kind.
    pub(crate) artifact_type: Option<String>,
    /// The manifest that it refers to.
    subject: Option<BlobDigest>,
    /// Whether it lists manifests.
    is_index: bool,
}

/// What its manifest says.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CompanionParts {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
}

/// Takes a manifest that was found.
pub(crate) type TakeCompanion<'a> = dyn FnMut(Companion) -> Result<()> + 'a;

/// Where such manifests are.
pub(crate) trait Beside {
    /// What the user calls the place.
    fn label(&self) -> &str;

    /// The manifest of a tag; `None` if there is none.
    ///
    /// # Errors
    /// Those of fetching, and of damaged documents.
    fn tagged(&self, tag: &str) -> Result<Option<Companion>>;

    /// Hands on the manifests that refer to one, [`COUNT_MAX`] at most; whether there are others,
    /// which nobody looked at.
    ///
    /// # Errors
    /// As [`Beside::tagged`], and those of `take`.
    fn referrers(&self, subject: BlobDigest, take: &mut TakeCompanion<'_>) -> Result<bool>;

    /// A blob of at most `most` bytes, verified.
    ///
    /// # Errors
    /// As [`Beside::tagged`]; `Limit`.
    fn bytes(&self, what: &Descriptor, most: u64) -> Result<Vec<u8>>;
}

impl Companion {
    /// Reads a manifest whose digest has been verified.
    ///
    /// # Errors
    /// `Document`.
    pub(crate) fn read(
        label: &str,
        tag: Option<&str>,
        digest: BlobDigest,
        manifest: Vec<u8>,
    ) -> Result<Self> {
        let parts = read_parts(label, digest, &manifest)?;
        let media_type = match parts.media_type.as_str() {
            "" => crate::media::OCI_MANIFEST.to_owned(),
            said => said.to_owned(),
        };
        let config = parts.config.map(|config| config.media_type);
        Ok(Self {
            tag: tag.map(str::to_owned),
            digest,
            media_type,
            manifest,
            artifact_type: parts.artifact_type.or(config).filter(|kind| !kind.is_empty()),
            subject: parts.subject.and_then(|said| said.digest.parse().ok()),
            is_index: parts.manifests.is_some(),
        })
    }

    /// Whether it refers to that manifest.
    pub(crate) fn is_about(&self, subject: BlobDigest) -> bool {
        self.subject == Some(subject)
    }

    /// Bytes of memory that it takes, about.
    fn weight(&self) -> u64 {
        let kind = self.artifact_type.as_ref().map_or(0, String::len);
        (self.manifest.len() + self.media_type.len() + kind + size_of::<Self>()) as u64
    }

    /// Its config, if it has one, and its layers.
    ///
    /// # Errors
    /// `Document`.
    fn parts(&self, label: &str) -> Result<(Option<Descriptor>, Vec<Descriptor>)> {
        let parts = read_parts(label, self.digest, &self.manifest)?;
        Ok((parts.config, parts.layers))
    }
}

fn read_parts(label: &str, digest: BlobDigest, manifest: &[u8]) -> Result<CompanionParts> {
    let name = format!("manifest {digest}");
    json::from_slice(manifest).map_err(|error| Error::document(label, &name, error.to_string()))
}

/// The memory that what stands beside one image may still take.
struct BesideRoom<'a> {
    label: &'a str,
    /// What to say to do without all of it.
    option: &'static str,
    held: u64,
}

impl<'a> BesideRoom<'a> {
    fn new(label: &'a str, option: &'static str) -> Self {
        Self { label, option, held: 0 }
    }

    /// Makes room for this many bytes more.
    ///
    /// # Errors
    /// `Limit`.
    fn take(&mut self, bytes: u64) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        match self.held > HELD_MAX {
            false => Ok(()),
            true => Err(Error::Limit {
                label: self.label.to_owned(),
                what: "what stands beside the image, in bytes,".to_owned(),
                limit: HELD_MAX,
                option: self.option,
            }),
        }
    }
}

/// The tag under which a digest has something, without the ending.
fn tag_of(digest: BlobDigest) -> String {
    format!("sha256-{}", digest.hex())
}

/// The digest of a blob beside an image, if it is not larger than `most` bytes.
fn checked(label: &str, what: &Descriptor, most: u64) -> Result<BlobDigest> {
    let digest = what.check(label, "a manifest beside the image")?;
    match what.size.unsigned_abs() > most {
        false => Ok(digest),
        true => Err(Error::Limit {
            label: label.to_owned(),
            what: format!("the size of blob {digest}, {} bytes,", what.size),
            limit: most,
            option: "--signatures none or --insecure-policy",
        }),
    }
}

/// All signatures of an image that stand beside it. Of each manifest there nothing else is kept.
fn signatures(
    side: &dyn Beside,
    manifest: BlobDigest,
    room: &mut BesideRoom<'_>,
) -> Result<Vec<Signature>> {
    let mut found = Vec::new();
    let mut take = |companion: Companion| add_signatures(side, &companion, room, &mut found);
    if let Some(tagged) = side.tagged(&format!("{}.sig", tag_of(manifest)))? {
        take(tagged)?;
    }
    // Of many any may be the one that is asked for, and where none is the image is refused.
    side.referrers(manifest, &mut take)?;
    Ok(found)
}

fn add_signatures(
    side: &dyn Beside,
    companion: &Companion,
    room: &mut BesideRoom<'_>,
    found: &mut Vec<Signature>,
) -> Result<()> {
    let is_tagged = companion.tag.is_some();
    let (_, layers) = companion.parts(side.label())?;
    for layer in layers {
        let media_type = layer.media_type.clone();
        let bundle = is_bundle(&media_type);
        if !bundle && !is_tagged && !media_type.contains("simplesigning") {
            continue;
        }
        if found.len() >= COUNT_MAX {
            return Err(Error::Limit {
                label: side.label().to_owned(),
                what: "the number of signatures".to_owned(),
                limit: COUNT_MAX as u64,
                option: "--insecure-policy",
            });
        }
        let payload = side.bytes(&layer, SIGNATURE_MAX)?;
        room.take(payload.len() as u64)?;
        if bundle {
            found.push(Signature::Bundle(payload));
            continue;
        }
        let annotations = layer.all_annotations();
        let lengths = annotations.iter().map(|(key, text)| key.len() + text.len());
        room.take((lengths.sum::<usize>() + media_type.len()) as u64)?;
        found.push(Signature::Attachment(Attachment { media_type, payload, annotations }));
    }
    Ok(())
}
