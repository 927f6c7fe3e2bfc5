//! The merge rules: what one name stands for, given what each layer says of it.
//!
//! The layers are added top first ([`Merge::add`]) until one settles the matter:
//!
//! * The top-most layer that has the name decides. A whiteout or a non-directory hides whatever
//!   is below it.
//! * Directories merge downward until an opaque one, a whiteout or a non-directory stops them.
//! * An implied directory takes its metadata from the nearest explicit one further down. Opacity
//!   of the directory itself hides the children below, not the metadata below: the name is the
//!   same directory, emptied. (Opacity of a *parent* hides the directory below altogether: the
//!   caller never adds it.)
//! * A phantom, a directory that has only whiteouts in it, exists if what is below merges to a
//!   directory; otherwise it is as if it were not there.
//!
//! Invariants: no call on a layer happens here; the work is one step for each layer that is added.

use strata_tree::{Node, NodeId, Presence};

/// A directory of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    /// The layer, counted from the base.
    pub(crate) layer: u32,
    /// The directory's node there.
    pub(crate) node: NodeId,
}

/// What a name stands for in one layer, links resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    /// A node of this layer (or, for a link, of the layer that it leads to).
    Node(u32, Node),
    /// A whiteout.
    Whiteout,
}

/// A merged directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MergedDir {
    /// Whose children it has, top first; never empty but for the root of a stack of no layers.
    pub(crate) parts: Vec<Part>,
    /// Whose metadata it has; `None`: `Stat::unstated_dir`.
    pub(crate) metadata: Option<Part>,
}

/// What a name stands for in the merged tree.
#[derive(Debug)]
pub(crate) enum MergedName {
    /// Nothing.
    Absent,
    /// A non-directory of that layer.
    Leaf(u32, Node),
    /// A directory.
    Dir(MergedDir),
}

/// The state of merging one name, from the top down.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    parts: Vec<Part>,
    /// A directory that is not a phantom was met.
    real: bool,
    /// An opaque directory was met: no more children from below.
    closed: bool,
    metadata: Option<Part>,
    leaf: Option<(u32, Node)>,
    settled: bool,
}

impl Merge {
    /// Whether layers further down can no longer change the result.
    pub(crate) fn settled(&self) -> bool {
        self.settled
    }

    /// Whether a directory that is not a phantom was met: a non-directory further down is hidden.
    pub(crate) fn met_directory(&self) -> bool {
        self.real
    }

    /// Tells what the next layer down says of the name.
    pub(crate) fn add(&mut self, told: &Told) {
        if self.settled {
            return;
        }
        let (layer, node) = match told {
            Told::Whiteout => {
                self.settled = true;
                return;
            }
            Told::Node(layer, node) => (*layer, node),
        };
        if !node.stat.kind.is_dir() {
            self.settled = true;
            if !self.real {
                self.leaf = Some((layer, *node));
            }
            return;
        }
        let part = Part { layer, node: node.id };
        if !self.closed {
            self.parts.push(part);
        }
        match node.marks.presence {
            Presence::Explicit => {
                self.real = true;
                self.metadata = self.metadata.or(Some(part));
            }
            Presence::Implied => self.real = true,
            Presence::Phantom => {}
        }
        self.closed |= node.marks.opaque;
        self.settled = self.closed && self.metadata.is_some();
    }

    /// What the name stands for when no layer is left.
    pub(crate) fn finish(self) -> MergedName {
        match self.leaf {
            Some((layer, node)) => MergedName::Leaf(layer, node),
            None if self.real => {
                MergedName::Dir(MergedDir { parts: self.parts, metadata: self.metadata })
            }
            None => MergedName::Absent,
        }
    }

    /// The same for the root, which exists in any case.
    pub(crate) fn finish_root(self) -> MergedDir {
        MergedDir { parts: self.parts, metadata: self.metadata }
    }
}

/// A root has no name to be redirected by.
pub(crate) fn may_go_on(layer: u32, node: NodeId) -> bool {
    layer > 0 && node != NodeId::ROOT
}
