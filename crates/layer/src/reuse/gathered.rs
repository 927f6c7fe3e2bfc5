//! Sharing between layers that no store has to hold: from their contents alone.
//!
//! Invariant: what [`Sharing::of_contents`] gives of a store's layers is what
//! [`Store::sharing`](crate::Store::sharing) gives of the same, blocks aside, as long as no link limit
//! forced a second copy of a content.

use std::collections::{BTreeMap, HashMap};

use strata_tree::{ContentDigest, DiffId};

use crate::store::{SharedGroup, Sharing};

impl Sharing {
    /// Groups the contents (digest and bytes) of layers; a layer or a content that comes twice
    /// counts once. They have no blocks, and a layer's `apparent` is the sum of what it is given.
    pub fn of_contents(
        layers: impl IntoIterator<Item = (DiffId, Vec<(ContentDigest, u64)>)>,
    ) -> Self {
        let (mut order, mut apparent): (Vec<DiffId>, Vec<u64>) = Default::default();
        let mut positions: HashMap<DiffId, usize> = HashMap::new();
        let mut contents: HashMap<ContentDigest, (u64, Vec<usize>)> = HashMap::new();
        for (layer, held) in layers {
            let layer = *positions.entry(layer).or_insert_with(|| {
                order.push(layer);
                apparent.push(held.iter().map(|(_, size)| size).sum());
                order.len() - 1
            });
            for (digest, size) in held {
                let (_, holders) = contents.entry(digest).or_insert((size, Vec::new()));
                if let Err(at) = holders.binary_search(&layer) {
                    holders.insert(at, layer);
                }
            }
        }
        let mut groups: BTreeMap<Vec<usize>, (u64, u64)> = BTreeMap::new();
        for (size, holders) in contents.into_values() {
            let (files, bytes) = groups.entry(holders).or_default();
            *files += 1;
            *bytes += size;
        }
        let groups = groups.into_iter();
        // Nothing of it is on a disk of ours.
        let group = |(layers, (files, bytes))| SharedGroup { layers, files, bytes, blocks: 0 };
        let groups = groups.map(group).collect();
        Self { layers: order, apparent, groups }
    }
}
