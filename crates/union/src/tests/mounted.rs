//! A mount that a test has made.
//!
//! Invariant: it ends with the drop of this, or the test fails. A child that another thread starts
//! holds whatever is open here until it runs its program, and so the mount: that is waited for.

use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// How long it is tried, once in each [`PAUSE`].
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// Where it is.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut left = TRIES;
        let done = loop {
            match unmount(&self.0, UnmountFlags::empty()) {
                Err(Errno::BUSY) if left > 0 => left -= 1,
                done => break done,
            }
            std::thread::sleep(PAUSE);
        };
        assert!(done.is_ok() || std::thread::panicking(), "{}: {done:?}", self.0.display());
    }
}
