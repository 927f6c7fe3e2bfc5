//! The rows of a finished draft: each is made when it is asked for, for all of them at once may
//! not fit into memory.
//!
//! Invariant: a row is the same whenever it is asked for.

use strata_tree::{ContentDigest, DirMarks, NodeId, Presence, Stat, TreePath};

use super::records::{NameNode, Slot};
use super::{DirId, Draft, FileId, FileKind, MemberFacts, NameId};
use crate::error::{Error, Result};
use crate::rows::{EntryRow, Meta, RowKind};
use crate::spill::Spill;

/// A layer's rows. They are counted from 0, so that row `i` has node `i + 1`.
#[derive(Debug)]
pub struct DraftRows {
    draft: Draft,
    /// The name of each row.
    order: Spill<u32>,
    warnings: Vec<String>,
}

/// What a row is of.
pub(super) enum RowItem {
    Dir {
        dir: DirId,
        /// The layer hides what lower layers have under this name, which is its own directory.
        hides: bool,
    },
    File {
        file: FileId,
        position: u64,
    },
    Waiting {
        target: u64,
        position: u64,
    },
    Whiteout,
}

impl Draft {
    /// What the row of a name is of.
    pub(super) fn item(&self, id: NameId) -> Result<RowItem> {
        self.item_of(&self.nodes.name(id)?)
    }

    fn item_of(&self, name: &NameNode) -> Result<RowItem> {
        Ok(match name.slot {
            // A directory that only whiteouts imply, itself whited out, says just that.
            Some(Slot::Dir(dir))
                if name.hidden && self.nodes.dir(dir)?.presence == Presence::Phantom =>
            {
                RowItem::Whiteout
            }
            Some(Slot::Dir(dir)) => RowItem::Dir { dir, hides: name.hidden },
            Some(Slot::File { file, position }) => RowItem::File { file, position },
            Some(Slot::Waiting { target, position, .. }) => RowItem::Waiting { target, position },
            None => RowItem::Whiteout,
        })
    }
}

impl DraftRows {
    pub(super) fn new(draft: Draft, order: Spill<u32>, warnings: Vec<String>) -> Self {
        Self { draft, order, warnings }
    }

    /// What a person should know, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many there are: one at least, that of the root.
    pub fn count(&self) -> u64 {
        self.order.len()
    }

    /// The name of a row.
    ///
    /// # Errors
    /// `Io` from the scratch file, as of all that follows.
    pub fn name(&self, row: u64) -> Result<NameId> {
        Ok(NameId(self.order.get(row)?))
    }

    /// The path of a row.
    ///
    /// # Errors
    /// `Io`.
    pub fn path(&self, row: u64) -> Result<TreePath> {
        self.draft.nodes.path(self.name(row)?)
    }

    /// The inode that a row is a name of, if it is a regular file.
    ///
    /// # Errors
    /// `Io`.
    pub fn regular(&self, row: u64) -> Result<Option<FileId>> {
        match self.draft.item(self.name(row)?)? {
            RowItem::File { file, .. } => {
                Ok(self.draft.nodes.file(file)?.is_regular().then_some(file))
            }
            RowItem::Dir { .. } | RowItem::Waiting { .. } | RowItem::Whiteout => Ok(None),
        }
    }

    /// Whether a row is a directory that the layer has: not one that only whiteouts imply.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_dir(&self, row: u64) -> Result<bool> {
        match self.draft.item(self.name(row)?)? {
            RowItem::Dir { dir, .. } => {
                Ok(self.draft.nodes.dir(dir)?.presence != Presence::Phantom)
            }
            RowItem::File { .. } | RowItem::Waiting { .. } | RowItem::Whiteout => Ok(false),
        }
    }

    /// The first row that is a name of the inode; `None` if it has none any more.
    ///
    /// # Errors
    /// `Io`.
    pub fn first_row(&self, file: FileId) -> Result<Option<u64>> {
        Ok(self.draft.nodes.file(file)?.row)
    }

    /// Bytes of the regular files, each inode once.
    ///
    /// # Errors
    /// `Io`.
    pub fn apparent(&self) -> Result<u64> {
        self.draft.nodes.apparent()
    }

    /// A row, as an index keeps it; `content` gives the digest of each regular inode.
    ///
    /// # Errors
    /// Those of `content`; `Io`.
    pub fn row<E: From<Error>>(
        &self,
        at: u64,
        content: impl FnOnce(FileId) -> std::result::Result<ContentDigest, E>,
    ) -> std::result::Result<EntryRow, E> {
        let nodes = &self.draft.nodes;
        let id = self.name(at)?;
        let name = nodes.name(id)?;
        let (kind, meta, position) = match self.draft.item_of(&name)? {
            RowItem::Whiteout => (RowKind::Whiteout, None, None),
            RowItem::Waiting { target, position } => {
                (RowKind::LowerLink(nodes.get_path(target)?), None, Some(position))
            }
            RowItem::Dir { dir, hides } => {
                let (kind, meta, position) = self.dir(dir, hides)?;
                (kind, Some(meta), position)
            }
            RowItem::File { file, position } => {
                let (kind, meta) = self.file(at, file, content)?;
                (kind, meta, Some(position))
            }
        };
        let text: Box<[u8]> = match at {
            0 => Box::default(),
            _ => nodes.text_of(&name)?.as_bytes().into(),
        };
        let parent = NodeId(nodes.dir(name.dir)?.row + 1);
        Ok(EntryRow { parent, name: text, kind, meta, position })
    }

    fn dir(&self, dir: DirId, hides: bool) -> Result<(RowKind, Meta, Option<u64>)> {
        let nodes = &self.draft.nodes;
        let node = nodes.dir(dir)?;
        // Nothing below shows through, so there are no metadata to take from there.
        let presence = match node.presence {
            Presence::Implied if hides => Presence::Explicit,
            presence => presence,
        };
        let marks = DirMarks { opaque: node.opaque || hides, presence };
        let (first, children) = match node.children {
            (_, 0) => (0, 0),
            (first, children) => (first + 1, children),
        };
        let facts = nodes.description(&node)?.unwrap_or_else(|| {
            let Stat { perm, uid, gid, mtime, .. } = Stat::unstated_dir();
            MemberFacts { perm, uid, gid, mtime, xattrs: Vec::new() }
        });
        let kind = RowKind::Directory { marks, first, children };
        Ok((kind, meta(facts, 0, 2 + node.subdirs), node.position))
    }

    /// What a name of a file is: its inode, or a further name of the first one.
    fn file<E: From<Error>>(
        &self,
        at: u64,
        file: FileId,
        content: impl FnOnce(FileId) -> std::result::Result<ContentDigest, E>,
    ) -> std::result::Result<(RowKind, Option<Meta>), E> {
        let nodes = &self.draft.nodes;
        let node = nodes.file(file)?;
        match node.row {
            Some(first) if first != at => {
                return Ok((RowKind::HardLink(NodeId(first + 1)), None));
            }
            Some(_) => {}
            None => {
                return Err(Error::damaged("the draft of a layer", "a file without a row").into());
            }
        }
        let (kind, size) = match nodes.file_kind(&node)? {
            FileKind::Regular { size } => (RowKind::Regular(content(file)?), size),
            FileKind::Symlink(target) => {
                let length = target.len() as u64;
                (RowKind::Symlink(target), length)
            }
            FileKind::CharDevice(device) => (RowKind::CharDevice(device), 0),
            FileKind::BlockDevice(device) => (RowKind::BlockDevice(device), 0),
            FileKind::Fifo => (RowKind::Fifo, 0),
        };
        Ok((kind, Some(meta(nodes.file_facts(&node)?, size, node.names))))
    }
}

fn meta(facts: MemberFacts, size: u64, nlink: u32) -> Meta {
    let MemberFacts { perm, uid, gid, mtime, xattrs } = facts;
    Meta { perm, uid, gid, size, nlink, mtime, xattrs }
}
