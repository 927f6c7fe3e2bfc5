//! Locks that die with their holder: `flock` on directories and files of the store.
//!
//! Shared on a layer directory or a config blob: it is being used and may not be removed.
//! Exclusive: it is being made or removed. The kernel drops a lock with the last descriptor, so a
//! killed process leaves none.
//!
//! Invariant: a lock counts only if, once it is held, the path still leads to the locked inode.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, fstat, statat};
use rustix::io::Errno;

use crate::error::{IoContext, Result};

/// How to lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Wait for a shared one.
    Shared,
    /// Wait for an exclusive one.
    Exclusive,
    /// An exclusive one, or none if anybody holds it.
    TryExclusive,
    /// The same, but what is let go within a tenth of a second is waited for: a daemon that is
    /// ending, or a process that a holder is just starting, which has its locks until it runs its
    /// program.
    SoonExclusive,
}

/// The outcome of [`lock_path`].
pub(crate) enum Locked {
    /// Held as long as the descriptor lives.
    Held(OwnedFd),
    /// Somebody else holds it (only for `TryExclusive` and `SoonExclusive`).
    Busy,
    /// There is no such path.
    Absent,
}

/// Opens `path` (a file or directory, never through a link) and locks it.
///
/// # Errors
/// `Io` with the path.
pub(crate) fn lock_path(path: &Path, how: Lock) -> Result<Locked> {
    loop {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => fd,
            // A link is nothing of ours.
            Err(Errno::NOENT | Errno::LOOP) => return Ok(Locked::Absent),
            Err(error) => return Err(error).doing(|| format!("cannot open {}", path.display())),
        };
        match flock(&fd, how) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Locked::Busy),
            Err(error) => return Err(error).doing(|| format!("cannot lock {}", path.display())),
        }
        match still_there(&fd, path)? {
            true => return Ok(Locked::Held(fd)),
            false => continue,
        }
    }
}

/// Locks an open descriptor.
pub(crate) fn flock(fd: impl AsFd, how: Lock) -> rustix::io::Result<()> {
    let operation = match how {
        Lock::Shared => FlockOperation::LockShared,
        Lock::Exclusive => FlockOperation::LockExclusive,
        Lock::TryExclusive | Lock::SoonExclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let mut more = if how == Lock::SoonExclusive { 20 } else { 0 };
    loop {
        match rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, operation)) {
            Err(Errno::WOULDBLOCK) if more > 0 => more -= 1,
            done => return done,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether `path` still leads to the inode that `fd` has open.
pub(crate) fn still_there(fd: impl AsFd, path: &Path) -> Result<bool> {
    let ours = fstat(fd).doing(|| format!("cannot stat {}", path.display()))?;
    match statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).doing(|| format!("cannot stat {}", path.display())),
    }
}
