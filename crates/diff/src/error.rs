//! Everything that can go wrong between a tar and rows, each naming the layer and the cause.
//!
//! Invariant: nothing here knows of a store; the caller that keeps what was read says what becomes
//! of it.

use strata_tree::TreePath;

use crate::tar::DiffError;

/// The result of every call that reads or writes a layer.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tar did not become rows, or a tree no tar.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tar of a layer cannot be read.
    #[error(transparent)]
    Tar(#[from] DiffError),
    /// The tar can be read, but breaks a rule for layers.
    #[error("layer {layer}: {path}: {rule}")]
    Rule {
        /// The layer as the caller named it.
        layer: String,
        /// The member's path.
        path: String,
        /// What it breaks.
        rule: String,
    },
    /// A bound of [`crate::Limits`] was passed.
    #[error(
        "layer {layer}: more than {limit} {what}; raise it with {option} if you trust the image"
    )]
    Limit {
        /// The layer as the caller named it.
        layer: String,
        /// What there is too much of, with its unit.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// The command-line option that sets it.
        option: &'static str,
    },
    /// What strata itself wrote contradicts itself.
    #[error("{what} is damaged: {why}; run `strata fsck`")]
    Damaged {
        /// The file, with its layer.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A tree did not answer.
    #[error(transparent)]
    Tree(#[from] strata_tree::Error),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn rule(layer: &str, path: &TreePath, rule: impl Into<String>) -> Self {
        Self::Rule { layer: layer.to_owned(), path: path.to_string(), rule: rule.into() }
    }

    /// [`Error::Damaged`] of `what`, because of `why`.
    pub fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), why: why.into() }
    }
}

/// Adds what was being done to an operating system error.
pub(crate) trait DiffContext<T> {
    /// Names the action and its object.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> DiffContext<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}
