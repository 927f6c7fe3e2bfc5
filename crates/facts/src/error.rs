//! Why no data set was written.
//!
//! Invariant: after an error nothing of the data set is there, and an older one is as it was.

use std::io;
use std::path::{Path, PathBuf};

/// The result of every call here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] strata_layer::Error),
    /// A config cannot be read.
    #[error(transparent)]
    Image(#[from] strata_image::Error),
    /// A layout or an archive that was written while it was being read.
    #[error(
        "{0} has other images than when it was opened first; run the command again when nothing \
         writes to it"
    )]
    Changed(String),
    /// A file or directory of the data set cannot be written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system says.
        source: io::Error,
    },
    /// What writes or reads Parquet refused.
    #[error("the table {table}: {source}")]
    Parquet {
        /// Which table.
        table: &'static str,
        /// What it says.
        source: parquet::errors::ParquetError,
    },
    /// A row does not have the table's columns.
    #[error("a row of the table {0} does not have its columns; this is a fault of strata")]
    Row(&'static str),
    /// A name that no directory of a partition can have.
    #[error(
        "{0:?} cannot name a store: a name has 1 to 200 letters, digits, dots, dashes and \
         underscores"
    )]
    StoreName(String),
    /// What a registry lists that no image can be called.
    #[error("{name:?} is no name of an image: {source}")]
    Name {
        /// What it lists.
        name: String,
        /// What is wrong with it.
        source: strata_registry::ReferenceError,
    },
    /// A directory without data sets.
    #[error("{} has no facts: it has no directory store=NAME/day=YYYY-MM-DD, as `strata facts -o` \
             makes them", .0.display())]
    NoFacts(PathBuf),
    /// A data set that another strata wrote.
    #[error(
        "{} has version {found:?} of the tables, this strata reads {}: write it again",
        path.display(),
        crate::schema::VERSION
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version; empty if it says none.
        found: String,
    },
    /// What is no day.
    #[error("{0:?} is not a day such as 2026-01-31")]
    Day(String),
    /// An empty key.
    #[error("the key for hashing paths is empty")]
    NoKey,
}

/// Says of an error of the system what was being done.
pub(crate) trait WhileDoing<T> {
    /// `verb` and `path` make the message.
    fn doing(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> WhileDoing<T> for std::result::Result<T, E> {
    fn doing(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::Io {
            doing: format!("cannot {verb} {}", path.display()),
            source: error.into(),
        })
    }
}
