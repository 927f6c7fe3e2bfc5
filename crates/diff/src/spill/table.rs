//! A hash table of numbers, which stand for records elsewhere.
//!
//! ```text
//! place = u32 hash << 32 | number + 1, or 0       open addressing, a power of two of places
//! ```
//!
//! Invariants: two thirds of the places are taken at most; a number is never taken out, and one
//! may take the place of another with the same hash.

use std::sync::Arc;

use super::{Spill, SpillSpace, too_many};
use crate::error::Result;

/// Places of a new table.
const PLACES: u64 = 1024;

/// The table. Which record a number stands for, and whether it is the one that is looked for, the
/// caller knows.
#[derive(Debug)]
pub struct Table {
    places: Spill<u64>,
    taken: u64,
    scratch: Arc<SpillSpace>,
    percent: usize,
}

/// Where what was looked for is, or may be put, as long as the table does not change.
#[derive(Debug, Clone, Copy)]
pub struct TablePlace {
    at: u64,
    hash: u32,
    /// The number that is there.
    pub number: Option<u32>,
}

impl Table {
    /// An empty one, with that share of the memory, in percent.
    pub fn new(scratch: &Arc<SpillSpace>, percent: usize) -> Self {
        let places = Spill::filled(scratch, percent, PLACES, 0);
        Self { places, taken: 0, scratch: Arc::clone(scratch), percent }
    }

    /// Looks for the number with that hash of which `is` says that it is the one.
    ///
    /// # Errors
    /// Those of `is`; `Io` from the scratch file.
    pub fn find(&self, hash: u32, is: impl Fn(u32) -> Result<bool>) -> Result<TablePlace> {
        let mask = self.places.len() - 1;
        let mut at = u64::from(hash) & mask;
        loop {
            let place = self.places.get(at)?;
            let number = (place as u32).checked_sub(1);
            let Some(found) = number else { return Ok(TablePlace { at, hash, number }) };
            if (place >> 32) as u32 == hash && is(found)? {
                return Ok(TablePlace { at, hash, number });
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts a number to a place that was found.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn put(&mut self, place: TablePlace, number: u32) -> Result<()> {
        let next = number.checked_add(1).ok_or_else(|| too_many("entries"))?;
        self.places.set(place.at, u64::from(place.hash) << 32 | u64::from(next))?;
        self.taken += u64::from(place.number.is_none());
        if self.taken * 3 > self.places.len() * 2 { self.grow() } else { Ok(()) }
    }

    fn grow(&mut self) -> Result<()> {
        let length = self.places.len() * 2;
        let mut places = Spill::filled(&self.scratch, self.percent, length, 0);
        for from in 0..self.places.len() {
            let place = self.places.get(from)?;
            if place == 0 {
                continue;
            }
            let mut at = (place >> 32) & (length - 1);
            while places.get(at)? != 0 {
                at = (at + 1) & (length - 1);
            }
            places.set(at, place)?;
        }
        self.places = places;
        Ok(())
    }
}
