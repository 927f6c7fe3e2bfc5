//! Who holds which contents: the facts behind every question about sharing.
//!
//! ```text
//! contents a b c d e f ...   each held by a set of layers
//!          └┬─┘ └──┬─┘
//!        {1, 3}  {2}         few sets are distinct: a group is one set, with the number, bytes
//!                            and blocks of all contents that exactly these layers hold
//! ```
//!
//! What a set of images or layers holds, and what would go with it, are sums over the groups.
//!
//! Invariants: every stored content is in exactly one group, so the groups add up to
//! [`DiskUsage::stored`](super::df::DiskUsage::stored), and so do the attributed parts of all
//! images with what no image holds; the index keeps the groups, nothing is counted again.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;
use strata_tree::DiffId;

use crate::error::Result;
use crate::index::holders::{self, Sum};
use crate::index::{self, ImageRecord};
use crate::measure::{add, total};

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
    /// For each of them the bytes of its regular files, each inode once.
    pub apparent: Vec<u64>,
    /// Every content, once.
    pub groups: Vec<SharedGroup>,
}

/// What an image, a layer or a set of images holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its regular files with nothing shared: those of all its layers. For several
    /// images the sum.
    pub apparent: u64,
    /// The same, where each layer is kept once for each stack of layers below it (its chain id):
    /// what overlay2 needs.
    pub layered: u64,
    /// Bytes of distinct contents in its layers.
    pub stored: u64,
    /// The part of `stored` that nobody else holds, no engine either: freed if it is removed
    /// alone.
    pub unique: u64,
    /// The other part.
    pub shared: u64,
    /// Its share of `stored`: the bytes of all contents that the same images hold are split evenly
    /// among these; what does not divide goes one byte each to the first of them. "First" is the
    /// order in which the images were given.
    pub attributed: u64,
    /// Contents in its layers.
    pub files: u64,
    /// What the contents take on disk.
    pub blocks: BlockUsage,
}

/// The same parts, in blocks of 512 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// Of [`Usage::stored`].
    pub stored: u64,
    /// Of [`Usage::unique`].
    pub unique: u64,
    /// Of [`Usage::shared`].
    pub shared: u64,
    /// Of [`Usage::attributed`]; split by itself, so it need not fit the bytes.
    pub attributed: u64,
}

/// A set of images, one bit each.
type Bits = Vec<u64>;

fn ones(bits: &Bits) -> impl Iterator<Item = usize> + '_ {
    bits.iter().enumerate().flat_map(|(word, bits)| {
        let mut left = *bits;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left &= left.checked_sub(1)?;
            Some(word * 64 + bit)
        })
    })
}

/// Contents that the same owners hold.
#[derive(Default)]
struct Held {
    all: Sum,
    /// Those that nobody beside the owners keeps.
    alone: Sum,
}

/// Gives each of `owners`, of whom there are `n`, what it has of contents that they hold.
fn give(parts: &mut [Usage], owners: impl Iterator<Item = usize>, n: u64, held: &Held) {
    let Held { all, alone } = held;
    for (rank, owner) in owners.enumerate() {
        let part = &mut parts[owner];
        let share = |all: u64| all / n + u64::from((rank as u64) < all % n);
        add(&mut part.files, all.files);
        add(&mut part.stored, all.bytes);
        add(&mut part.blocks.stored, all.blocks);
        add(&mut part.attributed, share(all.bytes));
        add(&mut part.blocks.attributed, share(all.blocks));
        if n == 1 {
            add(&mut part.unique, alone.bytes);
            add(&mut part.blocks.unique, alone.blocks);
        }
        part.shared = part.stored - part.unique;
        part.blocks.shared = part.blocks.stored - part.blocks.unique;
    }
}

impl Sharing {
    /// Reads it from the index.
    pub(super) fn read(db: &Connection) -> Result<Self> {
        // Layers and sets of one and the same state.
        let snapshot = db.unchecked_transaction()?;
        let records = index::layers(&snapshot)?;
        let positions: HashMap<i64, usize> =
            records.iter().enumerate().map(|(at, record)| (record.id, at)).collect();
        let mut groups: Vec<SharedGroup> = holders::all(&snapshot)?
            .into_iter()
            .map(|(_, layers, Sum { files, bytes, blocks })| {
                let layers = layers.iter().filter_map(|layer| positions.get(layer).copied());
                SharedGroup { layers: layers.collect(), files, bytes, blocks }
            })
            .collect();
        groups.sort_by(|a, b| a.layers.cmp(&b.layers));
        let apparent = records.iter().map(|record| record.apparent).collect();
        let layers = records.into_iter().map(|record| record.diff_id).collect();
        Ok(Self { layers, apparent, groups })
    }

    /// What each of `images`, all those of the store, holds alone and with others.
    pub fn images(&self, images: &[ImageRecord]) -> Vec<Usage> {
        self.images_beside(images, &BTreeSet::new())
    }

    /// The same where engines have the layers `held`: what is in one of them goes with no image.
    pub fn images_beside(&self, images: &[ImageRecord], held: &BTreeSet<DiffId>) -> Vec<Usage> {
        self.parts(images, &self.by_images(images, held))
    }

    /// What the images at the positions `chosen` of `images`, all those of the store, hold
    /// together, where engines have the layers `held`; `unique` is what removing all of them
    /// frees.
    pub fn together(
        &self,
        images: &[ImageRecord],
        held: &BTreeSet<DiffId>,
        chosen: &BTreeSet<usize>,
    ) -> Usage {
        let by = self.by_images(images, held);
        let parts = self.parts(images, &by);
        let stacks = self.stacks(chosen.iter().filter_map(|at| images.get(*at)));
        let parts = || chosen.iter().filter_map(|at| parts.get(*at));
        let mut all = Usage {
            apparent: total(parts().map(|part| part.apparent)),
            layered: total(
                stacks.iter().zip(&self.apparent).map(|(n, bytes)| n.saturating_mul(*bytes)),
            ),
            attributed: total(parts().map(|part| part.attributed)),
            ..Usage::default()
        };
        all.blocks.attributed = total(parts().map(|part| part.blocks.attributed));
        for (owners, held) in &by {
            let inside = ones(owners).filter(|owner| chosen.contains(owner)).count();
            if inside == 0 {
                continue;
            }
            add(&mut all.files, held.all.files);
            add(&mut all.stored, held.all.bytes);
            add(&mut all.blocks.stored, held.all.blocks);
            if inside == ones(owners).count() {
                add(&mut all.unique, held.alone.bytes);
                add(&mut all.blocks.unique, held.alone.blocks);
            }
        }
        all.shared = all.stored - all.unique;
        all.blocks.shared = all.blocks.stored - all.blocks.unique;
        all
    }

    fn parts(&self, images: &[ImageRecord], by: &HashMap<Bits, Held>) -> Vec<Usage> {
        let positions = self.positions();
        let apparent = |image: &ImageRecord| {
            let known = image.layers.iter().filter_map(|layer| positions.get(layer));
            total(known.map(|at| self.apparent[*at]))
        };
        let parts = images.iter().map(apparent);
        let mut parts: Vec<Usage> = parts
            .map(|apparent| Usage { apparent, layered: apparent, ..Usage::default() })
            .collect();
        for (owners, held) in by {
            let n: u32 = owners.iter().map(|word| word.count_ones()).sum();
            give(&mut parts, ones(owners), u64::from(n), held);
        }
        parts
    }

    /// What no image holds, only layers that no image of `images`, all those of the store, has.
    pub fn unheld(&self, images: &[ImageRecord]) -> Usage {
        self.rest(images, &self.by_images(images, &BTreeSet::new()))
    }

    /// Both in one pass: [`Sharing::images_beside`] and [`Sharing::unheld`].
    pub(super) fn all(
        &self,
        images: &[ImageRecord],
        held: &BTreeSet<DiffId>,
    ) -> (Vec<Usage>, Usage) {
        let by = self.by_images(images, held);
        (self.parts(images, &by), self.rest(images, &by))
    }

    fn rest(&self, images: &[ImageRecord], by: &HashMap<Bits, Held>) -> Usage {
        let stacks = self.stacks(images.iter());
        let loose = stacks.iter().zip(&self.apparent).filter(|(n, _)| **n == 0);
        let apparent = total(loose.map(|(_, bytes)| *bytes));
        let mut part = [Usage { apparent, layered: apparent, ..Usage::default() }];
        if let Some(Held { all, .. }) = by.get(&vec![0; images.len().div_ceil(64)]) {
            give(&mut part, [0].into_iter(), 1, &Held { all: *all, alone: *all });
        }
        let [part] = part;
        part
    }

    /// What each layer holds alone and with other layers; `attributed` is split among layers.
    /// `layered` counts it once for each stack of layers that `images`, all those of the store,
    /// have below it.
    pub fn layer_usage(&self, images: &[ImageRecord]) -> Vec<Usage> {
        let stacks = self.stacks(images.iter());
        let known = self.apparent.iter().zip(&stacks);
        let mut parts: Vec<Usage> = known
            .map(|(bytes, n)| Usage {
                apparent: *bytes,
                layered: bytes.saturating_mul((*n).max(1)),
                ..Usage::default()
            })
            .collect();
        for group in &self.groups {
            let (owners, n) = (group.layers.iter().copied(), group.layers.len() as u64);
            give(&mut parts, owners, n, &Held { all: group.sum(), alone: group.sum() });
        }
        parts
    }

    /// Contents that only `layers` hold, and so go with them: how many, their bytes and blocks.
    pub fn freed(&self, layers: &BTreeSet<DiffId>) -> SharedGroup {
        let goes: Vec<bool> = self.layers.iter().map(|layer| layers.contains(layer)).collect();
        let mut all = SharedGroup { layers: Vec::new(), files: 0, bytes: 0, blocks: 0 };
        for group in self.groups.iter().filter(|group| group.layers.iter().all(|at| goes[*at])) {
            add(&mut all.files, group.files);
            add(&mut all.bytes, group.bytes);
            add(&mut all.blocks, group.blocks);
        }
        all.layers = (0..goes.len()).filter(|at| goes[*at]).collect();
        all
    }

    /// Bytes of contents that only `layers` hold, and so go with them.
    pub fn freed_with(&self, layers: &BTreeSet<DiffId>) -> u64 {
        self.freed(layers).bytes
    }

    /// How many different stacks of layers each layer is the top of.
    pub fn stacks<'a>(&self, images: impl Iterator<Item = &'a ImageRecord>) -> Vec<u64> {
        let positions = self.positions();
        let mut stacks = vec![0; self.layers.len()];
        // A stack is the one below it and its top layer; 0 is the empty one.
        let mut known: HashMap<(usize, usize), usize> = HashMap::new();
        for image in images {
            let mut below = 0;
            for layer in image.layers.iter().filter_map(|layer| positions.get(layer).copied()) {
                let next = known.len() + 1;
                below = *known.entry((below, layer)).or_insert_with(|| {
                    stacks[layer] += 1;
                    next
                });
            }
        }
        stacks
    }

    fn positions(&self) -> HashMap<&DiffId, usize> {
        self.layers.iter().enumerate().map(|(at, layer)| (layer, at)).collect()
    }

    /// All contents by the images that hold them. A layer of `held`, and one that no image has,
    /// keeps what is in it.
    fn by_images(&self, images: &[ImageRecord], held: &BTreeSet<DiffId>) -> HashMap<Bits, Held> {
        let positions = self.positions();
        let words = images.len().div_ceil(64);
        let mut holders = vec![vec![0; words]; self.layers.len()];
        for (at, image) in images.iter().enumerate() {
            for layer in image.layers.iter().filter_map(|layer| positions.get(layer)) {
                holders[*layer][at / 64] |= 1 << (at % 64);
            }
        }
        let is_loose = |bits| ones(bits).next().is_none();
        let stays: Vec<bool> = holders
            .iter()
            .zip(&self.layers)
            .map(|(bits, layer)| is_loose(bits) || held.contains(layer))
            .collect();
        let mut by: HashMap<Bits, Held> = HashMap::new();
        for group in &self.groups {
            let mut owners = vec![0; words];
            for layer in &group.layers {
                owners.iter_mut().zip(&holders[*layer]).for_each(|(all, one)| *all |= one);
            }
            let sums = by.entry(owners).or_default();
            sums.all.add(group.sum());
            if !group.layers.iter().any(|layer| stays[*layer]) {
                sums.alone.add(group.sum());
            }
        }
        by
    }
}

impl SharedGroup {
    fn sum(&self) -> Sum {
        Sum { files: self.files, bytes: self.bytes, blocks: self.blocks }
    }
}
