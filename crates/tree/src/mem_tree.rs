//! [`MemTree`]: a tree in memory, for tests, and the strictest implementation of [`Lower`].
//!
//! It is strict where others are lenient, so that what works on it relies on the contract alone:
//! node numbers are not dense, directories come in no useful order, positions are not counts,
//! every `open` gives a new sealed descriptor.
//!
//! Invariants: every parent is a directory written before its children; a link's target is a
//! non-directory written before the link; no path is written twice.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::file_handle::{ByHandle, FileHandle};
use crate::lower::{ContentRef, DirEntry, Error, Lower, Result, Xattr};
use crate::name::{Name, NameBuf, NameError, TreePath};
use crate::node::{DirMarks, Entry, Kind, Node, NodeId, Stat};
use crate::spec::{InodeSpec, Item, Spec};

/// Why a [`Spec`] is not a tree. Each names the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A component of the path is not a name.
    #[error("{0:?}: {1}")]
    Name(String, NameError),
    /// The parent was not written before, or is not a directory.
    #[error("{0}: its parent is not a directory written before it")]
    NoParent(TreePath),
    /// The path was written before.
    #[error("{0} is written twice")]
    Twice(TreePath),
    /// The link's target was not written before, or is a directory.
    #[error("{0}: its target {1} is not a non-directory written before it")]
    NoTarget(TreePath, TreePath),
}

#[derive(Debug)]
struct MemNode {
    inode: InodeSpec,
    nlink: u32,
    path: TreePath,
    /// The directory that holds it.
    parent: usize,
    children: Vec<(NameBuf, Child)>,
    by_name: HashMap<NameBuf, usize>,
}

#[derive(Debug)]
enum Child {
    Node(usize),
    Whiteout,
    LowerLink(TreePath),
}

/// A tree in memory. See the module.
#[derive(Debug)]
pub struct MemTree {
    nodes: Vec<MemNode>,
}

/// Spreads node numbers, so that none is a record number by accident; the root stays 1.
const STRIDE: u64 = 1_000_003;
/// The same for positions in a directory.
const STEP: usize = 7;

impl MemTree {
    /// Builds the tree that `spec` writes down.
    ///
    /// # Errors
    /// The first item that breaks an invariant of the module.
    pub fn new(spec: &Spec) -> std::result::Result<Self, SpecError> {
        let mut tree = Self { nodes: Vec::new() };
        let mut paths: HashMap<TreePath, Option<usize>> = HashMap::new();
        for (raw, item) in spec.items() {
            let path = TreePath::clamped(raw)
                .map_err(|why| SpecError::Name(raw.escape_ascii().to_string(), why))?;
            if paths.contains_key(&path) {
                return Err(SpecError::Twice(path));
            }
            let child = match item {
                Item::Inode(inode) => {
                    tree.nodes.push(MemNode {
                        inode: inode.clone(),
                        nlink: if inode.kind.is_dir() { 2 } else { 0 },
                        path: path.clone(),
                        parent: 0,
                        children: Vec::new(),
                        by_name: HashMap::new(),
                    });
                    Child::Node(tree.nodes.len() - 1)
                }
                Item::Link(target) => match paths.get(target) {
                    Some(Some(node)) if !tree.nodes[*node].inode.kind.is_dir() => {
                        Child::Node(*node)
                    }
                    _ => return Err(SpecError::NoTarget(path, target.clone())),
                },
                Item::Whiteout => Child::Whiteout,
                Item::LowerLink(target) => Child::LowerLink(target.clone()),
            };
            let node = match child {
                Child::Node(node) => Some(node),
                Child::Whiteout | Child::LowerLink(_) => None,
            };
            if let Some((parent, name)) = path.split_last() {
                let dir = match paths.get(&parent) {
                    Some(Some(dir)) if tree.nodes[*dir].inode.kind.is_dir() => *dir,
                    _ => return Err(SpecError::NoParent(path)),
                };
                tree.attach(dir, name, child);
            }
            paths.insert(path, node);
        }
        Ok(tree)
    }

    fn attach(&mut self, dir: usize, name: Name<'_>, child: Child) {
        if let Child::Node(node) = child {
            let counted = if self.nodes[node].inode.kind.is_dir() { dir } else { node };
            self.nodes[counted].nlink += 1;
            self.nodes[node].parent = dir;
        }
        let dir = &mut self.nodes[dir];
        dir.by_name.insert(name.to_owned(), dir.children.len());
        dir.children.push((name.to_owned(), child));
    }

    fn id(index: usize) -> NodeId {
        NodeId(1 + index as u64 * STRIDE)
    }

    fn get(&self, id: NodeId) -> Result<&MemNode> {
        let number = id.0.wrapping_sub(1);
        usize::try_from(number / STRIDE)
            .ok()
            .filter(|_| number.is_multiple_of(STRIDE))
            .and_then(|index| self.nodes.get(index))
            .ok_or(Error::NoNode(id))
    }

    fn dir(&self, id: NodeId) -> Result<&MemNode> {
        let node = self.get(id)?;
        if node.inode.kind.is_dir() { Ok(node) } else { Err(Error::NotDirectory(id)) }
    }

    fn regular(&self, id: NodeId) -> Result<&MemNode> {
        let node = self.get(id)?;
        match node.inode.kind {
            Kind::Regular => Ok(node),
            kind => Err(Error::NotRegular { node: id, kind }),
        }
    }

    fn describe(id: NodeId, node: &MemNode) -> Node {
        let inode = &node.inode;
        let stat = Stat {
            kind: inode.kind,
            perm: inode.perm,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size(),
            nlink: node.nlink,
            mtime: inode.mtime,
        };
        let marks = if inode.kind.is_dir() { inode.marks } else { DirMarks::default() };
        Node { id, stat, marks }
    }

    fn entry(&self, child: &Child) -> Entry {
        match child {
            Child::Node(index) => {
                let id = Self::id(*index);
                Entry::Node(Self::describe(id, &self.nodes[*index]))
            }
            Child::Whiteout => Entry::Whiteout,
            Child::LowerLink(target) => Entry::LowerLink(target.clone()),
        }
    }
}

impl Lower for MemTree {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let dir = self.dir(dir)?;
        let index = dir.by_name.get(name.as_bytes());
        Ok(index.and_then(|i| dir.children.get(*i)).map(|(_, child)| self.entry(child)))
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let dir = self.dir(dir)?;
        let start = usize::try_from(from).unwrap_or(usize::MAX) / STEP;
        // Last written first: the order is fixed, and sorted only by chance.
        for (index, (name, child)) in dir.children.iter().rev().enumerate().skip(start) {
            let next = ((index + 1) * STEP) as u64;
            let item = DirEntry { name: name.as_name(), entry: self.entry(child), next };
            if each(item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        self.get(node).map(|found| Self::describe(node, found))
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let found = self.get(node)?;
        match found.inode.kind {
            Kind::Symlink => Ok(found.inode.body.clone()),
            _ => Err(Error::NotSymlink(node)),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let xattrs = &self.get(node)?.inode.xattrs;
        Ok(xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// In layer 0, at the path that it was written with.
    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let found = self.regular(node)?;
        let (path, size) = (found.path.clone(), found.inode.size());
        Ok(ContentRef { layer: 0, path, digest: None, size })
    }

    /// Two trees in memory may have equal ones: a tree here is whatever a test says.
    fn file_handle(&self, node: NodeId) -> Result<Option<FileHandle>> {
        self.get(node)?;
        Ok(Some(FileHandle { fs: 0, form: -2, bytes: node.0.to_le_bytes().to_vec() }))
    }

    fn by_handle(&self, handle: &FileHandle) -> Result<ByHandle> {
        let number = handle.bytes.as_slice().try_into().map(u64::from_le_bytes);
        let node = NodeId(number.unwrap_or_default());
        Ok(if self.get(node).is_ok() { ByHandle::Node(node) } else { ByHandle::Gone })
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        Ok(Some(Self::id(self.dir(dir)?.parent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{check, layer_specs, merged_specs};

    #[test]
    fn passes_the_suite() {
        for (name, spec) in merged_specs().into_iter().chain(layer_specs()) {
            let tree = MemTree::new(&spec).unwrap();
            check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        }
    }

    #[test]
    fn refuses_what_is_not_a_tree() {
        let path = |text: &str| TreePath::clamped(text.as_bytes()).unwrap();
        let error = |spec: Spec| MemTree::new(&spec).unwrap_err();
        assert_eq!(error(Spec::new().file("a/b", "")), SpecError::NoParent(path("a/b")));
        assert_eq!(error(Spec::new().file("a", "").dir("a/b")), SpecError::NoParent(path("a/b")));
        assert_eq!(error(Spec::new().dir("a").dir("a/")), SpecError::Twice(path("a")));
        assert_eq!(
            error(Spec::new().dir("a").link("b", &path("a"))),
            SpecError::NoTarget(path("b"), path("a"))
        );
        assert!(matches!(error(Spec::new().dir(vec![b'x'; 256])), SpecError::Name(..)));
    }
}
