//! What is known of one inode ([`Node`]) and of one name in one layer ([`Entry`]).
//!
//! Invariants: a device number exists only for devices; directory marks say how a directory
//! meets the layers below it and mean nothing for other kinds; a whiteout is never a node.

use crate::name::TreePath;

/// One inode of one tree, unique in it. The number that FUSE shows as `st_ino`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of every tree: FUSE reserves 1 for it.
    pub const ROOT: Self = Self(1);
}

/// A device number; its two halves are as wide as Linux keeps them (12 and 20 bits) or wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The unit.
    pub minor: u32,
}

/// The type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file with content.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket. No tar has one; a plain directory may.
    Socket,
}

impl Kind {
    /// The `S_IFMT` bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Socket => 0o140_000,
            Self::Symlink => 0o120_000,
            Self::Regular => 0o100_000,
            Self::BlockDevice(_) => 0o060_000,
            Self::Directory => 0o040_000,
            Self::CharDevice(_) => 0o020_000,
            Self::Fifo => 0o010_000,
        }
    }

    /// The type that the `S_IFMT` bits of a mode say, with `device` for devices; `None` for what
    /// Linux does not have.
    pub const fn of_mode(mode: u32, device: Device) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o140_000 => Self::Socket,
            0o120_000 => Self::Symlink,
            0o100_000 => Self::Regular,
            0o060_000 => Self::BlockDevice(device),
            0o040_000 => Self::Directory,
            0o020_000 => Self::CharDevice(device),
            0o010_000 => Self::Fifo,
            _ => return None,
        })
    }

    /// The device number, for devices.
    pub const fn device(self) -> Option<Device> {
        match self {
            Self::CharDevice(device) | Self::BlockDevice(device) => Some(device),
            Self::Regular | Self::Directory | Self::Symlink | Self::Fifo | Self::Socket => None,
        }
    }

    /// Whether this is a directory.
    pub const fn is_dir(self) -> bool {
        matches!(self, Self::Directory)
    }
}

/// A point in time, signed: tar and file systems both know years before 1970.
///
/// The value is `seconds + nanos / 1e9`, with `nanos` below 1e9 also for negative seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds past `seconds`, 0 to 999,999,999.
    pub nanos: u32,
}

/// The metadata of an inode, as the image says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stat {
    /// The type, with the device number where there is one.
    pub kind: Kind,
    /// The 12 permission bits, setuid, setgid and sticky included (`mode & 0o7777`).
    pub perm: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes: the content's of a regular file, the target's of a symlink, else 0.
    pub size: u64,
    /// The number of names in this tree; for a directory 2 and one for each subdirectory.
    pub nlink: u32,
    /// The last change of the content.
    pub mtime: Timestamp,
}

impl Stat {
    /// `st_mode`: type and permission bits.
    pub const fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.perm as u32
    }

    /// The metadata of a directory that no layer describes: 0755, root's, dated 1970.
    pub const fn unstated_dir() -> Self {
        Self {
            kind: Kind::Directory,
            perm: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            nlink: 2,
            mtime: Timestamp { seconds: 0, nanos: 0 },
        }
    }
}

/// Why a layer has a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Presence {
    /// An entry of the layer describes it.
    #[default]
    Explicit,
    /// Only entries below it do: it exists, its metadata are those of the layer below, else
    /// [`Stat::unstated_dir`].
    Implied,
    /// Only whiteouts are below it: it exists if the layer below has a directory there.
    Phantom,
}

/// How a directory of one layer meets the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DirMarks {
    /// Nothing that lower layers hold in it shows through (OCI layer.md, "Opaque Whiteout").
    pub opaque: bool,
    /// Whose metadata the directory has.
    pub presence: Presence,
}

/// An inode with its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its metadata.
    pub stat: Stat,
    /// For directories; `DirMarks::default()` else, and everywhere in a merged tree.
    pub marks: DirMarks,
}

/// What one name in one directory of one layer stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An inode.
    Node(Node),
    /// The name is hidden in all lower layers (OCI layer.md, "Whiteouts").
    Whiteout,
    /// A hard link to a file that only a lower layer has: the same inode as that one.
    LowerLink(TreePath),
}

impl Entry {
    /// The node, if it is one.
    pub const fn node(&self) -> Option<&Node> {
        match self {
            Self::Node(node) => Some(node),
            Self::Whiteout | Self::LowerLink(_) => None,
        }
    }
}
