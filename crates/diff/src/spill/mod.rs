//! Vectors that may become larger than memory: [`Spill`].
//!
//! ```text
//! records   0 .. k | k .. 2k | 2k .. 3k | ...      a page: as many records as 4096 bytes hold
//! memory        [page]           [page]            those used last, within the vector's share
//! scratch file  page 1, page 0, page 3, ...        the others, in the order of their first leaving
//! ```
//!
//! A layer may have millions of names, and what is known of each has to wait for the end of its
//! tar. All vectors of one layer share a [`SpillSpace`]: an amount of memory, and a file that is
//! made when it is used up, so a layer that fits never meets the disk. Layers that are read at a
//! time take their memory from one [`Room`].
//!
//! Invariants: what was set last is what is got, wherever it was meanwhile; in memory are no more
//! pages than the share and the room hold (two at least, and those that the file did not take,
//! where that is allowed); a page is written when it leaves memory changed.

mod record;
mod table;
mod texts;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{DiffContext, Error, Result};

pub use record::Record;
pub use table::{Table, TablePlace};
pub use texts::SpillTexts;

/// Bytes of a page in the scratch file.
const PAGE: usize = 4096;

/// Pages of each vector that are in memory in any case.
const FEWEST: usize = 2;

/// Makes the file of a [`SpillSpace`]: empty, for reading and writing, and without a name.
type MakeFile = dyn Fn() -> io::Result<File> + Send + Sync;

/// Bytes of memory for all layers that are read at a time.
#[derive(Debug)]
pub struct Room(AtomicUsize);

impl Room {
    /// That number of bytes.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Memory for the vectors of one layer, and a file for what is beyond it.
pub struct SpillSpace {
    room: Arc<Room>,
    /// Bytes of that, at most.
    memory: usize,
    /// Where the file is, for people.
    place: String,
    /// Whether a page stays in memory if the file takes none.
    or_memory: bool,
    file: Mutex<ScratchFile>,
}

struct ScratchFile {
    /// Nobody, where memory is all that there is.
    make: Option<Box<MakeFile>>,
    file: Option<File>,
    /// Pages that it has.
    pages: u32,
    /// It took no page once, and is asked for none any more.
    refused: bool,
}

impl std::fmt::Debug for SpillSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillSpace").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl SpillSpace {
    /// That many bytes of the room; `make` is asked for the file, once, when they are used up.
    /// Errors say that it is in `place`.
    pub fn new(
        room: &Arc<Room>,
        memory: usize,
        place: impl Into<String>,
        make: impl Fn() -> io::Result<File> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::of(room, memory, place.into(), make))
    }

    /// The same for what must be done where the disk is full or cannot be written, too: what the
    /// file does not take stays in memory.
    pub fn or_memory(
        room: &Arc<Room>,
        memory: usize,
        place: impl Into<String>,
        make: impl Fn() -> io::Result<File> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { or_memory: true, ..Self::of(room, memory, place.into(), make) })
    }

    fn of(
        room: &Arc<Room>,
        memory: usize,
        place: String,
        make: impl Fn() -> io::Result<File> + Send + Sync + 'static,
    ) -> Self {
        let file = ScratchFile { make: Some(Box::new(make)), file: None, pages: 0, refused: false };
        let (room, file) = (Arc::clone(room), Mutex::new(file));
        Self { room, memory, place, or_memory: false, file }
    }

    /// As much memory as is needed.
    pub fn unbounded() -> Arc<Self> {
        let file = ScratchFile { make: None, file: None, pages: 0, refused: false };
        let (room, file) = (Room::new(usize::MAX), Mutex::new(file));
        let place = String::new();
        Arc::new(Self { room, memory: usize::MAX, place, or_memory: false, file })
    }

    fn doing(&self) -> String {
        format!("cannot keep what is noted of a layer in a file in {}", self.place)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Writes a page to its place, or to a new one; gives the place, or nothing where the page has
    /// to stay in memory.
    fn write(&self, place: Option<u32>, page: &[u8]) -> Result<Option<u32>> {
        let mut inner = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.refused {
            return Ok(None);
        }
        match self.write_to(&mut inner, place, page) {
            Err(_) if self.or_memory => {
                inner.refused = true;
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    fn write_to(&self, inner: &mut ScratchFile, place: Option<u32>, page: &[u8]) -> Result<u32> {
        let ScratchFile { make, file, pages, .. } = inner;
        let file = match (file, make) {
            (Some(file), _) => file,
            (none, Some(make)) => none.insert(make().doing(|| self.doing())?),
            (None, None) => return Err(Error::damaged("a layer's scratch", "there is no file")),
        };
        let at = place.unwrap_or(*pages);
        file.write_all_at(page, u64::from(at) * PAGE as u64).doing(|| self.doing())?;
        if place.is_none() {
            *pages = pages.checked_add(1).ok_or_else(|| too_many("pages"))?;
        }
        Ok(at)
    }

    fn read(&self, at: u32, page: &mut [u8]) -> Result<()> {
        let inner = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = inner.file.as_ref();
        let file = file.ok_or_else(|| Error::damaged("a layer's scratch", "there is no file"))?;
        file.read_exact_at(page, u64::from(at) * PAGE as u64).doing(|| self.doing())
    }
}

fn too_many(what: &str) -> Error {
    Error::damaged("a layer", format!("it has more than 2^32 {what}"))
}

/// Where a page is.
#[derive(Clone, Copy, Default)]
struct Place {
    /// In memory: one of the frames.
    frame: Option<u32>,
    /// In the file, as it was when it left memory.
    written: Option<u32>,
}

/// A page in memory.
struct Frame<T> {
    page: usize,
    records: Vec<T>,
    changed: bool,
    /// Since the hand of the clock passed.
    used: bool,
}

/// A vector of records. See the module.
pub struct Spill<T> {
    scratch: Arc<SpillSpace>,
    pages: RefCell<Pages<T>>,
}

impl<T> Drop for Spill<T> {
    fn drop(&mut self) {
        let Pages { taken, frame, .. } = self.pages.get_mut();
        self.scratch.room.give(*taken * *frame);
    }
}

struct Pages<T> {
    /// Bytes of a frame.
    frame: usize,
    length: u64,
    /// What a record is that was never set.
    blank: Option<T>,
    places: Vec<Place>,
    frames: Vec<Frame<T>>,
    /// Frames that memory holds.
    most: usize,
    /// Those that the room gave.
    taken: usize,
    /// The frame that leaves next, if it was not used.
    hand: usize,
}

impl<T> std::fmt::Debug for Spill<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").finish_non_exhaustive()
    }
}

impl<T: Record> Spill<T> {
    /// Records of a page.
    const EACH: usize = PAGE / T::BYTES;

    /// Bytes of a page in memory.
    const FRAME: usize = Self::EACH * size_of::<T>();

    /// An empty one with that share of the memory, in percent.
    pub fn new(scratch: &Arc<SpillSpace>, percent: usize) -> Self {
        Self::of(scratch, percent, 0, None)
    }

    /// One of `length` records, all of them `blank`.
    pub fn filled(scratch: &Arc<SpillSpace>, percent: usize, length: u64, blank: T) -> Self {
        Self::of(scratch, percent, length, Some(blank))
    }

    fn of(scratch: &Arc<SpillSpace>, percent: usize, length: u64, blank: Option<T>) -> Self {
        let share = scratch.memory / 100 * percent;
        let most = share / Self::FRAME;
        let places = vec![Place::default(); (length as usize).div_ceil(Self::EACH)];
        let (frame, frames) = (Self::FRAME, Vec::new());
        let pages = Pages { frame, length, blank, places, frames, most, taken: 0, hand: 0 };
        Self { scratch: Arc::clone(scratch), pages: RefCell::new(pages) }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.pages.borrow().length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record of that number.
    ///
    /// # Errors
    /// `Io` from the scratch file; `Damaged` if there is none of that number.
    pub fn get(&self, at: u64) -> Result<T> {
        let mut pages = self.pages.borrow_mut();
        let (page, at) = split::<T>(at);
        let frame = pages.frame(&self.scratch, page)?;
        frame.records.get(at).copied().ok_or_else(absent)
    }

    /// Changes the record of that number.
    ///
    /// # Errors
    /// As [`Spill::get`].
    pub fn update<R>(&mut self, at: u64, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        let (page, at) = split::<T>(at);
        let frame = self.pages.get_mut().frame(&self.scratch, page)?;
        let record = frame.records.get_mut(at).ok_or_else(absent)?;
        frame.changed = true;
        Ok(change(record))
    }

    /// Sets the record of that number.
    ///
    /// # Errors
    /// As [`Spill::get`].
    pub fn set(&mut self, at: u64, record: T) -> Result<()> {
        self.update(at, |place| *place = record)
    }

    /// Adds one; gives its number.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn push(&mut self, record: T) -> Result<u64> {
        self.extend(&[record])
    }

    /// Adds several; gives the number of the first.
    ///
    /// # Errors
    /// `Io` from the scratch file.
    pub fn extend(&mut self, mut records: &[T]) -> Result<u64> {
        let pages = self.pages.get_mut();
        let first = pages.length;
        while !records.is_empty() {
            let (page, at) = split::<T>(pages.length);
            if page == pages.places.len() {
                pages.places.push(Place::default());
            }
            let (now, later) = records.split_at(records.len().min(Self::EACH - at));
            let frame = pages.frame(&self.scratch, page)?;
            frame.records.extend_from_slice(now);
            frame.changed = true;
            pages.length += now.len() as u64;
            records = later;
        }
        Ok(first)
    }

    /// Hands over records from number `from` on, `count` of them, page by page.
    ///
    /// # Errors
    /// As [`Spill::get`].
    pub fn each(&self, from: u64, count: u64, mut take: impl FnMut(&[T])) -> Result<()> {
        let mut pages = self.pages.borrow_mut();
        let (mut from, end) = (from, from.saturating_add(count));
        while from < end {
            let (page, at) = split::<T>(from);
            let frame = pages.frame(&self.scratch, page)?;
            let there = frame.records.get(at..).filter(|rest| !rest.is_empty());
            let there = there.ok_or_else(absent)?;
            let count = (end - from).min(there.len() as u64);
            take(&there[..count as usize]);
            from += count;
        }
        Ok(())
    }
}

fn absent() -> Error {
    Error::damaged("a layer's scratch", "it has no record of that number")
}

fn split<T: Record>(at: u64) -> (usize, usize) {
    let each = Spill::<T>::EACH as u64;
    ((at / each) as usize, (at % each) as usize)
}

impl<T: Record> Pages<T> {
    /// The page, in memory.
    fn frame(&mut self, scratch: &SpillSpace, page: usize) -> Result<&mut Frame<T>> {
        let place = *self.places.get(page).ok_or_else(absent)?;
        let at = match place.frame {
            Some(at) => at as usize,
            None => self.bring(scratch, page, place)?,
        };
        let frame = &mut self.frames[at];
        frame.used = true;
        Ok(frame)
    }

    /// Brings a page into memory; gives its frame.
    fn bring(&mut self, scratch: &SpillSpace, page: usize, place: Place) -> Result<usize> {
        let at = self.vacate(scratch)?;
        let begin = (page * Spill::<T>::EACH) as u64;
        let count = (self.length.saturating_sub(begin) as usize).min(Spill::<T>::EACH);
        let records = &mut self.frames[at].records;
        match (place.written, self.blank) {
            (Some(written), _) => {
                let mut bytes = [0; PAGE];
                scratch.read(written, &mut bytes)?;
                records.extend(bytes.chunks_exact(T::BYTES).take(count).map(T::take));
            }
            (None, Some(blank)) => records.resize(count, blank),
            (None, None) => {}
        }
        self.frames[at].page = page;
        self.places[page].frame = Some(at as u32);
        Ok(at)
    }

    fn new_frame(&mut self) -> usize {
        let records = Vec::with_capacity(Spill::<T>::EACH);
        self.frames.push(Frame { page: 0, records, changed: false, used: false });
        self.frames.len() - 1
    }

    /// An empty frame.
    fn vacate(&mut self, scratch: &SpillSpace) -> Result<usize> {
        if self.frames.len() < FEWEST {
            return Ok(self.new_frame());
        }
        if self.frames.len() < self.most && scratch.room.take(Spill::<T>::FRAME) {
            self.taken += 1;
            return Ok(self.new_frame());
        }
        while std::mem::take(&mut self.frames[self.hand].used) {
            self.hand = (self.hand + 1) % self.frames.len();
        }
        let at = self.hand;
        self.hand = (self.hand + 1) % self.frames.len();
        let frame = &mut self.frames[at];
        let place = &mut self.places[frame.page];
        // It may be empty since a page could not be brought.
        if place.frame == Some(at as u32) {
            if frame.changed {
                let mut bytes = [0; PAGE];
                for (record, bytes) in frame.records.iter().zip(bytes.chunks_exact_mut(T::BYTES)) {
                    record.put(bytes);
                }
                match scratch.write(place.written, &bytes)? {
                    Some(written) => place.written = Some(written),
                    None => return Ok(self.new_frame()),
                }
            }
            place.frame = None;
        }
        frame.records.clear();
        frame.changed = false;
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
