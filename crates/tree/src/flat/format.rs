//! The bytes of a FlatTree file: header, sections, records. Little-endian, no alignment.
//!
//! ```text
//!      0  header, 64 bytes
//!         +0  magic "strataFT"      +8  version u32        +12 nodes u32
//!         +16 dirents u32           +20 backing dirs u32   +24 xattr sets u32
//!         +28 layers u32            +32 arena bytes u64    +40 file bytes u64
//!         +48 content bytes u64     +56 crc32 of all after the header
//!         +60 crc32 of the 60 bytes before
//!     64  nodes, 52 bytes each; record number = node id - 1, breadth first from the root:
//!         the nodes that a directory is the first to name are adjacent
//!         +0  size u64   +8  mtime s i64  +16 mtime ns u32  +20 mode u16   +22 length u16
//!         +24 uid u32    +28 gid u32      +32 nlink u32     +36 parent u32 +40 xattr set u32
//!         +44 a u32      +48 b u32
//!           directory: a = first dirent, b = number of dirents
//!           regular:   a = backing dir, b = name in the arena, length = the name's
//!           symlink:   a = target in the arena, b = its length
//!           device:    a = major, b = minor
//!         parent: the directory itself for a directory's `..` (the root's is the root), else
//!         the first directory with a name of it; xattr set: 0 = none, n = set n - 1
//!      .  dirents, 12 bytes each, those of one directory adjacent and sorted by name bytes
//!         +0  name in the arena u32  +4 node u32  +8 name length u16  +10 zero u16
//!      .  backing dirs, 12 bytes each: a directory of a layer that holds contents
//!         +0  layer u32 (0 = base)   +4 path in the arena u32         +8 path length u32
//!      .  xattr sets, 8 bytes each: +0 in the arena u32  +4 length u32
//!         in the arena, sorted by name: { name length u16, value length u32, name, value }*
//!      .  arena: names, paths, targets, xattr sets; equal byte strings are stored once
//!    end  of the file
//! ```
//!
//! Invariants: a section starts where the one before ends, so offsets follow from the counts
//! and sections cannot overlap; node id 0 is nobody; decoding reads fixed arrays and cannot fail.

/// The first eight bytes.
pub(super) const MAGIC: [u8; 8] = *b"strataFT";
/// The version that this code writes and reads; a tree of another version is compiled again.
pub(super) const VERSION: u32 = 1;
/// Bytes of the header.
pub(super) const HEADER: usize = 64;
/// Bytes of a node record.
pub(super) const NODE: usize = 52;
/// Bytes of a dirent record.
pub(super) const DIRENT: usize = 12;
/// Bytes of a backing directory record.
pub(super) const BACKING: usize = 12;
/// Bytes of an xattr set record.
pub(super) const XATTRS: usize = 8;

/// `W` bytes of a record, at an offset that is a constant of the format.
fn part<const N: usize, const W: usize>(bytes: &[u8; N], at: usize) -> [u8; W] {
    let mut out = [0; W];
    for (to, from) in out.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    out
}

fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes(part(bytes, at))
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(part(bytes, at))
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(part(bytes, at))
}

/// Lays `fields` one after the other into a record of `N` bytes.
fn record<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(fields.iter().copied().flatten()) {
        *to = *from;
    }
    out
}

/// The header's fields, without magic, version and checksum of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) nodes: u32,
    pub(super) dirents: u32,
    pub(super) backings: u32,
    pub(super) xattr_sets: u32,
    pub(super) layers: u32,
    pub(super) arena: u64,
    pub(super) file: u64,
    pub(super) content: u64,
    pub(super) crc: u32,
}

impl Header {
    /// Where the sections start, and the length of the file: `None` if that overflows.
    pub(super) fn sections(&self) -> Option<Sections> {
        let nodes = HEADER as u64;
        let dirents = nodes + u64::from(self.nodes) * NODE as u64;
        let backings = dirents + u64::from(self.dirents) * DIRENT as u64;
        let xattr_sets = backings + u64::from(self.backings) * BACKING as u64;
        let arena = xattr_sets + u64::from(self.xattr_sets) * XATTRS as u64;
        let end = arena.checked_add(self.arena)?;
        Some(Sections { nodes, dirents, backings, xattr_sets, arena, end })
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out: [u8; HEADER] = record(&[
            &MAGIC,
            &VERSION.to_le_bytes(),
            &self.nodes.to_le_bytes(),
            &self.dirents.to_le_bytes(),
            &self.backings.to_le_bytes(),
            &self.xattr_sets.to_le_bytes(),
            &self.layers.to_le_bytes(),
            &self.arena.to_le_bytes(),
            &self.file.to_le_bytes(),
            &self.content.to_le_bytes(),
            &self.crc.to_le_bytes(),
        ]);
        let crc = crc32fast::hash(&out[..HEADER - 4]).to_le_bytes();
        out[HEADER - 4..].copy_from_slice(&crc);
        out
    }

    /// # Errors
    /// Which check failed: magic, version or checksum.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<Self, &'static str> {
        if part::<HEADER, 8>(bytes, 0) != MAGIC {
            return Err("it is not a FlatTree file");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("it has another version of the format");
        }
        if u32_at(bytes, HEADER - 4) != crc32fast::hash(&bytes[..HEADER - 4]) {
            return Err("the checksum of the header is wrong");
        }
        Ok(Self {
            nodes: u32_at(bytes, 12),
            dirents: u32_at(bytes, 16),
            backings: u32_at(bytes, 20),
            xattr_sets: u32_at(bytes, 24),
            layers: u32_at(bytes, 28),
            arena: u64_at(bytes, 32),
            file: u64_at(bytes, 40),
            content: u64_at(bytes, 48),
            crc: u32_at(bytes, 56),
        })
    }
}

/// Offsets of the sections, in bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sections {
    pub(super) nodes: u64,
    pub(super) dirents: u64,
    pub(super) backings: u64,
    pub(super) xattr_sets: u64,
    pub(super) arena: u64,
    pub(super) end: u64,
}

/// One inode. See the module for `a`, `b` and `length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeRecord {
    pub(super) size: u64,
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    pub(super) mode: u16,
    pub(super) length: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) parent: u32,
    pub(super) xattrs: u32,
    pub(super) a: u32,
    pub(super) b: u32,
}

impl NodeRecord {
    pub(super) fn encode(&self) -> [u8; NODE] {
        record(&[
            &self.size.to_le_bytes(),
            &self.seconds.to_le_bytes(),
            &self.nanos.to_le_bytes(),
            &self.mode.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.uid.to_le_bytes(),
            &self.gid.to_le_bytes(),
            &self.nlink.to_le_bytes(),
            &self.parent.to_le_bytes(),
            &self.xattrs.to_le_bytes(),
            &self.a.to_le_bytes(),
            &self.b.to_le_bytes(),
        ])
    }

    pub(super) fn decode(bytes: &[u8; NODE]) -> Self {
        Self {
            size: u64_at(bytes, 0),
            seconds: i64::from_le_bytes(part(bytes, 8)),
            nanos: u32_at(bytes, 16),
            mode: u16_at(bytes, 20),
            length: u16_at(bytes, 22),
            uid: u32_at(bytes, 24),
            gid: u32_at(bytes, 28),
            nlink: u32_at(bytes, 32),
            parent: u32_at(bytes, 36),
            xattrs: u32_at(bytes, 40),
            a: u32_at(bytes, 44),
            b: u32_at(bytes, 48),
        }
    }
}

/// One name in one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dirent {
    pub(super) name: u32,
    pub(super) node: u32,
    pub(super) length: u16,
    pub(super) zero: u16,
}

impl Dirent {
    pub(super) fn encode(&self) -> [u8; DIRENT] {
        record(&[
            &self.name.to_le_bytes(),
            &self.node.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.zero.to_le_bytes(),
        ])
    }

    pub(super) fn decode(bytes: &[u8; DIRENT]) -> Self {
        Self {
            name: u32_at(bytes, 0),
            node: u32_at(bytes, 4),
            length: u16_at(bytes, 8),
            zero: u16_at(bytes, 10),
        }
    }
}

/// One directory of one layer that holds contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BackingDir {
    pub(super) layer: u32,
    pub(super) path: u32,
    pub(super) length: u32,
}

impl BackingDir {
    pub(super) fn encode(&self) -> [u8; BACKING] {
        record(&[&self.layer.to_le_bytes(), &self.path.to_le_bytes(), &self.length.to_le_bytes()])
    }

    pub(super) fn decode(bytes: &[u8; BACKING]) -> Self {
        Self { layer: u32_at(bytes, 0), path: u32_at(bytes, 4), length: u32_at(bytes, 8) }
    }
}

/// Where one xattr set stands in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XattrSet {
    pub(super) at: u32,
    pub(super) length: u32,
}

impl XattrSet {
    pub(super) fn encode(&self) -> [u8; XATTRS] {
        record(&[&self.at.to_le_bytes(), &self.length.to_le_bytes()])
    }

    pub(super) fn decode(bytes: &[u8; XATTRS]) -> Self {
        Self { at: u32_at(bytes, 0), length: u32_at(bytes, 4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_went() {
        let header = Header {
            nodes: 1,
            dirents: 2,
            backings: 3,
            xattr_sets: 4,
            layers: 5,
            arena: 6 << 33,
            file: 7 << 33,
            content: 8 << 33,
            crc: 9,
        };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let node = NodeRecord {
            size: 1 << 40,
            seconds: -2,
            nanos: 3,
            mode: 4,
            length: 5,
            uid: 6,
            gid: 7,
            nlink: 8,
            parent: 9,
            xattrs: 10,
            a: 11,
            b: 12,
        };
        assert_eq!(NodeRecord::decode(&node.encode()), node);
        let dirent = Dirent { name: 1, node: 2, length: 3, zero: 4 };
        assert_eq!(Dirent::decode(&dirent.encode()), dirent);
        let backing = BackingDir { layer: 1, path: 2, length: 3 };
        assert_eq!(BackingDir::decode(&backing.encode()), backing);
        let set = XattrSet { at: 1, length: 2 };
        assert_eq!(XattrSet::decode(&set.encode()), set);
    }

    #[test]
    fn every_bit_of_the_header_is_guarded() {
        let good = Header { nodes: 1, ..Header::default() }.encode();
        for bit in 0..HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
