//! Layers in the index, each as a whole; their names are in `rows`.
//!
//! Invariant: a layer's number is larger than that of every layer that came before it.

use rusqlite::{Connection, OptionalExtension};
use strata_tree::DiffId;

use super::holders;
use crate::error::Result;
use crate::measure::Space;

/// What the index keeps of a layer as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRecord {
    /// Its number in the index.
    pub(crate) id: i64,
    /// Its name.
    pub diff_id: DiffId,
    /// Bytes of its tar.
    pub diff_size: u64,
    /// Bytes of its `headers.zst`.
    pub headers_size: u64,
    /// Names in it, whiteouts included, the root not.
    pub entries: u64,
    /// Bytes of its regular files, each inode once.
    pub apparent: u64,
    /// Blocks of its `headers.zst`, of 512 bytes.
    pub headers_blocks: u64,
    /// What its directories take, its own included.
    pub directories: Space,
}

fn layer_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<LayerRecord> {
    Ok(LayerRecord {
        id: row.get(0)?,
        diff_id: DiffId::from_bytes(row.get(1)?),
        diff_size: row.get(2)?,
        headers_size: row.get(3)?,
        entries: row.get(4)?,
        apparent: row.get(5)?,
        headers_blocks: row.get(6)?,
        directories: Space { bytes: row.get(7)?, blocks: row.get(8)? },
    })
}

const LAYER: &str = "SELECT id, diff_id, diff_size, headers_size, entries, apparent,
    headers_blocks, dirs_size, dirs_blocks FROM layers";

/// The layer with that diff id.
pub(crate) fn find_layer(db: &Connection, diff_id: &DiffId) -> Result<Option<LayerRecord>> {
    let mut statement = db.prepare_cached(&format!("{LAYER} WHERE diff_id = ?1"))?;
    Ok(statement.query_row([diff_id.as_bytes()], layer_record).optional()?)
}

/// All layers, oldest first.
pub(crate) fn layers(db: &Connection) -> Result<Vec<LayerRecord>> {
    let mut statement = db.prepare_cached(&format!("{LAYER} ORDER BY id"))?;
    let rows = statement.query_map([], layer_record)?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// The diff ids of all layers, oldest first: each can be asked for by itself, whatever others say.
pub(crate) fn layer_ids(db: &Connection) -> Result<Vec<DiffId>> {
    let mut statement = db.prepare_cached("SELECT diff_id FROM layers ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok(DiffId::from_bytes(row.get(0)?)))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// Adds a layer; its rows follow with [`super::rows::insert`].
pub(crate) fn insert_layer(db: &Connection, layer: &LayerRecord) -> Result<i64> {
    db.execute(
        "INSERT INTO layers (diff_id, diff_size, headers_size, entries, apparent,
                             headers_blocks, dirs_size, dirs_blocks)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            layer.diff_id.as_bytes(),
            layer.diff_size as i64,
            layer.headers_size as i64,
            layer.entries as i64,
            layer.apparent as i64,
            layer.headers_blocks as i64,
            layer.directories.bytes as i64,
            layer.directories.blocks as i64,
        ),
    )?;
    Ok(db.last_insert_rowid())
}

/// Removes a layer, its rows, and the contents that only it held.
pub(crate) fn remove_layer(db: &Connection, layer: i64) -> Result<()> {
    holders::remove_layer(db, layer)?;
    db.execute("DELETE FROM layers WHERE id = ?1", [layer])?;
    Ok(())
}
