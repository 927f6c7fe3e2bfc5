//! What goes wrong, and which of containerd's codes says so.
//!
//! Invariant: the codes are those that containerd's own snapshotters answer with
//! (its `errdefs`), for its metadata store and its unpacker act on them.

use std::io::ErrorKind;

use tonic::{Code, Status};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no snapshot of that name.
    #[error("snapshot {0}: not found")]
    NotFound(String),
    /// There is one of that name, or of that chain, already.
    #[error("snapshot {0}: already exists")]
    AlreadyExists(String),
    /// Its state does not allow that.
    #[error("{0}")]
    FailedPrecondition(String),
    /// What is asked for makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// Another plugin may be able to do it.
    #[error("{0}: not implemented")]
    NotImplemented(String),
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] stratafs::Error),
    /// What the record of snapshots says.
    #[error("the record of snapshots: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row that nobody here has written.
    #[error("the record of snapshots is damaged: {0}")]
    Damaged(String),
    /// What was being done, and what the operating system said.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The work was not done to its end.
    #[error("the work was broken off")]
    BrokenOff,
}

/// The result of every call here.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the disk is full: room has to be made before it is tried again.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_full(),
            Self::Sqlite(error) => is_full(error),
            Self::Io(_, error) => {
                matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            Self::NotFound(_)
            | Self::AlreadyExists(_)
            | Self::FailedPrecondition(_)
            | Self::InvalidArgument(_)
            | Self::NotImplemented(_)
            | Self::Damaged(_)
            | Self::BrokenOff => false,
        }
    }
}

/// Whether SQLite found no room, for a file or for what several processes share of its log.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{
        SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE,
    };
    const NO_ROOM: [i32; 4] =
        [SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC];
    error.sqlite_error().is_some_and(|failure| {
        failure.code == rusqlite::ErrorCode::DiskFull || NO_ROOM.contains(&failure.extended_code)
    })
}

impl From<strata_layer::Error> for Error {
    fn from(error: strata_layer::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Engine(_) | Error::Sqlite(_) | Error::Io(..) if error.is_full() => {
                Code::ResourceExhausted
            }
            Error::NotFound(_) => Code::NotFound,
            Error::AlreadyExists(_) => Code::AlreadyExists,
            Error::FailedPrecondition(_) => Code::FailedPrecondition,
            Error::InvalidArgument(_) => Code::InvalidArgument,
            Error::NotImplemented(_) => Code::Unimplemented,
            Error::Engine(_) | Error::Sqlite(_) | Error::Damaged(_) | Error::Io(..) => {
                Code::Internal
            }
            Error::BrokenOff => Code::Aborted,
        };
        Self::new(code, error.to_string())
    }
}

/// Says what was being done.
pub(crate) trait IoDoing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoDoing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io(what(), error.into()))
    }
}
