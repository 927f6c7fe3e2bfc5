//! The decoders of all compressions behind one interface, and a reader for callers that need no
//! digests.
//!
//! Invariant: an error says where in the transported bytes it was met.

use std::io::{self, Read};

use super::compressed::Compressed;
use super::gzip::Gzip;
use super::streams::{Bzip2, Streams, Xz, Zstd};
use super::{Compression, StreamError};

/// The uncompressed bytes of an input, whatever compresses them; nothing is hashed.
pub struct Decompressed<'e> {
    decoder: Decoder<'e>,
}

impl<'e> Decompressed<'e> {
    /// Reads the first bytes of `input`, which say how it is compressed.
    ///
    /// # Errors
    /// `Unsupported`, `Read`.
    pub fn new(input: Box<dyn Read + Send + 'e>) -> Result<Self, StreamError> {
        let mut source = Compressed::unhashed(input, &|_| {});
        let compression = source.detect()?;
        Ok(Self { decoder: Decoder::new(compression, source)? })
    }

    /// Compressed bytes that were taken so far.
    pub fn taken(&self) -> u64 {
        self.decoder.taken()
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        Ok(self.decoder.read(out)?)
    }
}

/// One of the decoders.
pub(super) enum Decoder<'e> {
    Plain(Compressed<'e>),
    Gzip(Box<Gzip<'e>>),
    Xz(Box<Streams<'e, Xz>>),
    Bzip2(Box<Streams<'e, Bzip2>>),
    Zstd(Box<Streams<'e, Zstd>>),
}

impl<'e> Decoder<'e> {
    pub(super) fn new(
        compression: Compression,
        source: Compressed<'e>,
    ) -> Result<Self, StreamError> {
        Ok(match compression {
            Compression::None => Self::Plain(source),
            Compression::Gzip => Self::Gzip(Box::new(Gzip::new(source))),
            Compression::Xz => Self::Xz(Box::new(Streams::new(source))),
            Compression::Bzip2 => Self::Bzip2(Box::new(Streams::new(source))),
            Compression::Zstd => Self::Zstd(Box::new(Streams::new(source))),
        })
    }

    /// Decodes into `out`, which is not empty; 0 at the end.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        match self {
            Self::Plain(source) => source.read(out),
            Self::Gzip(gzip) => gzip.read(out),
            Self::Xz(streams) => streams.read(out),
            Self::Bzip2(streams) => streams.read(out),
            Self::Zstd(streams) => streams.read(out),
        }
    }

    /// Transported bytes that were taken.
    pub(super) fn taken(&self) -> u64 {
        match self {
            Self::Plain(source) => source.taken(),
            Self::Gzip(gzip) => gzip.source().taken(),
            Self::Xz(streams) => streams.source().taken(),
            Self::Bzip2(streams) => streams.source().taken(),
            Self::Zstd(streams) => streams.source().taken(),
        }
    }

    pub(super) fn into_source(self) -> Compressed<'e> {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(gzip) => gzip.into_source(),
            Self::Xz(streams) => streams.into_source(),
            Self::Bzip2(streams) => streams.into_source(),
            Self::Zstd(streams) => streams.into_source(),
        }
    }
}
