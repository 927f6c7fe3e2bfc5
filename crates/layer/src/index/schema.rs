//! The schema of `index.db` and its migrations.
//!
//! ```text
//! images ─┬─ image_layers ── layers ── entries ── contents ── holders
//!         └─ tags             one row a name    one row an    one row a set of layers
//!                                               inode         that hold the same contents
//! ```
//!
//! `entries` holds each layer as a tree in breadth-first order: the root is node 1, the children
//! of a directory are consecutive, sorted by name bytes, so a directory is one range of the
//! primary key. `contents` has one row for each stored inode: a second `copy` of one digest exists
//! only where the file system's link limit (EMLINK) forced it.
//!
//! Invariants: migrations are append-only, `user_version` counts those applied; a released
//! statement is never edited. Every row of `entries` can be derived again from the layer's
//! directory; what it takes on disk is taken from there too.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::accounts;
use crate::error::{Error, Result};

/// One step of the schema.
struct Migration {
    /// What it changes.
    statements: &'static str,
    /// What it finds out for the layers that are there, in the store of this root.
    fill: fn(&Connection, &Path) -> Result<()>,
}

const MIGRATIONS: &[Migration] = &[
    Migration { statements: FIRST, fill: |_, _| Ok(()) },
    Migration { statements: ACCOUNTS, fill: accounts::fill },
    Migration { statements: LOWER_LINKS, fill: |_, _| Ok(()) },
    Migration { statements: VERDICTS, fill: |_, _| Ok(()) },
    Migration { statements: VERITY, fill: |_, _| Ok(()) },
];

pub(super) const FIRST: &str = "
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
";

/// What the disk holds: who holds which contents, and what everything takes there.
const ACCOUNTS: &str = "
CREATE TABLE holders (
    id     INTEGER PRIMARY KEY,
    layers BLOB NOT NULL UNIQUE,  -- their ids, see index/holders.rs
    files  INTEGER NOT NULL,      -- contents that exactly these layers hold
    bytes  INTEGER NOT NULL,      -- of those
    blocks INTEGER NOT NULL       -- of 512 bytes, of those
) STRICT;
ALTER TABLE contents ADD COLUMN blocks INTEGER NOT NULL DEFAULT 0;  -- of 512 bytes
ALTER TABLE contents ADD COLUMN holders INTEGER;                    -- holders.id
ALTER TABLE layers ADD COLUMN headers_blocks INTEGER NOT NULL DEFAULT 0;  -- of headers.zst
ALTER TABLE layers ADD COLUMN dirs_size INTEGER NOT NULL DEFAULT 0;    -- bytes of its directories
ALTER TABLE layers ADD COLUMN dirs_blocks INTEGER NOT NULL DEFAULT 0;  -- blocks of those
";

/// Links into lower layers (kind 8) are rare, and asked for whenever an image comes.
const LOWER_LINKS: &str = "
CREATE INDEX entries_lower_links ON entries (layer) WHERE kind = 8;
";

/// Why an image was let in under a name, as whoever judged it wrote it down.
const VERDICTS: &str = "
ALTER TABLE tags ADD COLUMN verdict TEXT;
";

/// What fs-verity has as the digest of a content, where somebody has wanted to know.
const VERITY: &str = "
ALTER TABLE contents ADD COLUMN verity BLOB CHECK (verity IS NULL OR length(verity) = 32);
";

/// The version of a database that has had all migrations.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Brings a database to the newest version, in one transaction; `root` is the store's.
///
/// # Errors
/// `NewerStore` if a later strata made it; whatever SQLite says.
pub(crate) fn migrate(db: &mut Connection, root: &Path) -> Result<()> {
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
    for migration in &MIGRATIONS[done..] {
        tx.execute_batch(migration.statements)?;
    }
    // After all of them: what fills a table is written for the newest schema.
    for migration in &MIGRATIONS[done..] {
        (migration.fill)(&tx, root)?;
    }
    tx.pragma_update(None, "user_version", newest)?;
    tx.commit()?;
    Ok(())
}

pub(super) fn version(db: &Connection) -> Result<i64> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Whose tables a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// There are none: SQLite has just made it, or it was emptied.
    None,
    /// A store's, as far as is known.
    OfStore,
    /// Those of a [`crate::Ledger`].
    OfLedger,
}

impl Tables {
    /// Those of `db`.
    ///
    /// # Errors
    /// Whatever SQLite says.
    pub(crate) fn of(db: &Connection) -> Result<Self> {
        let counts = "SELECT count(*), count(*) FILTER (WHERE name = 'documents')
                      FROM sqlite_schema WHERE type = 'table'";
        Ok(match db.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?)))? {
            (0, _) => Self::None,
            (1.., 0) => Self::OfStore,
            (_, _) => Self::OfLedger,
        })
    }
}
