//! Opening a store: one that is made if it is not there, one that is there, one that cannot be
//! written.
//!
//! ```text
//! opened as ever       the store can be written
//! read-only            its file system, its owner or a full disk allow no more: the index is read
//!                      as it is, what is derived goes elsewhere, and every change is refused
//! ```
//!
//! An index in which nothing is counts as none where layers are. SQLite would take a file that the
//! repair of a file system or a failed copy has emptied for a new database, and a collection of
//! garbage would then remove every layer. So does one that has become a ledger's: an older `strata
//! facts --work` took a store for its own directory, and its images from the index.
//!
//! Invariants: only [`Store::open`] and [`Store::open_with`] make a store; a store that is opened
//! read-only is not changed in any way, and neither swept nor migrated.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use strata_tree::ChainId;

use super::dir::{StoreDir, has_layers};
use super::new_index::NewIndex;
use super::{Store, StoreOptions};
use crate::error::{Error, IoContext, Result};
use crate::index::shared::SharedIndex;
use crate::index::{Index, Tables};
use crate::lock::Lock;

impl Store {
    /// Opens the store at `root`, makes it if there is none, and removes what dead processes left.
    ///
    /// # Errors
    /// `NoIndex` if layers are there but `index.db` is not, has nothing in it, or is a ledger's;
    /// `NotAStore`; `NewerStore`; `Io`.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, StoreOptions::default())
    }

    /// As [`Store::open`], with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self> {
        let dir = StoreDir::make(root, options.on_step.clone())?;
        // As long as the store is open, nobody puts another index in place.
        dir.lock(Lock::Shared).doing(|| format!("cannot lock {}", root.display()))?;
        let path = dir.index();
        if !has_bytes(&path)? {
            // Asked again after the layers: another process may have made both meanwhile.
            if has_layers(root)? && !has_bytes(&path)? {
                return Err(Error::NoIndex(root.to_owned()));
            }
            NewIndex::make(root)?.put_first(&path)?;
        }
        let index = Index::open_if(&path, |db| is_of_store(db, root))?;
        let store = Self::assemble(dir, SharedIndex::new(path, index), options);
        store.dir.sweep();
        store.dir.move_older_holds()?;
        Ok(store)
    }

    /// Opens the store at `root`, which is there; read-only if it cannot be written.
    ///
    /// # Errors
    /// `NoStore`; and as [`Store::open`].
    pub fn open_existing(root: &Path, options: StoreOptions) -> Result<Self> {
        let path = root.join("index.db");
        let there = path.try_exists().doing(|| format!("cannot look for {}", path.display()));
        if !there? {
            let layers = root.is_dir() && has_layers(root)?;
            let root = root.to_owned();
            return Err(if layers { Error::NoIndex(root) } else { Error::NoStore(root) });
        }
        match Self::open_with(root, options.clone()) {
            Err(error) if error.is_refused_write() => Self::open_read_only(root, options, &error),
            opened => opened,
        }
    }

    fn open_read_only(root: &Path, options: StoreOptions, why: &Error) -> Result<Self> {
        tracing::debug!("the store at {} is opened read-only: {why}", root.display());
        let dir = StoreDir::open(root, options.on_step.clone())?;
        // Not every file system that is exported or packed has locks; nothing is changed here.
        let _ = dir.lock(Lock::Shared);
        let index = SharedIndex::unwritable(dir.index(), options.elsewhere.as_deref(), why)?;
        is_of_store(&index.lock().db, root)?;
        Ok(Self::assemble(dir, index, options))
    }

    /// Why it cannot be written; `None` if it can.
    pub fn read_only(&self) -> Option<&str> {
        self.index.read_only()
    }

    /// Where a compiled tree of that chain is, or would be, if not in the store.
    pub fn tree_path_elsewhere(&self, chain: &ChainId) -> Option<PathBuf> {
        let elsewhere = self.elsewhere.as_ref()?;
        Some(elsewhere.join("trees").join(chain.hex()))
    }
}

/// Whether there is a file with anything in it.
fn has_bytes(path: &Path) -> Result<bool> {
    match path.metadata() {
        Ok(meta) => Ok(meta.len() > 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing(|| format!("cannot look for {}", path.display())),
    }
}

/// Refuses what is no index of the store at `root`.
fn is_of_store(db: &Connection, root: &Path) -> Result<()> {
    match Tables::of(db)? {
        Tables::OfStore => Ok(()),
        Tables::OfLedger if has_layers(root)? => Err(Error::NoIndex(root.to_owned())),
        Tables::OfLedger => Err(Error::NotAStore(root.to_owned())),
        // Asked again: a process that is making the store may have done so meanwhile.
        Tables::None if has_layers(root)? && Tables::of(db)? == Tables::None => {
            Err(Error::NoIndex(root.to_owned()))
        }
        Tables::None => Ok(()),
    }
}
