//! What all parts of a union use: the two sides, the dialect of the upper's marks, the nodes that
//! are known, the locks.
//!
//! Invariant: these are handles to hand on while a union is put together; each part keeps those
//! that it uses.

use std::sync::Arc;

use strata_content::FileTree;
use strata_tree::{Kind, NodeId, TreePath};

use super::can::Can;
use super::error::Result;
use super::locks::NodeLocks;
use super::marks::{self, Mark, Marks, Met};
use super::probe::probe;
use super::table::{CopyStage, NodeState, NodeTable};
use super::types::{Ownership, UnionOptions};
use super::unsynced::Unsynced;
use super::upper::Upper;

/// The handles.
pub(super) struct Base {
    pub(super) lower: FileTree,
    pub(super) upper: Arc<Upper>,
    pub(super) marks: Marks,
    pub(super) table: Arc<NodeTable>,
    pub(super) locks: Arc<NodeLocks>,
    pub(super) unsynced: Arc<Unsynced>,
    pub(super) met: Arc<Met>,
}

impl Base {
    /// `upper` on top of `lower`. `can`: what the upper's file system can do; it is probed if this
    /// is not given and the upper is to be written.
    pub(super) fn new(
        lower: FileTree,
        mut upper: Upper,
        options: UnionOptions,
        can: Option<Can>,
    ) -> Result<Self> {
        let apart = options.ownership == Ownership::Override;
        // Only root may set trusted attributes, and not every file system has them.
        let user_marks = options.user_marks || apart || marks::only_users(upper.root());
        let marks = Marks::new(user_marks, apart);
        let opaque = marks.get(upper.root(), Mark::Opaque)?.is_some_and(|value| value == b"y");
        let met = Met::default();
        if marks.get(upper.root(), Mark::Protattr)?.is_some() {
            met.note();
        }
        if !upper.view {
            let tried = probe(&upper, marks)?;
            upper.can = can.unwrap_or(tried);
        }
        let root = NodeState {
            id: NodeId::ROOT,
            kind: Kind::Directory,
            stage: CopyStage::Upper,
            lower: (!opaque).then(|| lower.root()),
            redirect: Some(TreePath::root()),
            real: None,
        };
        Ok(Self {
            lower,
            table: Arc::new(NodeTable::new(root, upper.view)),
            upper: Arc::new(upper),
            marks,
            locks: Arc::default(),
            unsynced: Arc::new(Unsynced::new(marks)),
            met: Arc::new(met),
        })
    }
}
