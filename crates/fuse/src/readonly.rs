//! What a read-only file system answers, over any tree and without a kernel.
//!
//! Directory positions: 0 is the start, 1 is after `.`, 2 is after `..`, and what the tree calls
//! position `p` is `p + 2` here. There are no open directories: a position alone says where to
//! go on.
//!
//! Invariants: no state of its own besides the content cache, so nothing has to be forgotten;
//! every answer is the tree's; a whiteout, which a merged tree never shows, is no name.

use std::ops::ControlFlow;

use strata_content::FileTree;
use strata_tree::{FlagsForm, InodeFlags, NAME_MAX, Name, NameError, Node, NodeId, inode_version};
use strata_union::writable::StatFs;

use crate::errno::RequestError;
use crate::ids::Ids;
use crate::ioctls::HasFlags;
use crate::options::TreeFacts;
use crate::reads::Reads;

type Result<T> = std::result::Result<T, RequestError>;

/// The position after `.` and `..`.
const AFTER_DOTS: u64 = 2;

/// An extended attribute answer: its length if the caller asked for that (size 0), else itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum XattrAnswer {
    /// The buffer would need this many bytes.
    Size(u32),
    /// The bytes.
    Bytes(Vec<u8>),
}

/// One name of a listing.
pub(crate) struct ListedNode<'a> {
    /// The name; also `.` and `..`.
    pub(crate) name: &'a [u8],
    /// What it is.
    pub(crate) node: Node,
    /// The position after it.
    pub(crate) next: u64,
}

/// The answers over one tree.
pub(crate) struct ReadOnly {
    tree: FileTree,
    reads: Reads,
    facts: TreeFacts,
    ids: Ids,
}

impl ReadOnly {
    /// Answers from `tree`.
    pub(crate) fn new(tree: FileTree, facts: TreeFacts, ids: Ids) -> Self {
        Self { reads: Reads::new(&facts), tree, facts, ids }
    }

    /// The tree's totals.
    pub(crate) fn facts(&self) -> TreeFacts {
        self.facts
    }

    /// The totals as `statfs` shows them: nothing is free.
    pub(crate) fn space(&self) -> StatFs {
        const UNIT: u32 = 4096;
        StatFs {
            block_size: UNIT,
            blocks: self.facts.content_bytes.div_ceil(u64::from(UNIT)),
            free: 0,
            available: 0,
            files: self.facts.nodes,
            files_free: 0,
            name_max: NAME_MAX as u32,
        }
    }

    /// The tree.
    pub(crate) fn tree(&self) -> &FileTree {
        &self.tree
    }

    /// The node called `name` in `dir`, or `None`.
    pub(crate) fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<Node>> {
        let name = match Name::new(name) {
            Ok(name) => name,
            Err(NameError::TooLong(_)) => return Err(RequestError::NameTooLong),
            Err(NameError::Empty | NameError::Dots | NameError::Forbidden) => {
                return Err(RequestError::NoEntry);
            }
        };
        Ok(self.tree.lookup(dir, name)?.and_then(|entry| entry.node().copied()))
    }

    /// The node with this number.
    pub(crate) fn node(&self, node: NodeId) -> Result<Node> {
        Ok(self.tree.node(node)?)
    }

    /// A symlink's target.
    pub(crate) fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Ok(self.tree.read_link(node)?)
    }

    /// Lists `dir` from `position` on, until `full` says that there is no room for the name.
    pub(crate) fn list(
        &self,
        dir: NodeId,
        position: u64,
        full: &mut dyn FnMut(ListedNode<'_>) -> bool,
    ) -> Result<()> {
        if position < 1 {
            let node = self.tree.node(dir)?;
            if full(ListedNode { name: b".", node, next: 1 }) {
                return Ok(());
            }
        }
        if position < AFTER_DOTS {
            let parent = self.tree.parent(dir)?.unwrap_or(dir);
            let node = self.tree.node(parent)?;
            if full(ListedNode { name: b"..", node, next: AFTER_DOTS }) {
                return Ok(());
            }
        }
        self.tree.read_dir(dir, position.saturating_sub(AFTER_DOTS), &mut |item| {
            let Some(node) = item.entry.node() else { return ControlFlow::Continue(()) };
            let next = item.next.saturating_add(AFTER_DOTS);
            if full(ListedNode { name: item.name.as_bytes(), node: *node, next }) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(())
    }

    /// The value of one attribute, for a buffer of `size` bytes; 0 asks for the length.
    pub(crate) fn xattr(&self, node: NodeId, name: &[u8], size: u32) -> Result<XattrAnswer> {
        let found = self.tree.xattrs(node)?.into_iter().find(|(key, _)| key == name);
        let (_, value) = found.ok_or(RequestError::NoXattr)?;
        fit(self.ids.shown_xattr(name, value), size)
    }

    /// The names of all attributes, each ended by NUL, for a buffer of `size` bytes.
    pub(crate) fn xattr_names(&self, node: NodeId, size: u32) -> Result<XattrAnswer> {
        let mut names = Vec::new();
        let all = if self.facts.has_xattrs { self.tree.xattrs(node)? } else { Vec::new() };
        for (name, _) in all {
            names.extend_from_slice(&name);
            names.push(0);
        }
        fit(names, size)
    }

    /// Calls `answer` with up to `size` bytes of a file's content at `offset`; fewer only at the
    /// end of the file. What is worth reading ahead is read after the answer.
    pub(crate) fn read(
        &self,
        node: NodeId,
        offset: u64,
        size: u32,
        answer: impl FnOnce(Result<&[u8]>),
    ) {
        self.reads.read(&self.tree, node, offset, size, answer);
    }
}

/// Where nodes are no inodes, there are no flags, and generations are 0.
impl HasFlags for ReadOnly {
    fn inode_flags(&self, node: NodeId, form: FlagsForm) -> Result<InodeFlags> {
        match self.tree.inode(node)? {
            Some(inode) => Ok(form.of(inode).map_err(strata_union::writable::Error::Refused)?),
            None => Ok(form.none()),
        }
    }

    fn inode_version(&self, node: NodeId) -> Result<u32> {
        let version = self.tree.inode(node)?.map_or(Ok(0), inode_version);
        Ok(version.map_err(strata_union::writable::Error::Refused)?)
    }

    fn set_inode_flags(&self, _node: NodeId, _flags: InodeFlags) -> Result<()> {
        Err(RequestError::ReadOnly)
    }
}

/// The size protocol of getxattr(2) and listxattr(2).
pub(crate) fn fit(bytes: Vec<u8>, size: u32) -> Result<XattrAnswer> {
    let needed = u32::try_from(bytes.len()).map_err(|_| RequestError::Range)?;
    match size {
        0 => Ok(XattrAnswer::Size(needed)),
        room if room < needed => Err(RequestError::Range),
        _ => Ok(XattrAnswer::Bytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use strata_content::Memory;
    use strata_tree::{MemTree, Spec};

    fn answers(spec: &Spec) -> ReadOnly {
        let contents = Memory::of(std::slice::from_ref(spec)).unwrap();
        let tree = FileTree::new(Arc::new(MemTree::new(spec).unwrap()), Arc::new(contents));
        ReadOnly::new(tree, TreeFacts::default(), Ids::default())
    }

    fn names(tree: &ReadOnly, dir: NodeId, from: u64, room: usize) -> Vec<(Vec<u8>, u64, u64)> {
        let mut all = Vec::new();
        tree.list(dir, from, &mut |item| {
            if all.len() == room {
                return true;
            }
            all.push((item.name.to_vec(), item.node.id.0, item.next));
            false
        })
        .unwrap();
        all
    }

    #[test]
    fn a_listing_in_pieces_of_any_size_is_the_whole_listing() {
        let tree = answers(&Spec::new().dir("d").file("d/a", "").file("d/b", "").dir("d/c"));
        let dir = tree.lookup(NodeId::ROOT, b"d").unwrap().unwrap().id;
        let whole = names(&tree, dir, 0, usize::MAX);
        assert_eq!(whole[0], (b".".to_vec(), dir.0, 1));
        assert_eq!(whole[1], (b"..".to_vec(), 1, 2));
        assert_eq!(whole.len(), 5);
        for room in 1..5 {
            let mut pieces = Vec::new();
            loop {
                let from = pieces.last().map_or(0, |(_, _, next)| *next);
                let piece = names(&tree, dir, from, room);
                if piece.is_empty() {
                    break;
                }
                pieces.extend(piece);
            }
            assert_eq!(pieces, whole, "{room} at a time");
        }
    }

    #[test]
    fn names_that_cannot_be_are_told_apart() {
        let tree = answers(&Spec::new());
        assert!(tree.lookup(NodeId::ROOT, &[b'x'; 255]).unwrap().is_none());
        let long = tree.lookup(NodeId::ROOT, &[b'x'; 256]);
        assert!(matches!(long, Err(RequestError::NameTooLong)));
        assert!(matches!(tree.lookup(NodeId::ROOT, b".."), Err(RequestError::NoEntry)));
    }

    #[test]
    fn attributes_follow_the_size_protocol() {
        let tree = answers(&Spec::new().xattr("user.a", "four").xattr("user.b", ""));
        let value = |size| tree.xattr(NodeId::ROOT, b"user.a", size);
        assert_eq!(value(0).unwrap(), XattrAnswer::Size(4));
        assert!(matches!(value(3), Err(RequestError::Range)));
        assert_eq!(value(4).unwrap(), XattrAnswer::Bytes(b"four".to_vec()));
        assert!(matches!(tree.xattr(NodeId::ROOT, b"user.c", 9), Err(RequestError::NoXattr)));
        assert_eq!(tree.xattr_names(NodeId::ROOT, 0).unwrap(), XattrAnswer::Size(14));
        assert!(matches!(tree.xattr_names(NodeId::ROOT, 13), Err(RequestError::Range)));
    }

    #[test]
    fn reads_end_with_the_file_and_only_files_are_read() {
        let tree = answers(&Spec::new().file("f", "0123456789"));
        let file = tree.lookup(NodeId::ROOT, b"f").unwrap().unwrap().id;
        for (offset, size, want) in
            [(0, 4, "0123"), (8, 4, "89"), (10, 4, ""), (u64::MAX, 4, ""), (3, 0, "")]
        {
            tree.read(file, offset, size, |answer| assert_eq!(answer.unwrap(), want.as_bytes()));
        }
        tree.read(NodeId::ROOT, 0, 4, |answer| {
            assert!(matches!(answer, Err(RequestError::Tree(_))));
        });
    }
}
