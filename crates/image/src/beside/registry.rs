//! What stands beside an image in its registry.
//!
//! Invariant: not there, and not to be reached, are told apart; only the first is no signature.

use std::io::Read;

use serde::Deserialize;
use strata_registry::{EndpointError, ManifestName, Places, RegistryError, or_default};
use strata_tree::BlobDigest;

use super::{Beside, COUNT_MAX, Companion, TakeCompanion, checked, tag_of};
use crate::error::{Error, Result};
use crate::json;
use crate::oci::Descriptor;
use crate::source::{check_digest, check_size};

/// See the module.
pub(crate) struct RegistrySide<'a> {
    places: &'a Places,
    label: String,
    /// Bytes of one manifest.
    most: u64,
}

/// The answer to the question for referrers.
#[derive(Deserialize)]
struct Referrers {
    #[serde(default, deserialize_with = "or_default")]
    manifests: Vec<Descriptor>,
}

impl<'a> RegistrySide<'a> {
    pub(crate) fn new(places: &'a Places, label: &str, most: u64) -> Self {
        Self { places, label: label.to_owned(), most }
    }

    fn get(&self, name: &ManifestName) -> Result<Option<(BlobDigest, Vec<u8>)>> {
        let found = self.places.first(&self.label, |client| client.manifest(name, self.most));
        match found {
            Ok(found) => Ok(Some((found.digest, found.bytes))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The index of what refers to a manifest, in pages.
    fn index(&self, subject: BlobDigest) -> Result<Vec<Vec<u8>>> {
        let asked = self.places.first(&self.label, |client| {
            // A mirror that does not know the question is no answer for the others.
            let unknown = || EndpointError::NotFound("it lists no referrers".to_owned());
            client.referrers(subject, self.most)?.ok_or_else(unknown)
        });
        match asked {
            Ok(pages) => Ok(pages),
            Err(error) if is_absent(&error) => {
                let name = ManifestName::Tag(tag_of(subject));
                Ok(self.get(&name)?.map(|(_, bytes)| bytes).into_iter().collect())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_absent(error: &RegistryError) -> bool {
    matches!(error.decisive(), Some(EndpointError::NotFound(_)))
}

impl Beside for RegistrySide<'_> {
    fn label(&self) -> &str {
        &self.label
    }

    fn tagged(&self, tag: &str) -> Result<Option<Companion>> {
        let found = self.get(&ManifestName::Tag(tag.to_owned()))?;
        found
            .map(|(digest, bytes)| Companion::read(&self.label, Some(tag), digest, bytes))
            .transpose()
    }

    fn referrers(&self, subject: BlobDigest, take: &mut TakeCompanion<'_>) -> Result<bool> {
        let name = format!("the referrers of {subject}");
        let mut listed = Vec::new();
        for page in self.index(subject)? {
            let page: Referrers = json::from_slice(&page)
                .map_err(|error| Error::document(&self.label, &name, error.to_string()))?;
            listed.extend(page.manifests);
            // One more tells that there are others.
            listed.truncate(COUNT_MAX + 1);
        }
        for entry in listed.iter().take(COUNT_MAX) {
            let digest = entry.check(&self.label, &name)?;
            let Some((digest, bytes)) = self.get(&ManifestName::Digest(digest))? else { continue };
            let companion = Companion::read(&self.label, None, digest, bytes)?;
            // What the index claims is only a hint.
            if companion.is_about(subject) {
                take(companion)?;
            }
        }
        Ok(listed.len() > COUNT_MAX)
    }

    fn bytes(&self, what: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let digest = checked(&self.label, what, most)?;
        let (name, size) = (format!("blob {digest}"), what.size.unsigned_abs());
        let mut bytes = Vec::new();
        if self.places.blob(digest, size).read_to_end(&mut bytes).is_err() {
            return Err(self.places.failures(digest).into());
        }
        check_size(&self.label, &name, what.size, bytes.len() as u64)?;
        check_digest(&self.label, &name, digest, &bytes)?;
        Ok(bytes)
    }
}
