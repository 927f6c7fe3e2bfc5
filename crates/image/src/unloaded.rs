//! The images of a source, read without loading them: [`OpenSource`].
//!
//! Invariants: what is refused is what a load refuses; a layer's bytes are verified when they are
//! read to the end with [`strata_layer::inspect`], as a load does; those of an [`UnverifiedLayer`]
//! are not.

use strata_diff::stream::SkipRead;
use strata_layer::{ImageRecord, LayerInput, Progress};
use strata_registry::{Reference, Registries};
use strata_tree::{DiffId, ImageId};

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::find::find;
use crate::found::{FoundImage, Wanted};
use crate::limits::SourceLimits;
use crate::load::{open_layer, refused};
use crate::platform::Platform;
use crate::pull::{KnownDocuments, Remote, name_as_asked};
use crate::source::{Blobs, ImageSource};
use crate::spec::SourceSpec;
use crate::spool::Scratch;

/// A source with the images that were asked for; it stays open.
pub struct OpenSource<'s> {
    source: Box<dyn Blobs + Send + 's>,
    images: Vec<FoundImage>,
}

/// One of those images.
#[derive(Clone, Copy)]
pub struct UnloadedImage<'a> {
    source: &'a dyn Blobs,
    image: &'a FoundImage,
}

/// A layer for a reader of its headers.
pub struct UnverifiedLayer<'a> {
    /// What progress calls it.
    pub label: String,
    /// Transported bytes.
    pub size: u64,
    /// The transported bytes; of a file, those that are passed over are not read.
    pub reader: Box<dyn SkipRead + Send + 'a>,
}

impl<'s> OpenSource<'s> {
    /// Reads the documents of a source: those for `platform`, or else for the host where there is
    /// a choice. `scratch` gives files for an archive that is compressed or comes through a pipe.
    ///
    /// # Errors
    /// As [`crate::load`] for a source or an image that is not right.
    pub fn open(
        spec: &SourceSpec,
        platform: Option<&Platform>,
        scratch: Scratch<'_>,
        limits: &SourceLimits,
    ) -> Result<Self> {
        let source = ImageSource::open(spec, scratch, limits)?;
        let images = find(&source, &Wanted { spec, platform })?;
        Ok(Self { source: Box::new(source), images })
    }

    /// Fetches the documents of a name from a registry, as a pull does; what `known` has is not
    /// fetched again.
    ///
    /// # Errors
    /// As [`crate::pull()`], for an image that is not right.
    pub fn fetch(
        registries: &Registries,
        reference: &Reference,
        known: &'s dyn KnownDocuments,
        platform: Option<&Platform>,
        limits: &SourceLimits,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let source = Remote::new(registries.places(reference)?, Some(known), reference, limits);
        let top = source.top(reference, progress)?;
        let digest = top.digest;
        let mut image = source.image(top, platform)?;
        name_as_asked(&mut image, reference, digest);
        Ok(Self { source: Box::new(source), images: vec![image] })
    }

    /// The images, in the order of the source.
    pub fn images(&self) -> impl ExactSizeIterator<Item = UnloadedImage<'_>> {
        self.images.iter().map(|image| UnloadedImage { source: &*self.source, image })
    }

    /// The image at that position, below the number of [`OpenSource::images`].
    pub fn image(&self, position: usize) -> UnloadedImage<'_> {
        UnloadedImage { source: &*self.source, image: &self.images[position] }
    }
}

impl std::fmt::Debug for OpenSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSource").field("images", &self.images).finish_non_exhaustive()
    }
}

impl<'a> UnloadedImage<'a> {
    /// Its id.
    pub fn id(&self) -> ImageId {
        self.image.config.id()
    }

    /// Its names in the source.
    pub fn names(&self) -> &'a [Reference] {
        &self.image.names
    }

    /// What a store keeps of its names once it is loaded.
    pub fn store_names(&self) -> Vec<String> {
        self.image.store_names()
    }

    /// What the index of a store keeps of it once it is loaded.
    pub fn record(&self) -> ImageRecord {
        let manifest = self.image.manifest.as_deref().map(sha256);
        ImageRecord { id: self.id(), manifest, layers: self.diff_ids().to_vec() }
    }

    /// The bytes of its config.
    pub fn raw_config(&self) -> &'a [u8] {
        &self.image.raw_config
    }

    /// What it is called in messages.
    pub fn title(&self) -> String {
        self.image.title()
    }

    /// Its layers, base first.
    pub fn diff_ids(&self) -> &'a [DiffId] {
        self.image.config.diff_ids()
    }

    /// Opens one of its layers, counted from the base.
    ///
    /// # Errors
    /// `NotALayer`, `WrongSize`, `Foreign` or `Missing` if its bytes are not there.
    pub fn layer(&self, position: usize) -> Result<LayerInput<'a>> {
        let layer = &self.image.layers[position];
        let diff_id = self.diff_ids()[position];
        let blob = open_layer(self.source, self.image, position)?;
        Ok(LayerInput {
            label: self.source.layer_label(layer, &diff_id),
            diff_id: Some(diff_id),
            blob: layer.blob.map(|(digest, _)| (digest, blob.size)),
            reader: blob.reader,
        })
    }

    /// The media type of one of its layers, as it is written; empty where the format says none.
    pub fn media_type(&self, position: usize) -> &'a str {
        &self.image.layers[position].media_type
    }

    /// The bytes of one of its layers, which are not verified by whoever reads them.
    ///
    /// # Errors
    /// As [`UnloadedImage::layer`].
    pub fn unverified(&self, position: usize) -> Result<UnverifiedLayer<'a>> {
        let layer = &self.image.layers[position];
        let label = self.source.layer_label(layer, &self.diff_ids()[position]);
        let blob = open_layer(self.source, self.image, position)?;
        Ok(UnverifiedLayer { label, size: blob.size, reader: blob.reader })
    }

    /// What is said where the bytes of one of its layers are not right.
    pub fn refused(&self, position: usize, error: strata_layer::Error) -> Error {
        refused(self.image, position, error)
    }

    /// The same; with `Ok` another place may have better ones, and [`UnloadedImage::layer`] gives
    /// them.
    ///
    /// # Errors
    /// What is to be said, if that is the end of it.
    pub fn elsewhere(&self, position: usize, error: strata_layer::Error) -> Result<()> {
        self.source.refused(&self.image.layers[position], self.refused(position, error))
    }
}
