//! The names of lower nodes that have several.
//!
//! Invariant: a name that is found is the node's in the merged tree, and the directories on the way
//! to it stay known as long as the caller's pins live.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use strata_content::FileTree;
use strata_tree::{DirEntry, Entry, Error as TreeError, NameBuf, NodeId, TreePath};

use super::base::Base;
use super::error::{Error, Result};
use super::listing::DirReader;
use super::locks::NodeLocks;
use super::names::{NameResolver, ResolvedName};
use super::readers::Readers;
use super::table::{Because, NodeTable, Pins, SeenNode};

/// Lower nodes of several names, with the paths of those among the lowers.
type Links = HashMap<NodeId, Vec<TreePath>>;

/// Finds all names of a lower node.
pub(super) struct LinkFinder {
    lower: FileTree,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    dirs: Arc<DirReader>,
    names: Arc<NameResolver>,
    /// Found when first needed.
    known: Mutex<Option<Arc<Links>>>,
    /// Where they are in the merged tree, and the number of moves of directories before they were
    /// found.
    moved: Mutex<Option<(u64, Arc<Links>)>>,
}

impl LinkFinder {
    pub(super) fn new(base: &Base, read: &Readers) -> Self {
        Self {
            lower: base.lower.clone(),
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            dirs: Arc::clone(&read.dirs),
            names: Arc::clone(&read.names),
            known: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    /// All nodes of several names among the lowers, found by one walk when first needed.
    pub(super) fn all(&self) -> Result<Arc<Links>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = &*known {
            return Ok(Arc::clone(links));
        }
        let mut links: Links = HashMap::new();
        let mut stack = vec![(self.lower.root(), TreePath::root())];
        while let Some((dir, path)) = stack.pop() {
            let read = self.lower.read_dir(dir, 0, &mut |item: DirEntry<'_>| {
                if let Entry::Node(node) = &item.entry {
                    let here = path.join(item.name);
                    if node.stat.kind.is_dir() {
                        stack.push((node.id, here));
                    } else if node.stat.nlink > 1 {
                        links.entry(node.id).or_default().push(here);
                    }
                }
                ControlFlow::Continue(())
            });
            self.listed(read.map_err(Error::from), &path)?;
        }
        let links = Arc::new(links);
        *known = Some(Arc::clone(&links));
        Ok(links)
    }

    /// Where a lower node of several names is in the merged tree. The node is given by its number
    /// here and in the lower.
    pub(super) fn names(
        &self,
        (id, lower): (NodeId, NodeId),
        pins: &mut Pins<'_>,
    ) -> Result<Vec<(NodeId, NameBuf)>> {
        let paths = self.all()?.get(&lower).cloned().unwrap_or_default();
        // Paths are turned into directories before any of these can move.
        let steady = self.locks.steady();
        let mut names = Vec::new();
        for path in &paths {
            names.extend(self.know(path, id, pins)?);
        }
        if names.len() < paths.len() {
            // A directory on the way has moved, in this use of the upper or in an earlier one.
            names.clear();
            for path in self.search()?.get(&id).into_iter().flatten() {
                names.extend(self.know(path, id, pins)?);
            }
        }
        drop(steady);
        Ok(names)
    }

    /// What was read of a directory, if its listing is not refused: who may not list a lower's
    /// directory shows no name in it either. Other errors come again, or not; with them, nobody
    /// knows what was missed.
    fn listed<T>(&self, read: Result<T>, path: &TreePath) -> Result<Option<T>> {
        match read {
            Err(Error::Lower(TreeError::Io { what, source }))
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                tracing::warn!("{path} is not looked through for hard links: {what}: {source}");
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// A copy-up has failed: a node is only in the lower again.
    pub(super) fn look_again(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The place that `path` says, if it is the node's; the directories on the way become known,
    /// and stay so. The caller keeps the tree steady.
    fn know(
        &self,
        path: &TreePath,
        id: NodeId,
        pins: &mut Pins<'_>,
    ) -> Result<Option<(NodeId, NameBuf)>> {
        let Some((above, name)) = path.split_last() else { return Ok(None) };
        let mut dir = self.table.see(NodeId::ROOT)?;
        for name in above.names() {
            let found = self.names.discover(&dir, name, Because::Pinned)?;
            let Some((location, _)) = found else { return Ok(None) };
            let found = location.found();
            pins.keep(found.id);
            if !found.kind.is_dir() {
                return Ok(None);
            }
            dir = self.table.see(found.id)?;
        }
        let location = self.names.find(&dir, name)?;
        let there = location.is_some_and(|location| location.found().id == id);
        Ok(there.then(|| (dir.found.id, name.to_owned())))
    }

    /// The paths of all nodes of several names that are only in the lower, found by a walk of the
    /// whole tree. A node gets no name while it is there alone, so they stay true, but for names
    /// that went, until a directory moves or a copy gives its names back. The caller keeps the tree
    /// steady.
    fn search(&self) -> Result<Arc<Links>> {
        let moves = self.table.moves();
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, links)) = moved.as_ref().filter(|(then, _)| *then == moves) {
            return Ok(Arc::clone(links));
        }
        let mut links: Links = HashMap::new();
        let mut stack = vec![self.table.see(NodeId::ROOT)?];
        while let Some(dir) = stack.pop() {
            let path = dir.place()?.clone();
            let listed = self.dirs.merged(&dir);
            for item in self.listed(listed, &path)?.unwrap_or_default() {
                let here = path.join(item.name.as_name());
                let found = match self.names.find(&dir, item.name.as_name()) {
                    // The upper has it, so it is no name of what is only in the lower: a metacopy
                    // without its content, a directory that is elsewhere.
                    Err(_) if item.below.is_none() => None,
                    found => found?,
                };
                match found {
                    Some(location) if location.found().kind.is_dir() => {
                        let found = location.found().clone();
                        stack.push(SeenNode { found, path: Some(here), orphan: None });
                    }
                    Some(ResolvedName::Lower(found, node)) if node.stat.nlink > 1 => {
                        links.entry(found.id).or_default().push(here);
                    }
                    Some(ResolvedName::Lower(..) | ResolvedName::Upper(..)) | None => {}
                }
            }
        }
        let links = Arc::new(links);
        *moved = Some((moves, Arc::clone(&links)));
        Ok(links)
    }
}
