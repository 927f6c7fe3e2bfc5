//! Whole blocks of an image: those of directories, and contents, of which equal ones stand once.
//!
//! Invariants: every content is read from its start to the size that the tree says, and one that
//! ends before is an error; a block of zeros is left a hole of the image's file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use strata_content::{Content, FileTree};
use strata_tree::{NodeId, TreePath};

use super::format::BLOCK;
use crate::error::{Error, Result};

const PIECE: usize = 1 << 20;

/// The part of an image that consists of whole blocks.
pub(super) struct Blocks<'a> {
    out: &'a File,
    next: u64,
    known: HashMap<([u8; 32], u64), u32>,
    piece: Vec<u8>,
}

impl<'a> Blocks<'a> {
    /// Blocks of `out` from the block `first` on.
    pub(super) fn new(out: &'a File, first: u64) -> Self {
        Self { out, next: first, known: HashMap::new(), piece: vec![0; PIECE] }
    }

    /// How many blocks the image has by now.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    fn take(&mut self, bytes: u64) -> Result<u32> {
        let limit = u64::from(u32::MAX);
        let first = self.next;
        self.next += bytes.div_ceil(BLOCK);
        match u32::try_from(first) {
            Ok(first) if self.next <= limit => Ok(first),
            _ => Err(Error::TooLarge { what: "blocks", limit }),
        }
    }

    /// Puts bytes into blocks of their own; the number of the first.
    ///
    /// # Errors
    /// `TooLarge`; `Io`.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<u32> {
        let first = self.take(bytes.len() as u64)?;
        write_blocks(self.out, u64::from(first) * BLOCK, bytes)?;
        Ok(first)
    }

    /// Puts `length` bytes of a content, from its start, into blocks, or finds them there, and
    /// appends the `rest` bytes after them to `tail`. `alone`: no other content has this size.
    ///
    /// # Errors
    /// `Short`; `TooLarge`; `Io`; whatever the tree answers.
    pub(super) fn content(
        &mut self,
        tree: &FileTree,
        which: (NodeId, &TreePath),
        (length, rest): (u64, u64),
        alone: bool,
        tail: &mut Vec<u8>,
    ) -> Result<u32> {
        let mut content =
            NodeBody { bytes: tree.open(which.0)?, path: which.1, at: 0, length, rest };
        let key = match length > 0 && !alone {
            true => Some((content.digest(&mut self.piece)?, length)),
            false => None,
        };
        let first = match key.and_then(|key| self.known.get(&key)).copied() {
            Some(first) => first,
            None => {
                let first = self.take(length)?;
                content.at = 0;
                while content.at < length {
                    let at = u64::from(first) * BLOCK + content.at;
                    let piece = content.next(length, &mut self.piece)?;
                    write_blocks(self.out, at, piece)?;
                }
                key.map(|key| self.known.insert(key, first));
                first
            }
        };
        content.at = length;
        tail.extend_from_slice(content.next(length + rest, &mut self.piece)?);
        Ok(first)
    }
}

/// A content that is being read.
struct NodeBody<'a> {
    bytes: Box<dyn Content>,
    path: &'a TreePath,
    at: u64,
    length: u64,
    rest: u64,
}

impl NodeBody<'_> {
    /// The bytes from here to `end`, as many as fit `buffer`.
    fn next<'b>(&mut self, end: u64, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let wanted = buffer.len().min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        let piece = &mut buffer[..wanted];
        fill(&*self.bytes, self.path, (self.at, self.length + self.rest), piece)?;
        self.at += wanted as u64;
        Ok(piece)
    }

    fn digest(&mut self, buffer: &mut [u8]) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        while self.at < self.length {
            hash.update(self.next(self.length, buffer)?);
        }
        Ok(hash.finalize().into())
    }
}

/// Fills `buffer` with the bytes from `at` on of a content of `size` bytes.
///
/// # Errors
/// `Short` if it ends before; `Io`.
pub(super) fn fill(
    content: &dyn Content,
    path: &TreePath,
    (at, size): (u64, u64),
    buffer: &mut [u8],
) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read = at + filled as u64;
        let got = match content.read_at(&mut buffer[filled..], read) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(|error| Error::io(format!("reading {path}"), error))?,
        };
        if got == 0 {
            return Err(Error::Short { path: path.to_string(), read, size });
        }
        filled += got;
    }
    Ok(())
}

/// Writes bytes that begin at a block, without the blocks that are zeros.
pub(super) fn write_blocks(out: &File, at: u64, bytes: &[u8]) -> Result<()> {
    let failed = |source| Error::io("writing the image", source);
    let zeros = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut from = 0;
    for group in
        bytes.chunks(BLOCK as usize).collect::<Vec<_>>().chunk_by(|a, b| zeros(a) == zeros(b))
    {
        let length: usize = group.iter().map(|block| block.len()).sum();
        if !group.first().is_some_and(|block| zeros(block)) {
            out.write_all_at(&bytes[from..from + length], at + from as u64).map_err(failed)?;
        }
        from += length;
    }
    Ok(())
}
