//! The open blocks of inodes, in memory until no inode can come into them any more.
//!
//! Invariants: the first block stays to the end, for the superblock; a write behind the open
//! blocks does not happen, since inodes are written in the order in which `space` placed them.

use std::fs::File;

use super::blocks::write_blocks;
use super::format::BLOCK;
use super::space::WINDOW;
use crate::error::{Error, Result};

/// The open blocks. See the module.
pub(super) struct Window<'a> {
    out: &'a File,
    first: Vec<u8>,
    /// The block that `open` begins with; never the first one of the image.
    from: u64,
    open: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(out: &'a File) -> Self {
        Self { out, first: vec![0; BLOCK as usize], from: 1, open: Vec::new() }
    }

    /// Writes an inode at this offset of the image.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if at < BLOCK {
            let at = at as usize;
            return match self.first.get_mut(at..at + bytes.len()) {
                Some(place) => {
                    place.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(misplaced()),
            };
        }
        let start = at.checked_sub(self.from * BLOCK).ok_or_else(misplaced)? as usize;
        let end = start + bytes.len();
        if self.open.len() < end {
            self.open.resize(end.next_multiple_of(BLOCK as usize), 0);
        }
        self.open.get_mut(start..end).ok_or_else(misplaced)?.copy_from_slice(bytes);
        let blocks = self.open.len() as u64 / BLOCK;
        // Flushed in larger pieces than a block.
        if blocks > 2 * WINDOW { self.flush(blocks - WINDOW) } else { Ok(()) }
    }

    fn flush(&mut self, blocks: u64) -> Result<()> {
        let length = (blocks * BLOCK) as usize;
        let done = self.open.get(..length).ok_or_else(misplaced)?;
        write_blocks(self.out, self.from * BLOCK, done)?;
        self.open.drain(..length);
        self.from += blocks;
        Ok(())
    }

    /// Writes what is open; the first block, unwritten.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.flush(self.open.len() as u64 / BLOCK)?;
        Ok(self.first)
    }
}

fn misplaced() -> Error {
    Error::NotMerged("an inode has a place that was closed".to_owned())
}
