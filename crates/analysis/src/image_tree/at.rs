//! [`TreeAt`]: what some layers of an image make together, or a selection of it, as a tree that
//! can be read and written out.
//!
//! Invariants: a directory's number is its path's, any other node's its inode's, so that hard
//! links stay hard links; link counts are those of the tree shown; a selection holds what was
//! selected with all below it, and the directories above.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use strata_tree::{
    ContentRef, DirEntry, DirMarks, Entry, Error, Lower, Name, Node, NodeId, Result, Xattr,
};

use super::{ImageTree, PathId, Version, is_file};

/// From here on the numbers of what is no directory.
const INODES: u64 = 1 << 32;

/// The first layers of an image, merged.
#[derive(Debug)]
pub struct TreeAt {
    tree: Arc<ImageTree>,
    layers: usize,
    /// By path: whether it is shown.
    shown: Vec<bool>,
    /// By version, and for directories by path.
    links: Vec<u32>,
    subdirs: Vec<u32>,
}

impl TreeAt {
    /// All that the first `layers` layers make.
    pub fn new(tree: Arc<ImageTree>, layers: usize) -> Self {
        Self::selected(tree, layers, &BTreeSet::from([PathId::ROOT]))
    }

    /// The paths of `selection` alone, as far as they are there.
    pub fn selected(tree: Arc<ImageTree>, layers: usize, selection: &BTreeSet<PathId>) -> Self {
        let mut shown = vec![false; tree.len()];
        for path in tree.paths() {
            let above = path != PathId::ROOT && shown[tree.parent(path).index()];
            shown[path.index()] = above || selection.contains(&path);
        }
        for path in selection {
            let mut at = *path;
            while at != PathId::ROOT {
                at = tree.parent(at);
                shown[at.index()] = true;
            }
        }
        shown[PathId::ROOT.index()] = true;
        let mut links = vec![0; tree.versions.len()];
        let mut subdirs = vec![0; tree.len()];
        for path in tree.paths() {
            let version = tree.at(path, layers).filter(|_| shown[path.index()]);
            shown[path.index()] = version.is_some();
            let Some(version) = version else { continue };
            if !version.kind.is_dir() {
                links[version.number as usize] += 1;
            } else if path != PathId::ROOT {
                subdirs[tree.parent(path).index()] += 1;
            }
        }
        Self { tree, layers, shown, links, subdirs }
    }

    /// The node at a path; `None` if nothing is there, or it is not selected.
    pub fn node_at(&self, path: PathId) -> Option<Node> {
        let version = self.tree.at(path, self.layers).filter(|_| self.shown[path.index()])?;
        let (id, nlink) = match version.kind.is_dir() {
            true => (u64::from(path.0) + 1, 2 + self.subdirs[path.index()]),
            false => (INODES + u64::from(version.number), self.links[version.number as usize]),
        };
        Some(Node { id: NodeId(id), stat: version.stat(nlink), marks: DirMarks::default() })
    }

    fn dir(&self, node: NodeId) -> Result<PathId> {
        if let Some(version) = self.inode(node) {
            return Err(self.no_directory(version, node));
        }
        let path = node.0.checked_sub(1).filter(|at| *at < self.tree.len() as u64);
        let path = path.map(|at| PathId(at as u32)).ok_or(Error::NoNode(node))?;
        match self.node_at(path) {
            Some(found) if found.id == node => Ok(path),
            Some(_) | None => Err(Error::NoNode(node)),
        }
    }

    fn no_directory(&self, version: &Version, node: NodeId) -> Error {
        match self.links[version.number as usize] {
            0 => Error::NoNode(node),
            _ => Error::NotDirectory(node),
        }
    }

    /// The inode of what is no directory.
    fn inode(&self, node: NodeId) -> Option<&Version> {
        let number = usize::try_from(node.0.checked_sub(INODES)?).ok()?;
        self.tree.versions.get(number).filter(|version| !version.kind.is_dir())
    }

    fn version(&self, node: NodeId) -> Result<&Version> {
        match self.inode(node) {
            Some(version) if self.links[version.number as usize] > 0 => Ok(version),
            Some(_) => Err(Error::NoNode(node)),
            None => {
                let path = self.dir(node)?;
                self.tree.at(path, self.layers).ok_or(Error::NoNode(node))
            }
        }
    }
}

impl Lower for TreeAt {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let found = self.tree.child(self.dir(dir)?, name.as_bytes());
        Ok(found.and_then(|path| self.node_at(path)).map(Entry::Node))
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let children = self.tree.children(self.dir(dir)?).iter().enumerate().skip(skip);
        for (at, path) in children {
            let Some(node) = self.node_at(*path) else { continue };
            let name = Name::new(self.tree.name(*path)).map_err(|why| Error::Corrupt {
                tree: "of an image".to_owned(),
                what: format!("path {}: {why}", path.0),
            })?;
            if each(DirEntry { name, entry: Entry::Node(node), next: at as u64 + 1 }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        match self.inode(node) {
            Some(version) => {
                let nlink = self.links[version.number as usize];
                let stat = version.stat(nlink);
                match nlink {
                    0 => Err(Error::NoNode(node)),
                    _ => Ok(Node { id: node, stat, marks: DirMarks::default() }),
                }
            }
            None => self.node_at(self.dir(node)?).ok_or(Error::NoNode(node)),
        }
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let link = self.tree.link(self.version(node)?);
        link.map(<[u8]>::to_vec).ok_or(Error::NotSymlink(node))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        Ok(self.tree.xattrs(self.version(node)?).to_vec())
    }

    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let version = self.version(node)?;
        match is_file(version) {
            true => self.tree.content_ref(version),
            false => Err(Error::NotRegular { node, kind: version.kind }),
        }
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        let path = self.dir(dir)?;
        Ok(Some(NodeId(u64::from(self.tree.parent(path).0) + 1)))
    }
}
