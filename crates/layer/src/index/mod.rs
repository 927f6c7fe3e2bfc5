//! `index.db`: every fact about layers, contents, images and tags, in SQLite.
//!
//! Write-ahead log, `synchronous=FULL`: a commit that returned survives a power cut. Writers take
//! `BEGIN IMMEDIATE` and wait for each other, readers never wait.
//!
//! Invariants: a layer's rows and its directory are published by one commit (the directory is in
//! place and durable before it); nothing reads the index on a mount's request path.

pub(crate) mod accounts;
pub(crate) mod containing;
pub(crate) mod contents;
pub(crate) mod holders;

pub(crate) mod images;
mod layer_records;
pub(crate) mod named;
pub(crate) mod rows;
mod schema;
pub(crate) mod shared;
pub(crate) mod verity;

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Error, IoContext, Result};

pub use images::ImageRecord;
pub use layer_records::LayerRecord;
pub(crate) use layer_records::{find_layer, insert_layer, layer_ids, layers, remove_layer};
pub(crate) use schema::{NEWEST, Tables};

/// How long a writer waits for another before it gives up.
const BUSY: Duration = Duration::from_secs(300);

/// How many questions are answered from one snapshot.
const SNAPSHOT: u32 = 256;

/// Bytes of a page. There are fifteen tables and indices, each with one at least: with SQLite's own
/// 4096 an index without a layer would take 60 kB.
pub(crate) const PAGE: u16 = 2048;

/// A connection.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) db: Connection,
    /// Calls of [`Index::read_on`].
    asked: u32,
}

impl Index {
    /// Opens or creates the database and brings it to the newest version.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_if(path, |_| Ok(()))
    }

    /// The same, unless `look`, which sees it as it is found, refuses it.
    ///
    /// # Errors
    /// `ReadOnly`, `NewerStore`; whatever `look` or SQLite says.
    pub(crate) fn open_if(
        path: &Path,
        look: impl FnOnce(&Connection) -> Result<()>,
    ) -> Result<Self> {
        let mut db = Connection::open(path)?;
        // SQLite says nothing where it may only read: as long as others have the index open, what
        // follows would work up to the first change.
        if db.is_readonly(MAIN_DB)? {
            return Err(Error::ReadOnly);
        }
        ready(&db)?;
        // For a new one; it cannot be changed later.
        db.pragma_update(None, "page_size", PAGE)?;
        look(&db)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        schema::migrate(&mut db, path.parent().unwrap_or(path))?;
        Ok(Self { db, asked: 0 })
    }

    /// Opens for reading an index that cannot be written: as others have it open, else as it is,
    /// and if it has a log as well, a copy in `elsewhere`.
    pub(crate) fn open_unwritable(path: &Path, elsewhere: Option<&Path>) -> Result<Self> {
        let log = path.with_extension("db-wal");
        let logged = log.metadata().is_ok_and(|meta| meta.len() > 0);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let answers = |db: &Connection| schema::version(db).is_ok();
        let opened = match Connection::open_with_flags(path, flags) {
            Ok(db) if answers(&db) => db,
            _ if !logged => {
                let flags = flags | OpenFlags::SQLITE_OPEN_URI;
                Connection::open_with_flags(immutable(path), flags)?
            }
            failed => match elsewhere {
                Some(elsewhere) => copied(path, &log, elsewhere)?,
                None => failed?,
            },
        };
        ready(&opened)?;
        // What SQLite sets aside has no place beside the index.
        opened.pragma_update(None, "temp_store", "MEMORY")?;
        let found = schema::version(&opened)?;
        match found.cmp(&NEWEST) {
            std::cmp::Ordering::Equal => Ok(Self { db: opened, asked: 0 }),
            std::cmp::Ordering::Greater => Err(Error::NewerStore { found, newest: NEWEST }),
            std::cmp::Ordering::Less => Err(Error::OlderStore { found, newest: NEWEST }),
        }
    }

    /// Opens for reading a store that may not be written.
    pub(crate) fn open_existing(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        ready(&db)?;
        db.pragma_update(None, "foreign_keys", true)?;
        Ok(Self { db, asked: 0 })
    }

    /// Goes on reading from a snapshot, which spares the locks of each single question; a new one
    /// is taken once in [`SNAPSHOT`] calls. What others commit is seen that much later.
    pub(crate) fn read_on(&mut self) -> Result<()> {
        if self.asked.is_multiple_of(SNAPSHOT) {
            if !self.db.is_autocommit() {
                self.db.execute_batch("COMMIT")?;
            }
            self.db.execute_batch("BEGIN")?;
        }
        self.asked = self.asked.wrapping_add(1);
        Ok(())
    }

    /// The number of migrations that it has had.
    pub(crate) fn version(&self) -> Result<i64> {
        schema::version(&self.db)
    }

    /// A number that changes when another connection has committed something
    /// (sqlite.org/pragma.html, `data_version`).
    pub(crate) fn changes_of_others(&self) -> Result<i64> {
        Ok(self.db.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Closes it; the last one to do so has its log merged into `index.db`, durably. Where that
    /// fails the log stays, without an error: it is merged the next time.
    pub(crate) fn close(self) -> Result<()> {
        Ok(self.db.close().map_err(|(_, error)| error)?)
    }

    /// Closes it with its log merged, durably: `index.db` is all of it, and can be put elsewhere.
    ///
    /// # Errors
    /// `Sqlite` if the log cannot be merged; `InUse` if another has the index open.
    pub(crate) fn close_whole(self) -> Result<()> {
        let merge = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: bool = self.db.query_row(merge, [], |row| row.get(0))?;
        if busy {
            return Err(Error::InUse { what: "an index that is being made".to_owned() });
        }
        self.close()
    }

    /// An empty one in memory, for comparing.
    pub(crate) fn reference() -> Result<Self> {
        let mut db = Connection::open_in_memory()?;
        schema::migrate(&mut db, Path::new(""))?;
        Ok(Self { db, asked: 0 })
    }

    /// Starts a writing transaction; waits for other writers.
    pub(crate) fn write(&mut self) -> Result<Transaction<'_>> {
        Ok(self.db.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

/// The address of a file that nobody changes (sqlite.org/uri.html).
fn immutable(path: &Path) -> String {
    let mut text = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    text + "?immutable=1"
}

/// An index with its log, copied and opened; the copy goes with its names at once.
fn copied(path: &Path, log: &Path, elsewhere: &Path) -> Result<Connection> {
    let dir = own_dir(elsewhere).doing(|| format!("cannot make {}/", elsewhere.display()))?;
    let doing = || format!("cannot copy the index to {}", dir.display());
    let made = std::fs::copy(path, dir.join("index.db"))
        .and_then(|_| std::fs::copy(log, dir.join("index.db-wal")))
        .doing(doing)
        .and_then(|_| {
            let db = Connection::open(dir.join("index.db"))?;
            // The log is read with this, so that no name of it is needed any more.
            schema::version(&db)?;
            Ok(db)
        });
    // What cannot be removed is small, and its name tells that nobody needs it.
    let _ = std::fs::remove_dir_all(&dir);
    made
}

/// A new directory in `elsewhere`, for one copy: threads of one process copy at a time.
fn own_dir(elsewhere: &Path) -> std::io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(elsewhere)?;
    let mut n = 0_u32;
    loop {
        let dir = elsewhere.join(format!("index-{}-{n}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => n += 1,
            made => return made.map(|()| dir),
        }
    }
}

/// What every connection is told.
fn ready(db: &Connection) -> Result<()> {
    db.busy_timeout(BUSY)?;
    // Without it a statement is parsed and planned again for each value bound to it: the planner
    // looks at values where statistics could make a difference. We keep none.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_layers_is_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        Index::open(&path).unwrap().close().unwrap();
        assert!(path.metadata().unwrap().len() < 40_000);
    }

    /// What SQLite does when it is closed tells nobody that it has failed.
    #[test]
    fn one_whose_log_cannot_be_merged_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        let filled = || {
            let index = Index::open(&path).unwrap();
            index.db.busy_timeout(std::time::Duration::ZERO).unwrap();
            let more = "INSERT INTO holders
                 SELECT count(*) + 1, CAST(count(*) AS BLOB), 0, 0, 0 FROM holders";
            index.db.execute_batch(more).unwrap();
            index
        };
        let index = filled();
        let reader = Index::open(&path).unwrap();
        reader.db.execute_batch("BEGIN; SELECT count(*) FROM holders").unwrap();
        assert!(index.close_whole().unwrap_err().is_in_use());
        drop(reader);
        filled().close_whole().unwrap();
        let alone = dir.path().join("alone.db");
        std::fs::copy(&path, &alone).unwrap();
        let count = "SELECT count(*) FROM holders";
        let count: i64 =
            Connection::open(alone).unwrap().query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn each_thread_has_a_copy_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("index.db"), dir.path().join("elsewhere"));
        let index = Index::open(&path).unwrap();
        index.db.execute_batch("INSERT INTO holders VALUES (1, x'', 0, 0, 0)").unwrap();
        let log = path.with_extension("db-wal");
        assert!(log.metadata().unwrap().len() > 0);
        // As a killed process of the same number has left it.
        let left = elsewhere.join(format!("index-{}-0", std::process::id())).join("left");
        std::fs::create_dir_all(&left).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let db = copied(&path, &log, &elsewhere).unwrap();
                        let holders = "SELECT count(*) FROM holders";
                        let count: i64 = db.query_row(holders, [], |row| row.get(0)).unwrap();
                        assert_eq!(count, 1);
                    }
                });
            }
        });
        assert!(left.is_dir());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    #[test]
    fn one_with_larger_pages_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "page_size", 4096).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        drop(db);
        for _ in 0..2 {
            let index = Index::open(&path).unwrap();
            let page: u32 =
                index.db.pragma_query_value(None, "page_size", |row| row.get(0)).unwrap();
            assert_eq!((page, index.version().unwrap()), (4096, NEWEST));
            index.close().unwrap();
        }
    }
}
