//! Why an image is not let in, and why that cannot be said.
//!
//! Invariant: an error means that the image is not to be used; there is no error to be ignored.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The cause that a caller's own code gives.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The policy is not wholly understood.
    #[error("{}: not a policy (containers-policy.json(5)): {why}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file of registries.d.
    #[error("{}: not a file of registries.d (containers-registries.d(5)): {why}", path.display())]
    Lookaside {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The policy does not let an image in.
    #[error("{place} is refused by {policy} ({section}): {why}; nothing was kept")]
    Refused {
        /// Where the image is.
        place: String,
        /// The policy's file.
        policy: String,
        /// The part of it that counts.
        section: String,
        /// What does not hold.
        why: String,
    },
    /// Signatures could not be fetched.
    #[error("cannot look for the signatures of {place}: {source}")]
    Signatures {
        /// Where the image is.
        place: String,
        /// The cause.
        source: BoxError,
    },
}
