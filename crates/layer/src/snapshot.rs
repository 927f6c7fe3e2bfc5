//! [`Snapshot`]: all facts of the index as they were at one moment, row by row.
//!
//! A read transaction on a connection of its own: what others load or remove meanwhile is not
//! seen, and nobody waits. Layers come sorted by diff id, contents by digest, so that stores with
//! the same layers give the same rows, in whatever order the layers came.
//!
//! Invariants: nothing is written but a temporary table of the connection; memory does not grow
//! with the store, but for the numbers of the few contents that have a further copy.

use std::collections::{HashMap, HashSet};
use std::result::Result as Either;

use strata_diff::rows::{EntryRow, RowKind};
use strata_tree::{ContentDigest, DiffId, ImageId};

use crate::error::{Error, Result};
use crate::index::{self, ImageRecord, Index, LayerRecord, images, rows};
use crate::store::Store;

/// The index at one moment.
pub struct Snapshot {
    index: Index,
    /// The copy number of each content that is not the first with its digest.
    copies: HashMap<i64, u64>,
    /// Whether it is an index of a ledger: what no image has is not shown, nor what is on a disk.
    of_ledger: bool,
}

/// What a ledger shows: a table of this connection alone, in a temporary file.
const SHOWN: &str = "
CREATE TEMPORARY TABLE shown (content INTEGER PRIMARY KEY);
INSERT OR IGNORE INTO shown SELECT content FROM entries
WHERE content IS NOT NULL AND layer IN (SELECT layer FROM image_layers);
";

/// A name of a layer, with the inode that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The name.
    pub row: EntryRow,
    /// For a hard link the row of the name that it links to.
    pub target: Option<EntryRow>,
    /// Which copy of its content is stored, from 0; `None` if it has no content.
    pub copy: Option<u64>,
}

/// A stored inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotContent {
    /// The digest of its bytes.
    pub digest: ContentDigest,
    /// 0, or more where the file system's limit of links forced a further copy.
    pub copy: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes that it takes on disk.
    pub blocks: u64,
}

impl Snapshot {
    /// Takes one of a store.
    ///
    /// # Errors
    /// `Sqlite`; `Io` where the index cannot be written and is copied first.
    pub fn of(store: &Store) -> Result<Self> {
        Self::begin(store.index().another()?, false)
    }

    /// Takes one of a ledger's index.
    pub(crate) fn of_ledger(index: Index) -> Result<Self> {
        Self::begin(index, true)
    }

    fn begin(index: Index, of_ledger: bool) -> Result<Self> {
        index.db.execute_batch("BEGIN")?;
        // The first question is what fixes the moment.
        let mut copies = HashMap::new();
        {
            let mut statement = index.db.prepare("SELECT id, copy FROM contents WHERE copy > 0")?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                copies.insert(row.get(0)?, row.get(1)?);
            }
        }
        if of_ledger {
            index.db.execute_batch(SHOWN)?;
        }
        Ok(Self { index, copies, of_ledger })
    }

    /// Whether it is known what layers and contents take on disk: blocks, directories,
    /// `headers.zst`.
    pub fn is_measured(&self) -> bool {
        !self.of_ledger
    }

    /// All images, sorted by id.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        images::all(&self.index.db)
    }

    /// All names of images, sorted.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn names(&self) -> Result<Vec<(String, ImageId)>> {
        images::tags(&self.index.db)
    }

    /// All layers, sorted by diff id.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn layers(&self) -> Result<Vec<LayerRecord>> {
        let mut layers = index::layers(&self.index.db)?;
        if self.of_ledger {
            let images = self.images()?;
            let shown: HashSet<&DiffId> = images.iter().flat_map(|image| &image.layers).collect();
            layers.retain(|layer| shown.contains(&layer.diff_id));
        }
        layers.sort_unstable_by_key(|layer| layer.diff_id);
        Ok(layers)
    }

    /// Hands over the rows of a layer in node order, the root first.
    ///
    /// # Errors
    /// `NoLayer`, `Sqlite`, `Damaged`, and what `take` says.
    pub fn each_entry<E: From<Error>>(
        &self,
        layer: &DiffId,
        take: &mut dyn FnMut(SnapshotEntry) -> Either<(), E>,
    ) -> Either<(), E> {
        let db = &self.index.db;
        let record = index::find_layer(db, layer)?.ok_or(Error::NoLayer(*layer))?;
        rows::each(db, record.id, &mut |row, content| {
            let target = match row.kind {
                RowKind::HardLink(node) => {
                    Some(rows::one(db, record.id, node)?.ok_or_else(|| {
                        Error::damaged("index.db", format!("a link to node {} of {layer}", node.0))
                    })?)
                }
                _ => None,
            };
            let copy = content.map(|id| self.copies.get(&id).copied().unwrap_or(0));
            take(SnapshotEntry { row, target, copy })
        })
    }

    /// Hands over all contents, sorted by digest and copy.
    ///
    /// # Errors
    /// `Sqlite`, and what `take` says.
    pub fn each_content<E: From<Error>>(
        &self,
        take: &mut dyn FnMut(SnapshotContent) -> Either<(), E>,
    ) -> Either<(), E> {
        let only = if self.of_ledger { "WHERE id IN (SELECT content FROM temp.shown)" } else { "" };
        let statement = self.index.db.prepare(&format!(
            "SELECT digest, copy, size, blocks FROM contents {only} ORDER BY digest, copy"
        ));
        let mut statement = statement.map_err(Error::from)?;
        let mut found = statement.query([]).map_err(Error::from)?;
        while let Some(row) = found.next().map_err(Error::from)? {
            take(content(row).map_err(Error::from)?)?;
        }
        Ok(())
    }
}

fn content(row: &rusqlite::Row<'_>) -> rusqlite::Result<SnapshotContent> {
    Ok(SnapshotContent {
        digest: ContentDigest::from_bytes(row.get(0)?),
        copy: row.get(1)?,
        size: row.get(2)?,
        blocks: row.get(3)?,
    })
}
