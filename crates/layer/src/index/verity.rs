//! The fs-verity digests of contents, for kernels that compare them.
//!
//! Invariant: a digest is a fact about the bytes, so a row of `contents` without one is no fault:
//! it is found out when somebody wants it.

use rusqlite::Connection;
use strata_tree::{ContentDigest, DiffId, TreePath, VerityDigest};

use super::contents::path_of;
use crate::error::Result;

/// A content of a layer.
pub(crate) struct ContentFile {
    /// `contents.id`.
    pub(crate) id: i64,
    /// What it is.
    pub(crate) digest: ContentDigest,
    /// Its bytes.
    pub(crate) size: u64,
    /// One of its names in the layer.
    pub(crate) path: TreePath,
    /// Its fs-verity digest, where that is known.
    pub(crate) verity: Option<VerityDigest>,
}

/// The contents of a layer, each once, with a name; of those alone whose fs-verity digest is known,
/// where `known` is.
pub(crate) fn contents_of(
    db: &Connection,
    layer: &DiffId,
    known: bool,
) -> Result<Vec<ContentFile>> {
    let mut statement = db.prepare_cached(
        "SELECT contents.id, digest, contents.size, layer, parent, name, verity FROM entries
         JOIN contents ON contents.id = entries.content
         WHERE layer = (SELECT id FROM layers WHERE diff_id = ?1)
           AND (verity IS NOT NULL OR NOT ?2)
         GROUP BY contents.id",
    )?;
    let mut rows = statement.query((layer.as_bytes(), known))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (layer, parent, name): (i64, i64, Vec<u8>) = (row.get(3)?, row.get(4)?, row.get(5)?);
        found.push(ContentFile {
            id: row.get(0)?,
            digest: ContentDigest::from_bytes(row.get(1)?),
            size: row.get(2)?,
            path: path_of(db, layer, parent, &name)?,
            verity: row.get::<_, Option<_>>(6)?.map(VerityDigest::from_bytes),
        });
    }
    Ok(found)
}

/// Notes a digest.
pub(crate) fn put(db: &Connection, id: i64, digest: &VerityDigest) -> Result<()> {
    let mut statement = db.prepare_cached("UPDATE contents SET verity = ?2 WHERE id = ?1")?;
    statement.execute((id, digest.as_bytes()))?;
    Ok(())
}
