//! Taking directories away: rename to `trash/`, then remove; and what dead processes left.
//!
//! Invariants: nothing that a living process holds locked is touched; a failure to clean is told
//! in the log and never fails the operation that came to do something else.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use strata_tree::DiffId;

use super::dir::StoreDir;
use super::steps::Step;
use crate::error::{Error, IoContext, Result};
use crate::lock::{Lock, Locked, lock_path};

/// Layers that nobody uses or holds, and those of their directories that are there, locked so that
/// nobody starts to.
pub(super) struct Doomed(Vec<(DiffId, Option<OwnedFd>)>);

impl Doomed {
    /// In the order in which they were given.
    pub(super) fn layers(&self) -> impl DoubleEndedIterator<Item = &DiffId> {
        self.0.iter().map(|(layer, _)| layer)
    }
}

impl StoreDir {
    /// Locks the directories of layers that are to go. Those are left out that somebody holds in a
    /// way that lets their images go.
    pub(super) fn lock_for_removal(&self, layers: &[DiffId]) -> Result<Doomed> {
        let layers = self.unheld(layers)?;
        self.refuse_held(&layers)?;
        let mut doomed = Vec::new();
        // Asked once all are locked: whoever mounts holds their locks until the mount stands.
        let in_use = |layer: &DiffId| Error::InUse { what: format!("layer {}", layer.short()) };
        for layer in &layers {
            match lock_path(&self.layer(layer), Lock::SoonExclusive)? {
                Locked::Held(dir) => doomed.push((*layer, Some(dir))),
                Locked::Busy => return Err(in_use(layer)),
                Locked::Absent => doomed.push((*layer, None)),
            }
        }
        // Once more: what was taken since has been leased until it was written down.
        let layers = self.unheld(&layers)?;
        self.refuse_held(&layers)?;
        doomed.retain(|(layer, _)| layers.contains(layer));
        let mounted = self.kernel_leases().kept()?;
        let kept = |layer: &&DiffId| mounted.iter().any(|mount| mount.layers.contains(layer));
        if let Some(layer) = layers.iter().find(kept) {
            return Err(in_use(layer));
        }
        Ok(Doomed(doomed))
    }

    /// Those of `layers` that nobody holds in a way that lets their images go.
    fn unheld(&self, layers: &[DiffId]) -> Result<Vec<DiffId>> {
        let mut unheld = Vec::with_capacity(layers.len());
        for layer in layers {
            if !self.is_held(layer)? {
                unheld.push(*layer);
            }
        }
        Ok(unheld)
    }

    /// Refuses layers that an engine has.
    fn refuse_held(&self, layers: &[DiffId]) -> Result<()> {
        match self.refuses(layers)? {
            Some((layer, by)) => Err(Error::Held { what: format!("layer {}", layer.short()), by }),
            None => Ok(()),
        }
    }

    /// Moves locked layer directories to the trash and removes them.
    pub(super) fn remove_layers(&self, doomed: Doomed) -> Result<()> {
        let mut trashed = Vec::new();
        for (layer, lock) in doomed.0 {
            if let Some(_lock) = lock {
                trashed.push(self.move_to_trash(&self.layer(&layer))?);
            }
        }
        self.step(Step::Trashed);
        for path in trashed {
            remove_all(&path)?;
        }
        Ok(())
    }

    /// Moves a directory or file to the trash; gives its new path.
    pub(super) fn move_to_trash(&self, path: &Path) -> Result<PathBuf> {
        let name = path.file_name().unwrap_or(OsStr::new("x")).to_string_lossy();
        let trash = self.trash();
        for n in 0.. {
            let to = trash.join(format!("{name}-{}-{n}", std::process::id()));
            let cwd = rustix::fs::CWD;
            match strata_tree::rename_new((cwd, path), (cwd, &to)) {
                Ok(()) => return Ok(to),
                Err(Errno::EXIST) => {}
                Err(error) => {
                    return Err(error).doing(|| format!("cannot move {} away", path.display()));
                }
            }
        }
        Err(Error::damaged("trash/", "has no free name"))
    }

    /// Empties `staging/` and `trash/` of what no living process holds.
    pub(super) fn sweep(&self) {
        for (name, dir, is_trash) in
            [("staging", self.staging(), false), ("trash", self.trash(), true)]
        {
            if let Err(error) = self.sweep_dir(&dir, is_trash) {
                tracing::warn!("{name}/ was not emptied: {error}");
            }
        }
    }

    fn sweep_dir(&self, dir: &Path, is_trash: bool) -> Result<()> {
        let entries = std::fs::read_dir(dir).doing(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let path = entry.doing(|| format!("cannot list {}", dir.display()))?.path();
            // Files and directories alike are locked as long as they are being written.
            match lock_path(&path, Lock::TryExclusive)? {
                Locked::Busy | Locked::Absent => {}
                Locked::Held(_lock) if path.is_dir() => {
                    let path = if is_trash { path } else { self.move_to_trash(&path)? };
                    remove_all(&path)?;
                }
                Locked::Held(_lock) => remove_file_if_there(&path)?,
            }
        }
        Ok(())
    }
}

/// Removes a file; another process may be faster.
pub(super) fn remove_file_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).doing(|| format!("cannot remove {}", path.display())),
    }
}

/// Removes a file or a directory tree; another process may be faster.
pub(super) fn remove_all(path: &Path) -> Result<()> {
    match strata_tree::remove_tree(rustix::fs::CWD, path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).doing(|| format!("cannot remove {}", path.display())),
    }
}
