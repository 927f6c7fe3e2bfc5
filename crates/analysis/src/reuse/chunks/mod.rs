//! What sharing pieces of files would save, measured on the files themselves.
//!
//! ```text
//! jobs (layers, contents) ──> a worker a processor ──> cut ──> sha256 ──> new? ──> zstd
//!                                                       │                  │
//!                     whole files, fastcdc of several means, blocks      table of hashes
//! ```
//! FastCDC cuts where a rolling hash of the bytes says so (version of 2020, normalized; a chunk
//! has at least a quarter and at most four times its mean size, but the last of a file), blocks
//! are 4 KiB from the beginning of a file. Every distinct piece is compressed on its own with
//! zstd, level 3, and counts as itself where that makes it no smaller.
//!
//! Pieces are distinguished by sha256, which the program has already and most processors have
//! instructions for: beside zstd it is a tenth of the work, so that a faster hash would not be
//! noticed. 128 bits of it are kept; among 10^12 pieces two different ones meet with a chance of
//! 10^-15.
//!
//! Invariants: every distinct content is cut once; the result does not depend on the number of
//! processors or passes. Memory: at most [`BYTES_A_PIECE`] bytes for a distinct piece in the
//! table, and 25 MiB a processor (and 16 mean sizes, if that is more). Where the table would pass
//! [`ChunkOptions::memory`], the files are read several times, each time for another part of the
//! hashes; a piece is compressed only in its own pass.

mod cutter;
mod stored;
mod table;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use cutter::{Cutter, Packing};
pub use stored::measure_chunks;

use strata_content::threads::together;
use strata_layer::Result;

use table::PieceTable;

/// Bytes of one block.
pub const BLOCK: u32 = 4096;
/// Bytes of memory that a distinct piece takes at most.
pub const BYTES_A_PIECE: u64 = 39;
/// zstd's level for everything.
pub const ZSTD_LEVEL: i32 = 3;

/// The mean size of chunks in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeanSize(u32);

impl MeanSize {
    /// A mean of 256 B to 4 MiB in multiples of 8, as fastcdc has it.
    pub fn new(bytes: u32) -> Option<Self> {
        let fits = (256..=4 << 20).contains(&bytes) && bytes.is_multiple_of(8);
        fits.then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// The least bytes of a chunk that is not the last of its file.
    pub fn least(self) -> usize {
        self.0 as usize / 4
    }

    /// The most bytes of a chunk.
    pub fn most(self) -> usize {
        self.0 as usize * 4
    }
}

/// How files are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Files,
    /// By fastcdc.
    Chunks(MeanSize),
    /// Into blocks of [`BLOCK`] bytes.
    Blocks,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct ChunkOptions {
    /// The mean sizes of chunks.
    pub means: Vec<MeanSize>,
    /// Compress every distinct piece, and every layer.
    pub compress: bool,
    /// Bytes of memory for the table of pieces.
    pub memory: u64,
}

impl Default for ChunkOptions {
    /// 8, 16 and 64 KiB, compressed, a table of up to 1 GiB.
    fn default() -> Self {
        let means = [8 << 10, 16 << 10, 64 << 10].into_iter().map(MeanSize);
        Self { means: means.collect(), compress: true, memory: 1 << 30 }
    }
}

impl ChunkOptions {
    /// Whole files, chunks, blocks.
    fn cuts(&self) -> Vec<Cut> {
        let means = self.means.iter().copied().map(Cut::Chunks);
        [Cut::Files].into_iter().chain(means).chain([Cut::Blocks]).collect()
    }

    /// How often `files` files of `bytes` bytes together are read.
    pub fn passes(&self, files: u64, bytes: u64) -> u64 {
        let pieces = |cut: &Cut| match cut {
            Cut::Files => files,
            Cut::Chunks(mean) => files + bytes / u64::from(mean.0),
            Cut::Blocks => files + bytes / u64::from(BLOCK),
        };
        let pieces: u64 = self.cuts().iter().map(pieces).sum();
        (pieces * BYTES_A_PIECE).div_ceil(self.memory.max(1)).max(1)
    }
}

/// The pieces of one way to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredCut {
    /// How the files were cut.
    pub cut: Cut,
    /// Pieces of all distinct contents; empty files have none.
    pub pieces: u64,
    /// Different ones among them.
    pub distinct: u64,
    /// The bytes of these.
    pub bytes: u64,
    /// The same, each compressed; 0 if nothing was to be compressed.
    pub compressed: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Whole files, chunks by the means in the order given, blocks.
    pub cuts: Vec<MeasuredCut>,
    /// For each layer, in the order given, the bytes of its diff compressed as a whole; empty if
    /// nothing was to be compressed.
    pub layers: Vec<u64>,
    /// Bytes of files and diffs that were read.
    pub read: u64,
    /// How often the files were read.
    pub passes: u64,
}

/// What a worker has counted of one cut.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    pieces: u64,
    distinct: u64,
    bytes: u64,
    compressed: u64,
}

/// What all workers share.
pub struct Meter<'a> {
    cuts: Vec<Cut>,
    compress: bool,
    tables: Vec<PieceTable>,
    pass: u64,
    passes: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Meter<'_> {
    /// Whether this is the first pass, in which what is not kept in the table is done.
    pub fn is_first(&self) -> bool {
        self.pass == 0
    }
}

/// The way from jobs to results: `work` is called with every job in every pass, from as many
/// threads as there are processors; `files` and `bytes` are what all jobs have in distinct
/// contents. `progress` is called with bytes just read.
///
/// # Errors
/// The first that `work` gives; the other workers stop before their next job.
pub fn measure<J: Sync>(
    jobs: &[J],
    (files, bytes): (u64, u64),
    options: &ChunkOptions,
    progress: &(dyn Fn(u64) + Sync),
    work: &(dyn Fn(&J, &mut Cutter<'_>) -> Result<()> + Sync),
) -> Result<Measured> {
    let cuts = options.cuts();
    let passes = options.passes(files, bytes);
    let mut all = vec![Tally::default(); cuts.len()];
    let mut read = 0;
    for pass in 0..passes {
        let meter = Meter {
            cuts: cuts.clone(),
            compress: options.compress,
            tables: cuts.iter().map(|_| PieceTable::new()).collect(),
            pass,
            passes,
            progress,
        };
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let done = Mutex::new((&mut all, &mut read, Ok(())));
        let run = || {
            let mut cutter = Cutter::new(&meter);
            let mut outcome = Ok(());
            while outcome.is_ok() && !failed.load(Ordering::Relaxed) {
                let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                outcome = work(job, &mut cutter);
            }
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            let (all, read, first) = &mut *done;
            cutter.add_to(all, read);
            if outcome.is_err() && !failed.swap(true, Ordering::Relaxed) {
                *first = outcome;
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        together(workers.min(jobs.len()).saturating_sub(1), run);
        done.into_inner().unwrap_or_else(PoisonError::into_inner).2?;
    }
    let cuts = cuts.into_iter().zip(all).map(|(cut, tally)| {
        let Tally { pieces, distinct, bytes, compressed } = tally;
        MeasuredCut { cut, pieces, distinct, bytes, compressed }
    });
    Ok(Measured { cuts: cuts.collect(), layers: Vec::new(), read, passes })
}

#[cfg(test)]
mod tests;
