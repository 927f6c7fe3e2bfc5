//! The body of a regular member: which bytes of the file the tar stores, read and copied.
//!
//! Invariant: what is not stored is zeros.

use std::io::Read;
use std::os::unix::fs::FileExt;

use strata_tree::ContentDigest;

use crate::error::{DiffContext, Error, Result};
use crate::stream::Hashed;
use crate::tar::{DiffReader, RawSink};

/// Bytes that are read, hashed or copied at a time: the processor's caches hold them.
pub const CHUNK: usize = 128 << 10;

/// A body: how large the file is, and which parts of it the tar stores.
pub struct BodyLayout {
    /// Bytes of the file.
    pub logical: u64,
    /// For sparse files: offset and length of each piece that is stored, as
    /// [`sparse`](crate::tar::Member::sparse) has them.
    pub pieces: Option<Vec<(u64, u64)>>,
}

impl BodyLayout {
    fn segments(&self) -> Vec<(u64, u64)> {
        match &self.pieces {
            Some(pieces) => pieces.clone(),
            None if self.logical == 0 => Vec::new(),
            None => vec![(0, self.logical)],
        }
    }

    /// Bytes of it that are in the tar.
    pub fn stored(&self) -> u64 {
        match &self.pieces {
            Some(pieces) => pieces.iter().map(|(_, len)| len).sum(),
            None => self.logical,
        }
    }
}

/// Copies `len` bytes of `file` from `at` on to `out`.
///
/// # Errors
/// `Io`, also where the file is shorter.
pub fn copy_range(
    file: &std::fs::File,
    mut at: u64,
    len: u64,
    out: &mut dyn std::io::Write,
) -> Result<()> {
    let doing = || "cannot copy a replaced body".to_owned();
    let end = at + len;
    let mut chunk = vec![0; CHUNK];
    while at < end {
        let n = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
        file.read_exact_at(&mut chunk[..n], at).doing(doing)?;
        out.write_all(&chunk[..n]).doing(doing)?;
        at += n as u64;
    }
    Ok(())
}

/// Calls `read` for each part that the tar stores, with where in the file it begins and ends; gives
/// the digest of the whole file.
///
/// # Errors
/// What `read` says.
pub fn digest<R, S, E, F>(
    content: &BodyLayout,
    reader: &mut DiffReader<&mut Hashed<R>, S>,
    mut read: F,
) -> std::result::Result<ContentDigest, E>
where
    R: Read,
    S: RawSink,
    F: FnMut(&mut DiffReader<&mut Hashed<R>, S>, u64, u64) -> std::result::Result<(), E>,
{
    reader.input().begin();
    let mut at = 0;
    for (offset, len) in content.segments() {
        reader.input().hole(offset - at);
        at = offset + len;
        read(reader, offset, at)?;
    }
    reader.input().hole(content.logical - at);
    Ok(reader.input().end())
}

/// The next bytes of the body; the reader has checked that the body is as long as its pieces.
///
/// # Errors
/// `Tar`; `Damaged` if the body ends.
pub fn fill<R: Read, S: RawSink>(reader: &mut DiffReader<R, S>, mut buf: &mut [u8]) -> Result<()> {
    while !buf.is_empty() {
        match reader.read_body(buf)? {
            0 => return Err(Error::damaged("a sparse member", "its map passes its body")),
            n => buf = &mut buf[n..],
        }
    }
    Ok(())
}
