//! What goes wrong: an error of a crate below, as it is, or a refusal of this one in words.
//!
//! Invariant: each error names the thing, the cause and, where there is one, the way out; the
//! causes are its `source()`.

use std::fmt::Display;
use std::io::ErrorKind;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] strata_layer::Error),
    /// An error of an image, an archive or a registry.
    #[error(transparent)]
    Image(#[from] strata_image::Error),
    /// An error of a tree or of a content.
    #[error(transparent)]
    Tree(#[from] strata_tree::Error),
    /// An error of a writable layer.
    #[error(transparent)]
    Union(#[from] strata_union::writable::Error),
    /// An error of a mount.
    #[error(transparent)]
    Mount(#[from] strata_fuse::Error),
    /// An error of an EROFS image.
    #[error(transparent)]
    Erofs(#[from] strata_kernel::Error),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file of the store's own is not what it should be.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// What was being done, and why it failed.
    #[error("{what}: {source}")]
    Doing {
        /// What was being done, with the name of the thing.
        what: String,
        /// The cause.
        source: Box<Error>,
    },
    /// The kernel cannot mount it by itself, for this reason; a daemon can.
    #[error("the kernel cannot mount it by itself: {0}")]
    KernelCannot(String),
    /// The caller asked for what cannot be: what it is, and the way out.
    #[error("{0}")]
    Refused(String),
}

/// The result of every call of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the disk is full: room has to be made before it is tried again.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => error.is_full(),
            Self::Doing { source, .. } => source.is_full(),
            Self::Io(source) | Self::Erofs(strata_kernel::Error::Io { source, .. }) => {
                matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            Self::Image(_)
            | Self::Tree(_)
            | Self::Union(_)
            | Self::Mount(_)
            | Self::Erofs(_)
            | Self::Json(_)
            | Self::KernelCannot(_)
            | Self::Refused(_) => false,
        }
    }
}

/// A diff that cannot be read or written counts as an error of the store: one name for its causes.
impl From<strata_diff::Error> for Error {
    fn from(error: strata_diff::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Says what was being done.
pub(crate) trait ErrorContext<T> {
    fn context(self, what: impl Display) -> Result<T>;
    fn with_context<C: Display>(self, what: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Error>> ErrorContext<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.with_context(|| what)
    }

    fn with_context<C: Display>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| Error::Doing {
            what: what().to_string(),
            source: Box::new(error.into()),
        })
    }
}

/// Returns with a refusal in words.
macro_rules! bail {
    ($($words:tt)*) => {
        return Err($crate::error::Error::Refused(format!($($words)*)))
    };
}

pub(crate) use bail;
