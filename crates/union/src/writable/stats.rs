//! What `stat` says of inodes of the upper, and the node numbers that follow from it.
//!
//! Invariant: a number with [`UPPER`] or [`DOUBT`] is no lower's.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Errno;
use strata_tree::{Device, Kind, Name, NodeId, Timestamp};

use super::error::{Doing, Result};
use super::table::NodeState;

/// Set in the numbers of nodes that no lower has.
const UPPER: u64 = 1 << 62;

/// Set in the number of a lower's node whose own number a node of the upper has.
const DOUBT: u64 = 1 << 63;

/// Everything that `stat` knows of an open inode.
pub(super) fn stat(fd: impl AsFd) -> Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(fd, "", flags, wanted).doing(|| "stat a node of the upper".to_owned())
}

/// The same of a name in an open directory of the upper; `None` if there is none.
pub(super) fn stat_named(dir: impl AsFd, name: Name<'_>) -> Result<Option<Statx>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(dir, name.as_os_str(), flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("stat {:?}", name.as_os_str())),
    }
}

/// The number of a node whose claimed number another node has.
pub(super) fn other_number(found: &NodeState) -> NodeId {
    match found.real {
        Some(real) => NodeId(UPPER | real),
        None => NodeId(DOUBT | found.id.0),
    }
}

/// The number of a node that no lower has.
pub(super) fn upper_number(stat: &Statx) -> NodeId {
    NodeId(UPPER | stat.stx_ino)
}

/// overlayfs.rst, "whiteouts and opaque directories".
pub(super) fn is_device_whiteout(stat: &Statx) -> bool {
    matches!(kind_of(stat), Kind::CharDevice(Device { major: 0, minor: 0 }))
}

pub(super) fn kind_of(stat: &Statx) -> Kind {
    let device = Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
    Kind::of_mode(u32::from(stat.stx_mode), device).unwrap_or(Kind::Regular)
}

pub(super) fn time(time: rustix::fs::StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec }
}
