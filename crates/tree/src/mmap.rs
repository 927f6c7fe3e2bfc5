//! A read-only memory map of a whole file: the one place in this crate that is `unsafe`.
//!
//! Invariants: only files that nobody changes are mapped. A tree file is written once under
//! another name, synced, renamed into place and from then on only ever unlinked; unlinking
//! leaves a map intact. What the bytes say is checked by safe code at every access.
//!
//! Pages of the map count as the process's memory once they were read. Those of a large file are
//! all released from time to time; what is needed again comes from the page cache.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

/// A file of at least this many bytes is large.
const LARGE: usize = 4 << 20;
/// The pages of a large file are released after this many reads of records: about 300 KiB in order.
const READS: u32 = 4096;

/// The bytes of one file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: Mmap,
    reads: AtomicU32,
}

impl MappedFile {
    /// Maps `file` whole; the descriptor may be closed afterwards.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the file is immutable (see the module's invariant): it was written once,
        // before it got the name under which it was opened, and is never truncated, so the
        // mapped bytes neither change nor vanish while the map lives.
        let map = unsafe { MmapOptions::new().map(file)? };
        Ok(Self { map, reads: AtomicU32::new(0) })
    }

    /// A record is about to be read.
    pub(crate) fn reading(&self) {
        if self.map.len() < LARGE {
            return;
        }
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        if reads % READS == READS - 1 {
            // SAFETY: the map is shared, read-only and of an immutable file, so a page that was let
            // go has the same bytes when it is read again, also under a slice that is in use.
            // Pages that stay, if it fails, are memory in use and nothing else.
            let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}
