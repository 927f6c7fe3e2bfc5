//! Taking a mount away: cleanly, or lazily where files are open.
//!
//! Root calls umount2; an ordinary user asks `fusermount3 -u`, which reads /etc/mtab first. Where
//! there is none (a bare container), or `fusermount3` has gone since the mount, `umount` does the
//! same by the kernel's table: it takes a FUSE mount away for the user who mounted it.
//!
//! Invariants: a busy mount is reported as [`Error::Busy`] and left as it is; an [`Unmounter`]
//! only ever takes away its own mount, never what someone else put there since.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::error::{Error, Result};

/// The setuid program that mounts and unmounts for ordinary users.
pub(crate) const HELPER: &str = "fusermount3";
/// The setuid program of every system, which unmounts what its caller mounted through FUSE.
const UMOUNT: &str = "umount";

/// The mount table shows our mounts as type `fuse.` and this.
pub const SUBTYPE: &str = "strata";

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Only if nothing is open below.
    Clean,
    /// At once out of the name space; open files work until they are closed.
    Lazy,
}

/// Unmounts whatever is mounted at `path` (absolute; its last component is not followed).
///
/// # Errors
/// [`Error::Busy`] for [`Manner::Clean`] with files open; [`Error::NotMounted`];
/// [`Error::NoHelper`] or [`Error::Helper`] for ordinary users.
pub fn unmount(path: &Path, manner: Manner) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, manner == Manner::Lazy);
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unmount_by_helper(path, manner),
        Err(Errno::BUSY) => Err(Error::Busy(path.to_owned())),
        Err(Errno::INVAL | Errno::NOENT) => Err(Error::NotMounted(path.to_owned())),
        Err(errno) => Err(Error::Unmount { path: path.to_owned(), source: errno.into() }),
    }
}

fn unmount_by_helper(path: &Path, manner: Manner) -> Result<()> {
    let lazy = manner == Manner::Lazy;
    let refused = match ask(HELPER, &[if lazy { "-uz" } else { "-u" }], path) {
        Ok(None) => return Ok(()),
        Ok(Some(text)) if text.contains("mtab") => Error::Helper(text),
        Ok(Some(text)) => return Err(meaning(text, path)),
        Err(error) => Error::NoHelper(error),
    };
    match ask(UMOUNT, if lazy { &["-l"] } else { &[] }, path) {
        Ok(None) => Ok(()),
        Ok(Some(text)) => match meaning(text, path) {
            // Why we had to ask the second one is what can be mended.
            Error::Helper(_) => Err(refused),
            error => Err(error),
        },
        Err(_) => Err(refused),
    }
}

/// Has a setuid program unmount; what it says if it refuses.
fn ask(program: &str, how: &[&str], path: &Path) -> io::Result<Option<String>> {
    let output = Command::new(program)
        .args(how)
        .arg("--")
        .arg(path)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let prefix = format!("{program}: ");
    Ok(Some(text.trim().trim_start_matches(&prefix).to_owned()))
}

fn meaning(text: String, path: &Path) -> Error {
    if text.contains("busy") {
        Error::Busy(path.to_owned())
    } else if text.contains("not found in") || text.contains("not mounted") {
        Error::NotMounted(path.to_owned())
    } else {
        Error::Helper(text)
    }
}

/// Takes one certain mount away. Copies of it may be given to other threads.
#[derive(Debug, Clone)]
pub struct Unmounter {
    pub(crate) path: PathBuf,
    /// The mount's device number: while the session lasts, nothing else has it.
    pub(crate) device: u64,
    /// Set when the session has ended.
    pub(crate) over: Arc<AtomicBool>,
}

impl Unmounter {
    /// The mountpoint: absolute, without links.
    pub fn mountpoint(&self) -> &Path {
        &self.path
    }

    /// Unmounts.
    ///
    /// # Errors
    /// [`Error::NotMounted`] also if something else is mounted there now; else as [`unmount`].
    pub fn unmount(&self, manner: Manner) -> Result<()> {
        let over = self.over.load(Ordering::Acquire);
        if over || device_at(&self.path).is_ok_and(|device| device != self.device) {
            return Err(Error::NotMounted(self.path.clone()));
        }
        unmount(&self.path, manner)
    }
}

/// The device number of what is at `path`, links not followed.
pub(crate) fn device_at(path: &Path) -> io::Result<u64> {
    Ok(rustix::fs::lstat(path)?.st_dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_is_said_so() {
        if !strata_testkit::needs::root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let refused = unmount(dir.path(), Manner::Clean);
        assert!(matches!(refused, Err(Error::NotMounted(_))));
        let other =
            Unmounter { path: dir.path().to_owned(), device: u64::MAX, over: Arc::default() };
        assert!(matches!(other.unmount(Manner::Lazy), Err(Error::NotMounted(_))));
    }
}
