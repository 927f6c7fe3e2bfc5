//! Sharing between layers that no store has to hold: from their contents alone.
//!
//! Invariants: what [`sharing_of`] gives of a store's layers is what
//! [`Accounts::sharing`](strata_layer::Accounts::sharing) gives of the same, as long as no link
//! limit forced a second copy of a content and the file system keeps files in whole blocks of
//! 4 KiB.

use std::collections::{BTreeMap, HashMap};

use strata_layer::{SharedGroup, Sharing};
use strata_tree::{ContentDigest, DiffId};

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerContents {
    /// The layer's id.
    pub diff_id: DiffId,
    /// Bytes of its regular files, each inode once.
    pub apparent: u64,
    /// Digest and bytes of its contents.
    pub contents: Vec<(ContentDigest, u64)>,
}

/// Groups the contents of layers; a layer or a content that comes twice counts once.
pub fn sharing_of(layers: impl IntoIterator<Item = LayerContents>) -> Sharing {
    let mut all = Sharing { layers: Vec::new(), apparent: Vec::new(), groups: Vec::new() };
    let mut positions: HashMap<DiffId, usize> = HashMap::new();
    let mut contents: HashMap<ContentDigest, (u64, Vec<usize>)> = HashMap::new();
    for LayerContents { diff_id, apparent, contents: held } in layers {
        let layer = *positions.entry(diff_id).or_insert_with(|| {
            all.layers.push(diff_id);
            all.apparent.push(apparent);
            all.layers.len() - 1
        });
        for (digest, size) in held {
            let (_, holders) = contents.entry(digest).or_insert((size, Vec::new()));
            if let Err(at) = holders.binary_search(&layer) {
                holders.insert(at, layer);
            }
        }
    }
    let mut groups: BTreeMap<Vec<usize>, SharedGroup> = BTreeMap::new();
    for (size, layers) in contents.into_values() {
        let group = groups.entry(layers).or_insert_with_key(|layers| SharedGroup {
            layers: layers.clone(),
            files: 0,
            bytes: 0,
            blocks: 0,
        });
        group.files += 1;
        group.bytes += size;
        group.blocks += size.div_ceil(4096) * 8;
    }
    all.groups = groups.into_values().collect();
    all
}
