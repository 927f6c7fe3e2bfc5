//! The directories that were listed last, so that reading on from a position, or asking for a name,
//! does not merge one again.
//!
//! Invariants: the newest is kept whatever its size; older ones while all together have at most
//! [`NAMES_MAX`] names, and there are at most [`DIRS_MAX`].

use std::sync::Arc;

use strata_tree::{NameBuf, Node, NodeId};

/// A merged directory: names in order, with their nodes.
pub(crate) type MergedListing = Arc<Vec<(NameBuf, Node)>>;

/// A directory is listed for its link count whenever its attributes are asked for, with all others
/// of the directory that it is in; a walk down the tree lists each of them next.
const DIRS_MAX: usize = 64;
const NAMES_MAX: usize = 250_000;

/// The newest last.
#[derive(Default)]
pub(crate) struct Listings(Vec<(NodeId, MergedListing)>);

impl Listings {
    /// The listing of `dir`, which becomes the newest.
    pub(crate) fn get(&mut self, dir: NodeId) -> Option<MergedListing> {
        let at = self.0.iter().rposition(|(listed, _)| *listed == dir)?;
        let found = self.0.remove(at);
        let listing = Arc::clone(&found.1);
        self.0.push(found);
        Some(listing)
    }

    /// Adds the newest.
    pub(crate) fn add(&mut self, dir: NodeId, listing: MergedListing) {
        self.0.retain(|(listed, _)| *listed != dir);
        self.0.push((dir, listing));
        let mut names = 0;
        let fits = |(_, listing): &&(NodeId, MergedListing)| {
            names += listing.len();
            names <= NAMES_MAX
        };
        let keep = self.0.iter().rev().take(DIRS_MAX).take_while(fits).count().max(1);
        self.0.drain(..self.0.len() - keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(len: usize) -> MergedListing {
        let stat = strata_tree::Stat::unstated_dir();
        let node = Node { id: NodeId::ROOT, stat, marks: Default::default() };
        Arc::new(vec![(NameBuf::new(b"x").unwrap(), node); len])
    }

    #[test]
    fn the_newest_are_kept() {
        let mut cache = Listings::default();
        let newest = DIRS_MAX as u64 + 4;
        for dir in 0..newest {
            cache.add(NodeId(dir), listing(1));
        }
        assert!(cache.get(NodeId(3)).is_none());
        assert!(cache.get(NodeId(4)).is_some());
        cache.add(NodeId(newest), listing(1));
        // 4 has just been asked for, 5 has not.
        assert!(cache.get(NodeId(4)).is_some());
        assert!(cache.get(NodeId(5)).is_none());
    }

    #[test]
    fn large_ones_push_others_out_and_stay_themselves() {
        let mut cache = Listings::default();
        cache.add(NodeId(1), listing(NAMES_MAX / 2));
        cache.add(NodeId(2), listing(NAMES_MAX / 2));
        assert!(cache.get(NodeId(1)).is_some() && cache.get(NodeId(2)).is_some());
        cache.add(NodeId(3), listing(1));
        assert!(cache.get(NodeId(1)).is_none());
        cache.add(NodeId(4), listing(NAMES_MAX + 1));
        assert!(cache.get(NodeId(4)).is_some());
        assert!(cache.get(NodeId(3)).is_none());
    }
}
