//! What images take at each level of sharing, in bytes of their files.
//!
//! ```text
//! images apart   every image with its own copy of every layer
//! layers         a layer once for each stack below it (its chain id): overlay2
//! files          a content once: this store
//! ```
//!
//! Invariant: each level takes at most what the one before it takes, but that "layers" counts a
//! file once for each name with an inode of its own.

use std::collections::{HashMap, HashSet};

use strata_tree::DiffId;

use super::Held;
use crate::index::ImageRecord;
use crate::store::{Sharing, chain_id};

/// The levels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// Bytes of the regular files of all layers of each image, each inode once.
    pub images: u64,
    /// The same, where images share whole layers.
    pub layers: u64,
    /// Contents, each once.
    pub files: Held,
    /// Each layer of the images, in the order of [`Sharing::layers`], with the number of images
    /// that have it and of stacks that it lies on.
    pub counted: Vec<CountedLayer>,
}

/// A layer of some images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedLayer {
    /// Which.
    pub diff_id: DiffId,
    /// How often the images have it; twice in one image counts twice.
    pub uses: u64,
    /// On how many different stacks of layers it lies.
    pub stacks: u64,
}

impl Sharing {
    /// What `images` take at each level; `apparent` gives the bytes of a layer's regular files,
    /// each inode once.
    pub fn levels(&self, images: &[ImageRecord], apparent: &dyn Fn(&DiffId) -> u64) -> Levels {
        let mut uses: HashMap<DiffId, u64> = HashMap::new();
        let mut stacks: HashMap<DiffId, HashSet<_>> = HashMap::new();
        for image in images {
            for (at, layer) in image.layers.iter().enumerate() {
                *uses.entry(*layer).or_default() += 1;
                stacks.entry(*layer).or_default().insert(chain_id(&image.layers[..at]));
            }
        }
        let counted = self.layers.iter().filter_map(|diff_id| {
            let stacks = stacks.get(diff_id)?.len() as u64;
            Some(CountedLayer { diff_id: *diff_id, uses: uses[diff_id], stacks })
        });
        let counted: Vec<CountedLayer> = counted.collect();
        Levels {
            images: counted.iter().map(|one| one.uses * apparent(&one.diff_id)).sum(),
            layers: counted.iter().map(|one| one.stacks * apparent(&one.diff_id)).sum(),
            files: self.held(images),
            counted,
        }
    }
}
