//! A conformance suite for programs that unpack the layers of OCI images, and for union mounts.
//!
//! A case is an image of a few members, and what a root file system made of it may be
//! ([`catalogue`]). The crate makes the image ([`image`]), has an unpacker make the root file
//! system ([`run`]), reads it ([`seen`]) and compares ([`judge`]). The unpackers that it knows by
//! name are small shell scripts ([`adapters`]); any other one is a command.
//!
//! Invariants: the cases are data, in `cases/`, and nothing in the code knows one of them; the same
//! case is the same bytes on every machine of one architecture; nothing here uses another crate of
//! this workspace, so that the suite judges strata as it judges any other program.

use std::io;

pub mod adapters;
pub mod catalogue;
pub mod cli;
pub mod html;
pub mod image;
pub mod judge;
pub mod page;
pub mod powers;
pub mod report;
pub mod run;
pub mod seen;
pub mod union;

mod pack;
mod progress;
mod removal;
mod strays;
mod tarball;
mod text;
mod tree;

pub use tree::TreeEntry;

/// Why the suite could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A case that is not written as it must be.
    #[error("{file}:{line}: {why}")]
    Catalogue {
        /// The file of cases.
        file: String,
        /// The number of the line.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// No case has this id.
    #[error("there is no case {0}; `strata-conform layers --list` lists all")]
    NoCase(String),
    /// No rule has this id.
    #[error("there is no rule {0}; `strata-conform union --list` lists all")]
    NoRule(String),
    /// A name of a union, or a command without its places.
    #[error(
        "{0} is neither a union known by name ({1}) nor a command with %lower, %upper and %mnt"
    )]
    NoUnion(String, String),
    /// A name of an unpacker, or a command without its places.
    #[error("{0} is neither an unpacker known by name ({1}) nor a command with %layout and %out")]
    NoUnpacker(String, String),
    /// The unpacker cannot run on this machine.
    #[error("{0}: {1}")]
    CannotRun(String, String),
    /// The directory that absolute escapes are aimed at is not ours.
    #[error("{0} exists and is not a directory of this user alone: remove it")]
    Canary(String),
    /// A mount by FUSE was to lose its daemon, and none is found.
    #[error(
        "{0}: nobody is found who serves the mount, so nobody is killed: start the daemon with the \
         absolute path of the mountpoint among its arguments"
    )]
    NoDaemon(String),
    /// All that was asked was left out.
    #[error("nothing of what was asked could be run: {0}")]
    NothingRan(String),
    /// A mount in a directory that the suite would remove.
    #[error("{point} cannot be detached, so {dir} stays: unmount it, then remove the directory")]
    StaysMounted {
        /// Where it is mounted.
        point: String,
        /// The directory.
        dir: String,
    },
    /// A file or a process.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what an error was about.
fn at<T>(what: impl std::fmt::Display, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::Io(what.to_string(), error))
}
