//! [`CheckedStore`]: the store that an image comes into, and the check that its layers must pass.
//!
//! This crate cannot merge layers, so the caller brings the check. Every way into the store
//! (`load`, `import`, `pull`, `copy`, `derive`) takes it with the store and ends in
//! [`CheckedStore::commit`].
//!
//! Invariant: an image whose layers fail the check is not committed.

use strata_layer::{ImageRecord, LeasedLayer, Store};
use strata_registry::Reference;
use strata_tree::ImageId;
use strata_trust::TrustVerdict;

use crate::error::{BoxError, Error, Result};
use crate::found::store_names;

/// Says whether layers of a store, base first, merge into a tree.
pub type ChainCheck<'a> = dyn Fn(&Store, &[LeasedLayer]) -> std::result::Result<(), BoxError> + 'a;

/// See the module.
#[derive(Clone, Copy)]
pub struct CheckedStore<'a> {
    pub(crate) store: &'a Store,
    check: Option<&'a ChainCheck<'a>>,
}

impl<'a> CheckedStore<'a> {
    /// Only images whose layers pass `check` come into the store.
    pub fn new(store: &'a Store, check: &'a ChainCheck<'a>) -> Self {
        Self { store, check: Some(check) }
    }

    /// Every image comes into the store, also one that cannot be mounted.
    pub fn unchecked(store: &'a Store) -> Self {
        Self { store, check: None }
    }

    /// Checks the layers and makes the image known; `leased` is its layers, base first.
    ///
    /// # Errors
    /// `Stack` if the check refuses the layers, `Store`.
    pub(crate) fn commit(self, image: &NewImage<'_>, leased: &[LeasedLayer]) -> Result<ImageId> {
        /// How often a removal of the same image may come in between.
        const TRIES: usize = 5;
        let store = self.store;
        if let Some(check) = self.check {
            check(store, leased)
                .map_err(|source| Error::Stack { image: image.title.to_owned(), source })?;
        }
        let tags = store_names(image.names, image.pin);
        // One that asked for nothing tells nothing.
        let verdict =
            image.verdict.filter(|verdict| verdict.is_signed()).map(TrustVerdict::to_text);
        let mut tried = 0;
        loop {
            let manifest = image.manifest.map(|bytes| store.put_blob(bytes)).transpose()?;
            let id = store.put_blob(image.config)?.into();
            let layers = leased.iter().map(|layer| *layer.diff_id()).collect();
            tried += 1;
            let record = ImageRecord { id, manifest, layers };
            match store.images().commit(&record, &tags, verdict.as_deref(), leased) {
                Ok(()) => return Ok(id),
                // Another process removed this very image after the blobs were put.
                Err(strata_layer::Error::NoBlob(_)) if tried < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// An image about to be committed.
pub(crate) struct NewImage<'a> {
    pub(crate) title: &'a str,
    pub(crate) names: &'a [Reference],
    /// See [`crate::found::FoundImage::pin`].
    pub(crate) pin: Option<&'a Reference>,
    pub(crate) config: &'a [u8],
    pub(crate) manifest: Option<&'a [u8]>,
    /// Why it is let in.
    pub(crate) verdict: Option<&'a TrustVerdict>,
}
