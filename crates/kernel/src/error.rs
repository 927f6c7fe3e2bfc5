//! Why an image could not be written.
//!
//! Invariant: each error names what was being written or read.

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree did not answer.
    #[error(transparent)]
    Tree(#[from] strata_tree::Error),
    /// The tree is no tree, or not a merged one.
    #[error("the tree cannot be written: {0}")]
    NotMerged(String),
    /// A content has fewer bytes than its size says.
    #[error("{path} ends after {read} of its {size} bytes; `strata fsck` looks for damage")]
    Short {
        /// The file, escaped.
        path: String,
        /// The bytes that were there.
        read: u64,
        /// The bytes that the tree says.
        size: u64,
    },
    /// The tree does not fit the format.
    #[error("an EROFS image holds at most {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much fits.
        limit: u64,
    },
    /// The kernel does not mount it.
    #[error("{what}: {}", rest(.source, .said))]
    Mount {
        /// What was being done.
        what: String,
        /// The cause.
        source: rustix::io::Errno,
        /// What the kernel says of it; may be empty.
        said: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// The result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn rest(errno: &rustix::io::Errno, said: &str) -> String {
    match said {
        "" => errno.to_string(),
        said => format!("{said} ({errno})"),
    }
}

impl Error {
    pub(crate) fn mount(what: impl Into<String>, source: rustix::io::Errno, said: String) -> Self {
        Self::Mount { what: what.into(), source, said }
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}
