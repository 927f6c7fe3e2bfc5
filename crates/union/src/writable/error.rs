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
    /// An extended attribute that a node of the upper needs does not fit there.
    #[error(
        "upper: {file}: the extended attribute {name} of {bytes} bytes is refused: {errno}; {}",
        way_out(*.errno)
    )]
    Attribute {
        /// The node: a path of the upper, where that is known.
        file: String,
        /// The attribute's name, as on disk and escaped.
        name: String,
        /// Bytes of its value.
        bytes: usize,
        /// The cause, passed on as it is: `ENOSPC`, `E2BIG`, `ERANGE` and so on.
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
        /// The directory that is in use.
        path: String,
        /// `upper` or `work directory`.
        role: &'static str,
    },
    /// The upper cannot be used at all.
    #[error("the upper {path} cannot be used: {why}")]
    Unusable {
        /// The directory of the upper.
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

/// Why file systems refuse attributes, and what can be done.
fn way_out(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            "the file system is full, or has no room for so much beside one file: ext4 holds about \
             4000 bytes in all unless made with -O ea_inode, btrfs 16000 for each, XFS 65536; use \
             an upper there, or an image without the attribute"
        }
        Errno::TOOBIG => {
            "no file system of Linux takes more than 65536; use an image without the attribute"
        }
        Errno::RANGE => "a name has at most 255 bytes on Linux; use an image without the attribute",
        _ => "use an upper on another file system, or an image without the attribute",
    }
}

impl Error {
    /// An attribute was refused, of a node that is not known here.
    pub(super) fn attribute(name: &[u8], bytes: usize, errno: Errno) -> Self {
        let (file, name) = ("a node".to_owned(), name.escape_ascii().to_string());
        Self::Attribute { file, name, bytes, errno }
    }

    /// The same, where the node is known.
    pub(super) fn of(self, path: impl FnOnce() -> String) -> Self {
        match self {
            Self::Attribute { name, bytes, errno, .. } => {
                Self::Attribute { file: path(), name, bytes, errno }
            }
            other => other,
        }
    }

    /// Whether an attribute was refused because there is no room for it.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Attribute { errno: Errno::NOSPC | Errno::DQUOT, .. })
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
