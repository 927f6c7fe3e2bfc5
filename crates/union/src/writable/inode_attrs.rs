//! Times, owner and capability of an open inode.
//!
//! Invariant: everything here is one system call or two on a descriptor, whatever it belongs to.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Statx, Timespec, Timestamps, Uid, XattrFlags};
use strata_tree::Timestamp;

use super::error::{Doing, Result};
use super::inode_bits::chmod;
use super::marks::raw_value;
use super::stats::stat;
use super::types::SetTime;

/// The attribute that is a program's file capabilities, on disk as in the image.
pub(super) const CAPABILITY: &str = "security.capability";

impl SetTime {
    /// What `stat` said.
    pub(super) fn stat(time: rustix::fs::StatxTimestamp) -> Self {
        Self::To(Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec })
    }

    fn spec(time: Option<Self>) -> Timespec {
        match time {
            Some(Self::To(time)) => {
                Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) as _ }
            }
            Some(Self::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        }
    }
}

/// Sets both times of an open inode.
pub(super) fn set_times(fd: impl AsFd, atime: SetTime, mtime: SetTime) -> Result<()> {
    times(fd.as_fd(), Some(atime), Some(mtime)).doing(|| "set times".to_owned())
}

pub(super) fn times(
    fd: impl AsFd,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
) -> rustix::io::Result<()> {
    let times =
        Timestamps { last_access: SetTime::spec(atime), last_modification: SetTime::spec(mtime) };
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)
}

pub(super) fn chown(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives a file of the upper its content, later than its attributes: a write would take the
/// capability and the set-id bits away, which must not happen here, whether it succeeds or not.
pub(super) fn refill(file: &File, fill: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = stat(file)?;
    let capability = raw_value(file, CAPABILITY)?;
    let filled = fill();
    let restored = restore(file, &before, capability.as_deref());
    filled.and(restored)
}

fn restore(file: &File, before: &Statx, capability: Option<&[u8]>) -> Result<()> {
    if let Some(value) = capability {
        keep_capability(file, value)?;
    }
    let perm = before.stx_mode & 0o7777;
    if perm & 0o6000 != 0 && stat(file)?.stx_mode & 0o7777 != perm {
        chmod(file, perm).doing(|| "keep a mode".to_owned())?;
    }
    set_times(file, SetTime::stat(before.stx_atime), SetTime::stat(before.stx_mtime))
}

/// Gives a file back the capability that writing to it has taken away.
pub(super) fn keep_capability(file: &File, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(file, CAPABILITY, value, XattrFlags::empty())
        .doing(|| format!("keep {CAPABILITY}"))
}
