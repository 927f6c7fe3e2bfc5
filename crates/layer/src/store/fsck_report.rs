//! What a check of a store finds.
//!
//! Invariant: a problem says where it is; what was mended is no problem any more.

use std::path::PathBuf;

use strata_tree::{DiffId, ImageId};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The index contradicts the directories, or itself. A rebuild mends it.
    Index(String),
    /// A layer's directory is damaged. Only loading it again mends it.
    Layer {
        /// Which layer.
        diff_id: DiffId,
        /// The file and what is wrong with it.
        what: String,
    },
    /// A file or directory of a layer has another mode than strata gave it.
    Mode {
        /// Which layer.
        diff_id: DiffId,
        /// Where, below the layer's directory.
        path: PathBuf,
        /// Its mode.
        found: u32,
        /// What it should be.
        mode: u32,
    },
    /// The config or manifest of an image is damaged. Only loading it again mends it.
    Image {
        /// Which image.
        id: ImageId,
        /// What is wrong.
        what: String,
    },
    /// `images.json` is damaged; the index has the same.
    Listing(String),
    /// A compiled tree is damaged; it is compiled again when it is needed.
    Tree {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// What an engine holds cannot be read. If it is one layer, it is held still.
    Hold {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(what) => write!(f, "index.db: {what}"),
            Self::Layer { diff_id, what } => write!(f, "layer {diff_id}: {what}"),
            Self::Mode { diff_id, path, found, mode } => {
                let path = path.display();
                write!(f, "layer {diff_id}: {path} has mode {found:o}, should have {mode:o}")
            }
            Self::Image { id, what } => write!(f, "image {id}: {what}"),
            Self::Listing(what) => write!(f, "images.json: {what}"),
            Self::Tree { path, what } | Self::Hold { path, what } => {
                write!(f, "{}: {what}", path.display())
            }
        }
    }
}

/// What a check found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FsckReport {
    /// Layers looked at.
    pub layers: u64,
    /// Names of regular files looked at.
    pub files: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What is wrong, and with `repair` could not be mended.
    pub problems: Vec<Problem>,
    /// What is not wrong, but worth a line.
    pub notes: Vec<String>,
    /// What was wrong and what was done about it.
    pub repaired: Vec<String>,
}

impl FsckReport {
    pub(super) fn index_problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem::Index(what.into()));
    }

    pub(super) fn layer_problem(&mut self, diff_id: &DiffId, what: String) {
        self.problems.push(Problem::Layer { diff_id: *diff_id, what });
    }
}
