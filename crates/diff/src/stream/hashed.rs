//! A tar that is hashed as it is read: all of it, and its bodies once more each by itself.
//!
//! Invariants: the digest of the whole covers each byte that was read, in order; that of a body
//! those that were read between `begin` and `end`, with its holes.

use std::io::{self, Read};

use crate::sha256::{Sha256, update_both};
use strata_tree::ContentDigest;

/// A reader, and the digests of what was read.
#[derive(Debug)]
pub struct Hashed<R> {
    inner: R,
    whole: Sha256,
    body: Option<Sha256>,
    size: u64,
}

impl<R: Read> Hashed<R> {
    /// A reader of `inner` that has read nothing yet.
    pub fn new(inner: R) -> Self {
        Self { inner, whole: Sha256::new(), body: None, size: 0 }
    }

    /// Bytes that were read.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A body begins.
    pub fn begin(&mut self) {
        self.body = Some(Sha256::new());
    }

    /// The body has `n` zeros that the tar leaves out.
    pub fn hole(&mut self, n: u64) {
        if let Some(body) = &mut self.body {
            body.update_zeros(n);
        }
    }

    /// The body ends; nothing if none was begun.
    pub fn end(&mut self) -> ContentDigest {
        let body = self.body.take().unwrap_or_default();
        ContentDigest::from_bytes(body.finish())
    }

    /// The reader, and the digest of the whole.
    pub fn finish(self) -> (R, [u8; 32]) {
        (self.inner, self.whole.finish())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match &mut self.body {
            Some(body) => update_both(&mut self.whole, body, &buf[..n]),
            None => self.whole.update(&buf[..n]),
        }
        self.size += n as u64;
        Ok(n)
    }
}
