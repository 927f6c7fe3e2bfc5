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

use strata_layer::{ImageRecord, Sharing};

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

/// Bytes that the same images hold, by the layers that have them: of each image its lowest one.
type Places = HashMap<Vec<u32>, u64>;

impl Shares {
    /// Splits what the `images`, all those of the store, hold. Costs time by groups of contents
    /// and the images that hold them.
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
        let mut places: HashMap<Vec<u32>, Places> = HashMap::new();
        let mut held: Vec<(u32, u32)> = Vec::new();
        for group in &sharing.groups {
            held.clear();
            group.layers.iter().for_each(|layer| held.extend(&stands[*layer]));
            // The lowest layer of each image comes first, and stays.
            held.sort_unstable();
            held.dedup_by_key(|(image, _)| *image);
            shares.holders.push(held.len() as u32);
            let alone =
                held.len() == 1 && group.layers.iter().all(|layer| !stands[*layer].is_empty());
            for (image, layer) in &held {
                let part = &mut shares.parts[*image as usize][*layer as usize];
                match alone {
                    true => part.only += group.bytes,
                    false => part.shared += group.bytes,
                }
            }
            let (set, layers): (Vec<u32>, Vec<u32>) = held.iter().copied().unzip();
            *places.entry(set.clone()).or_default().entry(layers).or_default() += group.bytes;
            let sum = shares.sets.entry(set).or_default();
            *sum = (sum.0 + group.bytes, sum.1 + group.files);
        }
        places.iter().for_each(|(set, places)| shares.charge(set, places));
        shares
    }

    /// Splits what the images of `set` hold evenly among them, as the store does: what does not
    /// divide goes to the first ones. An image's share is split among its layers by their parts;
    /// the layer with the most gets what does not divide there.
    fn charge(&mut self, set: &[u32], places: &Places) {
        let (n, whole) = (set.len() as u64, places.values().sum::<u64>());
        let Some((largest, _)) = places.iter().max_by_key(|(layers, bytes)| (**bytes, *layers))
        else {
            return;
        };
        for (rank, image) in set.iter().enumerate() {
            let mut left = whole / n + u64::from((rank as u64) < whole % n);
            let parts = &mut self.parts[*image as usize];
            for (layers, bytes) in places {
                parts[layers[rank] as usize].charged += bytes / n;
                left -= bytes / n;
            }
            parts[largest[rank] as usize].charged += left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strata_layer::SharedGroup;
    use strata_tree::{DiffId, ImageId};

    fn image(n: usize, layers: &[usize]) -> ImageRecord {
        let layers = layers.iter().map(|layer| DiffId::from_bytes([*layer as u8; 32])).collect();
        ImageRecord { id: ImageId::from_bytes([n as u8; 32]), manifest: None, layers }
    }

    proptest! {
        #[test]
        fn layers_add_up_to_their_image(
            images in prop::collection::vec(prop::collection::vec(0_usize..6, 0..5), 0..6),
            groups in prop::collection::btree_map(
                prop::collection::btree_set(0_usize..6, 1..4), (1_u64..4, 0_u64..1000), 0..12),
        ) {
            let groups = groups.into_iter().map(|(layers, (files, bytes))| {
                SharedGroup { layers: layers.into_iter().collect(), files, bytes, blocks: 0 }
            });
            let sharing = Sharing {
                layers: (0..6).map(|n| DiffId::from_bytes([n; 32])).collect(),
                apparent: vec![0; 6],
                groups: groups.collect(),
            };
            let images: Vec<_> =
                images.iter().enumerate().map(|(n, layers)| image(n, layers)).collect();
            let usage = sharing.images(&images);
            let shares = Shares::of(&sharing, &images);
            for (parts, usage) in shares.parts.iter().zip(&usage) {
                let sum = |part: fn(&LayerPart) -> u64| parts.iter().map(part).sum::<u64>();
                prop_assert_eq!(sum(|part| part.only), usage.unique);
                prop_assert_eq!(sum(|part| part.shared), usage.shared);
                prop_assert_eq!(sum(|part| part.charged), usage.attributed);
            }
            for (group, holders) in sharing.groups.iter().zip(&shares.holders) {
                let held = |image: &&ImageRecord| {
                    group.layers.iter().any(|at| image.layers.contains(&sharing.layers[*at]))
                };
                prop_assert_eq!(*holders as usize, images.iter().filter(held).count());
            }
            let bytes: u64 = shares.sets.values().map(|(bytes, _)| bytes).sum();
            prop_assert_eq!(bytes, sharing.groups.iter().map(|group| group.bytes).sum::<u64>());
        }
    }

    #[test]
    fn a_layer_keeps_what_no_lower_one_has() {
        let group = |layers: &[usize], bytes| SharedGroup {
            layers: layers.to_vec(),
            files: 1,
            bytes,
            blocks: 0,
        };
        let sharing = Sharing {
            layers: (0..4).map(|n| DiffId::from_bytes([n; 32])).collect(),
            apparent: vec![0; 4],
            // The last one is also in a layer that no image has.
            groups: vec![group(&[0], 5), group(&[0, 1], 7), group(&[1], 11), group(&[2, 3], 13)],
        };
        let images = [image(0, &[0, 1]), image(1, &[0, 2])];
        let shares = Shares::of(&sharing, &images);
        let part = |only, shared, charged| LayerPart { only, shared, charged };
        assert_eq!(shares.parts[0], [part(0, 12, 6), part(11, 0, 11)]);
        assert_eq!(shares.parts[1], [part(0, 12, 6), part(0, 13, 13)]);
        assert_eq!(shares.holders, [2, 2, 1, 1]);
    }
}
