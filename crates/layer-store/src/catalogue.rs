//! [`Catalogue`]: which layer of the store a registry's blob is.
//!
//! podman asks for a layer by the reference that it pulls and by the digest of the blob, as the
//! manifest has it. The store names a layer by its diff id. The index says which layers are in the
//! chain of an image. podman compares nothing of what it is shown, so no manifest is believed which
//! blob is which diff: the store knows it ([`strata_layer::LayerBlobs`]). So no document of an
//! image is read: each change of the store, by whatever process, makes all of this be read again.
//!
//! Invariants: a blob is found as the layer that its bytes are, whatever an image says of it; one
//! that an image has twice is not found, for overlayfs takes no directory twice; a layer whose
//! form depends on the layers below it is found in the chain of the reference alone, or where all
//! images agree on the chain.

use std::collections::HashMap;

use strata_layer::{ImageRecord, Store};
use strata_registry::Reference;
use strata_tree::{BlobDigest, DiffId, ImageId};

use crate::error::Result;

/// A blob as a layer in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct InChain {
    /// The chain up to this layer, base first; never empty.
    pub(crate) layers: Vec<DiffId>,
    /// The size of the blob in bytes.
    pub(crate) size: u64,
}

/// All blobs of all images. See the module.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// By the complete name, as the store keeps it.
    names: HashMap<String, ImageId>,
    images: HashMap<ImageId, HashMap<BlobDigest, InChain>>,
}

impl Catalogue {
    /// Reads what the index of a store says of all images.
    pub(crate) fn read(store: &Store) -> Result<Self> {
        let names = store.images().tags()?.into_iter().collect();
        let mut known = KnownBlobs::new();
        for (blob, size, layer) in store.layer_blobs().all()? {
            known.entry(layer).or_default().push((blob, size));
        }
        let images = store.images().all()?.into_iter();
        let images = images.map(|image| (image.id, blobs_of(&image, &known))).collect();
        Ok(Self { names, images })
    }

    /// The names of all images that have one, and are complete.
    pub(crate) fn names(&self) -> impl Iterator<Item = Reference> {
        self.names.keys().filter_map(|name| name.parse().ok())
    }

    /// The blobs of the image of a name.
    pub(crate) fn blobs(&self, reference: &Reference) -> Vec<BlobDigest> {
        self.named(reference).map(|blobs| blobs.keys().copied().collect()).unwrap_or_default()
    }

    fn named(&self, reference: &Reference) -> Option<&HashMap<BlobDigest, InChain>> {
        let name = match reference.digest() {
            Some(_) => reference.store_pin(),
            None => reference.store_tag(),
        };
        self.images.get(self.names.get(&name?)?)
    }

    /// The chain that the image of the name has this blob in.
    pub(crate) fn in_image(&self, reference: &Reference, blob: &BlobDigest) -> Option<InChain> {
        self.named(reference)?.get(blob).cloned()
    }

    /// The chains that any image has this blob in, each once, in a fixed order.
    pub(crate) fn anywhere(&self, blob: &BlobDigest) -> Vec<InChain> {
        let mut found: Vec<InChain> =
            self.images.values().filter_map(|blobs| blobs.get(blob).cloned()).collect();
        found.sort_by(|a, b| a.layers.cmp(&b.layers));
        found.dedup();
        found
    }
}

/// Of each layer the blobs that are known to be it, with their sizes in bytes.
type KnownBlobs = HashMap<DiffId, Vec<(BlobDigest, u64)>>;

fn blobs_of(image: &ImageRecord, known: &KnownBlobs) -> HashMap<BlobDigest, InChain> {
    let mut blobs: HashMap<BlobDigest, Option<InChain>> = HashMap::new();
    let mut chain = Vec::new();
    for layer in &image.layers {
        chain.push(*layer);
        let mut its = known.get(layer).cloned().unwrap_or_default();
        its.sort_unstable();
        its.dedup_by_key(|(digest, _)| *digest);
        for (digest, size) in its {
            let once = InChain { layers: chain.clone(), size };
            blobs.entry(digest).and_modify(|twice| *twice = None).or_insert(Some(once));
        }
    }
    blobs.into_iter().filter_map(|(digest, found)| Some((digest, found?))).collect()
}
