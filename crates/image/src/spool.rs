//! From a path or a pipe to an open, plain, seekable archive.
//!
//! A file that is a tar is used where it is. One that is compressed (as layers may be), or a pipe,
//! is written once, uncompressed, to an unnamed scratch file of the store, which goes away with
//! its descriptor. Long runs of zeros are holes in it.
//!
//! Invariants: what is written is bounded by [`SourceLimits::archive_bytes`], and beyond 64 MiB by
//! [`SourceLimits::expansion`] for each compressed byte, blocks of zeros left out; only regular
//! files and pipes are read, and opening one never blocks or follows a device.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags};
use strata_diff::stream::{Compression, Decompressed, MAGIC, StreamError, data, zero_blocks};

use crate::error::{Error, Result};
use crate::limits::SourceLimits;
use crate::spec::SourcePlace;

/// Bytes that an archive may expand to whatever its ratio.
const EXPANSION_FREE: u64 = 64 << 20;

/// Makes an unnamed scratch file.
pub type Scratch<'a> = &'a dyn Fn() -> Result<File>;

/// What stands at a path.
#[derive(Debug)]
pub(crate) enum OpenedPlace {
    /// A directory.
    Directory(File),
    /// A regular file, or a pipe.
    Stream(File),
}

/// Opens a directory, file or pipe that the user named; links on the way are followed.
pub(crate) fn open(place: &SourcePlace) -> Result<OpenedPlace> {
    let path = match place {
        SourcePlace::Stdin => {
            // A descriptor of our own, above the standard ones, that is closed with the source.
            let fd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
                .map_err(|e| Error::io("reading standard input", e))?;
            return Ok(OpenedPlace::Stream(fd.into()));
        }
        SourcePlace::Path(path) => path,
    };
    let what = || format!("opening {}", path.display());
    // A pipe that nobody writes yet must be waited for, so there is no O_NONBLOCK here.
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
            .map_err(|e| Error::io(what(), e))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io(what(), e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(OpenedPlace::Directory(fd.into())),
        FileType::RegularFile | FileType::Fifo => Ok(OpenedPlace::Stream(fd.into())),
        _ => Err(Error::WrongKind(path.to_owned())),
    }
}

/// An open file or pipe as a plain, seekable archive.
///
/// What goes wrong behind the first bytes comes back with what was read before it: the archive may
/// have ended by then, as other readers, which stop at its end, take for granted.
pub(crate) fn plain(
    file: File,
    label: &str,
    scratch: Scratch<'_>,
    limits: &SourceLimits,
) -> Result<(File, Option<Error>)> {
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
        if matches!(Compression::of(&head[..at]), Ok(Compression::None)) {
            return Ok((file, None));
        }
    }
    until_fault(&file, label, scratch, limits)
}

/// A stream, plain, in a scratch file.
pub(crate) fn spool(
    input: impl Read + Send,
    label: &str,
    scratch: Scratch<'_>,
    limits: &SourceLimits,
) -> Result<File> {
    match until_fault(input, label, scratch, limits)? {
        (file, None) => Ok(file),
        (_, Some(fault)) => Err(fault),
    }
}

/// The same, as far as the stream can be read.
fn until_fault(
    input: impl Read + Send,
    label: &str,
    scratch: Scratch<'_>,
    limits: &SourceLimits,
) -> Result<(File, Option<Error>)> {
    let damaged = |source: io::Error| match source.downcast::<StreamError>() {
        Ok(source) => Error::Compressed { label: label.to_owned(), source },
        Err(source) => Error::io(format!("reading {label}"), source),
    };
    let mut plain = Decompressed::new(Box::new(input)).map_err(|e| damaged(e.into()))?;
    let out = scratch()?;
    let mut buffer = vec![0; 1 << 18];
    let too_large = |what: &str, limit, option| Error::Limit {
        label: label.to_owned(),
        what: what.to_owned(),
        limit,
        option,
    };
    let (mut written, mut zeros) = (0_u64, 0);
    let mut fault = None;
    let writing = |e| Error::io(format!("writing {label} to a scratch file"), e);
    loop {
        let count = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => match damaged(e) {
                error @ Error::Compressed { .. } => {
                    fault = Some(error);
                    break;
                }
                error => return Err(error),
            },
        };
        let new = &buffer[..count];
        zeros += zero_blocks(new);
        if written + count as u64 > limits.archive_bytes {
            let what = "the number of bytes of the uncompressed archive";
            return Err(too_large(what, limits.archive_bytes, "--max-archive-bytes"));
        }
        let dense = written + count as u64 - zeros;
        if dense > EXPANSION_FREE.max(plain.taken().saturating_mul(limits.expansion)) {
            let what = "the number of uncompressed bytes for each compressed one";
            return Err(too_large(what, limits.expansion, "--max-expansion"));
        }
        for (at, part) in data(new) {
            out.write_all_at(part, written + at as u64).map_err(writing)?;
        }
        written += count as u64;
    }
    out.set_len(written).map_err(writing)?;
    Ok((out, fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn scratch() -> Result<File> {
        Ok(tempfile::tempfile().unwrap())
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(data).unwrap();
        out.finish().unwrap()
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        liblzma::read::XzEncoder::new(data, 1).read_to_end(&mut out).unwrap();
        out
    }

    fn bzip2(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let level = bzip2::Compression::fast();
        bzip2::read::BzEncoder::new(data, level).read_to_end(&mut out).unwrap();
        out
    }

    fn read(bytes: &[u8], limits: &SourceLimits) -> Result<Vec<u8>> {
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
            assert_eq!(read(&bytes, &SourceLimits::default()).unwrap(), data);
        }
        assert_eq!(read(b"", &SourceLimits::default()).unwrap(), b"");
        let padded = [gzip(&data), vec![0; 1000]].concat();
        for bytes in [padded, xz(&data), [bzip2(&data[..77]), bzip2(&data[77..])].concat()] {
            assert_eq!(read(&bytes, &SourceLimits::default()).unwrap(), data);
        }
        for (bytes, why) in [
            (
                [gzip(&data), b"junk".to_vec()].concat(),
                "test cannot be decompressed: the gzip data",
            ),
            (b"\xfd7zXZ\0rest".to_vec(), "the xz data"),
            (b"\x04\x22\x4d\x18rest".to_vec(), "lz4 is not supported"),
        ] {
            let error = read(&bytes, &SourceLimits::default()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let limits = SourceLimits { archive_bytes: 1 << 20, ..SourceLimits::default() };
        assert!(read(&gzip(&vec![0; 1 << 20]), &limits).is_ok());
        let error = read(&gzip(&vec![0; (1 << 20) + 1]), &limits).unwrap_err().to_string();
        assert!(error.contains("--max-archive-bytes"), "{error}");
        let zeros = zstd::encode_all(&vec![0; 65 << 20][..], 1).unwrap();
        let file = spool(&zeros[..], "test", &scratch, &SourceLimits::default()).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 65 << 20);
        let bomb = zstd::encode_all(&vec![1; 65 << 20][..], 1).unwrap();
        let error = read(&bomb, &SourceLimits::default()).unwrap_err().to_string();
        assert!(error.contains("--max-expansion"), "{error}");
    }

    #[test]
    fn a_plain_file_is_used_where_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"plain bytes").unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        let before = rustix::fs::fstat(&file).unwrap().st_ino;
        let never = || -> Result<File> { panic!("a plain file needs no scratch file") };
        let (after, fault) = plain(file, "test", &never, &SourceLimits::default()).unwrap();
        assert!(fault.is_none());
        assert_eq!(rustix::fs::fstat(&after).unwrap().st_ino, before);
    }

    #[test]
    fn devices_are_refused() {
        assert!(matches!(open(&SourcePlace::Path("/dev/null".into())), Err(Error::WrongKind(_))));
    }
}
