//! A node in the form that the kernel takes.
//!
//! Invariants: an image knows no time but the modification, so a tree's nodes show it four times,
//! and their blocks follow from the size, so that `du` counts what is in the files; a union shows
//! what its upper keeps.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use strata_tree::{Device, Kind, Node, NodeId, Stat, Timestamp};
use strata_union::writable::Attr;

use crate::ids::Ids;
use crate::options::MountOptions;

/// What `st_blksize` says: the unit in which reading is sensible, in bytes.
const BLOCK_SIZE: u32 = 4096;

/// How what is on disk is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttrView {
    pub(crate) ids: Ids,
    static_nlink: bool,
}

impl AttrView {
    /// The view that the options ask for.
    pub(crate) fn of(options: &MountOptions) -> Self {
        Self { ids: options.ids.clone(), static_nlink: options.static_nlink }
    }

    /// Translates a node of a tree: all four times are its modification time.
    pub(crate) fn node(&self, node: &Node) -> FileAttr {
        let time = time_of(node.stat.mtime);
        self.show(node.id, &node.stat, node.stat.size.div_ceil(512), [time; 4])
    }

    /// Translates an inode of a union.
    pub(crate) fn attr(&self, attr: &Attr) -> FileAttr {
        let birth = attr.birth.unwrap_or(attr.ctime);
        let times = [attr.atime, attr.stat.mtime, attr.ctime, birth].map(time_of);
        self.show(attr.id, &attr.stat, attr.blocks, times)
    }

    /// The times are those of access, modification, change and birth.
    fn show(&self, id: NodeId, stat: &Stat, blocks: u64, times: [SystemTime; 4]) -> FileAttr {
        let [atime, mtime, ctime, crtime] = times;
        let uncounted = self.static_nlink && stat.kind.is_dir();
        FileAttr {
            ino: INodeNo(id.0),
            size: stat.size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind: type_of(stat.kind),
            perm: stat.perm,
            nlink: if uncounted { 1 } else { stat.nlink },
            uid: self.ids.users.shown(stat.uid),
            gid: self.ids.groups.shown(stat.gid),
            rdev: stat.kind.device().map_or(0, encode_device),
            blksize: BLOCK_SIZE,
            flags: 0,
        }
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

/// The other way.
pub(crate) fn decode_device(rdev: u32) -> Device {
    Device { major: (rdev >> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00) }
}

/// A time that the kernel sent. fuser turns -2 s and 0.25 s, which is 1.75 s before 1970, into
/// 2.25 s before: its two numbers are taken apart again as they came.
pub(crate) fn time_from(time: SystemTime) -> Timestamp {
    let (whole, sign) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after, 1),
        Err(before) => (before.duration(), -1),
    };
    let seconds = i64::try_from(whole.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds: sign * seconds, nanos: whole.subsec_nanos() }
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
        for device in [(0, 0), (1, 3), (0xfff, 0xf_ffff), (8, 0x1_23)] {
            let device = Device { major: device.0, minor: device.1 };
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }

    #[test]
    fn times_that_the_kernel_sends_survive_how_fuser_reads_them() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let (second, quarter) = (Duration::from_secs(1), Duration::from_millis(250));
        assert_eq!(time_from(SystemTime::UNIX_EPOCH + second + quarter), at(1, 250_000_000));
        // What fuser makes of -2 s and 250,000,000 ns.
        assert_eq!(time_from(SystemTime::UNIX_EPOCH - 2 * second - quarter), at(-2, 250_000_000));
    }
}
