//! Why a layer store does not serve or not answer.
//!
//! Invariant: each error names the thing, the cause and the way out.

/// The result of every call on a layer store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a layer store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store of layers refused.
    #[error(transparent)]
    Store(#[from] strata_layer::Error),
    /// An image could not be fetched, or the directory will not do.
    #[error(transparent)]
    Engine(#[from] stratafs::Error),
    /// A tree did not answer.
    #[error(transparent)]
    Tree(#[from] strata_tree::Error),
    /// It cannot be mounted.
    #[error(transparent)]
    Mount(#[from] strata_fuse::Error),
    /// The mount point is not what podman could read.
    #[error("{0}")]
    Refused(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

impl From<Error> for strata_tree::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tree(error) => error,
            other => Self::Unanswered { what: "the layer store".to_owned(), source: other.into() },
        }
    }
}
