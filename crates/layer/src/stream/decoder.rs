//! The decoders of all compressions behind one face, and a reader for who needs no digests.
//!
//! Invariants: an error of the input stays what it is, also where a decoder passes it on; every
//! other one says where in the transported bytes it was met.

use std::io::{self, Read};

use super::gzip::Gzip;
use super::source::Source;
use super::streams::{Bzip2, Streams, Xz};
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
        let mut source = Source::unhashed(input);
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
    Plain(Source<'e>),
    Gzip(Box<Gzip<'e>>),
    Xz(Streams<'e, Xz>),
    Bzip2(Streams<'e, Bzip2>),
    Zstd(zstd::Decoder<'static, Source<'e>>),
}

impl<'e> Decoder<'e> {
    pub(super) fn new(compression: Compression, source: Source<'e>) -> Result<Self, StreamError> {
        Ok(match compression {
            Compression::None => Self::Plain(source),
            Compression::Gzip => Self::Gzip(Box::new(Gzip::new(source))),
            Compression::Xz => Self::Xz(Streams::new(source)),
            Compression::Bzip2 => Self::Bzip2(Streams::new(source)),
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(source);
                Self::Zstd(decoder.map_err(|error| decode_error(0, error))?)
            }
        })
    }

    /// Decodes into `out`, which is not empty; 0 at the end.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        match self {
            Self::Plain(source) => source.read(out).map_err(|error| decode_error(0, error)),
            Self::Gzip(gzip) => gzip.read(out),
            Self::Xz(streams) => streams.read(out),
            Self::Bzip2(streams) => streams.read(out),
            Self::Zstd(zstd) => loop {
                match zstd.read(out) {
                    Ok(n) => return Ok(n),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(decode_error(zstd.get_ref().taken(), error)),
                }
            },
        }
    }

    /// Transported bytes that were taken.
    pub(super) fn taken(&self) -> u64 {
        match self {
            Self::Plain(source) => source.taken(),
            Self::Gzip(gzip) => gzip.source().taken(),
            Self::Xz(streams) => streams.source().taken(),
            Self::Bzip2(streams) => streams.source().taken(),
            Self::Zstd(zstd) => zstd.get_ref().taken(),
        }
    }

    pub(super) fn into_source(self) -> Source<'e> {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(gzip) => gzip.into_source(),
            Self::Xz(streams) => streams.into_source(),
            Self::Bzip2(streams) => streams.into_source(),
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

/// The source's own error, if that is what zstd passes on.
fn decode_error(offset: u64, error: io::Error) -> StreamError {
    let kind = error.kind();
    match error.downcast::<StreamError>() {
        Ok(inner) => inner,
        Err(_) if kind == io::ErrorKind::UnexpectedEof => {
            StreamError::Truncated { compression: "zstd", offset }
        }
        Err(error) => StreamError::Corrupt { compression: "zstd", offset, what: error.to_string() },
    }
}
