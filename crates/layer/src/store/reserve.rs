//! Room for a removal on a full disk.
//!
//! A full disk has no room for what SQLite writes beside `index.db`, so that nothing could be
//! removed either. [`Store::set_aside`] keeps some room in a file without meaning; [`Store::shed`]
//! gives it back before something is removed, and that of compiled trees, which are derived.
//!
//! Invariant: what is kept is kept whole or not at all.

use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};

use super::Store;
use super::dir::StoreDir;
use crate::error::{IoContext, Result};

/// The file that keeps room, in the root.
pub(super) const RESERVE: &str = "reserve";
/// Bytes of it: what the index writes down of a removal is some ten to some hundred KiB.
const RESERVED: u64 = 512 << 10;

impl Store {
    /// Keeps 512 KiB for a removal on a full disk, if they are not kept already. That there is no
    /// room for it, or none can be kept on this file system, is no error: it may be there later.
    pub fn set_aside(&self) {
        if self.read_only().is_some() {
            return;
        }
        if let Err(errno) = reserve(&self.dir) {
            tracing::debug!("no room is set aside in {}: {errno}", self.root().display());
        }
    }

    /// Removes what [`Store::set_aside`] keeps and all compiled trees, which are compiled again
    /// when they are wanted; the bytes that are free then. Mounts keep those that they have open.
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

fn reserve(dir: &StoreDir) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(0o600);
    let file = rustix::fs::openat(dir.fd(), RESERVE, flags, mode)?;
    let stat = rustix::fs::fstat(&file)?;
    if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= RESERVED {
        return Ok(());
    }
    let kept = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED);
    // Half of it is of no use, and in the way of whoever made the disk full.
    kept.inspect_err(|_| forget(dir))
}

fn forget(dir: &StoreDir) {
    if let Err(errno) = rustix::fs::unlinkat(dir.fd(), RESERVE, AtFlags::empty()) {
        tracing::debug!("{}/{RESERVE}: {errno}", dir.root().display());
    }
}
