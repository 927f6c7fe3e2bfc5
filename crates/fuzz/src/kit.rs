//! What the targets share: files in memory, directories, and a listener that hears nothing.
//!
//! Invariant: a file has its bytes from the beginning on, and no name.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use strata_layer::{Event, Progress};
use tempfile::TempDir;

/// Nobody listens.
pub(crate) struct Nobody;

impl Progress for Nobody {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// A file of these bytes, at its beginning.
///
/// # Panics
/// Without memory: a fuzzer has nothing to do there.
#[allow(clippy::unwrap_used)]
pub(crate) fn in_memory(bytes: &[u8]) -> File {
    let mut file = File::from(rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    file
}

/// A directory below `TMPDIR`. What a static holds is not dropped: who sets `TMPDIR`, to a
/// directory in memory for the sake of speed, removes what is left.
///
/// # Panics
/// Without room: a fuzzer has nothing to do there.
#[allow(clippy::unwrap_used)]
pub(crate) fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A path by which such a file can be opened, as long as it is open.
pub(crate) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
