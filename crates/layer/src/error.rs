//! Everything that can go wrong in a store, each naming the thing, the cause and the way out.
//!
//! Invariant: an error from an operation that adds something means that nothing of it was kept.

use std::path::PathBuf;

use rustix::io::Errno;
use strata_diff::tar::DiffError;
use strata_tree::{BlobDigest, DiffId, ImageId};

/// The result of every call on a store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tar of a layer cannot be read, breaks a rule for layers, or passes a bound.
    #[error(transparent)]
    Diff(strata_diff::Error),
    /// The uncompressed tar is not the one that the config names.
    #[error(
        "layer {layer}: the diff id is {actual}, the config says {expected}; nothing of it was kept"
    )]
    WrongDiffId {
        /// The layer as the caller named it.
        layer: String,
        /// What the config says.
        expected: DiffId,
        /// What the bytes are.
        actual: DiffId,
    },
    /// The transported bytes are not those that the manifest names.
    #[error(
        "layer {layer}: the blob is {actual} ({actual_size} bytes), the manifest says {expected} \
         ({expected_size} bytes); nothing of it was kept"
    )]
    WrongBlob {
        /// The layer as the caller named it.
        layer: String,
        /// What the manifest says.
        expected: BlobDigest,
        /// Its size in bytes.
        expected_size: u64,
        /// What the bytes are.
        actual: BlobDigest,
        /// How many there are.
        actual_size: u64,
    },
    /// A layer that an image needs is not in the store.
    #[error("layer {0} is not in the store; load the image again")]
    NoLayer(DiffId),
    /// An image that is not in the store.
    #[error("image {0} is not in the store")]
    NoImage(ImageId),
    /// An image that has not the names by which it was to be changed: another process was quicker.
    #[error("image {0} has got or lost a name meanwhile; try again")]
    Renamed(ImageId),
    /// A blob that is not in the store.
    #[error("blob {0} is not in the store; `strata fsck` tells what else is missing")]
    NoBlob(BlobDigest),
    /// Something is mounted, or being loaded, from what was to be removed.
    #[error(
        "{what} is in use: a mount (`strata mounts`) or a running command holds it; try again when \
             that has ended"
    )]
    InUse {
        /// The image or layer.
        what: String,
    },
    /// An engine has a layer of what was to be removed among its own.
    #[error("{what} is held by {by}: remove it there first; `strata layer-store --held` lists all")]
    Held {
        /// The layer.
        what: String,
        /// Who has it.
        by: String,
    },
    /// Another process reads layers into the same directory.
    #[error("{} is in use by another process that reads layers; wait for it, or name another \
             directory", .0.display())]
    LedgerInUse(PathBuf),
    /// What was to be a ledger's directory has something else.
    #[error(
        "{} has a store, or an index.db of something else than `strata facts`: name a directory \
         of its own, which need not be there",
        .0.display()
    )]
    NotALedger(PathBuf),
    /// What was to be a store's directory is a ledger's.
    #[error(
        "{} has no store: its index.db is what `strata facts --work` keeps; --root or STRATA_ROOT \
         names another",
        .0.display()
    )]
    NotAStore(PathBuf),
    /// `index.db` is gone, has nothing in it, or is a ledger's, while layers are there.
    #[error(
        "the store at {} has layers but no index.db of its own, or an empty one; `strata fsck \
         --repair` rebuilds it",
        .0.display()
    )]
    NoIndex(PathBuf),
    /// There is no store where one was expected.
    #[error(
        "there is no store at {}; `strata load` and `strata pull` make one, and --root or \
         STRATA_ROOT names another",
        .0.display()
    )]
    NoStore(PathBuf),
    /// The disk below the store has no room for what SQLite writes.
    #[error(
        "the disk of the store is full: free some space on it; `strata rmi`, `strata image prune` \
         and `strata gc` do, where images are no longer needed"
    )]
    Full,
    /// The store cannot be written here.
    #[error("the store is read-only here, so nothing in it can be changed")]
    ReadOnly,
    /// fs-verity was required.
    #[error(
        "{0}: the kernel (FS_VERITY) or the file system has no fs-verity (ext4: `tune2fs -O \
         verity`); `strata mount --verify` compares digests without it"
    )]
    NoFsVerity(String),
    /// A later strata wrote this store.
    #[error("the store has format {found}, this strata knows up to {newest}; use a newer strata")]
    NewerStore {
        /// Its version.
        found: i64,
        /// Ours.
        newest: i64,
    },
    /// An earlier strata wrote this store, and it cannot be brought up to date here.
    #[error(
        "the store has format {found}, and this strata reads {newest}: open it once where it can \
         be written"
    )]
    OlderStore {
        /// Its version.
        found: i64,
        /// Ours.
        newest: i64,
    },
    /// The store's own data contradict themselves.
    #[error("{what} is damaged: {why}; run `strata fsck`")]
    Damaged {
        /// The file, with its layer.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// SQLite refused, or a row holds what no strata writes.
    #[error("the store's index.db: {0}{out}", out = way_out(.0))]
    Sqlite(#[source] rusqlite::Error),
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

/// What to do where the file is the cause.
fn way_out(error: &rusqlite::Error) -> &'static str {
    use rusqlite::{Error as Sqlite, ErrorCode};
    let damaged = match error {
        Sqlite::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        Sqlite::IntegralValueOutOfRange(..)
        | Sqlite::InvalidColumnType(..)
        | Sqlite::FromSqlConversionFailure(..) => true,
        _ => false,
    };
    if damaged { "; run `strata fsck`" } else { "" }
}

/// `SQLITE_IOERR_SHMSIZE`: no room for the memory that connections share.
const SHM_SIZE: i32 = 4874;

/// That, `SQLITE_IOERR_SHMOPEN`, `SQLITE_IOERR_WRITE` and `SQLITE_IOERR_FSYNC`: what a full disk
/// may be the cause of.
const NO_ROOM: [i32; 4] = [SHM_SIZE, 4618, 778, 1034];

/// What is no fact of the tar is here what it would be had it happened elsewhere in the store.
impl From<strata_diff::Error> for Error {
    fn from(error: strata_diff::Error) -> Self {
        use strata_diff::Error as Diff;
        match error {
            Diff::Damaged { what, why } => Self::Damaged { what, why },
            Diff::Tree(error) => Self::Tree(error),
            Diff::Io { what, source } => Self::Io { what, source },
            Diff::Tar(_) | Diff::Rule { .. } | Diff::Limit { .. } => Self::Diff(error),
        }
    }
}

impl From<DiffError> for Error {
    fn from(error: DiffError) -> Self {
        Self::Diff(error.into())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let (code, extended) = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => (failure.code, failure.extended_code),
            _ => return Self::Sqlite(error),
        };
        match code {
            ErrorCode::DiskFull => Self::Full,
            _ if extended == SHM_SIZE => Self::Full,
            ErrorCode::ReadOnly => Self::ReadOnly,
            _ => Self::Sqlite(error),
        }
    }
}

/// Errors of the operating system that a damaged disk or directory may be the cause of. The others
/// (no memory, no descriptors, no room) come from outside, and what is stored may be whole.
const OF_DAMAGE: [Errno; 12] = [
    Errno::NOENT,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::LOOP,
    Errno::NAMETOOLONG,
    Errno::XDEV,
    Errno::NXIO,
    Errno::IO,
    Errno::UCLEAN,
    Errno::BADMSG,
    Errno::ACCESS,
    Errno::PERM,
];

/// The error of the operating system in one of another, wherever it was wrapped.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if let Some(code) = io.and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw_os_error(code));
        }
        next = match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Looks a second time where the operating system refused: what is taken for damage is taken out.
///
/// # Errors
/// Those of the second look.
pub(crate) fn second_look<T>(mut look: impl FnMut() -> Result<T>) -> Result<T> {
    match look() {
        Err(error) if os_error(&error).is_some() => look(),
        done => done,
    }
}

impl Error {
    /// Whether what is stored may be damaged, in whose place this came. Only that is a reason to
    /// take something out.
    pub(crate) fn may_be_damage(&self) -> bool {
        let outside = matches!(self, Self::Sqlite(_) | Self::Full | Self::ReadOnly);
        !outside && os_error(self).is_none_or(|errno| OF_DAMAGE.contains(&errno))
    }

    /// Whether there is no room left, so that freeing some may help.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Sqlite(rusqlite::Error::SqliteFailure(failure, _)) => {
                NO_ROOM.contains(&failure.extended_code)
            }
            // A compiled tree that could not be written, too.
            Self::Io { source, .. } | Self::Tree(strata_tree::Error::Io { source, .. }) => {
                matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }

    /// Whether what was to be removed is used by somebody.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Held { .. })
    }

    /// Whether something could not be written where reading may be possible still.
    pub(crate) fn is_refused_write(&self) -> bool {
        match self {
            Self::ReadOnly => true,
            Self::Sqlite(rusqlite::Error::SqliteFailure(failure, _)) => {
                failure.code == rusqlite::ErrorCode::CannotOpen || self.is_full()
            }
            Self::Io { source, .. } => {
                let refused =
                    [std::io::ErrorKind::ReadOnlyFilesystem, std::io::ErrorKind::PermissionDenied];
                refused.contains(&source.kind()) || self.is_full()
            }
            _ => self.is_full(),
        }
    }

    /// Wraps an operating system error with what was being done.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    /// Says that `what`, of the store, contradicts itself, and how.
    pub fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), why: why.into() }
    }
}

/// Adds what was being done to an operating system error.
pub trait IoContext<T> {
    /// Names the action and its object.
    ///
    /// # Errors
    /// `Io`, for each error.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::io(what(), source))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn wrapped(errno: Errno) -> Error {
        let inner = Error::io("cannot open it", io::Error::from(errno));
        let outer = io::Error::other(io::Error::other(inner));
        Error::from(strata_diff::Error::Io { what: "cannot read".to_owned(), source: outer })
    }

    #[test]
    fn what_comes_from_outside_is_no_damage_however_it_is_wrapped() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::INTR] {
            assert!(!wrapped(errno).may_be_damage(), "{errno}");
        }
        for errno in [Errno::IO, Errno::NOENT, Errno::UCLEAN] {
            assert!(wrapped(errno).may_be_damage(), "{errno}");
        }
        assert!(Error::damaged("a layer", "its digest").may_be_damage());
        assert!(!Error::Full.may_be_damage() && !Error::ReadOnly.may_be_damage());
        // A file that ends too early has no number.
        assert!(Error::io("x", io::Error::from(io::ErrorKind::UnexpectedEof)).may_be_damage());
    }

    #[test]
    fn a_second_look_is_for_refusals_alone() {
        let mut looks = 0;
        let done = second_look(|| {
            looks += 1;
            if looks == 1 { Err(wrapped(Errno::MFILE)) } else { Ok(looks) }
        });
        assert_eq!(done.unwrap(), 2);
        let mut looks = 0;
        let done: Result<()> = second_look(|| {
            looks += 1;
            Err(Error::damaged("a layer", "its digest"))
        });
        assert!(done.is_err() && looks == 1);
    }
}
