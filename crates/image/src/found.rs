//! What the formats have in common: an image that was found in a source, ready to be loaded.
//!
//! Invariants: a found image's config and manifest are verified against the digests that name
//! them; once it is [checked](FoundImage::checked) it has as many layers as diff ids. Layers
//! themselves are not read yet.

use strata_registry::Reference;
use strata_tree::{BlobDigest, TreePath};
use strata_trust::TrustVerdict;

use crate::config::ImageConfig;
use crate::error::{Error, Result};
use crate::limits::SourceLimits;
use crate::media::MediaKind;
use crate::platform::Platform;
use crate::spec::SourceSpec;

/// One image of a source.
#[derive(Debug)]
pub(crate) struct FoundImage {
    pub(crate) names: Vec<Reference>,
    /// The repository and digest by which it was asked for, where that is all the name it has.
    pub(crate) pin: Option<Reference>,
    /// The manifest's bytes, if the format has one for each image.
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) config: ImageConfig,
    /// The config's bytes.
    pub(crate) raw_config: Vec<u8>,
    /// Base first.
    pub(crate) layers: Vec<FoundLayer>,
    /// Why it is let in, once that has been asked.
    pub(crate) verdict: Option<TrustVerdict>,
}

/// Where the bytes of a layer are.
#[derive(Debug, Clone)]
pub(crate) struct FoundLayer {
    pub(crate) path: TreePath,
    /// Digest and size in bytes of the stored bytes, where the format says them.
    pub(crate) blob: Option<(BlobDigest, Option<i64>)>,
    pub(crate) kind: MediaKind,
    /// The media type, as it is written; empty where the format says none.
    pub(crate) media_type: String,
    /// Where a foreign layer could be fetched.
    pub(crate) urls: Vec<String>,
}

impl FoundImage {
    /// What the image is called in messages: its first name, else its short id.
    pub(crate) fn title(&self) -> String {
        let name = self.names.first().or(self.pin.as_ref());
        name.map_or_else(|| self.config.id().short(), Reference::familiar)
    }

    /// What a store keeps of its names.
    pub(crate) fn store_names(&self) -> Vec<String> {
        store_names(&self.names, self.pin.as_ref())
    }

    /// Checks what must hold before a layer is read.
    ///
    /// # Errors
    /// `LayerCount`.
    pub(crate) fn checked(self) -> Result<Self> {
        let (layers, diff_ids) = (self.layers.len(), self.config.diff_ids().len());
        if !self.is_whole() {
            return Err(Error::LayerCount { image: self.title(), layers, diff_ids });
        }
        Ok(self)
    }

    /// Whether there is a layer for each diff id.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_as_many(self.layers.len())
    }

    /// Whether there are as many diff ids as that.
    pub(crate) fn has_as_many(&self, layers: usize) -> bool {
        self.config.diff_ids().len() == layers
    }

    /// Bytes of memory that it takes, about.
    fn weight(&self) -> u64 {
        let documents = self.manifest.as_ref().map_or(0, Vec::len) + self.raw_config.len();
        let read = self.config.weight() + self.layers.len() * size_of::<FoundLayer>();
        (documents + read) as u64
    }

    pub(crate) fn add_names(&mut self, names: impl IntoIterator<Item = Reference>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

/// The memory that the images of one source may still take, all of which are found before the
/// first is loaded.
pub(crate) struct FoundRoom<'a> {
    label: &'a str,
    most: u64,
    held: u64,
}

impl<'a> FoundRoom<'a> {
    pub(crate) fn new(label: &'a str, limits: &SourceLimits) -> Self {
        Self { label, most: limits.held_bytes, held: 0 }
    }

    /// Makes room for one more image. The first always has it: the bound of each document is
    /// bound enough.
    ///
    /// # Errors
    /// `Document`.
    pub(crate) fn take(&mut self, image: &FoundImage) -> Result<()> {
        let before = self.held;
        self.held = before.saturating_add(image.weight());
        if before == 0 || self.held <= self.most {
            return Ok(());
        }
        let why = format!(
            "the manifests and configs of its images take more than {} bytes of memory together; \
             name one image at a time ({}:NAME)",
            self.most, self.label
        );
        Err(Error::document(self.label, "its list of images", why))
    }
}

/// Which images of a source are wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) spec: &'a SourceSpec,
    pub(crate) platform: Option<&'a Platform>,
}

impl Wanted<'_> {
    /// Whether the image that the source calls `text` is wanted.
    pub(crate) fn name(&self, text: &str, reference: Option<&Reference>) -> bool {
        let Some(wanted) = self.spec.wanted() else { return true };
        text == wanted
            || reference.is_some() && wanted.parse::<Reference>().ok().as_ref() == reference
    }

    /// An image without any name is wanted only if all are.
    pub(crate) fn unnamed(&self) -> bool {
        self.spec.wanted().is_none()
    }
}

/// What a store keeps of these names and this digest.
pub(crate) fn store_names(names: &[Reference], pin: Option<&Reference>) -> Vec<String> {
    let tags = names.iter().filter_map(Reference::store_tag);
    tags.chain(pin.and_then(Reference::store_pin)).collect()
}

/// A list for messages.
pub(crate) fn listed<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        _ => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}
