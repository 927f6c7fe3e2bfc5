//! gzip members, one after the other (RFC 1952).
//!
//! The member headers are read here, so that one inflate state serves all members (seekable
//! layers have one member for each file) and offsets can be named.
//!
//! Invariant: a member counts only with the right CRC and length behind it.

use crc32fast::Hasher as Crc;
use flate2::{Decompress, FlushDecompress, Status};

use super::StreamError;
use super::compressed::Compressed;

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;
/// Bytes of a header's name or comment; they are of no use here.
const MOST_TEXT: usize = 1 << 16;

/// The members of a source as one stream.
pub(super) struct Gzip<'e> {
    source: Compressed<'e>,
    inflate: Decompress,
    crc: Crc,
    /// Bytes of the member so far, modulo 2^32.
    length: u32,
    in_member: bool,
    ended: bool,
}

impl<'e> Gzip<'e> {
    pub(super) fn new(source: Compressed<'e>) -> Self {
        let inflate = Decompress::new(false);
        Self { source, inflate, crc: Crc::new(), length: 0, in_member: false, ended: false }
    }

    pub(super) fn source(&self) -> &Compressed<'e> {
        &self.source
    }

    pub(super) fn into_source(self) -> Compressed<'e> {
        self.source
    }

    /// Inflates into `out`, which is not empty; 0 at the end of the last member.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        loop {
            if !self.in_member && !self.next_member()? {
                return Ok(0);
            }
            let n = self.inflate_some(out)?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    fn inflate_some(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        let input = self.source.peek()?;
        if input.is_empty() {
            return Err(self.truncated());
        }
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let result = self.inflate.decompress(input, out, FlushDecompress::None);
        let taken = self.inflate.total_in() - before.0;
        let given = (self.inflate.total_out() - before.1) as usize;
        self.source.take(taken as usize);
        let status = result.map_err(|error| self.corrupt(&error.to_string()))?;
        self.crc.update(&out[..given]);
        self.length = self.length.wrapping_add(given as u32);
        match status {
            Status::StreamEnd => self.end_member()?,
            Status::Ok => {}
            // With input and room at hand there is always progress.
            Status::BufError if taken > 0 || given > 0 => {}
            Status::BufError => return Err(self.corrupt("no progress")),
        }
        Ok(given)
    }

    /// Reads the next member's header; `false` at the end of the input.
    fn next_member(&mut self) -> Result<bool, StreamError> {
        if self.ended || !self.more()? {
            self.ended = true;
            return Ok(false);
        }
        let magic: [u8; 2] = self.bytes()?;
        if magic != [0x1f, 0x8b] {
            return Err(self.corrupt("bytes that are no gzip member follow a member"));
        }
        let head: [u8; 8] = self.bytes()?;
        let flags = head[1];
        if head[0] != 8 || flags & RESERVED != 0 {
            return Err(self.corrupt("unknown method or flags in a member's header"));
        }
        let mut crc = Crc::new();
        crc.update(&magic);
        crc.update(&head);
        if flags & FEXTRA != 0 {
            let len: [u8; 2] = self.bytes()?;
            crc.update(&len);
            for _ in 0..u16::from_le_bytes(len) {
                crc.update(&self.bytes::<1>()?);
            }
        }
        for text in [FNAME, FCOMMENT] {
            if flags & text != 0 {
                self.skip_text(&mut crc)?;
            }
        }
        if flags & FHCRC != 0 && u16::from_le_bytes(self.bytes()?) != crc.finalize() as u16 {
            return Err(self.corrupt("a member's header has a wrong checksum"));
        }
        self.inflate.reset(false);
        self.crc.reset();
        self.length = 0;
        self.in_member = true;
        Ok(true)
    }

    /// Whether another member follows: not at the end, nor if all that is left is zeros.
    fn more(&mut self) -> Result<bool, StreamError> {
        if self.source.peek()?.first() != Some(&0) {
            return Ok(!self.source.peek()?.is_empty());
        }
        loop {
            let zeros = self.source.peek()?;
            let n = zeros.len();
            if zeros.iter().any(|byte| *byte != 0) {
                return Err(self.corrupt("bytes that are no gzip member follow a member"));
            }
            if n == 0 {
                return Ok(false);
            }
            self.source.take(n);
        }
    }

    fn skip_text(&mut self, crc: &mut Crc) -> Result<(), StreamError> {
        for _ in 0..MOST_TEXT {
            let byte = self.bytes::<1>()?;
            crc.update(&byte);
            if byte == [0] {
                return Ok(());
            }
        }
        Err(self.corrupt("a member's name is too long"))
    }

    fn end_member(&mut self) -> Result<(), StreamError> {
        self.in_member = false;
        let (crc, len) = (u32::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?));
        if crc != self.crc.clone().finalize() {
            return Err(self.corrupt("a member's checksum is wrong"));
        }
        if len != self.length {
            return Err(self.corrupt("a member's length is wrong"));
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        let mut bytes = [0; N];
        let mut have = 0;
        while have < N {
            let new = self.source.peek()?;
            if new.is_empty() {
                return Err(self.truncated());
            }
            let n = new.len().min(N - have);
            bytes[have..have + n].copy_from_slice(&new[..n]);
            self.source.take(n);
            have += n;
        }
        Ok(bytes)
    }

    fn corrupt(&self, what: &str) -> StreamError {
        let offset = self.source.taken();
        StreamError::Corrupt { compression: "gzip", offset, what: what.to_owned() }
    }

    fn truncated(&self) -> StreamError {
        StreamError::Truncated { compression: "gzip", offset: self.source.taken() }
    }
}
