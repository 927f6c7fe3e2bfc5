//! How the tree of a draft is kept: flat records, and what is read out of them.
//!
//! Invariant: what a record says is the same wherever it was meanwhile: numbers and flags alone,
//! and the places of texts.

use strata_tree::Presence;

use super::{DirId, FileId, NameId};
use crate::record;

/// No name, no row.
pub(super) const NONE: u32 = u32::MAX;
/// No text, no position.
pub(super) const NOTHING: u64 = u64::MAX;

record! {
    pub(super) struct FactsRecord {
        pub(super) perm: u16,
        pub(super) uid: u32,
        pub(super) gid: u32,
        pub(super) seconds: i64,
        pub(super) nanos: u32,
        pub(super) xattrs: u64,
    }
}

record! {
    pub(super) struct NameRecord {
        pub(super) dir: u32,
        pub(super) next: u32,
        pub(super) text: u64,
        pub(super) kind: u8,
        pub(super) hidden: u8,
        pub(super) value: u64,
        pub(super) position: u64,
    }
}

record! {
    pub(super) struct DirRecord {
        pub(super) facts: FactsRecord,
        pub(super) described: u8,
        pub(super) presence: u8,
        pub(super) opaque: u8,
        pub(super) position: u64,
        pub(super) name: u32,
        pub(super) chain: u32,
        pub(super) row: u32,
        pub(super) first: u32,
        pub(super) children: u32,
        pub(super) subdirs: u32,
    }
}

record! {
    pub(super) struct FileRecord {
        pub(super) facts: FactsRecord,
        pub(super) kind: u8,
        pub(super) value: u64,
        pub(super) names: u32,
        pub(super) row: u32,
    }
}

/// What a name points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Dir(DirId),
    File {
        file: FileId,
        position: u64,
    },
    /// A hard link whose target no member has given yet: where the target's text is.
    Waiting {
        target: u64,
        position: u64,
        settling: Settling,
    },
}

/// How far the end of a waiting link is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settling {
    /// Nobody has looked.
    Unknown,
    /// It is being followed.
    Followed,
    /// The target is a path of lower layers.
    Known,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct NameNode {
    pub dir: DirId,
    pub slot: Option<Slot>,
    /// Whether what lower layers have under that name does not show.
    pub hidden: bool,
    pub(super) text: u64,
    pub(super) next: Option<NameId>,
}

/// What is known of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirNode {
    pub(super) record: DirRecord,
    pub presence: Presence,
    pub opaque: bool,
    pub position: Option<u64>,
    /// Its row, and the first of its children and their number.
    pub row: u64,
    pub children: (u64, u64),
    pub subdirs: u32,
}

/// What is known of an inode that is no directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileNode {
    pub(super) record: FileRecord,
    pub names: u32,
    /// The row of its first name.
    pub row: Option<u64>,
}

impl FileNode {
    pub(super) fn is_regular(&self) -> bool {
        self.record.kind == REGULAR
    }
}

pub(super) const REGULAR: u8 = 0;
pub(super) const SYMLINK: u8 = 1;
pub(super) const CHAR: u8 = 2;
pub(super) const BLOCK: u8 = 3;
pub(super) const FIFO: u8 = 4;

pub(super) const DIR: u8 = 1;
pub(super) const FILE: u8 = 2;
pub(super) const WAITING: u8 = 3;
pub(super) const FOLLOWED: u8 = 4;
pub(super) const SETTLED: u8 = 5;

impl Slot {
    pub(super) fn parts(self) -> (u8, u64, u64) {
        match self {
            Self::Dir(dir) => (DIR, u64::from(dir.0), NOTHING),
            Self::File { file, position } => (FILE, u64::from(file.0), position),
            Self::Waiting { target, position, settling } => {
                let kind = match settling {
                    Settling::Unknown => WAITING,
                    Settling::Followed => FOLLOWED,
                    Settling::Known => SETTLED,
                };
                (kind, target, position)
            }
        }
    }

    pub(super) fn of(kind: u8, value: u64, position: u64) -> Option<Self> {
        match kind {
            DIR => Some(Self::Dir(DirId(value as u32))),
            FILE => Some(Self::File { file: FileId(value as u32), position }),
            WAITING => Some(Self::Waiting { target: value, position, settling: Settling::Unknown }),
            FOLLOWED => {
                Some(Self::Waiting { target: value, position, settling: Settling::Followed })
            }
            SETTLED => Some(Self::Waiting { target: value, position, settling: Settling::Known }),
            _ => None,
        }
    }
}

impl DirRecord {
    pub(super) fn new(presence: Presence, name: NameId) -> Self {
        let facts = FactsRecord { perm: 0, uid: 0, gid: 0, seconds: 0, nanos: 0, xattrs: NOTHING };
        let presence = presence_number(presence);
        let (described, opaque, position, chain) = (0, 0, NOTHING, NONE);
        let (row, first, children, subdirs, name) = (0, 0, 0, 0, name.0);
        Self {
            facts,
            described,
            presence,
            opaque,
            position,
            name,
            chain,
            row,
            first,
            children,
            subdirs,
        }
    }
}

pub(super) fn presence_number(presence: Presence) -> u8 {
    match presence {
        Presence::Explicit => 0,
        Presence::Implied => 1,
        Presence::Phantom => 2,
    }
}
