//! Who holds what, split by image and by layer of an image: the columns of the page.
//!
//! ```text
//! a layer's files as one image has them =  only    new here, and nobody else has it
//!                                        + shared  new here, and others have it too
//!                                        + again   in a lower layer of the image already
//!                                        + twice   in this layer under another name
//! ```
//!
//! Invariants: over an image's layers `only` adds up to its `unique`, `only` and `shared` to its
//! `stored`, and `charged` to its `attributed`, all as the store counts them. A layer that stands
//! twice in an image counts where it stands first.

use std::collections::HashMap;

use strata_layer::{ImageRecord, Sharing, Usage};

/// One layer of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LayerPart {
    /// Bytes of contents that no lower layer of the image has, and nobody else.
    pub(super) only: u64,
    /// Bytes of contents that no lower layer of the image has, and others have.
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
    /// Splits what the `images`, all those of the store, hold: `usage` image by image.
    pub(super) fn of(sharing: &Sharing, images: &[ImageRecord], usage: &[Usage]) -> Self {
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
            let alone = count == 1 && group.layers.iter().all(|layer| !stands[*layer].is_empty());
            for (at, (image, layer)) in held.iter().enumerate() {
                let part = &mut shares.parts[*image as usize][*layer as usize];
                match alone {
                    true => part.only += group.bytes,
                    false => part.shared += group.bytes,
                }
                part.charged += group.bytes / count + u64::from((at as u64) < group.bytes % count);
            }
        }
        // The store divides the sum of what the same images hold, here it was group by group: the
        // few bytes between them go to the largest part.
        for (parts, usage) in shares.parts.iter_mut().zip(usage) {
            let charged: u64 = parts.iter().map(|part| part.charged).sum();
            if let Some(largest) = parts.iter_mut().max_by_key(|part| part.charged) {
                largest.charged = (largest.charged + usage.attributed).saturating_sub(charged);
            }
        }
        shares
    }
}
