//! Opening a store that is there, and using one that cannot be written.
//!
//! ```text
//! opened as ever       the store can be written
//! read-only            its file system, its owner or a full disk allow no more: the index is read
//!                      as it is, what is derived goes elsewhere, and every change is refused
//! ```
//!
//! A full disk has no room for what SQLite writes beside `index.db`, so that nothing could be
//! removed either. [`Store::set_aside`] keeps some room in a file without meaning; [`Store::shed`]
//! gives it back before something is removed, and that of compiled trees, which are derived.
//!
//! Invariants: nothing here makes a store; a store that is opened read-only is not changed in any
//! way, and neither swept nor migrated.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use strata_tree::ChainId;

use super::{Store, StoreOptions, has_layers};
use crate::error::{Error, IoContext, Result};
use crate::index::Index;
use crate::lock::{Lock, flock};

/// The file that keeps room, in the root.
pub(super) const RESERVE: &str = "reserve";
/// Bytes of it: what the index writes down of a removal is some ten to some hundred KiB.
const RESERVED: u64 = 512 << 10;

impl Store {
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
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_fd = rustix::fs::open(root, flags, Mode::empty())
            .doing(|| format!("cannot open the store at {}", root.display()))?;
        // Not every file system that is exported or packed has locks; nothing is changed here.
        let _ = flock(&root_fd, Lock::Shared);
        let index = Index::open_unwritable(&root.join("index.db"), options.elsewhere.as_deref())?;
        let mut store = Self::assemble(root, root_fd, options, index);
        store.read_only = Some(why.to_string());
        Ok(store)
    }

    /// A further connection for reading, for another thread.
    pub(crate) fn another_index(&self) -> Result<Index> {
        let path = self.root.join("index.db");
        match self.read_only {
            None => Index::open_existing(&path),
            Some(_) => Index::open_unwritable(&path, self.options.elsewhere.as_deref()),
        }
    }

    /// Why it cannot be written; `None` if it can.
    pub fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// Where a compiled tree of that chain is, or would be, if not in the store.
    pub fn tree_path_elsewhere(&self, chain: &ChainId) -> Option<PathBuf> {
        let elsewhere = self.options.elsewhere.as_ref()?;
        Some(elsewhere.join("trees").join(chain.hex()))
    }

    /// Keeps 512 KiB for a removal on a full disk, if they are not kept already. That there is no
    /// room for it, or none can be kept on this file system, is no error: it may be there later.
    pub fn set_aside(&self) {
        if let Err(errno) = self.reserve() {
            tracing::debug!("no room is set aside in {}: {errno}", self.root.display());
        }
    }

    fn reserve(&self) -> rustix::io::Result<()> {
        if self.read_only.is_some() {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&self.root_fd, RESERVE, flags, mode)?;
        let stat = rustix::fs::fstat(&file)?;
        if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= RESERVED {
            return Ok(());
        }
        let kept = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED);
        // Half of it is of no use, and in the way of whoever made the disk full.
        kept.inspect_err(|_| self.forget_reserve())
    }

    fn forget_reserve(&self) {
        let gone = rustix::fs::unlinkat(&self.root_fd, RESERVE, rustix::fs::AtFlags::empty());
        if let Err(errno) = gone {
            tracing::debug!("{}/{RESERVE}: {errno}", self.root.display());
        }
    }

    /// Removes what [`Store::set_aside`] keeps and all compiled trees, which are made anew when
    /// they are wanted; the bytes that are free then. Mounts keep those that they have open.
    ///
    /// # Errors
    /// `Io`.
    pub fn shed(root: &Path) -> Result<u64> {
        let dir = root.join("trees");
        let doing = || format!("cannot empty {}", dir.display());
        let reserve = root.join(RESERVE);
        let mut freed = reserve.metadata().map_or(0, |meta| meta.len());
        match std::fs::remove_file(&reserve) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).doing(|| format!("cannot remove {}", reserve.display()));
            }
            Ok(()) | Err(_) => {}
        }
        for entry in std::fs::read_dir(&dir).doing(doing)? {
            let path = entry.doing(doing)?.path();
            let bytes = path.metadata().map_or(0, |meta| meta.len());
            match std::fs::remove_file(&path) {
                Ok(()) => freed += bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
        Ok(freed)
    }
}
