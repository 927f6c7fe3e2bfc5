//! One member of a diff, as the archive says, before any rule for layers.
//!
//! Invariants: nothing here is checked against a tree: paths and targets are raw bytes that may be
//! absolute, hold `..` or be whiteouts; numbers are within their types' ranges.

use strata_tree::{Device, Timestamp};

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A file, whose body follows.
    Regular,
    /// Another name of an earlier (or later, or lower) member.
    HardLink {
        /// That member's path.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text, at least one byte.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, as in the archive: may be empty, end in a slash, begin with one.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// The 12 permission bits.
    pub perm: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its own header (after those that extend it) is, in bytes of the uncompressed tar.
    pub offset: u64,
    /// The file's size in bytes; 0 for other kinds.
    pub size: u64,
    /// Bytes that the body has in the archive; less than `size` for sparse files.
    pub stored: u64,
    /// For sparse files: offset in the file and length of each piece of the body, sorted, none
    /// empty, adding up to `stored`. All else of the file is zeros.
    pub sparse: Option<Vec<(u64, u64)>>,
}
