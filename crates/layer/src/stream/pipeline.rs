//! The threads: one inflates, one hashes, the caller reads.
//!
//! Invariants: a stream that failed, or whose threads stopped, never looks like one that ended;
//! chunks go back to the inflating thread when both readers are done with them; whoever leaves
//! early stops the others at their next chunk.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, DiffId};

use super::gzip::Gzip;
use super::source::Source;
use super::{CHUNK, Compression, QUEUE, StreamError, StreamFacts};
use crate::diff::DiffError;
use crate::limits::Limits;

type Chunk = Arc<Vec<u8>>;

/// What the inflating thread says.
enum Message {
    Chunk(Chunk),
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
    thread::scope(|scope| {
        let (to_hash, hash_queue) = sync_channel::<Chunk>(QUEUE);
        let (to_read, read_queue) = sync_channel(QUEUE);
        let (give_back, spare) = sync_channel(2 * QUEUE);
        let limits = *limits;
        let hash_back = give_back.clone();
        let threads = thread::Builder::new()
            .name("strata-hash".into())
            .spawn_scoped(scope, move || hash(&hash_queue, &hash_back))
            .and_then(|hasher| {
                let work = Inflate { limits, to_hash, to_read, spare };
                thread::Builder::new()
                    .name("strata-inflate".into())
                    .spawn_scoped(scope, move || work.run(Source::new(input, progress)))
                    .map(|_| hasher)
            });
        let at_start = |error| read_error(layer, 0, StreamError::Thread(error));
        let hasher = threads.map_err(at_start)?;
        let mut stream =
            TarStream { queue: read_queue, give_back, current: None, at: 0, offset: 0, end: None };
        let value = consume(&mut stream)?;
        let facts = stream.finish(hasher);
        Ok((value, facts.map_err(|(offset, error)| read_error(layer, offset, error))?))
    })
}

fn read_error(layer: &str, offset: u64, error: StreamError) -> DiffError {
    DiffError::Read { layer: layer.to_owned(), offset, source: error.into() }
}

/// The uncompressed bytes, as the caller of [`decompress`] sees them.
pub struct TarStream {
    queue: Receiver<Message>,
    give_back: SyncSender<Vec<u8>>,
    current: Option<Chunk>,
    at: usize,
    offset: u64,
    end: Option<(Option<[u8; 32]>, u64, Compression)>,
}

impl TarStream {
    /// The bytes at hand, empty only at the end.
    fn chunk(&mut self) -> Result<&[u8], StreamError> {
        while self.current.as_ref().is_none_or(|chunk| self.at == chunk.len()) {
            if let Some(used) = self.current.take() {
                recycle(used, &self.give_back);
            }
            self.at = 0;
            if self.end.is_some() {
                return Ok(&[]);
            }
            match self.queue.recv() {
                Ok(Message::Chunk(chunk)) => self.current = Some(chunk),
                Ok(Message::End { blob, blob_size, compression }) => {
                    self.end = Some((blob, blob_size, compression));
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => return Err(StreamError::Stopped),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.at..]))
    }

    fn finish(
        mut self,
        hasher: ScopedJoinHandle<'_, ([u8; 32], u64)>,
    ) -> Result<StreamFacts, (u64, StreamError)> {
        loop {
            let left = self.chunk().map(<[u8]>::len).map_err(|error| (self.offset, error))?;
            if left == 0 {
                break;
            }
            self.consume(left);
        }
        let stopped = |offset| (offset, StreamError::Stopped);
        let (blob, blob_size, compression) = self.end.ok_or_else(|| stopped(self.offset))?;
        let (diff, diff_size) = hasher.join().map_err(|_| stopped(self.offset))?;
        Ok(StreamFacts {
            // Plain bytes are hashed once.
            blob: BlobDigest::from_bytes(blob.unwrap_or(diff)),
            blob_size,
            diff_id: DiffId::from_bytes(diff),
            diff_size,
            compression,
        })
    }
}

impl Read for TarStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.chunk()?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for TarStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.chunk()?)
    }

    fn consume(&mut self, n: usize) {
        let left = self.current.as_ref().map_or(0, |chunk| chunk.len() - self.at);
        self.at += n.min(left);
        self.offset += n.min(left) as u64;
    }
}

/// The last of a chunk's readers gives its memory back.
fn recycle(chunk: Chunk, give_back: &SyncSender<Vec<u8>>) {
    if let Some(memory) = Arc::into_inner(chunk) {
        // A full queue, or an inflater that is done, needs no memory.
        let _ = give_back.try_send(memory);
    }
}

fn hash(queue: &Receiver<Chunk>, give_back: &SyncSender<Vec<u8>>) -> ([u8; 32], u64) {
    let mut sha = Sha256::new();
    let mut size = 0;
    while let Ok(chunk) = queue.recv() {
        sha.update(chunk.as_slice());
        size += chunk.len() as u64;
        recycle(chunk, give_back);
    }
    (sha.finalize().into(), size)
}

/// One of the decoders.
enum Decoder<'e> {
    Plain(Source<'e>),
    Gzip(Box<Gzip<'e>>),
    Zstd(zstd::Decoder<'static, Source<'e>>),
}

impl<'e> Decoder<'e> {
    fn new(compression: Compression, source: Source<'e>) -> Result<Self, StreamError> {
        Ok(match compression {
            Compression::None => Self::Plain(source),
            Compression::Gzip => Self::Gzip(Box::new(Gzip::new(source))),
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(source);
                Self::Zstd(decoder.map_err(|error| decode_error(0, error))?)
            }
        })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        match self {
            Self::Plain(source) => source.read(out).map_err(|error| decode_error(0, error)),
            Self::Gzip(gzip) => gzip.read(out),
            Self::Zstd(zstd) => loop {
                match zstd.read(out) {
                    Ok(n) => return Ok(n),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(decode_error(zstd.get_ref().taken(), error)),
                }
            },
        }
    }

    fn taken(&self) -> u64 {
        match self {
            Self::Plain(source) => source.taken(),
            Self::Gzip(gzip) => gzip.source().taken(),
            Self::Zstd(zstd) => zstd.get_ref().taken(),
        }
    }

    fn into_source(self) -> Source<'e> {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(gzip) => gzip.into_source(),
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

/// The source's own error, if that is what zstd passes on.
fn decode_error(offset: u64, error: io::Error) -> StreamError {
    let kind = error.kind();
    match error.downcast::<StreamError>() {
        Ok(inner) => inner,
        Err(_) if kind == io::ErrorKind::UnexpectedEof => {
            StreamError::Truncated { compression: "zstd", offset }
        }
        Err(error) => StreamError::Corrupt { compression: "zstd", offset, what: error.to_string() },
    }
}

/// The inflating thread.
struct Inflate {
    limits: Limits,
    to_hash: SyncSender<Chunk>,
    to_read: SyncSender<Message>,
    spare: Receiver<Vec<u8>>,
}

impl Inflate {
    fn run(self, source: Source<'_>) {
        let message = match self.inflate(source) {
            Ok(Some(end)) => end,
            Ok(None) => return,
            Err(error) => Message::Failed(error),
        };
        // If nobody listens any more, nobody needs to know.
        let _ = self.to_read.send(message);
    }

    /// `None` if the reader has gone.
    fn inflate(&self, mut source: Source<'_>) -> Result<Option<Message>, StreamError> {
        let compression = source.detect()?;
        let mut decoder = Decoder::new(compression, source)?;
        let mut total = 0;
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
            self.check(total, decoder.taken())?;
            if filled > 0 {
                let chunk = Arc::new(memory);
                let reader = Message::Chunk(Arc::clone(&chunk));
                if self.to_hash.send(chunk).is_err() || self.to_read.send(reader).is_err() {
                    return Ok(None);
                }
            }
            if ended {
                break;
            }
        }
        let (blob_size, blob) = decoder.into_source().finish();
        Ok(Some(Message::End { blob, blob_size, compression }))
    }

    fn check(&self, total: u64, taken: u64) -> Result<(), StreamError> {
        let Limits { expansion, layer_bytes, .. } = self.limits;
        if total > layer_bytes {
            let bound = "bytes in one uncompressed layer";
            let option = "--max-layer-bytes";
            return Err(StreamError::Limit { bound, option, limit: layer_bytes });
        }
        if total > taken.saturating_mul(expansion).saturating_add(Limits::EXPANSION_FREE) {
            let bound = "uncompressed bytes for each compressed one";
            return Err(StreamError::Limit { bound, option: "--max-expansion", limit: expansion });
        }
        Ok(())
    }
}
