//! The images of a source, read without loading them: [`OpenSource`].
//!
//! Invariants: what is refused is what a load refuses; a layer's bytes are verified when they are
//! read to the end with [`strata_layer::inspect`], as a load does.

use strata_layer::LayerInput;
use strata_registry::Reference;
use strata_tree::{DiffId, ImageId};

use crate::error::{Error, Result};
use crate::find::find;
use crate::found::{FoundImage, Wanted};
use crate::limits::SourceLimits;
use crate::load::{open_layer, refused};
use crate::platform::Platform;
use crate::source::{Blobs, ImageSource};
use crate::spec::SourceSpec;
use crate::spool::Scratch;

/// A source with the images that were asked for; it stays open.
#[derive(Debug)]
pub struct OpenSource {
    source: ImageSource,
    images: Vec<FoundImage>,
}

/// One of those images.
#[derive(Debug, Clone, Copy)]
pub struct UnloadedImage<'a> {
    source: &'a ImageSource,
    image: &'a FoundImage,
}

impl OpenSource {
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
        Ok(Self { source, images })
    }

    /// The images, in the order of the source.
    pub fn images(&self) -> impl ExactSizeIterator<Item = UnloadedImage<'_>> {
        self.images.iter().map(|image| UnloadedImage { source: &self.source, image })
    }

    /// The image at that position, below the number of [`OpenSource::images`].
    pub fn image(&self, position: usize) -> UnloadedImage<'_> {
        UnloadedImage { source: &self.source, image: &self.images[position] }
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

    /// What is said where the bytes of one of its layers are not right.
    pub fn refused(&self, position: usize, error: strata_layer::Error) -> Error {
        refused(self.image, position, error)
    }
}
