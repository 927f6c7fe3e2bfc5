//! Permission bits of an open inode.
//!
//! Invariant: what is made writable for a moment is ours, and the caller puts its bits back.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode};

use super::descriptor::by_descriptor;
use super::stats::stat;

/// `S_IWUSR`.
const OWNER_WRITES: u16 = 0o200;

pub(super) fn chmod(fd: impl AsFd, perm: u16) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(u32::from(perm));
    rustix::fs::chmodat(rustix::fs::CWD, by_descriptor(fd.as_fd()), mode, AtFlags::empty())
}

/// Lets the owner of an inode write it; the bits that it had before. `None` if its owner may
/// already, or is somebody else.
pub(super) fn make_writable(fd: impl AsFd) -> Option<u16> {
    let perm = stat(&fd).ok()?.stx_mode & 0o7777;
    let writable = perm | OWNER_WRITES;
    (perm != writable && chmod(fd, writable).is_ok()).then_some(perm)
}
