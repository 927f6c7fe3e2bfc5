//! A node as the kernel wants to see it.
//!
//! Invariants: all four times are the modification time, for an image knows no other; blocks
//! follow from the size, so that `du` counts what is in the files.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use strata_tree::{Device, Kind, Node, Timestamp};

/// What `st_blksize` says: the unit in which reading is sensible, in bytes.
const BLOCK_SIZE: u32 = 4096;

/// Translates a node.
pub(crate) fn attr_of(node: &Node) -> FileAttr {
    let time = time_of(node.stat.mtime);
    FileAttr {
        ino: INodeNo(node.id.0),
        size: node.stat.size,
        blocks: node.stat.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: type_of(node.stat.kind),
        perm: node.stat.perm,
        nlink: node.stat.nlink,
        uid: node.stat.uid,
        gid: node.stat.gid,
        rdev: node.stat.kind.device().map_or(0, encode_device),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The answer "there is no such name" that the kernel remembers: a node with the number 0.
pub(crate) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Translates the type.
pub(crate) fn type_of(kind: Kind) -> FileType {
    match kind {
        Kind::Regular => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice(_) => FileType::CharDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// The kernel's 32-bit form (`new_encode_dev`): 12 bits of major, 20 of minor.
fn encode_device(device: Device) -> u32 {
    (device.minor & 0xff) | ((device.major & 0xfff) << 8) | ((device.minor & 0xf_ff00) << 12)
}

/// Every time that Linux can show; beyond that, 1970.
fn time_of(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(u64::from(time.nanos))))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = time_of(Timestamp { seconds: -2, nanos: 250_000_000 });
        let before = SystemTime::UNIX_EPOCH.duration_since(time).unwrap();
        assert_eq!(before, Duration::from_millis(1750));
        assert!(time_of(Timestamp { seconds: i64::MIN, nanos: 0 }) < SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn devices_are_encoded_as_the_kernel_does() {
        assert_eq!(encode_device(Device { major: 1, minor: 3 }), 0x103);
        assert_eq!(encode_device(Device { major: 0xfff, minor: 0xf_ffff }), u32::MAX);
        assert_eq!(encode_device(Device { major: 8, minor: 0x1_23 }), 0x10_0823);
    }
}
