//! [`DiffAtOffsets`]: the exact tar of a layer, read at any offset.
//!
//! The headers are inflated once, into a scratch file; where each stretch of the tar comes from is
//! kept in a table. A body is read from the layer's own file when it is asked for.
//!
//! ```text
//! tar      |raw ......|body a....|raw.|body b..|raw ....|
//! parts     ^0         ^512       ^... one start each, in order
//! scratch  |raw ......|raw.|raw ....|           bodies that no file holds lie here too
//! ```
//!
//! Invariants: the bytes are those that [`DiffStream`](super::DiffStream) gives; what is held is
//! 40 bytes for each stretch, and each path once.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use strata_tree::TreePath;

use super::{Frames, StoredBody, Stretch};
use crate::error::{DiffContext, Result};

/// Opens a regular file of the layer.
type Opener = Box<dyn Fn(&TreePath) -> io::Result<File> + Send + Sync>;

/// A tar that can be read at offsets. See the module.
pub struct DiffAtOffsets {
    scratch: File,
    parts: Vec<Stored>,
    paths: Vec<TreePath>,
    len: u64,
    open: Opener,
}

/// A stretch of the tar, up to the next one's start.
#[derive(Debug, Clone, Copy)]
struct Stored {
    start: u64,
    /// Where it begins in its file.
    at: u64,
    /// Which path; `None`: the scratch file.
    path: Option<u32>,
}

impl std::fmt::Debug for DiffAtOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffAtOffsets").field("len", &self.len).finish_non_exhaustive()
    }
}

impl DiffAtOffsets {
    /// Reads `headers` of a layer whose regular files `open` opens; `scratch` is an empty file.
    ///
    /// # Errors
    /// `Damaged` if it is not such a file; `Io`.
    pub fn new(headers: &File, scratch: File, open: Opener) -> Result<Self> {
        let frames = Frames::open(headers)?;
        let this = Self { scratch, parts: Vec::new(), paths: Vec::new(), len: 0, open };
        this.read(frames).doing(|| "cannot read headers.zst".to_owned())
    }

    fn read(mut self, mut frames: Frames) -> io::Result<Self> {
        let mut out = BufWriter::new(self.scratch.try_clone()?);
        let mut written = 0;
        while let Some(stretch) = frames.next_raw()? {
            match stretch {
                Stretch::Raw(len) => {
                    spool(&mut frames.stream, &mut out, len)?;
                    self.add(None, written, len)?;
                    written += len;
                }
                Stretch::Body => match frames.next_body()? {
                    StoredBody::Inline(0) => {}
                    StoredBody::Inline(len) => {
                        let none = || io::Error::other("headers.zst has no inline bodies");
                        spool(frames.inline.as_mut().ok_or_else(none)?, &mut out, len)?;
                        self.add(None, written, len)?;
                        written += len;
                    }
                    StoredBody::File(path, len) => {
                        let path = self.path(path)?;
                        self.add(Some(path), 0, len)?;
                    }
                    StoredBody::Sparse(path, pieces) => {
                        let path = self.path(path)?;
                        for (at, len) in pieces {
                            self.add(Some(path), at, len)?;
                        }
                    }
                },
            }
        }
        out.flush()?;
        Ok(self)
    }

    fn path(&mut self, path: TreePath) -> io::Result<u32> {
        self.paths.push(path);
        u32::try_from(self.paths.len() - 1).map_err(io::Error::other)
    }

    /// Adds a stretch; a table that is damaged may have any lengths.
    fn add(&mut self, path: Option<u32>, at: u64, len: u64) -> io::Result<()> {
        let too_long = || io::Error::other("headers.zst has lengths that no file has");
        let within = |end: &u64| i64::try_from(*end).is_ok();
        at.checked_add(len).filter(within).ok_or_else(too_long)?;
        let whole = self.len.checked_add(len).filter(within).ok_or_else(too_long)?;
        let last = self.parts.last();
        let goes_on = last.is_some_and(|last| {
            (last.path, path) == (None, None) && last.at + (self.len - last.start) == at
        });
        if len > 0 && !goes_on {
            self.parts.push(Stored { start: self.len, at, path });
        }
        self.len = whole;
        Ok(())
    }

    /// The length of the tar in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads at `offset`; fewer bytes than the buffer holds only at the end.
    ///
    /// # Errors
    /// What the layer's files say; `UnexpectedEof` if one is shorter than it was.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let want = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let buffer = match buffer.len() > want {
            true => &mut buffer[..want],
            false => buffer,
        };
        let mut done = 0;
        let mut next = self.parts.partition_point(|part| part.start <= offset);
        while done < buffer.len() {
            let at = offset + done as u64;
            let end = self.parts.get(next).map_or(self.len, |part| part.start);
            let Some(part) = next.checked_sub(1).and_then(|one| self.parts.get(one)) else { break };
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let until = buffer.len().min(done.saturating_add(left));
            let (piece, from) = (&mut buffer[done..until], part.at + (at - part.start));
            match part.path.and_then(|path| self.paths.get(path as usize)) {
                Some(path) => (self.open)(path)?.read_exact_at(piece, from)?,
                None => self.scratch.read_exact_at(piece, from)?,
            }
            done = until;
            next += 1;
        }
        Ok(done)
    }
}

/// Copies just `len` bytes.
fn spool(from: &mut impl Read, to: &mut impl Write, len: u64) -> io::Result<()> {
    match io::copy(&mut from.take(len), to)? == len {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "headers.zst ends early")),
    }
}
