//! Who holds a content: which layers, and through them which images.
//!
//! Invariant: contents with the same holders share one [`Holders`].

use std::collections::{BTreeSet, HashMap, HashSet};

use strata_layer::{ContentId, Error, HolderSetId, ImageRecord, IndexReader, Result};
use strata_tree::{ContentDigest, DiffId, ImageId};

/// The layers and images of the store that hold a content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// All of them, in the order in which they came.
    pub layers: Vec<DiffId>,
    /// The images that have one of these layers, without the one that was asked about.
    pub other_images: Vec<ImageId>,
}

impl Holders {
    /// Whether another image holds it, or more than one layer.
    pub fn is_shared(&self) -> bool {
        !self.other_images.is_empty() || self.layers.len() > 1
    }
}

/// Finds and numbers sets of holders.
pub(super) struct Finder {
    images: HashMap<DiffId, Vec<ImageId>>,
    /// The index's sets.
    sets: HashMap<HolderSetId, Vec<DiffId>>,
    /// The sets of contents that are stored several times: each copy has holders of its own.
    copied: HashMap<ContentDigest, Vec<HolderSetId>>,
    known: HashMap<Vec<HolderSetId>, u32>,
    found: Vec<Holders>,
}

impl Finder {
    /// For the contents of `image`.
    pub(super) fn new(reader: &IndexReader<'_>, image: &ImageId) -> Result<Self> {
        let mut images: HashMap<DiffId, Vec<ImageId>> = HashMap::new();
        let others = reader.images()?;
        for ImageRecord { id, layers, .. } in others.iter().filter(|other| other.id != *image) {
            for layer in layers {
                let of_layer = images.entry(*layer).or_default();
                if of_layer.last() != Some(id) {
                    of_layer.push(*id);
                }
            }
        }
        let (sets, copied) = (reader.holder_sets()?, reader.copied()?);
        Ok(Self { images, sets, copied, known: HashMap::new(), found: Vec::new() })
    }

    /// The number of the set of layers that hold a content, of which `id` is one copy.
    pub(super) fn number(
        &mut self,
        reader: &IndexReader<'_>,
        digest: &ContentDigest,
        id: ContentId,
    ) -> Result<u32> {
        let ids = match self.copied.get(digest) {
            Some(ids) => ids.clone(),
            None => vec![reader.holder_set(id)?],
        };
        if let Some(known) = self.known.get(&ids) {
            return Ok(*known);
        }
        let number = self.found.len() as u32;
        let mut layers: Vec<DiffId> = Vec::new();
        for id in &ids {
            let set = self.sets.get(id).ok_or_else(|| {
                Error::damaged("index.db", format!("content {digest}: no holder set"))
            })?;
            layers.extend(set);
        }
        if ids.len() > 1 {
            layers = in_order(layers, reader)?;
        }
        let images = layers.iter().filter_map(|layer| self.images.get(layer)).flatten();
        let other_images: BTreeSet<ImageId> = images.copied().collect();
        self.found.push(Holders { layers, other_images: other_images.into_iter().collect() });
        self.known.insert(ids, number);
        Ok(number)
    }

    pub(super) fn finish(self) -> Vec<Holders> {
        self.found
    }
}

/// Layers of several sets, each once, in the order in which they came.
fn in_order(layers: Vec<DiffId>, reader: &IndexReader<'_>) -> Result<Vec<DiffId>> {
    let layers: HashSet<DiffId> = layers.into_iter().collect();
    let all = reader.layers()?.into_iter().map(|record| record.diff_id);
    Ok(all.filter(|layer| layers.contains(layer)).collect())
}
