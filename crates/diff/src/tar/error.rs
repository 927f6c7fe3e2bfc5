//! Why a diff cannot be read: the layer, the offset in its uncompressed tar, and the cause.
//!
//! Invariant: the parsers below the block loop know no offsets; they give a [`HeaderFault`], to
//! which the loop adds the layer and the offset of the header at fault.

use std::io;

/// The result of every call on a diff.
pub type Result<T> = std::result::Result<T, DiffError>;

/// Why a diff was not read.
///
/// `layer` is the label that the caller gave, `offset` counts bytes of the uncompressed tar.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The input ends too early.
    #[error("layer {layer}: offset {offset}: the tar ends in the middle of {what}")]
    Truncated {
        /// The layer.
        layer: String,
        /// Where the input ended.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// The bytes break the format.
    #[error("layer {layer}: offset {offset}: {what}")]
    Malformed {
        /// The layer.
        layer: String,
        /// Where the header at fault begins.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Tar readers would make different trees of these bytes.
    #[error("layer {layer}: offset {offset}: {what}: tar readers disagree on what this means")]
    Ambiguous {
        /// The layer.
        layer: String,
        /// Where the header at fault begins.
        offset: u64,
        /// What they disagree on.
        what: String,
    },
    /// The tar holds something that no image tree has.
    #[error("layer {layer}: offset {offset}: {what} is not supported")]
    Unsupported {
        /// The layer.
        layer: String,
        /// Where the header at fault begins.
        offset: u64,
        /// What it holds.
        what: String,
    },
    /// A bound of [`crate::Limits`] was passed.
    #[error(
        "layer {layer}: offset {offset}: more than {limit} {bound}; raise it with {option} if you \
         trust the image"
    )]
    Limit {
        /// The layer.
        layer: String,
        /// Where the header at fault begins.
        offset: u64,
        /// What there is too much of, with its unit.
        bound: &'static str,
        /// The command-line option that sets the bound.
        option: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The input could not be read; the source names compressed offsets where it has them.
    #[error("layer {layer}: offset {offset}: {source}")]
    Read {
        /// The layer.
        layer: String,
        /// How far the reader had come.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The [`crate::tar::RawSink`] refused bytes.
    #[error("layer {layer}: offset {offset}: cannot keep the tar's headers: {source}")]
    Sink {
        /// The layer.
        layer: String,
        /// How far the reader had come.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The caller left body bytes unread, or finished before the last member.
    #[error("layer {layer}: offset {offset}: {left} bytes of a body were not read (a bug)")]
    Unread {
        /// The layer.
        layer: String,
        /// How far the reader had come.
        offset: u64,
        /// Bytes not read; 0 if whole members were not.
        left: u64,
    },
}

/// What the parsers of headers and records find wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Malformed(String),
    Ambiguous(String),
    Unsupported(String),
    Limit { bound: &'static str, option: &'static str, limit: u64 },
}

impl HeaderFault {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    pub(super) fn ambiguous(what: impl Into<String>) -> Self {
        Self::Ambiguous(what.into())
    }

    /// Names the layer and the place.
    pub(super) fn at(self, layer: &str, offset: u64) -> DiffError {
        let layer = layer.to_owned();
        match self {
            Self::Malformed(what) => DiffError::Malformed { layer, offset, what },
            Self::Ambiguous(what) => DiffError::Ambiguous { layer, offset, what },
            Self::Unsupported(what) => DiffError::Unsupported { layer, offset, what },
            Self::Limit { bound, option, limit } => {
                DiffError::Limit { layer, offset, bound, option, limit }
            }
        }
    }
}
