//! Contents in the index: where a file with given bytes already lies, and what all of it weighs.
//!
//! Invariant: one row is one inode on disk. Its names are the rows of `entries` that point to it
//! and, within one layer, further hard-linked names of those.

use std::path::PathBuf;

use rusqlite::Connection;
use strata_tree::{ContentDigest, DiffId, Name, TreePath};

use crate::error::{Error, Result};

/// A stored file to link from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// `contents.id`.
    pub id: i64,
    /// Its copy number.
    pub copy: i64,
    /// Its path below the store's root.
    pub path: PathBuf,
    /// The layer that it is in, if it lies in another directory than the one found before.
    pub elsewhere: Option<DiffId>,
}

/// Finds stored files. Tars list directory by directory, and so lie the files that they find:
/// the path of the last one's directory is kept.
#[derive(Default)]
pub(crate) struct Sources {
    /// Layer, number of the directory in it, path below the store's root. The rows of a layer
    /// follow from its diff id, unlike its number in the index.
    last: Option<(DiffId, i64, PathBuf)>,
}

impl Sources {
    /// The newest copy of those bytes: older ones may have all the links that they can have.
    pub(crate) fn find(
        &mut self,
        db: &Connection,
        digest: &ContentDigest,
    ) -> Result<Option<Source>> {
        let mut statement = db.prepare_cached(
            "SELECT contents.id, copy, diff_id, entries.layer, parent, name FROM contents
             LEFT JOIN entries ON entries.content = contents.id
             LEFT JOIN layers ON layers.id = entries.layer
             WHERE digest = ?1 ORDER BY copy DESC LIMIT 1",
        )?;
        let mut rows = statement.query([digest.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (id, copy): (i64, i64) = (row.get(0)?, row.get(1)?);
        let Some(diff_id) = row.get(2)? else {
            return Err(Error::damaged("index.db", format!("content {id} has no entry")));
        };
        let (layer, parent, name): (i64, i64, Vec<u8>) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let diff_id = DiffId::from_bytes(diff_id);
        let name = checked(layer, &name)?;
        let (dir, elsewhere) = match &mut self.last {
            Some((of, node, dir)) if (*of, *node) == (diff_id, parent) => (dir, None),
            last => {
                let path = dir_path(db, layer, parent)?;
                let dir = crate::layout::layer_path(&diff_id).join("diff").join(path.as_os_str());
                (&mut last.insert((diff_id, parent, dir)).2, Some(diff_id))
            }
        };
        Ok(Some(Source { id, copy, path: dir.join(name.as_os_str()), elsewhere }))
    }
}

/// The path of the entry `name` in the directory with node `parent`.
pub(crate) fn path_of(db: &Connection, layer: i64, parent: i64, name: &[u8]) -> Result<TreePath> {
    let mut path = dir_path(db, layer, parent)?;
    path.push(checked(layer, name)?);
    Ok(path)
}

/// The path of a directory.
fn dir_path(db: &Connection, layer: i64, mut node: i64) -> Result<TreePath> {
    let mut statement =
        db.prepare_cached("SELECT parent, name FROM entries WHERE layer = ?1 AND node = ?2")?;
    let mut names = Vec::new();
    while node != 1 {
        let (up, name): (i64, Vec<u8>) =
            statement.query_row([layer, node], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if up >= node {
            return Err(Error::damaged("index.db", format!("layer {layer}: node {node}")));
        }
        names.push(name);
        node = up;
    }
    let mut path = TreePath::root();
    for name in names.iter().rev() {
        path.push(checked(layer, name)?);
    }
    Ok(path)
}

fn checked(layer: i64, name: &[u8]) -> Result<Name<'_>> {
    Name::new(name)
        .map_err(|why| Error::damaged("index.db", format!("layer {layer}: a name: {why}")))
}

/// Adds a copy of those bytes, which takes `blocks` blocks of 512 bytes on disk, to a holder set.
pub(crate) fn insert(
    db: &Connection,
    digest: &ContentDigest,
    copy: i64,
    size: u64,
    blocks: u64,
    set: i64,
) -> Result<i64> {
    let mut statement = db.prepare_cached(
        "INSERT INTO contents (digest, copy, size, blocks, holders) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    Ok(statement.insert((digest.as_bytes(), copy, size as i64, blocks as i64, set))?)
}

/// Whether that row is still there.
pub(crate) fn exists(db: &Connection, id: i64) -> Result<bool> {
    let mut statement = db.prepare_cached("SELECT 1 FROM contents WHERE id = ?1")?;
    Ok(statement.exists([id])?)
}
