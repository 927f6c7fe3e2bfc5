//! Who holds what, split by image and by layer of an image: the columns of the page.
//!
//! ```text
//! a layer's files as one image has them =  only    new here, and in no other image
//!                                        + shared  new here, and in other images too
//!                                        + again   in a lower layer of the image already
//!                                        + twice   in this layer under another name
//! ```
//!
//! Invariants: over an image's layers `only` adds up to what it holds alone, `only` and `shared` to
//! all its contents, and `charged` to its part of the store; the parts of all images and `nobody`'s
//! add up to the store. A layer that stands twice in an image counts where it stands first.

use std::collections::HashMap;

use strata_layer::{ImageRecord, Sharing};

/// One layer of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LayerPart {
    /// Bytes of contents that no lower layer of the image and no other image has.
    pub(super) only: u64,
    /// Bytes of contents that no lower layer of the image has, and other images have.
    pub(super) shared: u64,
    /// The bytes of both, each content split evenly among the images that hold it.
    pub(super) charged: u64,
}

/// All images of a store.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// For each image, for each of its layers.
    pub(super) parts: Vec<Vec<LayerPart>>,
    /// For each group of contents, how many images hold it.
    pub(super) holders: Vec<u32>,
    /// Bytes and number of contents by the set of images that hold them.
    pub(super) sets: HashMap<Vec<u32>, (u64, u64)>,
}

impl Shares {
    /// Counts, in time by groups and images that hold them.
    pub(super) fn of(sharing: &Sharing, images: &[ImageRecord]) -> Self {
        let positions: HashMap<_, _> =
            sharing.layers.iter().enumerate().map(|(at, layer)| (layer, at)).collect();
        // For each layer, the images that have it, ascending, and where.
        let mut stands: Vec<Vec<(u32, u32)>> = vec![Vec::new(); sharing.layers.len()];
        for (image, record) in images.iter().enumerate() {
            for (at, layer) in record.layers.iter().enumerate() {
                let Some(places) = positions.get(layer).map(|layer| &mut stands[*layer]) else {
                    continue;
                };
                if places.last().is_none_or(|last| last.0 != image as u32) {
                    places.push((image as u32, at as u32));
                }
            }
        }
        let mut shares = Self {
            parts: images
                .iter()
                .map(|image| vec![Default::default(); image.layers.len()])
                .collect(),
            ..Self::default()
        };
        let mut held: Vec<(u32, u32)> = Vec::new();
        for group in &sharing.groups {
            held.clear();
            group.layers.iter().for_each(|layer| held.extend(&stands[*layer]));
            // The lowest layer of each image comes first, and stays.
            held.sort_unstable();
            held.dedup_by_key(|(image, _)| *image);
            shares.holders.push(held.len() as u32);
            let set = shares.sets.entry(held.iter().map(|(image, _)| *image).collect());
            let set = set.or_default();
            *set = (set.0 + group.bytes, set.1 + group.files);
            let count = held.len() as u64;
            for (at, (image, layer)) in held.iter().enumerate() {
                let part = &mut shares.parts[*image as usize][*layer as usize];
                match count {
                    1 => part.only += group.bytes,
                    _ => part.shared += group.bytes,
                }
                // What does not divide goes to the first ones, a byte each.
                part.charged += group.bytes / count + u64::from((at as u64) < group.bytes % count);
            }
        }
        shares
    }
}
