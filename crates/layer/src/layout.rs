//! Where the parts of a store lie below its root, and those of a layer below its directory; see
//! [`crate::store`] for all of them.
//!
//! Invariant: a path follows from what it is of, so nothing is looked up to find it.

use std::path::{Path, PathBuf};

use strata_tree::{DiffId, TreePath};

/// The directory of a layer, below the store's root.
pub(crate) fn layer_path(diff_id: &DiffId) -> PathBuf {
    Path::new("layers").join(diff_id.hex())
}

/// The place of an image path, below the directory of its layer.
pub(crate) fn diff_path(path: &TreePath) -> PathBuf {
    match path.is_root() {
        true => PathBuf::from("diff"),
        false => Path::new("diff").join(path.as_os_str()),
    }
}
