//! From a path or a pipe to an open, plain, seekable archive.
//!
//! A file that is a tar is used where it is. One that is compressed, or a pipe, is written once,
//! uncompressed, to an unnamed scratch file of the store, which goes away with its descriptor.
//!
//! Invariants: what is written is bounded by [`Limits::archive_bytes`], and beyond 64 MiB by
//! [`Limits::expansion`] for each compressed byte; only regular files and
//! pipes are read, and opening one never blocks or follows a device.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::spec::Place;

/// What the first bytes of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Zstd,
    /// Known, and not read.
    Unsupported(&'static str),
}

/// Bytes that an archive may expand to whatever its ratio.
const EXPANSION_FREE: u64 = 64 << 20;

/// As many bytes as tell the codings apart.
const MAGIC: usize = 6;

impl Coding {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // The second is the range of skippable frames, which may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Unsupported("lz4"),
            _ => Self::Plain,
        }
    }
}

/// Makes an unnamed scratch file.
pub(crate) type Scratch<'a> = &'a dyn Fn() -> Result<File>;

/// What stands at a path.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A directory.
    Directory(File),
    /// A regular file, or a pipe.
    Stream(File),
}

/// Opens a directory, file or pipe that the user named (links are theirs to make).
pub(crate) fn open(place: &Place) -> Result<Opened> {
    let path = match place {
        Place::Stdin => {
            // A descriptor of our own, above the standard ones, that is closed with the source.
            let fd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
                .map_err(|e| Error::io("reading standard input", e))?;
            return Ok(Opened::Stream(fd.into()));
        }
        Place::Path(path) => path,
    };
    let what = || format!("opening {}", path.display());
    // A pipe that nobody writes yet must be waited for, so there is no O_NONBLOCK here.
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
            .map_err(|e| Error::io(what(), e))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io(what(), e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Opened::Directory(fd.into())),
        FileType::RegularFile | FileType::Fifo => Ok(Opened::Stream(fd.into())),
        _ => Err(Error::WrongKind(path.to_owned())),
    }
}

/// An open file or pipe as a plain, seekable archive.
pub(crate) fn plain(
    file: File,
    label: &str,
    scratch: Scratch<'_>,
    limits: &Limits,
) -> Result<File> {
    let reading = |e: io::Error| Error::io(format!("reading {label}"), e);
    let stat = rustix::fs::fstat(&file).map_err(|e| reading(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && rustix::fs::tell(&file).map_err(|e| reading(e.into()))? == 0
    {
        let mut head = [0; MAGIC];
        let mut at = 0;
        while at < MAGIC {
            match rustix::io::pread(&file, &mut head[at..], at as u64) {
                Ok(0) => break,
                Ok(count) => at += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(reading(e.into())),
            }
        }
        if Coding::of(&head[..at]) == Coding::Plain {
            return Ok(file);
        }
    }
    spool(&file, label, scratch, limits)
}

/// A stream, plain, in a scratch file.
pub(crate) fn spool(
    mut input: impl Read,
    label: &str,
    scratch: Scratch<'_>,
    limits: &Limits,
) -> Result<File> {
    let reading = |e: io::Error| Error::io(format!("reading {label}"), e);
    let mut head = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut head).map_err(reading)?;
    let coding = Coding::of(&head);
    let compressed = Cell::new(0);
    let counted = Counted { inner: io::Cursor::new(head).chain(input), count: &compressed };
    let whole = BufReader::with_capacity(1 << 18, counted);
    let mut plain: Box<dyn Read + '_> = match coding {
        Coding::Plain => Box::new(whole),
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Coding::Zstd => Box::new(zstd::Decoder::with_buffer(whole).map_err(reading)?),
        Coding::Unsupported(format) => {
            return Err(Error::Compression { label: label.to_owned(), format });
        }
    };
    let mut out = scratch()?;
    let mut buffer = vec![0; 1 << 18];
    let too_large = |what: &str, limit, option| Error::Limit {
        label: label.to_owned(),
        what: what.to_owned(),
        limit,
        option,
    };
    let mut written = 0_u64;
    loop {
        let count = match plain.read(&mut buffer) {
            Ok(0) => return Ok(out),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(reading(e)),
        };
        written += count as u64;
        if written > limits.archive_bytes {
            let what = "the number of bytes of the uncompressed archive";
            return Err(too_large(what, limits.archive_bytes, "--max-archive-bytes"));
        }
        if written > EXPANSION_FREE.max(compressed.get().saturating_mul(limits.expansion)) {
            let what = "the number of uncompressed bytes for each compressed one";
            return Err(too_large(what, limits.expansion, "--max-expansion"));
        }
        out.write_all(&buffer[..count])
            .map_err(|e| Error::io(format!("writing {label} to a scratch file"), e))?;
    }
}

/// Counts the compressed bytes that go by.
struct Counted<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn scratch() -> Result<File> {
        Ok(tempfile::tempfile().unwrap())
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(data).unwrap();
        out.finish().unwrap()
    }

    fn read(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>> {
        let file = spool(bytes, "test", &scratch, limits)?;
        let mut all = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut all, 0).unwrap();
        Ok(all)
    }

    #[test]
    fn the_bytes_decide_the_compression() {
        let data = b"some archive".repeat(100);
        let two_members = [gzip(&data[..500]), gzip(&data[500..])].concat();
        let skippable =
            [&b"\x50\x2a\x4d\x18\x02\0\0\0zz"[..], &zstd::encode_all(&data[..], 1).unwrap()]
                .concat();
        for bytes in [data.clone(), gzip(&data), two_members, skippable] {
            assert_eq!(read(&bytes, &Limits::default()).unwrap(), data);
        }
        assert_eq!(read(b"", &Limits::default()).unwrap(), b"");
        let error = read(b"\xfd7zXZ\0rest", &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("compressed with xz"), "{error}");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let limits = Limits { archive_bytes: 1 << 20, ..Limits::default() };
        assert!(read(&gzip(&vec![0; 1 << 20]), &limits).is_ok());
        let error = read(&gzip(&vec![0; (1 << 20) + 1]), &limits).unwrap_err().to_string();
        assert!(error.contains("--max-archive-bytes"), "{error}");
        let bomb = zstd::encode_all(&vec![0; 65 << 20][..], 1).unwrap();
        let error = read(&bomb, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("--max-expansion"), "{error}");
    }

    #[test]
    fn a_plain_file_is_used_where_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"plain bytes").unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        let before = rustix::fs::fstat(&file).unwrap().st_ino;
        let never = || -> Result<File> { panic!("a plain file needs no scratch file") };
        let after = plain(file, "test", &never, &Limits::default()).unwrap();
        assert_eq!(rustix::fs::fstat(&after).unwrap().st_ino, before);
    }

    #[test]
    fn devices_are_refused() {
        assert!(matches!(open(&Place::Path("/dev/null".into())), Err(Error::WrongKind(_))));
    }
}
