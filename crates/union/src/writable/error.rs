//! Why a writable union refuses.
//!
//! Invariant: every error has exactly one errno, and a fault of a lower is never mistaken for an
//! answer about a name.

use rustix::io::Errno;

/// The result of every call on a union.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What POSIX says to the call: `ENOENT`, `EEXIST`, `ENOTEMPTY` and so on.
    #[error("{0}")]
    Refused(Errno),
    /// The upper's file system failed.
    #[error("upper: cannot {what}: {errno}")]
    Upper {
        /// What was being done, with the path.
        what: String,
        /// The cause: `ENOSPC`, `EDQUOT`, `EIO` and so on, passed on as it is.
        errno: Errno,
    },
    /// A lower did not answer.
    #[error(transparent)]
    Lower(#[from] strata_tree::Error),
    /// Another union has the upper or the work directory (`EBUSY`).
    #[error(
        "{path} is in use as the {role} of another mount; unmount that first, or choose another one"
    )]
    InUse {
        /// Which.
        path: String,
        /// `upper` or `work directory`.
        role: &'static str,
    },
    /// The upper cannot be used at all.
    #[error("the upper {path} cannot be used: {why}")]
    Unusable {
        /// Which.
        path: String,
        /// Why, and the way out.
        why: String,
    },
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// The upper says what cannot be, for `what`.
pub(super) fn damaged(what: &str) -> Error {
    Error::Upper { what: what.to_owned(), errno: Errno::IO }
}

/// Says what was being done when the upper failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Upper { what: what(), errno })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Upper {
            what: what(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }
}
