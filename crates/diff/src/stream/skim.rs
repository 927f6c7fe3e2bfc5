//! The uncompressed tar of a layer, for readers that want its headers alone.
//!
//! ```text
//! plain, of a file ─ the caller: SkimStream reads headers, and passes over bodies unread
//! compressed       ─ a thread: inflate ─ chunks ─ the caller: SkimStream, which drops bodies
//! ```
//!
//! Invariants: nothing is hashed, so nothing is known of the digests that an image names; the
//! bounds are those of [`decompress`](super::decompress), and bytes that are passed over count in
//! them; a compressed input is read to its end, checksums included.

use std::io::{self, Read};

use super::compressed::Compressed;
use super::pipeline::{Chunks, inflated, read_error};
use super::skip::SkipRead;
use super::{Compression, MAGIC, StreamError};
use crate::limits::Limits;
use crate::tar::DiffError;

/// Bytes that are read at once: a few headers. What is behind them is most often a body.
const AHEAD: usize = 8 << 10;
/// How often progress is told of, in bytes of a plain layer.
const TOLD: u64 = 1 << 20;

/// Runs `consume` on the uncompressed bytes of `input`, and gives its result with the compression.
///
/// `layer` is the label for errors; `progress` is called with the number of transported bytes that
/// were read or passed over so far, of a compressed layer from another thread.
///
/// # Errors
/// Those of `consume`; [`DiffError::Read`] with a [`StreamError`] inside for the rest.
pub fn skim<'e, T, E: From<DiffError>>(
    input: Box<dyn SkipRead + Send + 'e>,
    layer: &str,
    limits: &Limits,
    progress: &'e (dyn Fn(u64) + Sync),
    consume: impl FnOnce(&mut SkimStream<'e>) -> Result<T, E>,
) -> Result<(T, Compression), E> {
    let fault = |error: io::Error| read_error(layer, 0, error);
    let mut input = ReadAhead::new(input);
    let head = input.head().map_err(fault)?;
    let compression = Compression::of(head).map_err(|error| fault(error.into()))?;
    if compression == Compression::None {
        let (passed, told, most) = (0, 0, limits.layer_bytes);
        let mut stream = SkimStream(Bytes::Plain { input, passed, told, most, progress });
        return Ok((consume(&mut stream)?, compression));
    }
    let source = Compressed::unhashed(Box::new(input), progress);
    inflated(source, layer, limits, |chunks| {
        let mut stream = SkimStream(Bytes::Inflated(chunks));
        let value = consume(&mut stream)?;
        // What is damaged further on counts too.
        io::copy(&mut stream, &mut io::sink()).map_err(fault)?;
        Ok((value, compression))
    })
}

/// The uncompressed bytes, as the caller of [`skim`] sees them.
pub struct SkimStream<'e>(Bytes<'e>);

enum Bytes<'e> {
    Plain {
        input: ReadAhead<'e>,
        passed: u64,
        /// What `progress` has been told.
        told: u64,
        /// Bound of `passed`.
        most: u64,
        progress: &'e (dyn Fn(u64) + Sync),
    },
    Inflated(Chunks),
}

impl SkimStream<'_> {
    /// Counts `n` bytes of a plain layer.
    fn count(&mut self, n: u64) -> io::Result<()> {
        let Bytes::Plain { passed, told, most, progress, .. } = &mut self.0 else { return Ok(()) };
        *passed += n;
        if *passed > *most {
            let (bound, option) = ("bytes in one uncompressed layer", "--max-layer-bytes");
            return Err(StreamError::Limit { bound, option, limit: *most }.into());
        }
        if *passed - *told >= TOLD {
            *told = *passed;
            progress(*passed);
        }
        Ok(())
    }
}

impl Read for SkimStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.0 {
            Bytes::Plain { input, .. } => input.read(buf)?,
            Bytes::Inflated(chunks) => chunks.read(buf)?,
        };
        self.count(n as u64)?;
        Ok(n)
    }
}

impl SkipRead for SkimStream<'_> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let n = match &mut self.0 {
            Bytes::Plain { input, .. } => input.skip(count)?,
            Bytes::Inflated(chunks) => chunks.skip(count)?,
        };
        self.count(n)?;
        Ok(n)
    }
}

/// A small buffer before an input that skips.
struct ReadAhead<'e> {
    input: Box<dyn SkipRead + Send + 'e>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
}

impl<'e> ReadAhead<'e> {
    fn new(input: Box<dyn SkipRead + Send + 'e>) -> Self {
        Self { input, buffer: vec![0; AHEAD], at: 0, filled: 0 }
    }

    /// The first bytes, as many as a compression is recognised by. To be called before any is read.
    fn head(&mut self) -> io::Result<&[u8]> {
        while self.filled < MAGIC && self.more()? > 0 {}
        Ok(&self.buffer[..self.filled])
    }

    fn more(&mut self) -> io::Result<usize> {
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(n) => {
                    self.filled += n;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for ReadAhead<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.filled {
            if buf.len() >= self.buffer.len() {
                return self.input.read(buf);
            }
            (self.at, self.filled) = (0, 0);
            self.more()?;
        }
        let n = buf.len().min(self.filled - self.at);
        buf[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl SkipRead for ReadAhead<'_> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let here = count.min((self.filled - self.at) as u64);
        self.at += here as usize;
        match count - here {
            0 => Ok(here),
            left => Ok(here + self.input.skip(left)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Bytes in memory that count what is read of them.
    struct Counted<'a> {
        bytes: &'a [u8],
        read: &'a AtomicU64,
    }

    impl Read for Counted<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.bytes.read(buf)?;
            self.read.fetch_add(n as u64, Ordering::Relaxed);
            Ok(n)
        }
    }

    impl SkipRead for Counted<'_> {
        fn skip(&mut self, count: u64) -> io::Result<u64> {
            let n = count.min(self.bytes.len() as u64);
            self.bytes = &self.bytes[n as usize..];
            Ok(n)
        }
    }

    fn tar() -> Vec<u8> {
        (0..500_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What is seen by reading 700 bytes and passing over as many as `step`, to the end.
    fn seen(
        blob: &[u8],
        step: u64,
        limits: Limits,
        read: &AtomicU64,
    ) -> Result<(Vec<u8>, Compression), DiffError> {
        let input = Box::new(Counted { bytes: blob, read });
        skim(input, "l", &limits, &|_| {}, |stream| {
            let mut all = Vec::new();
            let mut skimmed = || -> io::Result<()> {
                loop {
                    let n = stream.by_ref().take(700).read_to_end(&mut all)?;
                    if n < 700 || stream.skip(step)? < step {
                        return Ok(());
                    }
                }
            };
            skimmed().map_err(|error| read_error("l", 0, error))?;
            Ok(all)
        })
    }

    #[test]
    fn what_is_read_between_is_what_the_tar_has_there() {
        let tar = tar();
        for step in [0, 1, 5_000, 9_000, 300_000, u64::MAX] {
            let mut wanted: Vec<u8> = Vec::new();
            let mut at = 0;
            while at < tar.len() as u64 {
                let end = (at + 700).min(tar.len() as u64);
                wanted.extend(&tar[at as usize..end as usize]);
                at = end.saturating_add(step);
            }
            for (blob, form) in [(tar.clone(), Compression::None), (gzip(&tar), Compression::Gzip)]
            {
                let found = seen(&blob, step, Limits::default(), &AtomicU64::new(0)).unwrap();
                assert_eq!((found.0 == wanted, found.1), (true, form), "{step}");
            }
        }
    }

    #[test]
    fn what_is_passed_over_is_not_read_and_counts_in_the_bound() {
        let (tar, read) = (tar(), AtomicU64::new(0));
        seen(&tar, 100_000, Limits::default(), &read).unwrap();
        assert!(read.load(Ordering::Relaxed) <= 6 * AHEAD as u64, "{read:?}");
        let limits = Limits { layer_bytes: 499_999, ..Limits::default() };
        for blob in [tar.clone(), gzip(&tar)] {
            let error = seen(&blob, 100_000, limits, &read).unwrap_err().to_string();
            assert!(error.contains("--max-layer-bytes"), "{error}");
        }
    }

    #[test]
    fn damage_behind_what_is_wanted_is_noticed() {
        let mut blob = gzip(&tar());
        let at = blob.len() - 6;
        blob[at] ^= 1;
        let read = AtomicU64::new(0);
        let input = Box::new(Counted { bytes: &blob, read: &read });
        let done = skim(input, "l", &Limits::default(), &|_| {}, |stream| {
            stream.read_exact(&mut [0; 10]).map_err(|error| read_error("l", 0, error))
        });
        assert!(done.unwrap_err().to_string().contains("checksum"));
    }
}
