//! A read-only memory map of a whole file: the one place in this crate that is `unsafe`.
//!
//! Invariants: only files that nobody changes are mapped. A tree file is written once under
//! another name, synced, renamed into place and from then on only ever unlinked; unlinking
//! leaves a map intact. What the bytes say is checked by safe code at every access.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// The bytes of one file.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps `file` whole; the descriptor may be closed afterwards.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the file is immutable (see the module's invariant): it was written once,
        // before it got the name under which it was opened, and is never truncated, so the
        // mapped bytes neither change nor vanish while the map lives.
        let map = unsafe { MmapOptions::new().map(file)? };
        Ok(Self(map))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
