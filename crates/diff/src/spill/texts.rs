//! Names, paths, link targets, attributes: bytes of any length, one after the other.
//!
//! ```text
//! u8 length, bytes              up to 254 bytes
//! 255, u32 length, bytes        more
//! ```
//!
//! Invariant: a text is not changed once it is there.

use std::sync::Arc;

use super::{Spill, SpillSpace, too_many};
use crate::error::Result;

/// The length that says that the length follows.
const LONG: u8 = u8::MAX;

/// All of them; one is addressed by where it begins.
#[derive(Debug)]
pub struct SpillTexts(Spill<u8>);

impl SpillTexts {
    /// None, with that share of the memory, in percent.
    pub fn new(scratch: &Arc<SpillSpace>, percent: usize) -> Self {
        Self(Spill::new(scratch, percent))
    }

    /// Adds one; gives its place.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn put(&mut self, text: &[u8]) -> Result<u64> {
        let at = match u8::try_from(text.len()) {
            Ok(length) if length != LONG => self.0.push(length)?,
            _ => {
                let length = u32::try_from(text.len()).map_err(|_| too_many("bytes of a text"))?;
                let at = self.0.push(LONG)?;
                self.0.extend(&length.to_le_bytes())?;
                at
            }
        };
        self.0.extend(text)?;
        Ok(at)
    }

    /// The text at that place.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn get(&self, at: u64) -> Result<Vec<u8>> {
        Ok(self.following(at)?.0)
    }

    /// The text at that place, and the place of the next one.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn following(&self, at: u64) -> Result<(Vec<u8>, u64)> {
        let (from, length) = self.place(at)?;
        let mut text = Vec::with_capacity(length as usize);
        self.0.each(from, length, |part| text.extend_from_slice(part))?;
        Ok((text, from + length))
    }

    /// Whether the text at that place is `expected`.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn is(&self, at: u64, expected: &[u8]) -> Result<bool> {
        let (from, length) = self.place(at)?;
        if length != expected.len() as u64 {
            return Ok(false);
        }
        let (mut rest, mut same) = (expected, true);
        self.0.each(from, length, |part| {
            let (here, after) = rest.split_at(part.len());
            same &= here == part;
            rest = after;
        })?;
        Ok(same)
    }

    /// Where the bytes of a text are, and how many.
    fn place(&self, at: u64) -> Result<(u64, u64)> {
        let first = self.0.get(at)?;
        if first != LONG {
            return Ok((at + 1, u64::from(first)));
        }
        let mut length = Vec::with_capacity(4);
        self.0.each(at + 1, 4, |part| length.extend_from_slice(part))?;
        let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        Ok((at + 5, u64::from(length)))
    }
}
