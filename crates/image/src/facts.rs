//! What one place says that an image is, for comparing two places.
//!
//! Invariants: a registry is asked itself, none of its mirrors, so that a mirror can be compared
//! with its origin; layers are not fetched: their digests are those of a verified manifest, and
//! their diff ids those of a verified config.

use std::fs::File;
use std::path::Path;

use strata_layer::{ImageRecord, Progress, Store};
use strata_registry::{Reference, Registries};
use strata_tree::{BlobDigest, DiffId, ImageId};

use crate::config::ImageConfig;
use crate::digest::sha256;
use crate::error::Result;
use crate::find;
use crate::found::{FoundImage, Wanted};
use crate::limits::SourceLimits;
use crate::location::{ImageFormat, Location};
use crate::oci::manifest_parts;
use crate::platform::Platform;
use crate::pull::Remote;
use crate::source::ImageSource;

/// An image as one place has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The digest that the name stands for, which may be that of an index.
    pub digest: Option<BlobDigest>,
    /// The digest of the platform's manifest.
    pub manifest: Option<BlobDigest>,
    /// The digest of the config.
    pub id: ImageId,
    /// Base first.
    pub layers: Vec<LayerFacts>,
}

/// A layer as one place has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerFacts {
    /// What it is.
    pub diff_id: DiffId,
    /// Digest and size in bytes of its blob; `None` where the place does not say.
    pub blob: Option<(BlobDigest, u64)>,
}

impl ImageFacts {
    /// What a registry says, for the platform given or else the host's.
    ///
    /// # Errors
    /// `Registry`, and everything that the documents are refused for.
    pub fn of_registry(
        registries: &Registries,
        reference: &Reference,
        platform: Option<&Platform>,
        limits: &SourceLimits,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let source = Remote::new(registries.only_origin(reference)?, None, reference, limits);
        let top = source.top(reference, progress)?;
        let digest = top.digest;
        let found = source.image(top, platform)?;
        Ok(Self { digest: Some(digest), ..Self::of(&found) })
    }

    /// What an archive or a layout says, which has to hold one image, or one of that name.
    ///
    /// # Errors
    /// Those of [`crate::load`] before anything is loaded.
    pub fn of_files(
        format: ImageFormat,
        path: &Path,
        name: Option<&str>,
        platform: Option<&Platform>,
        scratch: &dyn Fn() -> Result<File>,
        limits: &SourceLimits,
    ) -> Result<Self> {
        let spec = Location::source(format, path, name);
        let source = ImageSource::open(&spec, scratch, limits)?;
        let found = find::one(&source, &Wanted { spec: &spec, platform })?;
        Ok(Self::of(&found))
    }

    /// What the store knows.
    ///
    /// # Errors
    /// `Store`.
    pub fn of_store(store: &Store, image: &ImageRecord) -> Result<Self> {
        let config = ImageConfig::of(store, &image.id)?;
        let manifest = image.manifest.map(|digest| store.blob(&digest)).transpose()?;
        let parts = manifest.map(|bytes| manifest_parts("the store", &bytes)).transpose()?;
        let layers = parts.map(|(_, layers)| layers).unwrap_or_default();
        let layers = config.diff_ids().iter().enumerate().map(|(at, diff_id)| {
            let blob = layers
                .get(at)
                .and_then(|one| Some((one.digest.parse().ok()?, u64::try_from(one.size).ok()?)));
            LayerFacts { diff_id: *diff_id, blob }
        });
        let (manifest, layers) = (image.manifest, layers.collect());
        Ok(Self { digest: manifest, manifest, id: image.id, layers })
    }

    fn of(found: &FoundImage) -> Self {
        let manifest = found.manifest.as_deref().map(sha256);
        let layers = found.config.diff_ids().iter().zip(&found.layers).map(|(diff_id, layer)| {
            let blob = layer.blob.and_then(|(digest, size)| Some((digest, size?.unsigned_abs())));
            LayerFacts { diff_id: *diff_id, blob }
        });
        Self { digest: manifest, manifest, id: found.config.id(), layers: layers.collect() }
    }

    /// Whether the files are the same, however they are packed.
    pub fn is_same_image(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether the name stands for the same bytes, or, where one place has no index, the
    /// platform's manifest is the same.
    pub fn is_same_manifest(&self, other: &Self) -> bool {
        self.manifest.is_some() && self.manifest == other.manifest && self.id == other.id
    }
}
