//! Who uses a directory: a lock that ends with its process, however that ends.
//!
//! Invariant: a lock is reported as held only after a wait, because a daemon notices a moment later
//! that its mount was taken away.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, Result};

/// How long to wait for a lock whose holder may be about to end: on a machine under load a daemon
/// took over a second.
#[cfg(not(test))]
const PATIENCE: Duration = Duration::from_secs(5);
#[cfg(test)]
const PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(2);

/// A directory in use. Ends with the drop of this, or with the process.
#[derive(Debug)]
pub struct UseLock {
    _dir: OwnedFd,
}

impl UseLock {
    /// Takes the lock of a directory (flock(2)); `None`: another process uses it, and still does
    /// after the wait. On a file system without locks everybody gets it.
    ///
    /// # Errors
    /// The directory cannot be opened for reading.
    pub fn take(dir: impl AsFd) -> Result<Option<Self>> {
        let dir = again(dir)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                // Others have no locks: what cannot be known is not refused.
                Ok(()) | Err(_) => return Ok(Some(Self { _dir: dir })),
            }
        }
    }

    /// The same, waiting for as long as it takes: for a lock whose holder is known to end.
    ///
    /// # Errors
    /// As [`UseLock::take`].
    pub fn wait(dir: impl AsFd) -> Result<Self> {
        let dir = again(dir)?;
        loop {
            match flock(&dir, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                Ok(()) | Err(_) => return Ok(Self { _dir: dir }),
            }
        }
    }
}

/// A descriptor of its own: a lock belongs to an open file, and `O_PATH` opens none.
fn again(dir: impl AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
}
