//! Trees that are hard to remove.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, IFlags, Mode, OFlags, ioctl_setflags, mkdirat, openat};
use tempfile::TempDir;

use crate::needs;

/// A directory in memory where that is to be had: on a disk each removal waits for its journal.
pub fn quick_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Makes directories in each other, deeper than any path can say, and a file in the last.
pub fn nest(dir: &Path, depth: usize) {
    let open = |at: &OwnedFd| openat(at, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut at = openat(CWD, dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = open(&at).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&at, "file", flags, Mode::RUSR).unwrap();
}

/// A file that nobody can remove as long as this is there.
pub struct Immutable(File);

impl Immutable {
    /// Makes it, where root and the file system can.
    pub fn make(path: &Path) -> Option<Self> {
        let file = File::create(path).unwrap();
        let made = needs::root() && {
            let made = ioctl_setflags(&file, IFlags::IMMUTABLE);
            needs::that(made.is_ok(), "a file system with immutable files")
        };
        made.then_some(Self(file))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        // Who finds it later finds out then.
        let _ = ioctl_setflags(&self.0, IFlags::empty());
    }
}
