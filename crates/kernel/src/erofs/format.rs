//! The bytes of an EROFS image: superblock, inodes, directory entries, attributes.
//!
//! Little-endian; blocks of 4,096 bytes (Linux' `fs/erofs/erofs_fs.h`).
//!
//! ```text
//!      0  1,024 zero bytes
//!   1024  superblock, 128 bytes
//!         +0  magic E0F5E1E2   +4  crc32c of the block from here, this field taken as 0
//!         +8  compatible features: 1 checksum, 2 times are mtimes
//!         +12 block bits u8    +13 0 u8            +14 number of the root u16
//!         +16 inodes u64       +24 build time u64  +32 its nanoseconds u32
//!         +36 blocks u32       +40 first block of inodes u32 (0)
//!         +44 first block of shared attributes u32 +48 uuid
//!         +64 volume name (none)   +80 incompatible features u32: 0, or 4 where a file is a hole
//!         +84 zeros
//!   1152  inodes, wherever one fits; the number of an inode is its offset / 32. Each is
//!         core, attributes, tail; it starts at a multiple of 32, and its tail ends in the
//!         block in which it starts
//!         compact core, 32 bytes: no owner or size beyond its fields, the build time for mtime
//!         +0  layout << 1 u16  +2  attribute count u16     +4  mode u16       +6  nlink u16
//!         +8  size u32         +16 first block or device u32                  +20 serial u32
//!         +24 uid u16          +26 gid u16
//!         extended core, 64 bytes
//!         +0  layout << 1 | 1  +2  attribute count u16     +4  mode u16       +8  size u64
//!         +16 first block or device u32    +20 serial u32  +24 uid u32        +28 gid u32
//!         +32 mtime i64        +40 nanoseconds u32         +44 nlink u32
//!         layout: 0 plain: all bytes in blocks; 2 inline: whole blocks, the rest is the tail;
//!         4 in chunks: the format 31 in place of the first block, the tail is FFFFFFFF, a hole
//!         attribute count: 0, or (bytes of attributes - 12) / 4 + 1
//!         attributes: 0 u32, number of shared ones u8, zeros to 12; shared ones u32 each, as
//!         offset in their area / 4; others in place, each padded to 4
//!         attribute: name length u8, prefix u8, value length u16, name, value
//!      .  shared attributes, from a block's start on
//!      .  blocks of directories and of long symlinks
//!         directory block: entries of 12 bytes { inode u64, name's offset u16, type u8, 0 },
//!         then the names; sorted by bytes over all blocks, `.` and `..` among them
//!      .  blocks of contents; equal ones stand once
//! ```
//!
//! Invariants: encoding cannot fail, the caller has looked that numbers fit; nothing is written
//! where the format says zero.

use strata_tree::{Device, Kind, Timestamp};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// Bytes that the number of an inode counts by.
pub(super) const SLOT: u64 = 32;
/// Where the superblock starts.
pub(super) const SUPER: u64 = 1024;
/// Where inodes may start.
pub(super) const INODES: u64 = SUPER + SUPER_LENGTH as u64;
const SUPER_LENGTH: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
const COMPATIBLE: u32 = 1 | 2;
/// The incompatible feature of files in chunks.
const CHUNKED: u32 = 4;
/// The format of a file in chunks of 2^(12 + 31) bytes, which have no indexes.
pub(super) const CHUNK_FORMAT: u32 = 31;
/// The most bytes of a file that is one chunk.
pub(super) const CHUNK: u64 = 1 << (12 + 31);
/// A chunk that is a hole.
pub(super) const HOLE: [u8; 4] = [0xff; 4];
/// Bytes of a directory entry without its name.
pub(super) const DIRENT: usize = 12;

/// How the bytes of a node are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// All in blocks.
    Plain,
    /// The rest beyond whole blocks stands behind the inode.
    Inline,
    /// One hole of any size: the bytes are found elsewhere.
    Hole,
}

/// A number that is encoded into `N` bytes at an offset of a record.
fn put<const N: usize>(record: &mut [u8], at: usize, bytes: [u8; N]) {
    for (to, from) in record.iter_mut().skip(at).zip(bytes) {
        *to = from;
    }
}

/// What the superblock says.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) built: Timestamp,
    pub(super) blocks: u32,
    pub(super) shared: u32,
    pub(super) uuid: [u8; 16],
    /// Some inode is a hole, which Linux knows from 5.15 on.
    pub(super) holes: bool,
}

impl Superblock {
    /// The superblock without its checksum.
    pub(super) fn encode(&self) -> [u8; SUPER_LENGTH] {
        let mut out = [0; SUPER_LENGTH];
        put(&mut out, 0, MAGIC.to_le_bytes());
        put(&mut out, 8, COMPATIBLE.to_le_bytes());
        put(&mut out, 12, [BLOCK.trailing_zeros() as u8]);
        put(&mut out, 14, self.root.to_le_bytes());
        put(&mut out, 16, self.inodes.to_le_bytes());
        put(&mut out, 24, self.built.seconds.to_le_bytes());
        put(&mut out, 32, self.built.nanos.to_le_bytes());
        put(&mut out, 36, self.blocks.to_le_bytes());
        put(&mut out, 44, self.shared.to_le_bytes());
        put(&mut out, 48, self.uuid);
        put(&mut out, 80, if self.holes { CHUNKED } else { 0 }.to_le_bytes());
        out
    }
}

/// Sets the checksum of a first block whose superblock is in place.
pub(super) fn sign(block: &mut [u8]) {
    let from = SUPER as usize;
    let sum = block.get(from..).map_or(0, |covered| {
        // The kernel's crc32c is not inverted at its end.
        !crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(covered)
    });
    put(block, from + 4, sum.to_le_bytes());
}

/// What the core of an inode says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Core {
    pub(super) layout: DataLayout,
    /// As in the record: 0, or counted from 1.
    pub(super) attributes: u16,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    /// First block, or the device.
    pub(super) place: u32,
    pub(super) serial: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None`: the build time, in a compact core.
    pub(super) mtime: Option<Timestamp>,
}

impl Core {
    /// Bytes of a core with (`true`) or without owners, sizes and times of its own.
    pub(super) const fn length(extended: bool) -> u64 {
        if extended { 64 } else { 32 }
    }

    /// Appends the core to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut record = [0; 64];
        let layout: u16 = match self.layout {
            DataLayout::Plain => 0,
            DataLayout::Inline => 2,
            DataLayout::Hole => 4,
        };
        put(&mut record, 0, (layout << 1 | u16::from(self.mtime.is_some())).to_le_bytes());
        put(&mut record, 2, self.attributes.to_le_bytes());
        put(&mut record, 4, self.mode.to_le_bytes());
        put(&mut record, 16, self.place.to_le_bytes());
        put(&mut record, 20, self.serial.to_le_bytes());
        let Some(mtime) = self.mtime else {
            // The caller has looked that these fit.
            put(&mut record, 6, (self.nlink as u16).to_le_bytes());
            put(&mut record, 8, (self.size as u32).to_le_bytes());
            put(&mut record, 24, (self.uid as u16).to_le_bytes());
            put(&mut record, 26, (self.gid as u16).to_le_bytes());
            out.extend_from_slice(&record[..32]);
            return;
        };
        put(&mut record, 8, self.size.to_le_bytes());
        put(&mut record, 24, self.uid.to_le_bytes());
        put(&mut record, 28, self.gid.to_le_bytes());
        put(&mut record, 32, mtime.seconds.to_le_bytes());
        put(&mut record, 40, mtime.nanos.to_le_bytes());
        put(&mut record, 44, self.nlink.to_le_bytes());
        out.extend_from_slice(&record);
    }
}

/// The kernel's 32 bits of a device number; `None` where it has no room for the device.
pub(super) fn device_bits(device: Device) -> Option<u32> {
    let (major, minor) = (device.major, device.minor);
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// The type of a directory entry.
pub(super) const fn entry_type(kind: Kind) -> u8 {
    match kind {
        Kind::Regular => 1,
        Kind::Directory => 2,
        Kind::CharDevice(_) => 3,
        Kind::BlockDevice(_) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink => 7,
    }
}
