//! zstd frames, xz streams and bzip2 streams, one after the other.
//!
//! All are a series of streams that know their own end and their own checksums. What may stand
//! between and behind them is what may stand behind gzip members: zeros are padding
//! (xz wants a multiple of four, its own tool refuses others; tapes and disks do not count), and
//! anything else is an error.
//!
//! Invariants: a stream counts only with the right checksum behind it; an xz stream that wants
//! more than [`XZ_MEMORY`] is refused before that memory is taken (bzip2 takes 4 MB at most).

use liblzma::stream::{Action, Error as XzError, Status as XzStatus, Stream};
use zstd::stream::raw::Operation as _;

use super::StreamError;
use super::compressed::Compressed;

/// Enough for a dictionary of 128 MiB, the largest window that a zstd frame may ask for here;
/// `xz -9` takes one of 64 MiB.
pub(super) const XZ_MEMORY: u64 = (128 << 20) + (1 << 20);

/// A decoder of one stream of its format.
pub(super) trait Codec: Sized {
    const NAME: &'static str;
    /// Whether a stream may begin with this byte; the codec looks at the rest.
    fn begins(first: u8) -> bool;

    /// A decoder at the beginning of a stream; `before` is one that came to an end.
    fn new(before: Option<Self>) -> Result<Self, String>;

    /// Decodes from `input` into `out`.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, String>;
}

/// What one step did.
pub(super) struct Decoded {
    taken: usize,
    given: usize,
    ended: bool,
}

/// The streams of a source as one.
pub(super) struct Streams<'e, C> {
    source: Compressed<'e>,
    current: Option<C>,
    /// One whose stream has ended.
    spare: Option<C>,
    ended: bool,
}

impl<'e, C: Codec> Streams<'e, C> {
    pub(super) fn new(source: Compressed<'e>) -> Self {
        Self { source, current: None, spare: None, ended: false }
    }

    pub(super) fn source(&self) -> &Compressed<'e> {
        &self.source
    }

    pub(super) fn into_source(self) -> Compressed<'e> {
        self.source
    }

    /// Decodes into `out`, which is not empty; 0 at the end of the last stream.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        loop {
            let Some(codec) = &mut self.current else {
                if !self.next_stream()? {
                    return Ok(0);
                }
                continue;
            };
            let input = self.source.peek()?;
            let at_end = input.is_empty();
            let step = codec.step(input, out);
            let Decoded { taken, given, ended } = step.map_err(|what| self.corrupt(what))?;
            self.source.take(taken);
            if ended {
                self.spare = self.current.take();
            } else if taken == 0 && given == 0 && at_end {
                return Err(self.truncated());
            } else if taken == 0 && given == 0 {
                // With input and room at hand there is always progress.
                return Err(self.corrupt("no progress".to_owned()));
            }
            if given > 0 {
                return Ok(given);
            }
        }
    }

    /// Begins the next stream; `false` at the end of the input.
    fn next_stream(&mut self) -> Result<bool, StreamError> {
        while !self.ended {
            let bytes = self.source.peek()?;
            match bytes.iter().position(|byte| *byte != 0) {
                Some(0) if C::begins(bytes[0]) => {
                    let codec = C::new(self.spare.take());
                    self.current = Some(codec.map_err(|what| self.corrupt(what))?);
                    return Ok(true);
                }
                Some(0) => {
                    let what = format!("bytes that are no {} stream follow a stream", C::NAME);
                    return Err(self.corrupt(what));
                }
                Some(zeros) => self.source.take(zeros),
                None if bytes.is_empty() => self.ended = true,
                None => {
                    let zeros = bytes.len();
                    self.source.take(zeros);
                }
            }
        }
        Ok(false)
    }

    fn corrupt(&self, what: String) -> StreamError {
        StreamError::Corrupt { compression: C::NAME, offset: self.source.taken(), what }
    }

    fn truncated(&self) -> StreamError {
        StreamError::Truncated { compression: C::NAME, offset: self.source.taken() }
    }
}

/// RFC 8878: frames, and skippable ones.
pub(super) struct Zstd(zstd::stream::raw::Decoder<'static>);

impl Codec for Zstd {
    const NAME: &'static str = "zstd";

    fn begins(first: u8) -> bool {
        matches!(first, 0x28 | 0x50..=0x5f)
    }

    fn new(before: Option<Self>) -> Result<Self, String> {
        let Some(Self(mut decoder)) = before else {
            return zstd::stream::raw::Decoder::new().map(Self).map_err(|error| error.to_string());
        };
        decoder.reinit().map_err(|error| error.to_string())?;
        Ok(Self(decoder))
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, String> {
        let done = self.0.run_on_buffers(input, out).map_err(|error| error.to_string())?;
        let (taken, given) = (done.bytes_read, done.bytes_written);
        Ok(Decoded { taken, given, ended: done.remaining == 0 })
    }
}

/// The format of xz(1).
pub(super) struct Xz(Stream);

impl Codec for Xz {
    const NAME: &'static str = "xz";

    fn begins(first: u8) -> bool {
        first == 0xfd
    }

    fn new(_: Option<Self>) -> Result<Self, String> {
        Stream::new_stream_decoder(XZ_MEMORY, 0).map(Self).map_err(xz_error)
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, String> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.process(input, out, Action::Run).map_err(xz_error)?;
        Ok(Decoded {
            taken: (self.0.total_in() - before.0) as usize,
            given: (self.0.total_out() - before.1) as usize,
            ended: status == XzStatus::StreamEnd,
        })
    }
}

fn xz_error(error: XzError) -> String {
    match error {
        XzError::MemLimit => {
            let most = XZ_MEMORY >> 20;
            format!("it wants more than {most} MiB of memory; compress it with xz -9 or less")
        }
        error => error.to_string(),
    }
}

/// The format of bzip2(1).
pub(super) struct Bzip2(bzip2::Decompress);

impl Codec for Bzip2 {
    const NAME: &'static str = "bzip2";

    fn begins(first: u8) -> bool {
        first == b'B'
    }

    fn new(_: Option<Self>) -> Result<Self, String> {
        Ok(Self(bzip2::Decompress::new(false)))
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, String> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, out).map_err(|error| error.to_string())?;
        Ok(Decoded {
            taken: (self.0.total_in() - before.0) as usize,
            given: (self.0.total_out() - before.1) as usize,
            ended: status == bzip2::Status::StreamEnd,
        })
    }
}
