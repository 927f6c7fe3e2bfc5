//! The two traits of the seam, and a reader over any content.
//!
//! Invariants: `read_at` gives fewer bytes than the buffer holds only at the end; what `as_file`
//! gives holds the same bytes, is open for reading only, and nobody relies on its position: it is
//! read at offsets.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};

use strata_tree::{ContentRef, Result};

/// The bytes of one regular file, open.
pub trait Content: Debug + Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at `offset`, in bytes; fewer than the buffer holds only at the end, 0 behind it.
    ///
    /// # Errors
    /// What the source says, `EIO` first.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The bytes as a file, where they are one: for passthrough, reflinks and copies inside the
    /// kernel.
    fn as_file(&self) -> Option<&File>;
}

/// Where bytes come from.
pub trait Contents: Send + Sync {
    /// Opens the bytes that a tree refers to.
    ///
    /// # Errors
    /// `Io` with the path: `ENOENT` where they are missing, else what the source says; `Corrupt`
    /// for a layer that this does not have.
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>>;

    /// Says that these bytes will be read soon. It is advice: what fails here will be reported
    /// when it is read.
    fn prefetch(&self, which: &[ContentRef]);
}

/// Reads a content from its start to its end.
pub struct Reader<'a> {
    content: &'a dyn Content,
    at: u64,
}

impl<'a> Reader<'a> {
    /// A reader at the start.
    pub fn new(content: &'a dyn Content) -> Self {
        Self { content, at: 0 }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let done = self.content.read_at(buffer, self.at)?;
        self.at += done as u64;
        Ok(done)
    }
}
