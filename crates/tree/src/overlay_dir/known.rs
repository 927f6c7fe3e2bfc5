//! The nodes that were asked for, and under which name they are found again.
//!
//! Invariants: a node keeps the first (directory, name) that it was seen under; that directory
//! was known before, so every walk up ends at the root; nothing here touches the disk. A node
//! costs about 100 bytes.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::name::{Name, NameBuf, TreePath};
use crate::node::NodeId;

/// What is kept of a directory beside its place; nothing for other kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DirFacts {
    /// Nothing of the layers below shows.
    pub(super) opaque: bool,
    /// It has a redirect.
    pub(super) redirected: bool,
}

struct KnownNode {
    dir: NodeId,
    name: NameBuf,
    /// `None` for non-directories.
    facts: Option<DirFacts>,
}

/// By number; the root is not in it.
#[derive(Default)]
pub(super) struct Known {
    places: RwLock<HashMap<NodeId, KnownNode>>,
}

impl Known {
    /// Remembers a node, unless it is known.
    pub(super) fn add(&self, node: NodeId, dir: NodeId, name: Name<'_>, facts: Option<DirFacts>) {
        let known = self.places.read().unwrap_or_else(PoisonError::into_inner).contains_key(&node);
        if !known {
            let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
            places.entry(node).or_insert_with(|| KnownNode { dir, name: name.to_owned(), facts });
        }
    }

    /// Whether the node is known; if so, what is kept of it as a directory.
    pub(super) fn facts(&self, node: NodeId) -> Option<Option<DirFacts>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&node).map(|place| place.facts)
    }

    /// The directory that holds a node.
    pub(super) fn parent(&self, node: NodeId) -> Option<NodeId> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&node).map(|place| place.dir)
    }

    /// Where a node is found again.
    pub(super) fn place(&self, node: NodeId) -> Option<(NodeId, NameBuf)> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(&node).map(|place| (place.dir, place.name.clone()))
    }

    /// The path of a node; `None` if it is not known.
    pub(super) fn path(&self, node: NodeId) -> Option<TreePath> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let mut names = Vec::new();
        let mut here = node;
        while here != NodeId::ROOT {
            let place = places.get(&here)?;
            names.push(&place.name);
            here = place.dir;
        }
        let mut path = TreePath::root();
        names.iter().rev().for_each(|name| path.push(name.as_name()));
        Some(path)
    }
}
