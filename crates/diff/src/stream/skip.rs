//! Readers that can pass over bytes.
//!
//! Invariant: what was passed over is never given by a later read.

use std::io::{self, Read};

/// A reader that can pass over bytes, at best without reading them.
pub trait SkipRead: Read {
    /// Passes over the next `count` bytes. Gives how many there were: fewer only at the end.
    ///
    /// # Errors
    /// As for [`Read::read`].
    fn skip(&mut self, count: u64) -> io::Result<u64>;
}

impl<S: SkipRead + ?Sized> SkipRead for &mut S {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        (**self).skip(count)
    }
}

/// Any reader: it reads what it passes over.
#[derive(Debug)]
pub struct ReadThrough<R>(pub R);

impl<R: Read> Read for ReadThrough<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: Read> SkipRead for ReadThrough<R> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut self.0.by_ref().take(count), &mut io::sink())
    }
}
