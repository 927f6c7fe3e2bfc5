//! Who holds a content: which layers, and through them which images.
//!
//! Invariant: contents with the same holders share one [`Holders`].

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;
use strata_tree::{DiffId, ImageId};

use crate::error::Result;
use crate::index::{self, ImageRecord, images};

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
    layers: HashMap<i64, DiffId>,
    images: HashMap<DiffId, Vec<ImageId>>,
    known: HashMap<BTreeSet<i64>, u32>,
    found: Vec<Holders>,
}

impl Finder {
    /// For the contents of `image`.
    pub(super) fn new(db: &Connection, image: &ImageId) -> Result<Self> {
        let layers = index::layers(db)?.into_iter().map(|record| (record.id, record.diff_id));
        let mut images: HashMap<DiffId, Vec<ImageId>> = HashMap::new();
        let others = images::all(db)?;
        for ImageRecord { id, layers, .. } in others.iter().filter(|other| other.id != *image) {
            for layer in layers {
                let of_layer = images.entry(*layer).or_default();
                if of_layer.last() != Some(id) {
                    of_layer.push(*id);
                }
            }
        }
        Ok(Self { layers: layers.collect(), images, known: HashMap::new(), found: Vec::new() })
    }

    /// The number of the set of layers that hold one of `contents` (copies of the same bytes).
    pub(super) fn number(&mut self, db: &Connection, contents: &[i64]) -> Result<u32> {
        let mut statement =
            db.prepare_cached("SELECT DISTINCT layer FROM entries WHERE content = ?1")?;
        let mut set = BTreeSet::new();
        for content in contents {
            let mut rows = statement.query([content])?;
            while let Some(row) = rows.next()? {
                set.insert(row.get::<_, i64>(0)?);
            }
        }
        if let Some(known) = self.known.get(&set) {
            return Ok(*known);
        }
        let number = self.found.len() as u32;
        let layers: Vec<DiffId> =
            set.iter().filter_map(|id| self.layers.get(id)).copied().collect();
        let images = layers.iter().filter_map(|layer| self.images.get(layer)).flatten();
        let other_images: BTreeSet<ImageId> = images.copied().collect();
        self.found.push(Holders { layers, other_images: other_images.into_iter().collect() });
        self.known.insert(set, number);
        Ok(number)
    }

    pub(super) fn finish(self) -> Vec<Holders> {
        self.found
    }
}
