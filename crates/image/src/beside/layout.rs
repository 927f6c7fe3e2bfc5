//! What stands beside an image in an OCI layout: entries of its index.
//!
//! Invariant: only the top index is looked at, as it is where tools put what they copy.

use strata_tree::BlobDigest;

use super::{Beside, COUNT_MAX, Companion, TakeCompanion, checked};
use crate::error::{Error, Result};
use crate::media::MediaKind;
use crate::oci::{self, Descriptor};
use crate::source::{ImageSource, blob_path};

/// See the module.
pub(crate) struct LayoutSide<'a> {
    source: &'a ImageSource,
    index: Vec<Descriptor>,
}

impl<'a> LayoutSide<'a> {
    /// # Errors
    /// Those of reading the index.
    pub(crate) fn new(source: &'a ImageSource) -> Result<Self> {
        Ok(Self { source, index: oci::read_index(source)?.unwrap_or_default() })
    }

    fn manifest(&self, entry: &Descriptor, tag: Option<&str>) -> Result<Option<Companion>> {
        let digest = entry.check(&self.source.label, "index.json")?;
        let name = format!("manifest {digest}");
        let Some(bytes) = self.source.verified(&name, digest, entry.size)? else {
            return Ok(None);
        };
        Companion::read(&self.source.label, tag, digest, bytes).map(Some)
    }
}

impl Beside for LayoutSide<'_> {
    fn label(&self) -> &str {
        &self.source.label
    }

    fn tagged(&self, tag: &str) -> Result<Option<Companion>> {
        let named = |entry: &&Descriptor| {
            entry.name().is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
        };
        let entry = self.index.iter().find(named);
        entry.map_or(Ok(None), |entry| self.manifest(entry, Some(tag)))
    }

    fn referrers(&self, subject: BlobDigest, take: &mut TakeCompanion<'_>) -> Result<bool> {
        let mut count = 0;
        for entry in &self.index {
            let kind = MediaKind::of(&entry.media_type);
            // Indexes too: one may refer to an image.
            if !matches!(kind, MediaKind::Manifest | MediaKind::Index | MediaKind::Unsaid) {
                continue;
            }
            let Some(companion) = self.manifest(entry, None)? else { continue };
            if !companion.is_about(subject) {
                continue;
            }
            if count == COUNT_MAX {
                return Ok(true);
            }
            count += 1;
            take(companion)?;
        }
        Ok(false)
    }

    fn bytes(&self, what: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let label = &self.source.label;
        let digest = checked(label, what, most)?;
        let bytes = self.source.sized(&format!("blob {digest}"), digest, what.size, most)?;
        bytes.ok_or_else(|| Error::Missing {
            label: label.clone(),
            wanted_by: "a manifest beside the image".to_owned(),
            path: blob_path(digest).to_string(),
        })
    }
}
