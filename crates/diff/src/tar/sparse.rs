//! Sparse files: where the stored bytes of a body belong in the file.
//!
//! ```text
//! GNU S    the map is in the header and in blocks right after it
//! PAX 0.0  GNU.sparse.offset, GNU.sparse.numbytes records, one pair a segment
//! PAX 0.1  GNU.sparse.map=offset,length,...
//! PAX 1.0  the map is text in the first blocks of the body
//! ```
//!
//! Invariants: segments are sorted, do not overlap, are not empty, end within the file, and add
//! up to exactly the stored bytes.

use tar::GnuSparseHeader;

use super::error::HeaderFault;
use super::header::number;
use super::pax::SparseRecords;

/// Segments that one file may have: 16 MiB of memory. Go has the same bound.
const MOST: usize = 1 << 20;

type Result<T> = std::result::Result<T, HeaderFault>;

/// Offset in the file and length of each stored piece.
pub(super) type Segments = Vec<(u64, u64)>;

/// Adds the map of one GNU block; `false` if it says that the map ends in this block.
pub(super) fn add_gnu(segments: &mut Segments, entries: &[GnuSparseHeader]) -> Result<bool> {
    for entry in entries {
        // Go ends the map at an empty offset, GNU tar at an empty length.
        match (entry.offset[0], entry.numbytes[0]) {
            (0, 0) => return Ok(false),
            (0, _) | (_, 0) => return Err(HeaderFault::ambiguous("half an entry in a sparse map")),
            _ => {}
        }
        let half = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
        match (half(&entry.offset), half(&entry.numbytes)) {
            (Some(offset), Some(length)) => push(segments, offset, length)?,
            _ => return Err(HeaderFault::malformed("the sparse map holds a bad number")),
        }
    }
    Ok(true)
}

fn push(segments: &mut Segments, offset: u64, length: u64) -> Result<()> {
    if segments.len() >= MOST {
        return Err(HeaderFault::malformed(format!(
            "the sparse map has more than {MOST} segments"
        )));
    }
    segments.push((offset, length));
    Ok(())
}

/// Where a PAX map is to be found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxMap {
    /// Here.
    Records(Segments),
    /// In the body (version 1.0).
    Body,
}

impl SparseRecords {
    /// The file's size in bytes.
    pub(super) fn logical_size(&self) -> Result<u64> {
        match (self.size, self.real_size) {
            (Some(a), Some(b)) if a != b => {
                Err(HeaderFault::ambiguous("two sizes of one sparse file"))
            }
            (Some(size), _) | (None, Some(size)) => Ok(size),
            (None, None) => Err(HeaderFault::malformed("a sparse file without a size")),
        }
    }

    /// The map, or where it is.
    pub(super) fn map(&self) -> Result<PaxMap> {
        let version = (self.major, self.minor);
        match version {
            (Some(1), Some(0)) if self.map.is_none() && self.pairs.is_empty() => {
                return Ok(PaxMap::Body);
            }
            (None, None) | (Some(0), Some(0 | 1)) => {}
            (Some(1), Some(0)) => {
                return Err(HeaderFault::ambiguous("two sparse maps of one file"));
            }
            _ => return Err(HeaderFault::ambiguous("an unknown version of sparse map")),
        }
        let numbers = match (&self.map, self.pairs.as_slice()) {
            (Some(map), []) => map.as_slice(),
            (None, pairs) if !pairs.is_empty() => pairs,
            (None, _) => return Err(HeaderFault::ambiguous("GNU.sparse records without a map")),
            (Some(_), _) => return Err(HeaderFault::ambiguous("two sparse maps of one file")),
        };
        if self.blocks.and_then(|blocks| blocks.checked_mul(2)) != Some(numbers.len() as u64) {
            return Err(HeaderFault::malformed(
                "the sparse map's length is not GNU.sparse.numblocks",
            ));
        }
        let mut segments = Segments::new();
        for pair in numbers.chunks_exact(2) {
            push(&mut segments, pair[0], pair[1])?;
        }
        Ok(PaxMap::Records(segments))
    }
}

/// Reads the text of a version 1.0 map, block by block: the number of segments, then offset and
/// length of each, every number ended by a newline.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    count: Option<u64>,
    offset: Option<u64>,
    number: Option<u64>,
    segments: Segments,
}

impl TextMap {
    /// Takes one block; `true` once the map is whole (the rest of the block is padding).
    pub(super) fn take(&mut self, block: &[u8]) -> Result<bool> {
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let number = self.number.unwrap_or(0);
                    let number = number.checked_mul(10).and_then(|n| n.checked_add(digit));
                    self.number = Some(number.ok_or_else(bad_text)?);
                }
                b'\n' => {
                    if self.end_number()? {
                        return Ok(true);
                    }
                }
                _ => return Err(bad_text()),
            }
        }
        Ok(false)
    }

    fn end_number(&mut self) -> Result<bool> {
        let number = self.number.take().ok_or_else(bad_text)?;
        match (self.count, self.offset.take()) {
            (None, _) => self.count = Some(number),
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => push(&mut self.segments, offset, number)?,
        }
        Ok(self.offset.is_none() && self.count == Some(self.segments.len() as u64))
    }

    /// The map.
    pub(super) fn into_segments(self) -> Segments {
        self.segments
    }
}

fn bad_text() -> HeaderFault {
    HeaderFault::malformed("the sparse map in the body is malformed")
}

/// Checks a map against the file's size and the stored bytes, and drops its empty segments (GNU
/// tar ends a map with one where the file ends in a hole).
pub(super) fn checked(segments: Segments, size: u64, stored: u64) -> Result<Segments> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in &segments {
        let after = offset.checked_add(*length).filter(|after| *after <= size);
        let (true, Some(after)) = (*offset >= end, after) else {
            return Err(HeaderFault::malformed(format!(
                "the sparse map is out of order or passes the file's end: {length} bytes at \
                 {offset} of {size}"
            )));
        };
        end = after;
        // Cannot overflow: the segments do not overlap.
        sum += length;
    }
    if sum != stored {
        return Err(HeaderFault::malformed(format!(
            "the sparse map tells of {sum} stored bytes, the header of {stored}"
        )));
    }
    Ok(segments.into_iter().filter(|(_, length)| *length > 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        assert_eq!(checked(vec![(0, 2), (4, 0), (9, 1)], 10, 3).unwrap(), [(0, 2), (9, 1)]);
        assert_eq!(checked(vec![(10, 0)], 10, 0).unwrap(), []);
        for (segments, size, stored) in [
            (vec![(0, 2)], 10, 3),
            (vec![(0, 2)], 1, 2),
            (vec![(4, 1), (0, 1)], 10, 2),
            (vec![(0, 3), (2, 1)], 10, 4),
            (vec![(u64::MAX, 1)], u64::MAX, 1),
            (vec![(1, u64::MAX)], u64::MAX, u64::MAX),
        ] {
            assert!(checked(segments.clone(), size, stored).is_err(), "{segments:?}");
        }
    }

    #[test]
    fn a_text_map_may_span_blocks() {
        let mut map = TextMap::default();
        assert!(!map.take(b"2\n0\n5").unwrap());
        assert!(!map.take(b"12\n10").unwrap());
        assert!(map.take(b"24\n1\n\0\0\0").unwrap());
        assert_eq!(map.into_segments(), [(0, 512), (1024, 1)]);
        assert!(TextMap::default().take(b"0\n").unwrap());
        for bad in [&b"\n"[..], b"a\n", b"-1\n", b"1\n\n", b"99999999999999999999999\n"] {
            assert!(TextMap::default().take(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
