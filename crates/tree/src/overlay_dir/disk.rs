//! The calls: stat and extended attributes of one inode, links never followed.
//!
//! An inode is reached as a name in an open directory or as a descriptor of its own. There are
//! no `*at` calls for attributes that every supported kernel has; they go through
//! `/proc/self/fd`, where the descriptor is the start of the path and only one name follows it.
//!
//! Invariants: a symbolic link is itself, never what it leads to; an attribute that is not there,
//! or a file system without attributes, is an empty answer and no error.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Statx, StatxFlags, getxattr, lgetxattr, listxattr, llistxattr, makedev, statx,
};
use rustix::io::{Errno, Result};

use crate::name::Name;
use crate::node::{Device, Kind, Stat, Timestamp};
use crate::xattrs::{self, XattrNames};

/// How an inode is reached.
#[derive(Clone, Copy)]
pub(super) enum Spot<'a> {
    /// A name in an open directory.
    Named(BorrowedFd<'a>, Name<'a>),
    /// A descriptor of it.
    Open(BorrowedFd<'a>),
}

impl Spot<'_> {
    /// Its `statx`.
    pub(super) fn stat(self) -> Result<Statx> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match self {
            Self::Named(dir, name) => statx(dir, name.as_os_str(), flags, StatxFlags::BASIC_STATS),
            Self::Open(fd) => statx(fd, "", flags | AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS),
        }
    }

    fn path(self) -> Vec<u8> {
        match self {
            Self::Named(dir, name) => {
                let dir = format!("/proc/self/fd/{}/", dir.as_raw_fd());
                [dir.as_bytes(), name.as_bytes()].concat()
            }
            Self::Open(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes(),
        }
    }

    /// The names of its attributes.
    pub(super) fn xattr_names(self) -> Result<XattrNames> {
        let path = self.path();
        let list = |room: &mut [u8]| match self {
            Self::Named(..) => llistxattr(&path, room),
            Self::Open(_) => listxattr(&path, room),
        };
        XattrNames::read(list)
    }

    /// One attribute.
    pub(super) fn xattr(self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let path = self.path();
        xattrs::value(|room| match self {
            Self::Named(..) => lgetxattr(&path, name, room),
            Self::Open(_) => getxattr(&path, name, room),
        })
    }
}

/// The number of the device that an inode is on.
pub(super) fn device_of(stat: &Statx) -> u64 {
    makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// The type of an inode; `None` for types that Linux does not have.
fn kind_of(stat: &Statx) -> Option<Kind> {
    let device = Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
    Kind::of_mode(u32::from(stat.stx_mode), device)
}

/// The metadata as on disk; sizes of directories and devices are 0, as [`Stat`] says.
pub(super) fn stat_of(stat: &Statx) -> Result<Stat> {
    let kind = kind_of(stat).ok_or(Errno::IO)?;
    let size = match kind {
        Kind::Regular | Kind::Symlink => stat.stx_size,
        Kind::Directory
        | Kind::CharDevice(_)
        | Kind::BlockDevice(_)
        | Kind::Fifo
        | Kind::Socket => 0,
    };
    Ok(Stat {
        kind,
        perm: stat.stx_mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size,
        nlink: stat.stx_nlink,
        mtime: Timestamp { seconds: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec },
    })
}
