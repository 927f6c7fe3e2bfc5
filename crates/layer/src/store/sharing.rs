//! Who holds which contents: the facts behind every question about sharing.
//!
//! ```text
//! contents a b c d e f ...   each held by a set of layers
//!          └┬─┘ └──┬─┘
//!        {1, 3}  {2}         few sets are distinct: a group is one set, with the number and
//!                            the bytes of all contents that exactly these layers hold
//! ```
//!
//! What a set of images or layers holds, and what would go with it, are sums over the groups.
//!
//! Invariants: every stored content is in exactly one group, so the groups add up to
//! [`DiskUsage::stored`](super::df::DiskUsage::stored); one pass over the index makes them, in
//! memory by the number of groups.

use std::collections::{BTreeSet, HashMap};

use strata_tree::DiffId;

use super::Store;
use crate::error::Result;
use crate::index::holders::{self, Sum};
use crate::index::{self, ImageRecord};

/// Contents that exactly the same layers hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedGroup {
    /// Positions in [`Sharing::layers`], ascending.
    pub layers: Vec<usize>,
    /// How many contents.
    pub files: u64,
    /// Their bytes, each content once (twice where the link limit forced a second copy).
    pub bytes: u64,
    /// The blocks of 512 bytes that they take on disk.
    pub blocks: u64,
}

/// The store's contents by holders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// All layers, in the order in which they came.
    pub layers: Vec<DiffId>,
    /// Every content, once.
    pub groups: Vec<SharedGroup>,
}

/// Bytes and files of an image's contents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// Bytes of distinct contents in its layers.
    pub stored: u64,
    /// The part that no other image holds: freed if it is removed alone.
    pub unique: u64,
    /// Contents in its layers.
    pub files: u64,
}

impl Store {
    /// Groups all contents by the layers that hold them.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn sharing(&self) -> Result<Sharing> {
        let index = self.index();
        let records = index::layers(&index.db)?;
        let positions: HashMap<i64, usize> =
            records.iter().enumerate().map(|(at, record)| (record.id, at)).collect();
        let mut groups: Vec<SharedGroup> = holders::all(&index.db)?
            .into_iter()
            .map(|(layers, Sum { files, bytes, blocks })| {
                let layers = layers.iter().filter_map(|layer| positions.get(layer).copied());
                SharedGroup { layers: layers.collect(), files, bytes, blocks }
            })
            .collect();
        groups.sort_by(|a, b| a.layers.cmp(&b.layers));
        Ok(Sharing { layers: records.into_iter().map(|record| record.diff_id).collect(), groups })
    }
}

impl Sharing {
    /// What each of `images`, all those of the store, holds alone and with others.
    pub fn images(&self, images: &[ImageRecord]) -> Vec<ImageUsage> {
        let holders = self.holders(images);
        let mut usage = vec![ImageUsage::default(); images.len()];
        for group in &self.groups {
            let mut by: BTreeSet<usize> = BTreeSet::new();
            group.layers.iter().for_each(|layer| by.extend(&holders[*layer]));
            for image in &by {
                usage[*image].stored += group.bytes;
                usage[*image].files += group.files;
            }
            if let (1, Some(only)) = (by.len(), by.first()) {
                usage[*only].unique += group.bytes;
            }
        }
        usage
    }

    /// Bytes of contents that only `layers` hold, and so go with them.
    pub fn freed_with(&self, layers: &BTreeSet<DiffId>) -> u64 {
        let goes: Vec<bool> = self.layers.iter().map(|layer| layers.contains(layer)).collect();
        let all = self.groups.iter();
        all.filter(|group| group.layers.iter().all(|layer| goes[*layer])).map(|g| g.bytes).sum()
    }

    /// For each layer, the positions of the images that have it.
    fn holders(&self, images: &[ImageRecord]) -> Vec<Vec<usize>> {
        let positions: HashMap<&DiffId, usize> =
            self.layers.iter().enumerate().map(|(at, layer)| (layer, at)).collect();
        let mut holders = vec![Vec::new(); self.layers.len()];
        for (at, image) in images.iter().enumerate() {
            for layer in &image.layers {
                if let Some(layer) = positions.get(layer) {
                    holders[*layer].push(at);
                }
            }
        }
        holders
    }
}
