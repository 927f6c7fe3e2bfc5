//! One row of a layer: what a tar becomes, and what an index keeps of it.
//!
//! A layer is a `Vec<EntryRow>` in node order: row `i` has node `i + 1`, the root is first, and
//! children of a directory are consecutive and sorted by name bytes.
//!
//! Invariants: the derivation from a tar is deterministic, so two vectors of the same layer are
//! equal; a hard link's target is a row of an earlier node that is no link itself.

use std::collections::HashMap;

use strata_tree::{
    ContentDigest, Device, DirMarks, Kind, Name, NodeId, Stat, Timestamp, TreePath, Xattr,
};

/// What one name of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKind {
    /// A regular file, with what its content is.
    Regular(ContentDigest),
    /// A directory: its children are `children` rows from node `first` on.
    Directory {
        /// Its marks.
        marks: DirMarks,
        /// The node of its first child; 0 if it has none.
        first: u64,
        /// How many there are.
        children: u64,
    },
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// Another name of the inode of that row.
    HardLink(NodeId),
    /// Hides the name in lower layers.
    Whiteout,
    /// Another name of a lower layer's file.
    LowerLink(TreePath),
}

/// One name of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// The directory that holds the name; the root is its own.
    pub parent: NodeId,
    /// The name; empty for the root.
    pub name: Box<[u8]>,
    /// What it is.
    pub kind: RowKind,
    /// `None` for whiteouts and links. `kind` and, for directories, `nlink` are derived.
    pub meta: Option<Meta>,
    /// The tar member's number, if one says this.
    pub position: Option<u64>,
}

/// The metadata of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The 12 permission bits.
    pub perm: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes of the content or of the target; 0 for other kinds.
    pub size: u64,
    /// Names within the layer, or 2 and the subdirectories.
    pub nlink: u32,
    /// The last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

impl EntryRow {
    /// The inode's stat; `None` for whiteouts and links.
    pub fn stat(&self) -> Option<Stat> {
        let kind = match &self.kind {
            RowKind::Regular(_) => Kind::Regular,
            RowKind::Directory { .. } => Kind::Directory,
            RowKind::Symlink(_) => Kind::Symlink,
            RowKind::CharDevice(device) => Kind::CharDevice(*device),
            RowKind::BlockDevice(device) => Kind::BlockDevice(*device),
            RowKind::Fifo => Kind::Fifo,
            RowKind::HardLink(_) | RowKind::Whiteout | RowKind::LowerLink(_) => return None,
        };
        let meta = self.meta.as_ref()?;
        Some(Stat {
            kind,
            perm: meta.perm,
            uid: meta.uid,
            gid: meta.gid,
            size: meta.size,
            nlink: meta.nlink,
            mtime: meta.mtime,
        })
    }
}

/// Every row but the root with its path; rows whose parents make no sense are left out.
pub fn with_paths(rows: &[EntryRow]) -> impl Iterator<Item = (TreePath, usize, &EntryRow)> {
    paths(rows, |_| true)
}

/// The directories among them: what is not one costs nothing.
pub fn directories(rows: &[EntryRow]) -> impl Iterator<Item = (TreePath, usize, &EntryRow)> {
    paths(rows, |row| matches!(row.kind, RowKind::Directory { .. }))
}

fn paths(
    rows: &[EntryRow],
    wanted: impl Fn(&EntryRow) -> bool,
) -> impl Iterator<Item = (TreePath, usize, &EntryRow)> {
    let mut dirs: HashMap<NodeId, TreePath> = HashMap::from([(NodeId::ROOT, TreePath::root())]);
    let rows = rows.iter().enumerate().skip(1).filter(move |(_, row)| wanted(row));
    rows.filter_map(move |(at, row)| {
        let name = Name::new(&row.name).ok()?;
        let path = dirs.get(&row.parent)?.join(name);
        if matches!(row.kind, RowKind::Directory { .. }) {
            dirs.insert(NodeId(at as u64 + 1), path.clone());
        }
        Some((path, at, row))
    })
}
