//! Taking directories away: rename to `trash/`, then remove; and what dead processes left.
//!
//! Invariants: nothing that a living process holds locked is touched; a failure to clean is told
//! in the log and never fails the operation that came to do something else.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use strata_tree::DiffId;

use super::{Step, Store, layer_path};
use crate::error::{Error, IoContext, Result};
use crate::lock::{Lock, Locked, lock_path};

/// Layer directories that nobody uses, locked so that nobody starts to.
pub(super) struct Doomed(Vec<(DiffId, OwnedFd)>);

impl Store {
    /// Locks the directories of layers that are to go.
    pub(super) fn lock_for_removal(&self, layers: &[DiffId]) -> Result<Doomed> {
        let mut doomed = Vec::new();
        for layer in layers {
            match lock_path(&self.root.join(layer_path(layer)), Lock::TryExclusive)? {
                Locked::Held(dir) => doomed.push((*layer, dir)),
                Locked::Busy => {
                    return Err(Error::InUse { what: format!("layer {}", layer.short()) });
                }
                Locked::Absent => {}
            }
        }
        Ok(Doomed(doomed))
    }

    /// Moves locked layer directories to the trash and removes them.
    pub(super) fn trash_layers(&self, doomed: Doomed) -> Result<()> {
        let mut trashed = Vec::new();
        for (layer, lock) in doomed.0 {
            trashed.push(self.trash(&self.root.join(layer_path(&layer)))?);
            drop(lock);
        }
        self.step(Step::Trashed);
        for path in trashed {
            remove_all(&path)?;
        }
        Ok(())
    }

    /// Moves a directory or file to the trash; gives its new path.
    pub(super) fn trash(&self, path: &Path) -> Result<std::path::PathBuf> {
        let name = path.file_name().unwrap_or(OsStr::new("x")).to_string_lossy();
        let trash = self.root.join("trash");
        for n in 0.. {
            let to = trash.join(format!("{name}-{}-{n}", std::process::id()));
            // NOREPLACE: renaming over an empty directory would succeed.
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(rustix::fs::CWD, path, rustix::fs::CWD, &to, flags) {
                Ok(()) => return Ok(to),
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => {
                    return Err(error).doing(|| format!("cannot move {} away", path.display()));
                }
            }
        }
        Err(Error::damaged("trash/", "has no free name"))
    }

    pub(super) fn remove_file_if_there(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).doing(|| format!("cannot remove {}", path.display())),
        }
    }

    /// Empties `staging/` and `trash/` of what no living process holds.
    pub(super) fn sweep(&self) {
        for dir in ["staging", "trash"] {
            if let Err(error) = self.sweep_dir(&self.root.join(dir), dir == "trash") {
                tracing::warn!("{dir}/ was not emptied: {error}");
            }
        }
    }

    fn sweep_dir(&self, dir: &Path, trash: bool) -> Result<()> {
        let entries = std::fs::read_dir(dir).doing(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let path = entry.doing(|| format!("cannot list {}", dir.display()))?.path();
            // A plain file is being written by some process as long as its name holds a living
            // process' number; a directory is locked as long as it is being written.
            if !trash && path.is_file() && owner_lives(&path) {
                continue;
            }
            match lock_path(&path, Lock::TryExclusive)? {
                Locked::Busy | Locked::Absent => {}
                Locked::Held(_lock) if path.is_dir() => {
                    let path = if trash { path } else { self.trash(&path)? };
                    remove_all(&path)?;
                }
                Locked::Held(_lock) => self.remove_file_if_there(&path)?,
            }
        }
        Ok(())
    }
}

/// Names in `staging/` end in the number of the process (and more) that made them.
fn owner_lives(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.split('-').rev().find_map(|part| part.parse::<u32>().ok());
    pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes a directory tree; whoever is faster is welcome.
fn remove_all(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).doing(|| format!("cannot remove {}", path.display())),
    }
}
