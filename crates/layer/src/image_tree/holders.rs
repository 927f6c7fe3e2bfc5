//! Who holds a content: which layers, and through them which images.
//!
//! Invariant: contents with the same holders share one [`Holders`].

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;
use strata_tree::{ContentDigest, DiffId, ImageId};

use crate::error::{Error, Result};
use crate::index::{self, ImageRecord, holders, images};

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
    /// The index's sets, by their id there.
    sets: HashMap<i64, Vec<i64>>,
    /// The sets of contents that are stored several times: each copy has holders of its own.
    copied: HashMap<[u8; 32], Vec<i64>>,
    known: HashMap<Vec<i64>, u32>,
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
        let mut copied: HashMap<[u8; 32], Vec<i64>> = HashMap::new();
        let mut statement = db.prepare(
            "SELECT digest, holders FROM contents
             WHERE digest IN (SELECT digest FROM contents WHERE copy > 0)",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            copied.entry(row.get(0)?).or_default().push(row.get(1)?);
        }
        let mut sets = HashMap::new();
        let mut statement = db.prepare("SELECT id, layers FROM holders")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let layers = holders::decode(&row.get::<_, Vec<u8>>(1)?);
            let layers =
                layers.ok_or_else(|| Error::damaged("index.db", format!("the holder set {id}")))?;
            sets.insert(id, layers);
        }
        let (known, found) = (HashMap::new(), Vec::new());
        Ok(Self { layers: layers.collect(), images, sets, copied, known, found })
    }

    /// The number of the set of layers that hold a content, of which `id` is one copy.
    pub(super) fn number(
        &mut self,
        db: &Connection,
        digest: &ContentDigest,
        id: i64,
    ) -> Result<u32> {
        let ids = match self.copied.get(digest.as_bytes()) {
            Some(ids) => ids.clone(),
            None => {
                let mut statement =
                    db.prepare_cached("SELECT holders FROM contents WHERE id = ?1")?;
                vec![statement.query_row([id], |row| row.get(0))?]
            }
        };
        if let Some(known) = self.known.get(&ids) {
            return Ok(*known);
        }
        let number = self.found.len() as u32;
        let mut set = BTreeSet::new();
        for id in &ids {
            let layers = self.sets.get(id);
            set.extend(layers.ok_or_else(|| {
                Error::damaged("index.db", format!("content {digest}: no holder set {id}"))
            })?);
        }
        let layers = set.iter().filter_map(|id| self.layers.get(id)).copied();
        let layers: Vec<DiffId> = layers.collect();
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
