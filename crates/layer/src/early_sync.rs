//! [`EarlySync`]: the kernel begins to write a stage's files out while more of them are read.
//!
//! A layer is on the disk before it is published, and one syncfs(2) at the end waits for all of it.
//! What was handed to the disk before need not be waited for then.
//!
//! Invariants: nothing relies on it. An error is told to every open file once (syncfs(2)), and the
//! sync at the end has another one than this, so it sees all errors. One thread at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};

/// After how many new bytes the file system is synced: often enough that the disk is busy, and
/// seldom enough that the creation of files does not wait for it all the time.
const EVERY: u64 = 32 << 20;

/// Bytes that were written since the last one. See the module.
pub(crate) struct EarlySync {
    fresh: u64,
    running: Option<JoinHandle<()>>,
}

impl EarlySync {
    pub(crate) fn new() -> Self {
        Self { fresh: 0, running: None }
    }

    /// Takes note of bytes that were written, or are about to be, below `dir`.
    pub(crate) fn wrote(&mut self, dir: BorrowedFd<'_>, bytes: u64) {
        self.fresh = self.fresh.saturating_add(bytes);
        let busy = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if self.fresh < EVERY || busy {
            return;
        }
        self.fresh = 0;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(own) = rustix::fs::openat(dir, ".", flags, Mode::empty()) else { return };
        let thread = std::thread::Builder::new().name("strata-sync".into());
        let begun = thread.spawn(move || sync(&own));
        self.running = begun.ok();
    }
}

fn sync(dir: &OwnedFd) {
    if let Err(errno) = rustix::fs::syncfs(dir.as_fd()) {
        tracing::debug!("an early sync: {errno}");
    }
}

impl Drop for EarlySync {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // One that panicked has nothing to tell.
            let _ = running.join();
        }
    }
}
