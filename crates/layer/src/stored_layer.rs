//! One layer of the store as a [`Lower`]: its rows, read from the index at once.
//!
//! Invariants: nodes are numbered as the rows are (root 1, breadth first), a directory's children
//! are consecutive and sorted, so a look-up is a binary search; whiteouts and links into lower
//! layers are entries without a node of their own.

use std::ops::ControlFlow;

use strata_tree::{
    ContentDigest, ContentRef, DiffId, DirEntry, Entry, Error, Kind, Lower, Name, Node, NodeId,
    Result, TreePath, Xattr,
};

use crate::index;
use crate::index::rows::{self, EntryRow, RowKind};
use crate::store::{LeasedLayer, Store};

/// A layer, leased and read.
#[derive(Debug)]
pub struct StoredLayer {
    leased: LeasedLayer,
    rows: Vec<EntryRow>,
}

impl Store {
    /// Reads a leased layer as a tree of its own, whiteouts and all.
    ///
    /// # Errors
    /// `NoLayer`, `Damaged`, `Sqlite`.
    pub fn lower(&self, leased: &LeasedLayer) -> crate::Result<StoredLayer> {
        let index = self.index().lock();
        let diff_id = leased.diff_id();
        let record =
            index::find_layer(&index.db, diff_id)?.ok_or(crate::Error::NoLayer(*diff_id))?;
        let (rows, _) = rows::select(&index.db, record.id)?;
        Ok(StoredLayer { leased: leased.clone(), rows })
    }
}

impl StoredLayer {
    /// All its rows, in node order.
    pub fn rows(&self) -> &[EntryRow] {
        &self.rows
    }

    /// Which layer.
    pub fn diff_id(&self) -> &DiffId {
        self.leased.diff_id()
    }

    /// What the bytes of a regular file are.
    ///
    /// # Errors
    /// `NotRegular`, `NoNode`.
    pub fn digest(&self, node: NodeId) -> Result<ContentDigest> {
        match self.inode(node)?.kind {
            RowKind::Regular(digest) => Ok(digest),
            _ => Err(Error::NotRegular { node, kind: self.node(node)?.stat.kind }),
        }
    }

    /// The row of that number, which may be a whiteout or a further name.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn row(&self, node: NodeId) -> Result<&EntryRow> {
        let at = usize::try_from(node.0).ok().and_then(|n| n.checked_sub(1));
        at.and_then(|at| self.rows.get(at)).ok_or(Error::NoNode(node))
    }

    /// The row of a node; whiteouts and further names have a number in the index, but no node.
    fn inode(&self, node: NodeId) -> Result<&EntryRow> {
        let row = self.row(node)?;
        if row.meta.is_some() { Ok(row) } else { Err(Error::NoNode(node)) }
    }

    /// The number of the first child of a directory, and all of them.
    ///
    /// # Errors
    /// `NoNode`, `NotDirectory`, `Corrupt`.
    pub fn children(&self, dir: NodeId) -> Result<(u64, &[EntryRow])> {
        match self.inode(dir)?.kind {
            RowKind::Directory { children: 0, .. } => Ok((0, &[])),
            RowKind::Directory { first, children, .. } => {
                let from = first.wrapping_sub(1) as usize;
                let rows = from
                    .checked_add(children as usize)
                    .and_then(|to| self.rows.get(from..to))
                    .ok_or_else(|| self.corrupt(dir))?;
                Ok((first, rows))
            }
            _ => Err(Error::NotDirectory(dir)),
        }
    }

    fn corrupt(&self, node: NodeId) -> Error {
        Error::Corrupt {
            tree: format!("of layer {} in index.db", self.leased.diff_id()),
            what: format!("node {}", node.0),
        }
    }

    fn entry(&self, node: NodeId) -> Result<Entry> {
        let row = self.row(node)?;
        match &row.kind {
            RowKind::Whiteout => Ok(Entry::Whiteout),
            RowKind::LowerLink(path) => Ok(Entry::LowerLink(path.clone())),
            RowKind::HardLink(target) if *target != node => Ok(Entry::Node(self.node(*target)?)),
            _ => Ok(Entry::Node(self.node(node)?)),
        }
    }

    /// The path of a row.
    ///
    /// # Errors
    /// `NoNode`; `Corrupt` where the rows lead nowhere.
    pub fn path(&self, node: NodeId) -> Result<TreePath> {
        let mut names = Vec::with_capacity(16);
        let mut at = node;
        while at != NodeId::ROOT {
            let row = self.row(at)?;
            if row.parent >= at {
                return Err(self.corrupt(at));
            }
            names.push(Name::new(&row.name).map_err(|_| self.corrupt(at))?);
            at = row.parent;
        }
        Ok(TreePath::of_names(names.iter().rev().copied()))
    }

    fn regular_path(&self, node: NodeId) -> Result<TreePath> {
        match self.node(node)?.stat.kind {
            Kind::Regular => self.path(node),
            kind => Err(Error::NotRegular { node, kind }),
        }
    }
}

impl Lower for StoredLayer {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let (first, children) = self.children(dir)?;
        match children.binary_search_by(|row| row.name[..].cmp(name.as_bytes())) {
            Ok(at) => self.entry(NodeId(first + at as u64)).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (first, children) = self.children(dir)?;
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        for (at, row) in children.iter().enumerate().skip(skip) {
            let node = NodeId(first + at as u64);
            let name = Name::new(&row.name).map_err(|_| self.corrupt(node))?;
            let item = DirEntry { name, entry: self.entry(node)?, next: at as u64 + 1 };
            if each(item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        let row = self.row(node)?;
        let stat = row.stat().ok_or(Error::NoNode(node))?;
        let marks = match row.kind {
            RowKind::Directory { marks, .. } => marks,
            _ => Default::default(),
        };
        Ok(Node { id: node, stat, marks })
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        match &self.inode(node)?.kind {
            RowKind::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::NotSymlink(node)),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let meta = self.row(node)?.meta.as_ref().ok_or(Error::NoNode(node))?;
        Ok(meta.xattrs.clone())
    }

    /// In layer 0: these rows know no other.
    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let (path, size) = (self.regular_path(node)?, self.node(node)?.stat.size);
        Ok(ContentRef { layer: 0, path, digest: Some(self.digest(node)?), size })
    }
}
