//! An index being made: in `staging/`, until it is complete and durable; then in its place.
//!
//! Invariants: `index.db` is never seen half made, neither by another process nor after a crash;
//! the log of an index that is replaced goes before it is, so that it is never replayed into
//! the new one; the new one's own log is merged into it, or it is not put in its place.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use strata_tree::rename_new;

use crate::error::{IoContext, Result};
use crate::index::Index;
use crate::stage::locked_dir;

/// The place of an index that is not in use yet.
pub(super) struct NewIndex {
    dir: PathBuf,
    _lock: OwnedFd,
}

impl NewIndex {
    /// Makes an empty index.
    pub(super) fn make(root: &Path) -> Result<Self> {
        let (dir, lock) = locked_dir(&root.join("staging"), "index")?;
        let new = Self { dir, _lock: lock };
        new.open()?.close_whole()?;
        Ok(new)
    }

    /// Opens it, to fill it; it has to be closed as a whole before it is put in place.
    pub(super) fn open(&self) -> Result<Index> {
        Index::open(&self.path())
    }

    fn path(&self) -> PathBuf {
        self.dir.join("index.db")
    }

    /// Puts it at `target` unless another process was faster, whose index it then is.
    pub(super) fn put_first(self, target: &Path) -> Result<()> {
        match rename_new((CWD, &self.path()), (CWD, target)) {
            Ok(()) => sync_parent(target),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).doing(|| format!("cannot make {}", target.display())),
        }
    }

    /// Puts it at `target` instead of what is there.
    pub(super) fn replace(self, target: &Path) -> Result<()> {
        for suffix in ["-wal", "-shm"] {
            let mut old = OsString::from(target);
            old.push(suffix);
            let old = PathBuf::from(old);
            match std::fs::remove_file(&old) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).doing(|| format!("cannot remove {}", old.display()));
                }
            }
        }
        sync_parent(target)?;
        std::fs::rename(self.path(), target)
            .doing(|| format!("cannot replace {}", target.display()))?;
        sync_parent(target)
    }
}

impl Drop for NewIndex {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            // The next start removes it: nobody holds its lock any more.
            tracing::warn!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.doing(|| format!("cannot sync {}", parent.display()))
}
