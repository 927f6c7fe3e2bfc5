//! A tree written down as data, for tests: what [`MemTree`](crate::MemTree) is built from and
//! what the conformance suite compares any other tree with.
//!
//! A spec is a list of (path, item) in the order of writing, parents before children. Methods
//! that add an item are followed by methods that change the item added last:
//! `Spec::new().dir("etc").perm(0o700).file("etc/hosts", "x").owner(1, 2)`.
//!
//! Invariants: nothing is checked here; [`MemTree::new`](crate::MemTree::new) refuses a spec
//! that is not a tree.

use std::collections::BTreeMap;

use crate::name::TreePath;
use crate::node::{Device, DirMarks, Kind, Presence, Timestamp};

/// What one path of a [`Spec`] stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A new inode.
    Inode(InodeSpec),
    /// One more name of a non-directory of the same spec, written earlier.
    Link(TreePath),
    /// A whiteout.
    Whiteout,
    /// A hard link to a file of a lower layer.
    LowerLink(TreePath),
}

/// An inode of a [`Spec`]. Its size and link count follow from the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InodeSpec {
    /// The type.
    pub kind: Kind,
    /// The 12 permission bits.
    pub perm: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The content of a regular file or the target of a symlink; else empty.
    pub body: Vec<u8>,
    /// For directories.
    pub marks: DirMarks,
}

impl InodeSpec {
    fn new(kind: Kind, perm: u16, body: &[u8]) -> Self {
        Self {
            kind,
            perm,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: BTreeMap::new(),
            body: body.to_vec(),
            marks: DirMarks::default(),
        }
    }

    /// `st_size`: the length of content or target.
    pub fn size(&self) -> u64 {
        self.body.len() as u64
    }
}

/// A tree as data. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    items: Vec<(Vec<u8>, Item)>,
}

impl Default for Spec {
    fn default() -> Self {
        Self::new()
    }
}

impl Spec {
    /// A root directory, 0755, root's, and nothing in it. The methods that change an item
    /// change the root until another item is added.
    pub fn new() -> Self {
        let root = Item::Inode(InodeSpec::new(Kind::Directory, 0o755, b""));
        Self { items: vec![(Vec::new(), root)] }
    }

    /// The items in the order of writing; the root, with the empty path, is the first.
    pub fn items(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        self.items.iter().map(|(path, item)| (path.as_slice(), item))
    }

    /// Adds any item.
    #[must_use]
    pub fn item(mut self, path: impl AsRef<[u8]>, item: Item) -> Self {
        self.items.push((path.as_ref().to_vec(), item));
        self
    }

    fn inode(self, path: impl AsRef<[u8]>, kind: Kind, perm: u16, body: &[u8]) -> Self {
        self.item(path, Item::Inode(InodeSpec::new(kind, perm, body)))
    }

    /// Adds a directory, 0755.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.inode(path, Kind::Directory, 0o755, b"")
    }

    /// Adds a regular file, 0644.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.inode(path, Kind::Regular, 0o644, content.as_ref())
    }

    /// Adds a symlink, 0777.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.inode(path, Kind::Symlink, 0o777, target.as_ref())
    }

    /// Adds a character device, 0600.
    #[must_use]
    pub fn char_device(self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        self.inode(path, Kind::CharDevice(Device { major, minor }), 0o600, b"")
    }

    /// Adds a block device, 0600.
    #[must_use]
    pub fn block_device(self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        self.inode(path, Kind::BlockDevice(Device { major, minor }), 0o600, b"")
    }

    /// Adds a named pipe, 0600.
    #[must_use]
    pub fn fifo(self, path: impl AsRef<[u8]>) -> Self {
        self.inode(path, Kind::Fifo, 0o600, b"")
    }

    /// Adds a socket, 0600.
    #[must_use]
    pub fn socket(self, path: impl AsRef<[u8]>) -> Self {
        self.inode(path, Kind::Socket, 0o600, b"")
    }

    /// Adds another name for the non-directory at `target`, a clean path.
    #[must_use]
    pub fn link(self, path: impl AsRef<[u8]>, target: &TreePath) -> Self {
        self.item(path, Item::Link(target.clone()))
    }

    /// Adds a whiteout.
    #[must_use]
    pub fn whiteout(self, path: impl AsRef<[u8]>) -> Self {
        self.item(path, Item::Whiteout)
    }

    /// Adds a hard link to a lower layer's file.
    #[must_use]
    pub fn lower_link(self, path: impl AsRef<[u8]>, target: &TreePath) -> Self {
        self.item(path, Item::LowerLink(target.clone()))
    }

    fn last(mut self, change: impl FnOnce(&mut InodeSpec)) -> Self {
        if let Some((_, Item::Inode(inode))) = self.items.last_mut() {
            change(inode);
        }
        self
    }

    /// Permission bits of the last inode.
    #[must_use]
    pub fn perm(self, perm: u16) -> Self {
        self.last(|inode| inode.perm = perm)
    }

    /// Owner and group of the last inode.
    #[must_use]
    pub fn owner(self, uid: u32, gid: u32) -> Self {
        self.last(|inode| (inode.uid, inode.gid) = (uid, gid))
    }

    /// Modification time of the last inode.
    #[must_use]
    pub fn mtime(self, seconds: i64, nanos: u32) -> Self {
        self.last(|inode| inode.mtime = Timestamp { seconds, nanos })
    }

    /// One extended attribute more for the last inode.
    #[must_use]
    pub fn xattr(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.last(|inode| {
            inode.xattrs.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
        })
    }

    /// Makes the last directory opaque.
    #[must_use]
    pub fn opaque(self) -> Self {
        self.last(|inode| inode.marks.opaque = true)
    }

    /// Says why the last directory is there.
    #[must_use]
    pub fn presence(self, presence: Presence) -> Self {
        self.last(|inode| inode.marks.presence = presence)
    }
}
