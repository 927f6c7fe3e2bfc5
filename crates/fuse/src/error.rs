//! Why a mount did not come up, or did not go away.
//!
//! Invariants: each message says what to do where the person at the keyboard can do something.

use std::io;
use std::path::PathBuf;

/// Why mounting, serving or unmounting failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mountpoint cannot be opened.
    #[error("cannot mount on {}: {source}", path.display())]
    Mountpoint {
        /// The mountpoint.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The mountpoint is something else than a directory.
    #[error("cannot mount on {}: not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The FUSE device cannot be opened.
    #[error("cannot open /dev/fuse: {0}; is the fuse module loaded (modprobe fuse)?")]
    Device(io::Error),
    /// An ordinary user mounts through `fusermount3`, which is not there.
    #[error("cannot run fusermount3: {0}; an ordinary user needs it (package fuse3)")]
    NoHelper(io::Error),
    /// `fusermount3` refused.
    #[error("fusermount3 refused: {0}")]
    Helper(String),
    /// The kernel refused the mount.
    #[error("the kernel refused to {what}: {source}")]
    Kernel {
        /// The step.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// An option that only root may use.
    #[error("mounting with {0} needs root")]
    NeedsRoot(&'static str),
    /// The tree's root does not have the number that FUSE gives every root.
    #[error("the tree's root is node {0}, but FUSE needs node 1")]
    RootNumber(u64),
    /// Files are open below the mountpoint.
    #[error("{} is busy", .0.display())]
    Busy(PathBuf),
    /// Something else is mounted there now, or nothing.
    #[error("{} is not mounted", .0.display())]
    NotMounted(PathBuf),
    /// Unmounting failed for another reason.
    #[error("cannot unmount {}: {source}", path.display())]
    Unmount {
        /// The mountpoint.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What was to be put over the mount was not made.
    #[error(transparent)]
    Cover(Box<dyn std::error::Error + Send + Sync>),
    /// The kernel and this process did not agree on a protocol, or stopped talking.
    #[error("the FUSE session failed: {0}")]
    Session(io::Error),
}

/// The result of mounting and unmounting.
pub type Result<T> = std::result::Result<T, Error>;
