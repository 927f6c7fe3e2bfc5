//! The access times of files of the upper that are read.
//!
//! The kernel's overlayfs reads its upper by way of a mount of its own, so that the options of the
//! overlay mount count and not those of the mount that the upper lies on. So does this, where it
//! may: a clone of the mount, in no name space, with the attributes that are asked for. Files and
//! directories are opened beneath it for reading, and the kernel reads files that it is given in
//! passthrough with them. Nothing is made or moved there: a name cannot move between two mounts.
//!
//! Invariants: without the privilege to clone a mount the upper's own mount counts, but `noatime`
//! does as far as its files are the caller's own (`O_NOATIME`); the two calls that rustix does not
//! have are the one place here that is `unsafe`.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::types::AccessTimes;

/// `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR__ATIME`: all that says something of access times.
const ALL: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`, `MOUNT_ATTR_STRICTATIME`; 0 is `MOUNT_ATTR_RELATIME`.
const NEVER: u64 = 0x10;
const ALWAYS: u64 = 0x20;

/// A descriptor of the same directory by which reading treats access times as `times` says; `None`
/// where reading does so anyway, or where there can be none.
pub(super) fn reading(root: impl AsFd, times: AccessTimes) -> Option<OwnedFd> {
    let set = match times {
        AccessTimes::Mount => return None,
        AccessTimes::Never => NEVER,
        AccessTimes::Relative => 0,
        AccessTimes::Always => ALWAYS,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(root, "", flags);
    let made = clone.and_then(|clone| set_attributes(clone.as_fd(), set).map(|()| clone));
    made.inspect_err(|errno| tracing::debug!("no mount for reading the upper: {errno}")).ok()
}

fn set_attributes(mount: BorrowedFd<'_>, set: u64) -> Result<()> {
    let attributes = MountAttr { set, clear: ALL, propagation: 0, user_namespace: 0 };
    // SAFETY: the path is empty and ends with NUL, and `attributes` is laid out as the kernel's
    // structure of the size that is given; it only reads both.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
