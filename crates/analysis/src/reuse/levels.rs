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

use std::collections::HashMap;

use strata_layer::{ImageRecord, Sharing};
use strata_tree::DiffId;

use super::{Held, held};

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
    /// The layer's id.
    pub diff_id: DiffId,
    /// How often the images have it; twice in one image counts twice.
    pub uses: u64,
    /// On how many different stacks of layers it lies.
    pub stacks: u64,
}

/// What `images` take at each level.
pub fn levels(sharing: &Sharing, images: &[ImageRecord]) -> Levels {
    let mut uses: HashMap<DiffId, u64> = HashMap::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        *uses.entry(*layer).or_default() += 1;
    }
    let mut levels = Levels { files: held(sharing, images), ..Levels::default() };
    let stacks = sharing.stacks(images.iter());
    for ((diff_id, apparent), stacks) in sharing.layers.iter().zip(&sharing.apparent).zip(stacks) {
        if let Some(uses) = uses.get(diff_id).copied() {
            levels.images += uses * apparent;
            levels.layers += stacks * apparent;
            levels.counted.push(CountedLayer { diff_id: *diff_id, uses, stacks });
        }
    }
    levels
}
