//! One worker: a content goes through all ways to cut at the same time.
//!
//! ```text
//! the file:   ......[ buffer: 4 MiB and the longest chunk ].....
//!                    ^ blocks  ^ 8 KiB  ^ 64 KiB     each way is somewhere in it
//! ```
//!
//! Invariants: where a chunk ends depends on at most [`MeanSize::most`] bytes from its beginning,
//! and it is cut only when these, or the end of the file, are in the buffer: so chunks are those
//! of the whole file in memory. What is a whole small file is hashed and compressed once for all.
//!
//! [`MeanSize::most`]: super::MeanSize::most

use std::io::{self, Read, Write};

use fastcdc::v2020::FastCDC;
use sha2::{Digest, Sha256};
use strata_layer::{IoContext, Result};
use strata_tree::ContentDigest;

use super::{BLOCK, Cut, Meter, Tally, ZSTD_LEVEL};

/// Bytes of a file that are in memory at a time, besides the longest chunk.
const WINDOW: usize = 4 << 20;

/// A worker's memory and counts.
pub struct Cutter<'m> {
    meter: &'m Meter<'m>,
    buffer: Vec<u8>,
    window: usize,
    packer: Packer,
    tallies: Vec<Tally>,
    read: u64,
}

impl<'m> Cutter<'m> {
    pub(super) fn new(meter: &'m Meter<'m>) -> Self {
        let longest = meter.cuts.iter().map(|cut| most(*cut)).max().unwrap_or(0);
        Self {
            meter,
            buffer: Vec::new(),
            window: WINDOW + longest,
            packer: Packer::default(),
            tallies: vec![Tally::default(); meter.cuts.len()],
            read: 0,
        }
    }

    /// What the workers share.
    pub fn meter(&self) -> &Meter<'m> {
        self.meter
    }

    pub(super) fn add_to(&self, all: &mut [Tally], read: &mut u64) {
        *read += self.read;
        for (sum, tally) in all.iter_mut().zip(&self.tallies) {
            sum.pieces += tally.pieces;
            sum.distinct += tally.distinct;
            sum.bytes += tally.bytes;
            sum.compressed += tally.compressed;
        }
    }

    /// Cuts the content of `size` bytes that `input` gives.
    ///
    /// # Errors
    /// Those of `input`, and `UnexpectedEof` if it ends too early.
    pub fn content(
        &mut self,
        digest: &ContentDigest,
        size: u64,
        input: &mut dyn Read,
    ) -> io::Result<()> {
        let meter = self.meter;
        let mut content = CutContent { half: half(digest.as_bytes()), size, packed: None };
        let mut at = vec![0; meter.cuts.len()];
        let whole = size <= self.window as u64;
        let keep_whole = meter.compress && !whole && self.counts(content.half);
        let mut stream = match keep_whole {
            true => Some(Stream::new(Some(size))?),
            false => None,
        };
        let (mut filled, mut left) = (0, size);
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.window - filled);
            // Never shrunk, so that it is cleared once only.
            if self.buffer.len() < filled + n {
                self.buffer.resize(filled + n, 0);
            }
            input.read_exact(&mut self.buffer[filled..filled + n])?;
            if let Some(stream) = &mut stream {
                stream.write_all(&self.buffer[filled..filled + n])?;
            }
            (filled, left) = (filled + n, left - n as u64);
            self.read += n as u64;
            (meter.progress)(n as u64);
            for (which, cut) in meter.cuts.iter().enumerate() {
                if *cut == Cut::Files {
                    if whole {
                        self.piece(which, 0, filled, &mut content)?;
                    }
                    continue;
                }
                at[which] = self.cut(which, at[which]..filled, left == 0, &mut content)?;
            }
            // What all have cut goes.
            let cut = (1..at.len()).map(|which| at[which]).min().unwrap_or(filled);
            self.buffer.copy_within(cut..filled, 0);
            filled -= cut;
            at.iter_mut().for_each(|at| *at = at.saturating_sub(cut));
        }
        if !whole {
            let packed = stream.map(Stream::finish).transpose()?;
            self.count_large(&content, packed);
        }
        Ok(())
    }

    /// Cuts what can be cut of a range of the buffer; gives where it stopped.
    fn cut(
        &mut self,
        which: usize,
        range: std::ops::Range<usize>,
        ends: bool,
        content: &mut CutContent,
    ) -> io::Result<usize> {
        let cut = self.meter.cuts[which];
        let (mut at, end) = (range.start, range.end);
        // Taken out, so that pieces of it can be counted meanwhile.
        let buffer = std::mem::take(&mut self.buffer);
        let chunker = match cut {
            Cut::Chunks(mean) => {
                let mean_size = mean.bytes() as usize;
                Some(FastCDC::new(&buffer[..end], mean.least(), mean_size, mean.most()))
            }
            Cut::Files | Cut::Blocks => None,
        };
        let mut outcome = Ok(());
        while outcome.is_ok() && at < end && (ends || end - at >= most(cut)) {
            let next = match &chunker {
                Some(chunker) => chunker.cut(at, end - at).1,
                None => end.min(at + BLOCK as usize),
            };
            outcome = self.bytes(which, &buffer[at..next], content);
            at = next;
        }
        self.buffer = buffer;
        outcome.map(|()| at)
    }

    fn piece(
        &mut self,
        which: usize,
        from: usize,
        to: usize,
        content: &mut CutContent,
    ) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let outcome = self.bytes(which, &buffer[from..to], content);
        self.buffer = buffer;
        outcome
    }

    /// Counts one piece.
    fn bytes(&mut self, which: usize, piece: &[u8], content: &mut CutContent) -> io::Result<()> {
        let whole = piece.len() as u64 == content.size;
        let half = match whole {
            true => content.half,
            false => half(&Sha256::digest(piece).into()),
        };
        let new = self.counts(half) && self.meter.tables[which].insert(half);
        let mut packed = 0;
        if new && self.meter.compress {
            packed = match content.packed.filter(|_| whole) {
                Some(packed) => packed,
                None => self.packer.size(piece)?,
            };
            if whole {
                content.packed = Some(packed);
            }
        }
        let tally = &mut self.tallies[which];
        tally.pieces += u64::from(self.meter.is_first());
        if new {
            tally.distinct += 1;
            tally.bytes += piece.len() as u64;
            tally.compressed += packed;
        }
        Ok(())
    }

    /// The file as a whole, where it was not in the buffer at once.
    fn count_large(&mut self, content: &CutContent, packed: Option<u64>) {
        let meter = self.meter;
        for (which, cut) in meter.cuts.iter().enumerate() {
            if *cut == Cut::Files {
                let tally = &mut self.tallies[which];
                tally.pieces += u64::from(meter.is_first());
                let turn = half_of_pass(content.half, meter);
                if turn && meter.tables[which].insert(content.half) {
                    tally.distinct += 1;
                    tally.bytes += content.size;
                    tally.compressed += packed.map_or(0, |packed| packed.min(content.size));
                }
            }
        }
    }

    /// Whether the piece belongs to this pass.
    fn counts(&self, half: u128) -> bool {
        half_of_pass(half, self.meter)
    }

    /// Begins to compress a whole diff, which is written into what it gives.
    ///
    /// # Errors
    /// `Io` if zstd refuses.
    pub fn start_diff(&self) -> Result<Packing<'m>> {
        let inner = Stream::new(None).doing(|| "cannot compress a layer".to_owned())?;
        Ok(Packing { inner, meter: self.meter, bytes: 0 })
    }

    /// The bytes that the diff has, compressed.
    ///
    /// # Errors
    /// `Io` if zstd refuses.
    pub fn end_diff(&mut self, packing: Packing<'m>) -> Result<u64> {
        self.read += packing.bytes;
        packing.inner.finish().doing(|| "cannot compress a layer".to_owned())
    }
}

fn half_of_pass(half: u128, meter: &Meter<'_>) -> bool {
    // The low bits choose the place in the table, these do not.
    (half >> 64) as u64 % meter.passes == meter.pass
}

/// The most bytes of a piece that are not the whole file.
fn most(cut: Cut) -> usize {
    match cut {
        Cut::Files => 0,
        Cut::Chunks(mean) => mean.most(),
        Cut::Blocks => BLOCK as usize,
    }
}

fn half(hash: &[u8; 32]) -> u128 {
    u128::from_be_bytes(std::array::from_fn(|at| hash[at]))
}

/// The content that is being cut.
struct CutContent {
    half: u128,
    size: u64,
    /// What it has compressed, once that is known.
    packed: Option<u64>,
}

/// Compresses pieces in memory.
#[derive(Default)]
struct Packer {
    context: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl Packer {
    /// The bytes of `piece` as a frame, or its own if they are not more.
    fn size(&mut self, piece: &[u8]) -> io::Result<u64> {
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(piece.len()));
        let size = context.compress_to_buffer(piece, &mut self.out)?;
        Ok(size.min(piece.len()) as u64)
    }
}

/// Compresses what is too large for memory.
struct Stream(zstd::Encoder<'static, Count>);

impl Stream {
    fn new(size: Option<u64>) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Count(0), ZSTD_LEVEL)?;
        encoder.set_pledged_src_size(size)?;
        Ok(Self(encoder))
    }

    fn finish(self) -> io::Result<u64> {
        Ok(self.0.finish()?.0)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Keeps nothing.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A diff, being compressed; what comes out is counted only.
pub struct Packing<'m> {
    inner: Stream,
    meter: &'m Meter<'m>,
    bytes: u64,
}

impl Write for Packing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.bytes += n as u64;
        (self.meter.progress)(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
