//! [`Ledger`]: an index alone, of layers that were read as streams and not kept.
//!
//! ```text
//! LayerInput ── the same reading as `inspect` ── rows ── index.db of the ledger ── Snapshot
//! ```
//!
//! It is the tables of a store's index, so whatever reads a [`Snapshot`] reads it too, and beside
//! them the configs of images, by digest. A layer is one transaction: who is killed goes on with
//! the layers that are there. Nothing else of a layer is on disk, so what it would take there is
//! not known, and a snapshot says so.
//!
//! Invariants: the directory of a store, which would lose its index, never becomes a ledger's; a
//! layer that is there was verified as a load verifies it, and its rows are those that a load would
//! write; one process at a time has a ledger; a snapshot shows the images of the last
//! [`Ledger::show`] with their layers and contents, and no others, while layers that other sources
//! had stay, for the run that reads those again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension};
use rustix::io::Errno;
use strata_diff::Limits;
use strata_diff::spill::Spill;
use strata_diff::stream::StreamFacts;
use strata_tree::{BlobDigest, ContentDigest, DiffId};

use crate::build::{Built, LocalContent};
use crate::error::{Error, IoContext, Result};
use crate::index::{self, ImageRecord, Index, LayerRecord, Tables, images, rows};
use crate::inspect::read_layer;
use crate::lock::{Lock, flock};
use crate::measure::Space;
use crate::progress::Progress;
use crate::scratch::BooksMemory;
use crate::snapshot::Snapshot;
use crate::store::{LayerInput, has_layers};

/// The table that it has beside those of an index: the first that is made, so by it a ledger is
/// known from a store.
const OWN: &str = "
CREATE TABLE documents (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    bytes  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a store's index has to find names by their contents nobody asks here.
const UNASKED: &str = "
DROP INDEX IF EXISTS entries_content;
DROP INDEX IF EXISTS entries_lower_links;
";

/// The index, in the directory of a ledger.
const INDEX: &str = "index.db";

/// The index.
pub struct Ledger {
    dir: PathBuf,
    index: Mutex<Index>,
    memory: BooksMemory,
    /// Locked as long as this is open.
    _lock: File,
}

impl Ledger {
    /// Opens the ledger in a directory, or makes both.
    ///
    /// # Errors
    /// `NotALedger` if the directory has a store or another index; `LedgerInUse` if another process
    /// has it open; `Io`, `Sqlite`, `NewerStore`.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).doing(|| format!("cannot make {}", dir.display()))?;
        let lock = File::open(dir).doing(|| format!("cannot open {}", dir.display()))?;
        match flock(&lock, Lock::SoonExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Error::LedgerInUse(dir.to_owned())),
            locked => locked.doing(|| format!("cannot lock {}", dir.display()))?,
        }
        let path = dir.join(INDEX);
        let another = || Error::NotALedger(dir.to_owned());
        let has_store = || dir.join("layers").exists();
        // Before SQLite opens the file: it would make one, and remove the log of an empty one.
        if has_store() && path.metadata().map_or(0, |meta| meta.len()) == 0 {
            return Err(another());
        }
        let index = Index::open_if(&path, |db| match Tables::of(db)? {
            // Of a store that an older strata has taken for a ledger, layers are left.
            Tables::OfLedger if !has_layers(dir)? => Ok(()),
            Tables::None if !has_store() => Ok(db.execute_batch(OWN)?),
            Tables::OfLedger | Tables::None | Tables::OfStore => Err(another()),
        })?;
        // A power cut may take the last layers, which are read again then.
        index.db.pragma_update(None, "synchronous", "NORMAL")?;
        index.db.pragma_update(None, "foreign_keys", false)?;
        index.db.execute_batch(UNASKED)?;
        let (index, memory) = (Mutex::new(index), BooksMemory::default());
        Ok(Self { dir: dir.to_owned(), index, memory, _lock: lock })
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // A panic while the lock was held has rolled its transaction back.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer was read.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn has(&self, layer: &DiffId) -> Result<bool> {
        Ok(index::find_layer(&self.lock().db, layer)?.is_some())
    }

    /// Reads a layer to its end and keeps its rows. Others may read meanwhile: only writing the
    /// rows down is done by one thread at a time.
    ///
    /// # Errors
    /// Those of [`crate::inspect`]; `Sqlite`. Nothing of the layer is kept then.
    pub fn read(
        &self,
        input: LayerInput<'_>,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<DiffId> {
        let (built, facts) = read_layer(input, limits, &self.memory.scratch(&self.dir), progress)?;
        let mut index = self.lock();
        let tx = index.write()?;
        if index::find_layer(&tx, &facts.diff_id)?.is_none() {
            insert(&tx, &built, &facts)?;
            tx.commit()?;
        }
        Ok(facts.diff_id)
    }

    /// A config that was kept.
    ///
    /// # Errors
    /// `NoBlob`, `Sqlite`.
    pub fn document(&self, digest: &BlobDigest) -> Result<Vec<u8>> {
        let index = self.lock();
        let mut statement =
            index.db.prepare_cached("SELECT bytes FROM documents WHERE digest = ?1")?;
        let found = statement.query_row([digest.as_bytes()], |row| row.get(0)).optional()?;
        found.ok_or(Error::NoBlob(*digest))
    }

    /// Keeps a config, whose digest the caller has verified.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn keep_document(&self, digest: &BlobDigest, bytes: &[u8]) -> Result<()> {
        let index = self.lock();
        let mut statement =
            index.db.prepare_cached("INSERT OR IGNORE INTO documents VALUES (?1, ?2)")?;
        statement.execute((digest.as_bytes(), bytes))?;
        Ok(())
    }

    /// Makes these the images of the ledger, with their names.
    ///
    /// # Errors
    /// `NoLayer` if a layer was not read; `Sqlite`. Then it is as it was.
    pub fn show(&self, all: &[(ImageRecord, Vec<String>)]) -> Result<()> {
        let mut index = self.lock();
        let tx = index.write()?;
        tx.execute_batch("DELETE FROM tags; DELETE FROM image_layers; DELETE FROM images;")?;
        for (image, names) in all {
            images::put(&tx, image)?;
            for name in names {
                images::tag(&tx, name, &image.id, None)?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// All facts of its images as they are now.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of_ledger(Index::open_existing(&self.dir.join(INDEX))?)
    }
}

/// Writes the rows of a layer.
fn insert(db: &Connection, built: &Built, facts: &StreamFacts) -> Result<()> {
    let layer = index::insert_layer(
        db,
        &LayerRecord {
            id: 0,
            diff_id: facts.diff_id,
            diff_size: facts.diff_size,
            headers_size: 0,
            entries: built.rows.count() - 1,
            apparent: built.rows.apparent()?,
            headers_blocks: 0,
            directories: Space::default(),
        },
    )?;
    let locals = &built.books.locals;
    // SQLite numbers rows from 1.
    let mut ids = Spill::filled(&built.books.scratch, 6, locals.count(), 0i64);
    rows::insert(db, layer, built.rows.count(), |row| {
        // Contents that only replaced members had have no name, and so no row.
        let Some(local) = built.local_of(row)? else { return Ok((built.row(row)?, None)) };
        let mut id = ids.get(local.index())?;
        if id == 0 {
            let LocalContent { digest, size, .. } = locals.get(local)?;
            id = content(db, &digest, size)?;
            ids.set(local.index(), id)?;
        }
        Ok((built.row(row)?, Some(id)))
    })
}

/// The number of a content, new or known.
fn content(db: &Connection, digest: &ContentDigest, size: u64) -> Result<i64> {
    let mut known = db.prepare_cached("SELECT id FROM contents WHERE digest = ?1 AND copy = 0")?;
    let found = known.query_row([digest.as_bytes()], |row| row.get(0)).optional()?;
    match found {
        Some(id) => Ok(id),
        None => {
            let mut new =
                db.prepare_cached("INSERT INTO contents (digest, copy, size) VALUES (?1, 0, ?2)")?;
            Ok(new.insert((digest.as_bytes(), size as i64))?)
        }
    }
}
