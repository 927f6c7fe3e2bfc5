//! The lower directories, opened and merged.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use strata_tree::Lower;

/// Merges directories, top-most first as overlayfs writes them.
pub(crate) fn merged(directories: &[PathBuf]) -> Result<Arc<dyn Lower>> {
    anyhow::bail!("{directories:?}")
}

/// Whether root here is root of the whole machine (user_namespaces(7)): its map of users is the
/// identity.
pub(crate) fn in_first_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
