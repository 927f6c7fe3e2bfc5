//! The body of a regular member: which bytes of the file the tar stores, read and copied.
//!
//! Invariant: what is not stored is zeros.

use std::io::Read;
use std::os::unix::fs::FileExt;

use strata_tree::ContentDigest;

use crate::diff::{DiffReader, RawSink};
use crate::error::{Error, IoContext, Result};
use crate::stream::Hashed;

/// Bytes that are read, hashed or copied at a time: the processor's caches hold them.
pub(crate) const CHUNK: usize = 128 << 10;

/// A body: how large the file is, and which parts of it the tar stores.
pub(crate) struct Content {
    pub logical: u64,
    pub pieces: Option<Vec<(u64, u64)>>,
}

impl Content {
    fn segments(&self) -> Vec<(u64, u64)> {
        match &self.pieces {
            Some(pieces) => pieces.clone(),
            None if self.logical == 0 => Vec::new(),
            None => vec![(0, self.logical)],
        }
    }

    pub(crate) fn stored(&self) -> u64 {
        match &self.pieces {
            Some(pieces) => pieces.iter().map(|(_, len)| len).sum(),
            None => self.logical,
        }
    }
}

pub(crate) fn copy_range(
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

/// Has `read` read each part that the tar stores, told where in the file it begins and ends; gives
/// the digest of the whole file.
pub(crate) fn digest<R: Read, S: RawSink>(
    content: &Content,
    reader: &mut DiffReader<&mut Hashed<R>, S>,
    mut read: impl FnMut(&mut DiffReader<&mut Hashed<R>, S>, u64, u64) -> Result<()>,
) -> Result<ContentDigest> {
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
pub(crate) fn fill<R: Read, S: RawSink>(
    reader: &mut DiffReader<R, S>,
    mut buf: &mut [u8],
) -> Result<()> {
    while !buf.is_empty() {
        match reader.read_body(buf)? {
            0 => return Err(Error::damaged("a sparse member", "its map passes its body")),
            n => buf = &mut buf[n..],
        }
    }
    Ok(())
}
