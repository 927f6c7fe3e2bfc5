//! Who works on which node.
//!
//! A copy-up takes long, and must not be joined by a removal or a second copy-up of the same
//! node. An operation that changes a node's places or stage claims the node; others wait for that
//! node alone.
//!
//! Invariants: claims are taken from a node upward to the root, or several at once in order of
//! number, and never while the union's other locks are held.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use strata_tree::NodeId;

#[derive(Default)]
struct Taken {
    nodes: HashSet<NodeId>,
    /// Those of them that stay claimed for long.
    long: HashSet<NodeId>,
    /// How many wait for one of them; waking nobody is a system call, too.
    waiting: usize,
}

/// The claimed nodes.
#[derive(Default)]
pub(super) struct Claims {
    taken: Mutex<Taken>,
    released: Condvar,
}

/// Ends with its drop.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    nodes: Vec<NodeId>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all of them, takes them together.
    pub(super) fn claim(&self, nodes: &[NodeId]) -> Claim<'_> {
        let mut taken = self.lock();
        while nodes.iter().any(|node| taken.nodes.contains(node)) {
            taken.waiting += 1;
            taken = self.released.wait(taken).unwrap_or_else(PoisonError::into_inner);
            taken.waiting -= 1;
        }
        taken.nodes.extend(nodes);
        Claim { claims: self, nodes: nodes.to_vec() }
    }

    /// The nodes of which a claim would wait for long.
    pub(super) fn long(&self) -> Vec<NodeId> {
        self.lock().long.iter().copied().collect()
    }
}

impl Claim<'_> {
    /// What its holder does with the nodes takes long.
    pub(super) fn takes_long(&mut self) {
        self.claims.lock().long.extend(&self.nodes);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut taken = self.claims.lock();
        for node in &self.nodes {
            taken.nodes.remove(node);
            taken.long.remove(node);
        }
        if taken.waiting > 0 {
            self.claims.released.notify_all();
        }
    }
}
