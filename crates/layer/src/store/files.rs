//! How single files come into a store: made in `staging/`, then put in their place in one step.
//!
//! Invariant: a file that is in its place is whole; what is still in `staging/` is locked by the
//! process that writes it, so a start removes only what dead processes left.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::dir::StoreDir;
use crate::error::{Error, IoContext, Result};
use crate::lock::{Lock, flock, still_there};
use crate::scratch::scratch_file;

impl StoreDir {
    /// A new file in `staging/`, locked as long as it is open.
    fn aside(&self, name: &str) -> Result<(PathBuf, File)> {
        let staging = self.staging();
        let mut n = 0u32;
        loop {
            let path = staging.join(format!("{name}-{}-{n}", std::process::id()));
            let doing = || format!("cannot make {}", path.display());
            n += 1;
            let file = match File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).doing(doing),
            };
            flock(&file, Lock::Exclusive).doing(doing)?;
            // A starting process may have taken it for a dead one's before it was locked.
            if still_there(&file, &path)? {
                return Ok((path, file));
            }
        }
    }

    /// Replaces a file in one durable step.
    pub(super) fn write_aside(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let doing = || format!("cannot write {}", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (temporary, mut file) = self.aside(&name)?;
        file.write_all(bytes).doing(doing)?;
        file.sync_all().doing(doing)?;
        std::fs::rename(&temporary, path).doing(doing)?;
        if let Some(parent) = path.parent() {
            let parent = File::open(parent).doing(doing)?;
            parent.sync_all().doing(doing)?;
        }
        Ok(())
    }

    /// An unnamed file in `staging/`, gone when it is closed.
    pub(super) fn scratch_file(&self) -> Result<File> {
        let staging = self.staging();
        scratch_file(&staging).doing(|| format!("cannot make a file in {}", staging.display()))
    }

    /// Puts what is derived in its place, in one step that readers of an older one do not notice.
    pub(super) fn put_derived<E: From<Error>>(
        &self,
        target: &Path,
        write: impl FnOnce(&File) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let doing = || format!("cannot write {}", target.display());
        let (temporary, file) = self.aside("derived")?;
        let placed = write(&file).and_then(|()| {
            // Opening checks a part alone, so the rest has to be on disk before the name is.
            file.sync_data().doing(doing)?;
            Ok(std::fs::rename(&temporary, target).doing(doing)?)
        });
        if placed.is_err() {
            std::fs::remove_file(&temporary).doing(doing)?;
        }
        placed
    }
}
