//! The lower directories, opened and merged.
//!
//! They are read as fuse-overlayfs reads them, for engines that have a mount program unpack
//! layers in its dialects: `.wh.` names, marks of either class, stated owners.
//!
//! Invariant: marks that any user may set are believed only where root's cannot be had.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use strata_tree::{Dialect, DirOptions, Lower, Numbers, OverlayDir, OverrideStat, Trust};
use strata_union::Stack;

/// Merges directories, top-most first as overlayfs writes them. `user_marks`: those of the upper
/// are `user.overlay.*`, and so may be those of lowers that were uppers once.
pub(crate) fn merged(directories: &[PathBuf], user_marks: bool) -> Result<Arc<dyn Lower>> {
    let trust = if user_marks { Trust::Anyone } else { Trust::Privileged };
    let options = DirOptions {
        dialect: Dialect::FUSE_OVERLAYFS,
        redirects: trust,
        metacopy: trust,
        override_stat: OverrideStat::IfRootHas,
    };
    let numbers = Arc::new(Numbers::new());
    let mut lowers: Vec<Arc<dyn Lower>> = Vec::with_capacity(directories.len());
    for directory in directories.iter().rev() {
        lowers.push(Arc::new(OverlayDir::open(directory, options, Arc::clone(&numbers))?));
    }
    Ok(Arc::new(Stack::numbered(lowers)))
}

/// Whether root here is root of the whole machine (user_namespaces(7)): its map of users is the
/// identity.
pub(crate) fn in_first_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
