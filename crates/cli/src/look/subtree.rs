//! A part of a tree as a tree of its own: what `strata cp REF:PATH -` writes.
//!
//! The model: either a directory is the root, or a root of its own holds the node under one name.
//! [`WithoutRoot`] then keeps the root made up out of the tar, so that unpacking it leaves the
//! directory around as it is.
//!
//! Invariants: node numbers are those of the tree around, but for the root made up here.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use strata_tree::{
    ContentRef, DirEntry, DirMarks, Entry, Error, Lower, Name, NameBuf, Node, NodeId, Result, Stat,
    Xattr,
};

/// No tree counts this far.
const MADE_UP: NodeId = NodeId(u64::MAX);

/// Part of a tree.
pub(crate) struct Subtree {
    tree: Arc<dyn Lower>,
    top: NodeId,
    /// The name of `top` in the root made up; `None`: `top` is the root.
    name: Option<NameBuf>,
}

impl Subtree {
    /// `top`, a directory, is the root.
    pub(crate) fn contents(tree: &Arc<dyn Lower>, top: NodeId) -> Self {
        Self { tree: Arc::clone(tree), top, name: None }
    }

    /// The root holds `top` as `name`.
    pub(crate) fn named(tree: &Arc<dyn Lower>, top: NodeId, name: Name<'_>) -> Self {
        Self { tree: Arc::clone(tree), top, name: Some(name.to_owned()) }
    }
}

impl Lower for Subtree {
    fn root(&self) -> NodeId {
        if self.name.is_some() { MADE_UP } else { self.top }
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        match &self.name {
            Some(only) if dir == MADE_UP => Ok(match only.as_name() == name {
                true => Some(Entry::Node(self.tree.node(self.top)?)),
                false => None,
            }),
            _ => self.tree.lookup(dir, name),
        }
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        match &self.name {
            Some(only) if dir == MADE_UP => {
                if from == 0 {
                    let entry = Entry::Node(self.tree.node(self.top)?);
                    let _ = each(DirEntry { name: only.as_name(), entry, next: 1 });
                }
                Ok(())
            }
            _ => self.tree.read_dir(dir, from, each),
        }
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        if node != MADE_UP {
            return self.tree.node(node);
        }
        let holds_dir = self.tree.node(self.top)?.stat.kind.is_dir();
        let nlink = if holds_dir { 3 } else { 2 };
        let stat = Stat { nlink, ..Stat::unstated_dir() };
        Ok(Node { id: MADE_UP, stat, marks: DirMarks::default() })
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        if node == MADE_UP { Err(Error::NotSymlink(node)) } else { self.tree.read_link(node) }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        if node == MADE_UP { Ok(Vec::new()) } else { self.tree.xattrs(node) }
    }

    fn content(&self, node: NodeId) -> Result<ContentRef> {
        if node == MADE_UP {
            return Err(Error::NotRegular { node, kind: strata_tree::Kind::Directory });
        }
        self.tree.content(node)
    }
}

/// The bytes of a tar header (POSIX ustar).
const HEADER: usize = 512;

/// Passes a tar on but for its first member, if that is the root directory.
pub(crate) struct WithoutRoot<'a> {
    out: &'a mut dyn Write,
    /// The first header, until it is whole.
    first: Vec<u8>,
}

impl<'a> WithoutRoot<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, first: Vec::with_capacity(HEADER) }
    }
}

impl Write for WithoutRoot<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let missing = HEADER.saturating_sub(self.first.len());
        if missing == 0 {
            return self.out.write(bytes);
        }
        let taken = missing.min(bytes.len());
        self.first.extend_from_slice(&bytes[..taken]);
        // Name and type, at their places in the header.
        if self.first.len() == HEADER
            && !(self.first.starts_with(b"./\0") && self.first[156] == b'5')
        {
            self.out.write_all(&self.first)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
