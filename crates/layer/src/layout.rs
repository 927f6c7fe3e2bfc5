//! Where the parts of a store lie below its root; see [`crate::store`] for all of them.
//!
//! Invariant: a path follows from what it is of, so nothing is looked up to find it.

use std::path::{Path, PathBuf};

use strata_tree::DiffId;

/// The directory of a layer, below the store's root.
pub(crate) fn layer_path(diff_id: &DiffId) -> PathBuf {
    Path::new("layers").join(diff_id.hex())
}
