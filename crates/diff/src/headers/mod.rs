//! `headers.zst`: the diff with the file bodies taken out, from which the exact tar comes back.
//!
//! ```text
//! ┌ skippable frame (64 bytes) ─────────────────────────────────────────────┐
//! │ u32 0x184D2A50  u32 56  "STRH" u32 version=2  u64 table  u64 stream     │  lengths of frames
//! │ sha256 of the 32 bytes before it and of all that follows it             │
//! ├ zstd frame: table ──────────────────────────────────────────────────────┤
//! │ u64 bodies, then for each body, in tar order:                           │
//! │   0 u32 path length, path, u64 length          the whole file           │
//! │   1 u32 path length, path, u32 n, n × (u64 offset, u64 length)  sparse  │
//! │   2 u64 length                                 next bytes of "inline"   │
//! ├ zstd frame: stream ─────────────────────────────────────────────────────┤
//! │ repeated: u32 length, raw bytes; length 0xFFFFFFFF: the next body        │
//! ├ zstd frame: inline (absent if empty) ───────────────────────────────────┤
//! │ bodies that no file of diff/ holds: replaced members, fat whiteouts      │
//! └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Numbers are little-endian. The file as a whole is valid zstd. The checksum is there because a
//! zstd frame has bits that change nothing in what it decodes to.
//!
//! Invariants: `stream` with the bodies put in is the diff, byte for byte, whatever the tar
//! parser made of it; the paths of the table are those of regular files in the same layer.

mod at_offsets;

pub use at_offsets::DiffAtOffsets;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Take, Write};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use strata_tree::TreePath;

use crate::error::{DiffContext, Error, Result};
use crate::tar::RawSink;

const SKIPPABLE: u32 = 0x184D_2A50;
const MAGIC: &[u8; 4] = b"STRH";
const VERSION: u32 = 2;
const PREAMBLE: u64 = 64;
/// The part of the preamble that is not the checksum.
const FIELDS: usize = 32;
const BODY: u32 = u32::MAX;
const LEVEL: i32 = 3;

/// Where the stored bytes of one body are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBody {
    /// The whole file at that path of `diff/`, that long.
    File(TreePath, u64),
    /// Pieces of it: offset and length in bytes.
    Sparse(TreePath, Vec<(u64, u64)>),
    /// In the file's own last frame, that long.
    Inline(u64),
}

/// Takes the raw stream while the tar is being read.
pub struct StreamWriter {
    encoder: zstd::Encoder<'static, BufWriter<File>>,
    raw: Vec<u8>,
}

impl StreamWriter {
    /// Collects into `scratch`, an empty file.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(scratch: File) -> Result<Self> {
        let encoder = zstd::Encoder::new(BufWriter::new(scratch), LEVEL)
            .doing(|| "cannot start headers.zst".into())?;
        Ok(Self { encoder, raw: Vec::new() })
    }

    /// Bytes of the tar that are no body.
    ///
    /// # Errors
    /// What the scratch file says.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= 1 << 16 { self.flush() } else { Ok(()) }
    }

    /// The place of the next body.
    ///
    /// # Errors
    /// What the scratch file says.
    pub fn body(&mut self) -> io::Result<()> {
        self.flush()?;
        self.encoder.write_all(&BODY.to_le_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        for chunk in self.raw.chunks(1 << 30) {
            self.encoder.write_all(&(chunk.len() as u32).to_le_bytes())?;
            self.encoder.write_all(chunk)?;
        }
        self.raw.clear();
        Ok(())
    }

    /// Ends the stream and writes the whole file to `out`: `bodies`, `count` of them, are those of
    /// the tar in order, and `inline` writes the bytes of the inline ones. Returns the size of
    /// the file in bytes.
    ///
    /// # Errors
    /// `Io`, and what `bodies` and `inline` say.
    pub fn finish<E: From<Error>>(
        mut self,
        count: u64,
        bodies: impl Iterator<Item = std::result::Result<StoredBody, E>>,
        out: &mut File,
        inline: &mut dyn FnMut(&mut dyn Write) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, E> {
        let doing = || "cannot write headers.zst".to_owned();
        self.flush().doing(doing)?;
        let buffered = self.encoder.finish().doing(doing)?;
        let mut stream = buffered.into_inner().map_err(|e| e.into_error()).doing(doing)?;
        out.write_all(&[0; PREAMBLE as usize]).doing(doing)?;
        let mut table = zstd::Encoder::new(&mut *out, LEVEL).doing(doing)?;
        let mut has_inline = false;
        table.write_all(&count.to_le_bytes()).doing(doing)?;
        for body in bodies {
            let body = body?;
            has_inline |= matches!(body, StoredBody::Inline(_));
            write_body(&body, &mut table).doing(doing)?;
        }
        table.finish().doing(doing)?;
        let table_end = out.stream_position().doing(doing)?;
        stream.seek(SeekFrom::Start(0)).doing(doing)?;
        let stream_len = io::copy(&mut stream, out).doing(doing)?;
        if has_inline {
            let mut frame = zstd::Encoder::new(&mut *out, LEVEL).doing(doing)?;
            inline(&mut frame)?;
            frame.finish().doing(doing)?;
        }
        let size = out.stream_position().doing(doing)?;
        out.seek(SeekFrom::Start(0)).doing(doing)?;
        let mut preamble = Vec::with_capacity(PREAMBLE as usize);
        preamble.extend_from_slice(&SKIPPABLE.to_le_bytes());
        preamble.extend_from_slice(&(PREAMBLE as u32 - 8).to_le_bytes());
        preamble.extend_from_slice(MAGIC);
        preamble.extend_from_slice(&VERSION.to_le_bytes());
        preamble.extend_from_slice(&(table_end - PREAMBLE).to_le_bytes());
        preamble.extend_from_slice(&stream_len.to_le_bytes());
        out.write_all(&preamble).doing(doing)?;
        let checksum = checksum(out, &preamble)?;
        out.write_all(&checksum).doing(doing)?;
        Ok(size)
    }
}

/// A sink of raw bytes that also learns where bodies stand.
pub trait BodySink {
    /// The next bytes of the tar are a body.
    ///
    /// # Errors
    /// They cannot be kept.
    fn body(&mut self) -> io::Result<()>;
}

/// Keeps the raw bytes for `headers.zst`, or nothing.
pub struct Keeper(pub Option<StreamWriter>);

impl RawSink for Keeper {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |stream| stream.raw(bytes))
    }
}

impl BodySink for Keeper {
    fn body(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), StreamWriter::body)
    }
}

/// What the checksum of a headers file with these first fields must be.
fn checksum(file: &File, fields: &[u8]) -> Result<[u8; 32]> {
    let mut sha = Sha256::new();
    sha.update(fields);
    let mut at = PREAMBLE;
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read_at(&mut chunk, at).doing(|| "cannot read headers.zst".into())? {
            0 => return Ok(sha.finalize().into()),
            n => {
                sha.update(&chunk[..n]);
                at += n as u64;
            }
        }
    }
}

/// Checks every byte of a headers file.
///
/// # Errors
/// `Damaged` if one is wrong; `Io`.
pub fn verify(headers: &File) -> Result<()> {
    let mut preamble = [0; PREAMBLE as usize];
    headers.read_exact_at(&mut preamble, 0).doing(|| "cannot read headers.zst".into())?;
    let (fields, expected) = preamble.split_at(FIELDS);
    if checksum(headers, fields)? != *expected {
        return Err(Error::damaged("headers.zst", "its checksum does not fit"));
    }
    Ok(())
}

fn write_body(body: &StoredBody, out: &mut impl Write) -> io::Result<()> {
    let path = |out: &mut dyn Write, path: &TreePath| {
        out.write_all(&(path.as_bytes().len() as u32).to_le_bytes())?;
        out.write_all(path.as_bytes())
    };
    match body {
        StoredBody::File(at, len) => {
            out.write_all(&[0])?;
            path(out, at)?;
            out.write_all(&len.to_le_bytes())
        }
        StoredBody::Sparse(at, pieces) => {
            out.write_all(&[1])?;
            path(out, at)?;
            out.write_all(&(pieces.len() as u32).to_le_bytes())?;
            for (offset, len) in pieces {
                out.write_all(&offset.to_le_bytes())?;
                out.write_all(&len.to_le_bytes())?;
            }
            Ok(())
        }
        StoredBody::Inline(len) => {
            out.write_all(&[2])?;
            out.write_all(&len.to_le_bytes())
        }
    }
}

/// A part of a file with a position of its own.
struct Range {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Range {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        let n = self.file.read_at(&mut buf[..want], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

type Frame = zstd::Decoder<'static, BufReader<Range>>;

/// The diff, rebuilt: reads as the tar that was unpacked.
pub struct DiffStream<'a> {
    frames: Frames,
    open: &'a dyn Fn(&TreePath) -> io::Result<File>,
    current: Part,
}

enum Part {
    Raw(u64),
    File(Take<File>),
    Sparse(File, std::vec::IntoIter<(u64, u64)>, u64),
    Inline(u64),
    End,
}

/// The three frames, at their beginnings, and how many bodies there are.
struct Frames {
    table: Frame,
    stream: Frame,
    inline: Option<Frame>,
    bodies: u64,
}

impl Frames {
    fn open(headers: &File) -> Result<Self> {
        let doing = || "cannot read headers.zst".to_owned();
        let bad = |why: &str| Error::damaged("headers.zst", why);
        let size = headers.metadata().doing(doing)?.len();
        let mut preamble = [0; PREAMBLE as usize];
        headers.read_exact_at(&mut preamble, 0).doing(doing)?;
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| preamble[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| preamble[at + i]));
        if word(0) != SKIPPABLE || u64::from(word(4)) != PREAMBLE - 8 || &preamble[8..12] != MAGIC {
            return Err(bad("its first 16 bytes are not those of a headers file"));
        }
        if word(12) != VERSION {
            return Err(bad("its version is not known to this strata"));
        }
        let table_end = PREAMBLE.checked_add(long(16)).filter(|end| *end <= size);
        let stream_end = table_end.and_then(|end| end.checked_add(long(24)));
        let (Some(table_end), Some(stream_end)) =
            (table_end, stream_end.filter(|end| *end <= size))
        else {
            return Err(bad("its lengths pass the end of the file"));
        };
        let frame = |at: u64, end: u64| -> Result<Frame> {
            let file = headers.try_clone().doing(doing)?;
            zstd::Decoder::new(Range { file, at, end }).doing(doing)
        };
        let mut table = frame(PREAMBLE, table_end)?;
        let mut count = [0; 8];
        table.read_exact(&mut count).doing(doing)?;
        Ok(Self {
            stream: frame(table_end, stream_end)?,
            inline: if stream_end < size { Some(frame(stream_end, size)?) } else { None },
            table,
            bodies: u64::from_le_bytes(count),
        })
    }

    /// What comes next in the stream; `None` at its end.
    fn next_raw(&mut self) -> io::Result<Option<Stretch>> {
        let mut len = [0; 4];
        match self.stream.read(&mut len)? {
            0 => return Ok(None),
            n => self.stream.read_exact(&mut len[n..])?,
        }
        Ok(Some(match u32::from_le_bytes(len) {
            BODY => Stretch::Body,
            len => Stretch::Raw(u64::from(len)),
        }))
    }

    /// Where the next body is.
    fn next_body(&mut self) -> io::Result<StoredBody> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        self.bodies =
            self.bodies.checked_sub(1).ok_or_else(|| bad("headers.zst: too few bodies"))?;
        let table = &mut self.table;
        let mut tag = [0];
        table.read_exact(&mut tag)?;
        if tag[0] == 2 {
            return Ok(StoredBody::Inline(long(table)?));
        }
        let len = word(table)?;
        let mut path = Vec::new();
        (&mut *table).take(u64::from(len)).read_to_end(&mut path)?;
        let path = TreePath::clamped(&path).map_err(|why| bad(&why.to_string()))?;
        match tag[0] {
            0 => Ok(StoredBody::File(path, long(table)?)),
            1 => {
                let n = word(table)?;
                let mut pieces = Vec::new();
                for _ in 0..n {
                    pieces.push((long(table)?, long(table)?));
                }
                Ok(StoredBody::Sparse(path, pieces))
            }
            _ => Err(bad("headers.zst: unknown kind of body")),
        }
    }
}

/// What comes next in the stream.
enum Stretch {
    Raw(u64),
    Body,
}

impl<'a> DiffStream<'a> {
    /// Opens `headers` of a layer whose regular files `open` opens.
    ///
    /// # Errors
    /// `Damaged` if it is not such a file.
    pub fn new(headers: &File, open: &'a dyn Fn(&TreePath) -> io::Result<File>) -> Result<Self> {
        Ok(Self { frames: Frames::open(headers)?, open, current: Part::Raw(0) })
    }

    fn next_part(&mut self) -> io::Result<Part> {
        Ok(match self.frames.next_body()? {
            StoredBody::Inline(len) => Part::Inline(len),
            StoredBody::File(path, len) => Part::File((self.open)(&path)?.take(len)),
            StoredBody::Sparse(path, pieces) => {
                Part::Sparse((self.open)(&path)?, pieces.into_iter(), 0)
            }
        })
    }
}

fn word(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn long(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// `read` that treats an early end as damage: the lengths were written by us.
fn read_some(from: &mut impl Read, buf: &mut [u8], left: u64, what: &str) -> io::Result<usize> {
    let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    match from.read(&mut buf[..want])? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{what} ends early"))),
        n => Ok(n),
    }
}

impl Read for DiffStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.current {
                Part::End => return Ok(0),
                Part::Raw(0) => {
                    self.current = match self.frames.next_raw()? {
                        None => Part::End,
                        Some(Stretch::Body) => self.next_part()?,
                        Some(Stretch::Raw(len)) => Part::Raw(len),
                    };
                }
                Part::Raw(left) => {
                    let n = read_some(&mut self.frames.stream, buf, *left, "headers.zst")?;
                    *left -= n as u64;
                    return Ok(n);
                }
                Part::File(file) if file.limit() == 0 => self.current = Part::Raw(0),
                Part::File(file) => {
                    let left = file.limit();
                    return read_some(file, buf, left, "a stored file");
                }
                Part::Sparse(file, pieces, 0) => match pieces.next() {
                    None => self.current = Part::Raw(0),
                    Some((offset, len)) => {
                        file.seek(SeekFrom::Start(offset))?;
                        if let Part::Sparse(_, _, left) = &mut self.current {
                            *left = len;
                        }
                    }
                },
                Part::Sparse(file, _, left) => {
                    let n = read_some(file, buf, *left, "a stored sparse file")?;
                    *left -= n as u64;
                    return Ok(n);
                }
                Part::Inline(0) => self.current = Part::Raw(0),
                Part::Inline(left) => {
                    let Some(inline) = &mut self.frames.inline else {
                        return Err(io::Error::other("headers.zst has no inline bodies"));
                    };
                    let n = read_some(inline, buf, *left, "the inline bodies")?;
                    *left -= n as u64;
                    return Ok(n);
                }
            }
        }
    }
}
