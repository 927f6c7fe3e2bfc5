//! The schema of `index.db` and its migrations.
//!
//! ```text
//! images ─┬─ image_layers ── layers ── entries ── contents
//!         └─ tags                      one row a name    one row an inode of stored bytes
//! ```
//!
//! `entries` holds each layer as a tree in breadth-first order: the root is node 1, the children
//! of a directory are consecutive, sorted by name bytes, so a directory is one range of the
//! primary key. `contents` has one row for each stored inode: a second `copy` of one digest exists
//! only where the file system's link limit (EMLINK) forced it.
//!
//! Invariants: migrations are append-only, `user_version` counts those applied; a released
//! statement is never edited. Every row of `entries` can be derived anew from the layer's
//! directory.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Error, Result};

const MIGRATIONS: &[&str] = &["
CREATE TABLE layers (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id       BLOB NOT NULL UNIQUE CHECK (length(diff_id) = 32),
    diff_size     INTEGER NOT NULL,  -- bytes of the tar
    headers_size  INTEGER NOT NULL,  -- bytes of headers.zst
    entries       INTEGER NOT NULL,  -- rows in entries
    apparent      INTEGER NOT NULL   -- bytes of its regular files, each inode once
) STRICT;
CREATE TABLE contents (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    copy   INTEGER NOT NULL,
    size   INTEGER NOT NULL,
    UNIQUE (digest, copy)
) STRICT;
CREATE TABLE entries (
    layer    INTEGER NOT NULL REFERENCES layers (id),
    node     INTEGER NOT NULL,  -- breadth-first number, root = 1
    parent   INTEGER NOT NULL,  -- node of the directory; the root's own is 1
    name     BLOB NOT NULL,     -- empty for the root
    kind     INTEGER NOT NULL,  -- see index/rows.rs
    perm     INTEGER,
    uid      INTEGER,
    gid      INTEGER,
    size     INTEGER,
    nlink    INTEGER,           -- NULL: 1
    mtime    INTEGER,
    mtime_ns INTEGER,           -- NULL: 0
    device   INTEGER,           -- major << 32 | minor
    link     BLOB,              -- symlink target, path of a link into a lower layer
    target   INTEGER,           -- node of which this name is a hard link
    content  INTEGER REFERENCES contents (id),
    first    INTEGER,           -- directory: its first child, NULL if it has none
    children INTEGER,
    marks    INTEGER,           -- directory: 1 opaque, 2 implied, 4 phantom; NULL: 0
    position INTEGER,           -- the member's number in the tar, NULL if no member says it
    xattrs   BLOB,
    PRIMARY KEY (layer, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_content ON entries (content) WHERE content IS NOT NULL;
CREATE TABLE images (
    id       BLOB PRIMARY KEY CHECK (length(id) = 32),
    manifest BLOB CHECK (manifest IS NULL OR length(manifest) = 32)
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layers (
    image    BLOB NOT NULL REFERENCES images (id),
    position INTEGER NOT NULL,  -- 0 is the base
    layer    INTEGER NOT NULL REFERENCES layers (id),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_layer ON image_layers (layer);
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    image     BLOB NOT NULL REFERENCES images (id)
) STRICT, WITHOUT ROWID;
"];

/// The version of a database that has had all migrations.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Brings a database to the newest version, in one transaction.
///
/// # Errors
/// `NewerStore` if a later strata made it; whatever SQLite says.
pub(crate) fn migrate(db: &mut Connection) -> Result<()> {
    let newest = NEWEST;
    if version(db)? == newest {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len());
    let Some(done) = done else {
        return Err(Error::NewerStore { found, newest });
    };
    for statement in &MIGRATIONS[done..] {
        tx.execute_batch(statement)?;
    }
    tx.pragma_update(None, "user_version", newest)?;
    tx.commit()?;
    Ok(())
}

pub(super) fn version(db: &Connection) -> Result<i64> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
