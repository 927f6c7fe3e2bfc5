//! The one connection that all threads of a store share, and how others are had.
//!
//! Invariant: who waits for the connection waits for a question or a transaction of another
//! thread; an index that cannot be written is opened as such each time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Index;
use crate::error::{Error, Result};

/// An index, opened.
pub(crate) struct SharedIndex {
    path: PathBuf,
    index: Mutex<Index>,
    unwritable: Option<Unwritable>,
}

/// What is known of an index that cannot be written.
struct Unwritable {
    why: String,
    elsewhere: Option<PathBuf>,
}

impl SharedIndex {
    /// Shares an index that was opened at `path`.
    pub(crate) fn new(path: PathBuf, index: Index) -> Self {
        Self { path, index: Mutex::new(index), unwritable: None }
    }

    /// Opens for reading the index at `path`, which cannot be written for the reason `why`; see
    /// [`Index::open_unwritable`].
    ///
    /// # Errors
    /// `Sqlite`, `NewerStore`, `OlderStore`; `Io`.
    pub(crate) fn unwritable(path: PathBuf, elsewhere: Option<&Path>, why: &Error) -> Result<Self> {
        let index = Mutex::new(Index::open_unwritable(&path, elsewhere)?);
        let elsewhere = elsewhere.map(Path::to_owned);
        let unwritable = Some(Unwritable { why: why.to_string(), elsewhere });
        Ok(Self { path, index, unwritable })
    }

    /// Why it cannot be written; `None` if it can.
    pub(crate) fn read_only(&self) -> Option<&str> {
        self.unwritable.as_ref().map(|unwritable| unwritable.why.as_str())
    }

    /// The connection.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Index> {
        // A panic while the lock was held has rolled its transaction back.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A further connection for reading, for another thread.
    ///
    /// # Errors
    /// `Sqlite`; `Io`.
    pub(crate) fn another(&self) -> Result<Index> {
        match &self.unwritable {
            None => Index::open_existing(&self.path),
            Some(Unwritable { elsewhere, .. }) => {
                Index::open_unwritable(&self.path, elsewhere.as_deref())
            }
        }
    }

    /// Closes the connection; see [`Index::close`].
    ///
    /// # Errors
    /// `Sqlite`.
    pub(crate) fn close(self) -> Result<()> {
        self.index.into_inner().unwrap_or_else(PoisonError::into_inner).close()
    }
}
