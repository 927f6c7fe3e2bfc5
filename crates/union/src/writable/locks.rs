//! The locks of a union, in the order in which they are taken.
//!
//! ```text
//! claim      one node's changes of place and stage (`claims`)
//! steady     paths stay as they are: for an operation that uses one
//! alone      nobody else uses a path: for a move of a directory
//! touching   the times of directories: for a change of their names
//! ```
//!
//! The table's own lock comes last. A copy of bytes holds a claim and nothing else.
//!
//! Invariant: a panic while a lock is held leaves nothing behind that the next holder could not
//! use: the locks guard single steps.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use strata_tree::NodeId;

use super::claims::{Claim, Claims};

/// How many locks the directories share for their times.
const TOUCH_LOCKS: usize = 32;

/// All of them but the table's.
#[derive(Default)]
pub(super) struct NodeLocks {
    claims: Claims,
    tree: RwLock<()>,
    touched: [Mutex<()>; TOUCH_LOCKS],
}

impl NodeLocks {
    /// Waits until nobody else changes these nodes, and keeps it so.
    pub(super) fn claim(&self, nodes: &[NodeId]) -> Claim<'_> {
        self.claims.claim(nodes)
    }

    /// The nodes of which a claim would wait for long.
    pub(super) fn claimed_long(&self) -> Vec<NodeId> {
        self.claims.long()
    }

    /// Paths stay as they are while this is held.
    pub(super) fn steady(&self) -> RwLockReadGuard<'_, ()> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else uses a path while this is held.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else changes these directories' lists of names, and so their times.
    pub(super) fn touching(&self, dirs: &[NodeId]) -> Vec<MutexGuard<'_, ()>> {
        let mut which: Vec<usize> =
            dirs.iter().map(|dir| (dir.0 % TOUCH_LOCKS as u64) as usize).collect();
        which.sort_unstable();
        which.dedup();
        let lock = |index: usize| self.touched[index].lock();
        which.into_iter().map(|i| lock(i).unwrap_or_else(PoisonError::into_inner)).collect()
    }
}
