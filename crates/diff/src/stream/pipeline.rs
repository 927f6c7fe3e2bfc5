//! The threads: one inflates, the caller reads and hashes.
//!
//! Invariants: a stream that failed, or whose thread stopped, never looks like one that ended;
//! chunks go back to the inflating thread when they have been read; a side that leaves early stops
//! the other at its next chunk.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use strata_tree::{BlobDigest, DiffId};

use super::compressed::Compressed;
use super::decoder::Decoder;
use super::hashed::Hashed;
use super::skip::SkipRead;
use super::zeros::zero_blocks;
use super::{CHUNK, Compression, QUEUE, StreamError, StreamFacts};
use crate::limits::Limits;
use crate::tar::DiffError;

/// What the inflating thread says.
#[derive(Debug)]
enum Message {
    Chunk(Vec<u8>),
    End { blob: Option<[u8; 32]>, blob_size: u64, compression: Compression },
    Failed(StreamError),
}

/// Runs `consume` on the uncompressed bytes of `input`, then reads what it left unread, and gives
/// its result with what is known of the bytes.
///
/// `layer` is the label for errors; `progress` is called from another thread with the number of
/// transported bytes read so far. If `consume` fails, its error is returned as soon as the thread
/// that reads `input` has come back from the read it is in.
///
/// # Errors
/// Those of `consume`; [`DiffError::Read`] with a [`StreamError`] inside for the rest.
pub fn decompress<'e, T, E: From<DiffError>>(
    input: Box<dyn Read + Send + 'e>,
    layer: &str,
    limits: &Limits,
    progress: &'e (dyn Fn(u64) + Sync),
    consume: impl FnOnce(&mut TarStream) -> Result<T, E>,
) -> Result<(T, StreamFacts), E> {
    inflated(Compressed::new(input, progress), layer, limits, |chunks| {
        let mut stream = Hashed::new(chunks);
        let value = consume(&mut stream)?;
        // What it left unread counts too.
        io::copy(&mut stream, &mut io::sink())
            .map_err(|error| read_error(layer, stream.size(), error))?;
        let diff_size = stream.size();
        let (chunks, diff) = stream.finish();
        let stopped = || read_error(layer, diff_size, StreamError::Stopped.into());
        let (blob, blob_size, compression) = chunks.end.ok_or_else(stopped)?;
        let facts = StreamFacts {
            // Plain bytes are hashed once.
            blob: BlobDigest::from_bytes(blob.unwrap_or(diff)),
            blob_size,
            diff_id: DiffId::from_bytes(diff),
            diff_size,
            compression,
        };
        Ok((value, facts))
    })
}

/// Runs `consume` on the uncompressed bytes of `source`, which a thread inflates meanwhile.
///
/// # Errors
/// Those of `consume`; [`DiffError::Read`] if there is no thread.
pub(super) fn inflated<T, E: From<DiffError>>(
    source: Compressed<'_>,
    layer: &str,
    limits: &Limits,
    consume: impl FnOnce(Chunks) -> Result<T, E>,
) -> Result<T, E> {
    thread::scope(|scope| {
        let (to_read, queue) = sync_channel(QUEUE);
        let (give_back, spare) = sync_channel(QUEUE);
        let work = Inflate { limits: *limits, to_read, spare };
        thread::Builder::new()
            .name("strata-inflate".into())
            .spawn_scoped(scope, move || work.run(source))
            .map_err(|error| read_error(layer, 0, StreamError::Thread(error).into()))?;
        consume(Chunks { queue, give_back, current: Vec::new(), at: 0, end: None })
    })
}

pub(super) fn read_error(layer: &str, offset: u64, source: io::Error) -> DiffError {
    DiffError::Read { layer: layer.to_owned(), offset, source }
}

/// The uncompressed bytes, as the caller of [`decompress`] sees them.
pub type TarStream = Hashed<Chunks>;

/// The uncompressed bytes as they come from the inflating thread.
#[derive(Debug)]
pub struct Chunks {
    queue: Receiver<Message>,
    give_back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    end: Option<(Option<[u8; 32]>, u64, Compression)>,
}

impl Chunks {
    /// The bytes at hand, empty only at the end.
    fn at_hand(&mut self) -> Result<&[u8], StreamError> {
        while self.at == self.current.len() && self.end.is_none() {
            match self.queue.recv() {
                Ok(Message::Chunk(chunk)) => {
                    let used = std::mem::replace(&mut self.current, chunk);
                    self.at = 0;
                    // An inflating thread that is done needs no memory.
                    let _ = self.give_back.try_send(used);
                }
                Ok(Message::End { blob, blob_size, compression }) => {
                    self.end = Some((blob, blob_size, compression));
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => return Err(StreamError::Stopped),
            }
        }
        Ok(&self.current[self.at..])
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.at_hand()?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        self.at += n;
        Ok(n)
    }
}

impl SkipRead for Chunks {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let here = self.at_hand()?.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if here == 0 {
                break;
            }
            self.at += here;
            left -= here as u64;
        }
        Ok(count - left)
    }
}

/// The inflating thread.
struct Inflate {
    limits: Limits,
    to_read: SyncSender<Message>,
    spare: Receiver<Vec<u8>>,
}

impl Inflate {
    fn run(self, source: Compressed<'_>) {
        let message = match self.inflate(source) {
            Ok(Some(end)) => end,
            Ok(None) => return,
            Err(error) => Message::Failed(error),
        };
        // If nobody listens any more, nobody needs to know.
        let _ = self.to_read.send(message);
    }

    /// `None` if the reader has gone.
    fn inflate(&self, mut source: Compressed<'_>) -> Result<Option<Message>, StreamError> {
        let compression = source.detect()?;
        let mut decoder = Decoder::new(compression, source)?;
        let (mut total, mut zeros) = (0, 0);
        loop {
            let mut memory = self.spare.try_recv().unwrap_or_default();
            memory.resize(CHUNK, 0);
            let mut filled = 0;
            let mut ended = false;
            while filled < CHUNK && !ended {
                let n = decoder.read(&mut memory[filled..])?;
                filled += n;
                ended = n == 0;
            }
            memory.truncate(filled);
            total += filled as u64;
            zeros += zero_blocks(&memory);
            self.check(total, zeros, decoder.taken())?;
            if filled > 0 && self.to_read.send(Message::Chunk(memory)).is_err() {
                return Ok(None);
            }
            if ended {
                break;
            }
        }
        let (blob_size, blob) = decoder.into_source().finish();
        Ok(Some(Message::End { blob, blob_size, compression }))
    }

    fn check(&self, total: u64, zeros: u64, taken: u64) -> Result<(), StreamError> {
        let Limits { expansion, layer_bytes, .. } = self.limits;
        if total > layer_bytes {
            let bound = "bytes in one uncompressed layer";
            let option = "--max-layer-bytes";
            return Err(StreamError::Limit { bound, option, limit: layer_bytes });
        }
        let written = total - zeros;
        if written > taken.saturating_mul(expansion).saturating_add(Limits::EXPANSION_FREE) {
            let bound = "uncompressed bytes for each compressed one";
            return Err(StreamError::Limit { bound, option: "--max-expansion", limit: expansion });
        }
        Ok(())
    }
}
