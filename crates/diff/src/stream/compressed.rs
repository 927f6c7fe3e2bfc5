//! The transported bytes: buffered, counted, hashed, and their compression recognised by the first.
//!
//! Invariant: every byte that a decoder sees has been counted, and hashed unless the hash was
//! given up because the bytes are the tar itself.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::{Compression, MAGIC, StreamError};

const BUFFER: usize = 128 << 10;
/// A buffered input.
pub(super) struct Compressed<'e> {
    input: Box<dyn Read + Send + 'e>,
    progress: &'e (dyn Fn(u64) + Sync),
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    read: u64,
    hasher: Option<Sha256>,
}

impl<'e> Compressed<'e> {
    pub(super) fn new(
        input: Box<dyn Read + Send + 'e>,
        progress: &'e (dyn Fn(u64) + Sync),
    ) -> Self {
        Self {
            input,
            progress,
            buffer: vec![0; BUFFER],
            at: 0,
            filled: 0,
            read: 0,
            hasher: Some(Sha256::new()),
        }
    }

    /// The same, without a digest.
    pub(super) fn unhashed(
        input: Box<dyn Read + Send + 'e>,
        progress: &'e (dyn Fn(u64) + Sync),
    ) -> Self {
        Self { hasher: None, ..Self::new(input, progress) }
    }

    /// Bytes that were taken from it.
    pub(super) fn taken(&self) -> u64 {
        self.read - (self.filled - self.at) as u64
    }

    /// Bytes read, and their sha256 unless it was given up.
    pub(super) fn finish(self) -> (u64, Option<[u8; 32]>) {
        (self.read, self.hasher.map(|hasher| hasher.finalize().into()))
    }

    /// Says what the bytes are. To be called before any byte is taken.
    pub(super) fn detect(&mut self) -> Result<Compression, StreamError> {
        // Not hashed yet: plain bytes are hashed as the diff.
        let hasher = self.hasher.take();
        while self.filled < MAGIC && self.read_more()? > 0 {}
        let bytes = &self.buffer[..self.filled];
        let compression = Compression::of(bytes)?;
        if compression != Compression::None {
            self.hasher = hasher;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
        }
        Ok(compression)
    }

    /// Appends to the buffer what one read gives; 0 at the end of the input.
    fn read_more(&mut self) -> Result<usize, StreamError> {
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(n) => {
                    let new = &self.buffer[self.filled..self.filled + n];
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(new);
                    }
                    self.filled += n;
                    self.read += n as u64;
                    if n > 0 {
                        (self.progress)(self.read);
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(StreamError::Read { offset: self.read, source }),
            }
        }
    }

    /// The bytes at hand, empty only at the end of the input.
    pub(super) fn peek(&mut self) -> Result<&[u8], StreamError> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.at..self.filled])
    }

    /// Takes `n` of the bytes at hand.
    pub(super) fn take(&mut self, n: usize) {
        self.at = self.filled.min(self.at + n);
    }

    /// Takes bytes as they are; 0 at the end of the input.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        let bytes = self.peek()?;
        let n = bytes.len().min(out.len());
        out[..n].copy_from_slice(&bytes[..n]);
        self.take(n);
        Ok(n)
    }
}
