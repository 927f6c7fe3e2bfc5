//! From the transported bytes of a layer to its uncompressed tar, with both digests.
//!
//! ```text
//! input ─ a thread: blob digest, inflate ─ chunks ─ the caller: TarStream as Read, diff id,
//!                                                   digests of the bodies
//! ```
//!
//! The compression is detected from the bytes: gzip (any number of members), zstd (any number of
//! frames, skippable ones too), xz and bzip2 (any number of streams), or none; media types are
//! not asked. Zeros after a member, frame or stream are padding, as for gzip; other bytes there
//! are an error (gzip ignores them with a warning, Go refuses them).
//!
//! Blocks of zeros are no bomb, however small they were packed: they are written as holes (see
//! [`zero_blocks`]), so the bound on expansion leaves them out. What they cost is the time to
//! hash them, up to `--max-layer-bytes`.
//!
//! [`skim`] gives the same tar to a reader of headers alone, without digests.
//!
//! Invariants: both digests cover every byte, also what follows the end of the archive; at most
//! `QUEUE` chunks of `CHUNK` bytes wait for the reader, besides the window of the
//! decompressor (up to 128 MiB if a zstd frame or an xz stream asks for it); no thread outlives
//! [`decompress`].

mod compressed;
mod decoder;
mod gzip;
mod hashed;
mod pipeline;
mod skim;
mod skip;
mod streams;
mod zeros;

use strata_tree::{BlobDigest, DiffId};

pub use decoder::Decompressed;
pub use hashed::Hashed;
pub use pipeline::{Chunks, TarStream, decompress};
pub use skim::{SkimStream, skim};
pub use skip::{ReadThrough, SkipRead};
pub use zeros::{data, zero_blocks};

/// Bytes of one chunk.
const CHUNK: usize = 256 << 10;
/// Chunks that wait in one channel.
const QUEUE: usize = 16;

/// How the transported bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz format.
    Xz,
    /// The format of bzip2(1).
    Bzip2,
}

/// Enough bytes to recognise every compression.
pub const MAGIC: usize = 10;

impl Compression {
    /// What the first [`MAGIC`] bytes say.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn of(head: &[u8]) -> Result<Self, StreamError> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // The second is the range of skippable frames, which may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Self::Xz),
            // A block (the digits of pi), or the end (those of its root) of an empty file.
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => {
                Ok(Self::Bzip2)
            }
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(StreamError::Unsupported("lz4")),
            _ => Ok(Self::None),
        }
    }
}

/// What is known of a layer's bytes once all have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamFacts {
    /// The digest of the transported bytes.
    pub blob: BlobDigest,
    /// How many there are.
    pub blob_size: u64,
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Its size in bytes.
    pub diff_size: u64,
    /// What was detected.
    pub compression: Compression,
}

/// Why the transported bytes do not give a tar. Offsets count transported (compressed) bytes.
///
/// Readers of a [`TarStream`] get it inside an [`std::io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The input could not be read.
    #[error("cannot read at byte {offset} of the blob: {source}")]
    Read {
        /// How many bytes had been read.
        offset: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// The compressed data are damaged.
    #[error("the {compression} data are damaged near byte {offset} of the blob: {what}")]
    Corrupt {
        /// gzip, zstd, xz or bzip2.
        compression: &'static str,
        /// How many bytes had been taken.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The compressed data end too early.
    #[error("the {compression} data end too early, at byte {offset} of the blob")]
    Truncated {
        /// gzip, zstd, xz or bzip2.
        compression: &'static str,
        /// The length of the blob in bytes.
        offset: u64,
    },
    /// A compression that no image specification names.
    #[error("compression {0} is not supported; what is read is plain, gzip, zstd, xz or bzip2")]
    Unsupported(&'static str),
    /// A bound of [`crate::Limits`] was passed.
    #[error("more than {limit} {bound}; raise it with {option} if you trust the image")]
    Limit {
        /// What there is too much of, with its unit.
        bound: &'static str,
        /// The command-line option that sets the bound.
        option: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A thread ended without a word, or a failed stream was read on.
    #[error("the decompression has stopped")]
    Stopped,
}

impl From<StreamError> for std::io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Read { source, .. } | StreamError::Thread(source) => source.kind(),
            StreamError::Corrupt { .. }
            | StreamError::Truncated { .. }
            | StreamError::Unsupported(_)
            | StreamError::Limit { .. } => std::io::ErrorKind::InvalidData,
            StreamError::Stopped => std::io::ErrorKind::Other,
        };
        // A reader would try again after an `Interrupted`.
        let kind = match kind {
            std::io::ErrorKind::Interrupted => std::io::ErrorKind::Other,
            kind => kind,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests;
