//! Paths that lead to what a descriptor is open on.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// The path that names what a descriptor is open on, for calls that take only paths.
pub(super) fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
