//! The bytes of one regular file: shared where the file system can, else copied, holes kept.
//!
//! Invariants: exactly `size` bytes are there afterwards, or it is an error; the source's own
//! file position is not used; a file system that refused to share is not asked again.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, fstat, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;
use strata_content::Content;

/// Below this many bytes one read and one write are cheaper than asking the kernel to copy.
const SMALL: u64 = 64 << 10;

/// What a copy came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// All bytes are there.
    Whole,
    /// The source holds this many bytes, which is not what its node says.
    WrongSize(u64),
}

/// Copies contents, remembering what the pair of file systems can do.
pub(super) struct Copier {
    may_clone: bool,
    may_copy_range: bool,
    buffer: Vec<u8>,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { may_clone: true, may_copy_range: true, buffer: Vec::new() }
    }

    /// Fills the empty file `to` with the `size` bytes of `from`.
    pub(super) fn copy(
        &mut self,
        from: &dyn Content,
        to: &File,
        size: u64,
    ) -> std::io::Result<Copied> {
        let found = from.len();
        if found != size {
            return Ok(Copied::WrongSize(found));
        }
        if size == 0 {
            return Ok(Copied::Whole);
        }
        let Some(file) = from.as_file() else {
            self.bytes(from, to, 0, size)?;
            return Ok(Copied::Whole);
        };
        if self.clone(file, to)? {
            return Ok(Copied::Whole);
        }
        let stat = fstat(file)?;
        // st_blocks counts 512 bytes, whatever the file system's own blocks are.
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        if sparse {
            self.sparse(from, file, to, size)?;
        } else {
            self.range(from, file, to, (0, size))?;
        }
        Ok(Copied::Whole)
    }

    /// Whether the extents are shared now.
    fn clone(&mut self, from: &File, to: &File) -> std::io::Result<bool> {
        if !self.may_clone {
            return Ok(false);
        }
        match ioctl_ficlone(to, from) {
            Ok(()) => Ok(true),
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(error.into()),
            Err(_) => {
                self.may_clone = false;
                Ok(false)
            }
        }
    }

    /// Copies the parts that hold data; the rest stays holes.
    fn sparse(
        &mut self,
        from: &dyn Content,
        file: &File,
        to: &File,
        size: u64,
    ) -> std::io::Result<()> {
        ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let data = match seek(file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break,
                // This file system cannot tell: all of it is data.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    return self.range(from, file, to, (at, size));
                }
                Err(error) => return Err(error.into()),
            };
            let end = seek(file, SeekFrom::Hole(data))?.min(size);
            self.range(from, file, to, (data, end))?;
            at = end;
        }
        Ok(())
    }

    /// Copies the bytes from `at` up to `end`.
    fn range(
        &mut self,
        from: &dyn Content,
        file: &File,
        to: &File,
        (mut at, end): (u64, u64),
    ) -> std::io::Result<()> {
        while at < end && self.may_copy_range && end - at > SMALL {
            let (mut source, mut target) = (at, at);
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match copy_file_range(file, Some(&mut source), to, Some(&mut target), wanted) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(copied) => at += copied as u64,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG)) => {
                    return Err(error.into());
                }
                Err(_) => self.may_copy_range = false,
            }
        }
        self.bytes(from, to, at, end)
    }

    /// Reads and writes the bytes from `at` up to `end`.
    fn bytes(
        &mut self,
        from: &dyn Content,
        to: &File,
        mut at: u64,
        end: u64,
    ) -> std::io::Result<()> {
        self.buffer.resize(SMALL as usize, 0);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let part = &mut self.buffer[..wanted];
            if from.read_at(part, at)? < wanted {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(part, at)?;
            at += wanted as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    use strata_content::FileContent;

    /// Copies with what the file system can do, or with less.
    fn copied(
        make: impl Fn(&File),
        size: u64,
        (clones, ranges): (bool, bool),
    ) -> (Vec<u8>, Vec<u8>, u64) {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        make(&from);
        let mut copier = Copier { may_clone: clones, may_copy_range: ranges, buffer: Vec::new() };
        let content = FileContent::new(from.try_clone().unwrap()).unwrap();
        assert_eq!(copier.copy(&content, &to, size).unwrap(), Copied::Whole);
        let read = |file: &File| {
            let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        (read(&from), read(&to), to.metadata().unwrap().blocks() * 512)
    }

    #[test]
    fn contents_of_every_size_arrive_with_and_without_the_kernels_help() {
        for size in [0_usize, 1, 65_535, 65_536, 65_537, 1 << 20] {
            for help in [(false, false), (false, true), (true, true)] {
                let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
                let (from, to, _) =
                    copied(|f| f.write_all_at(&bytes, 0).unwrap(), size as u64, help);
                assert_eq!(from, bytes);
                assert!(from == to, "{size} bytes, reflink and copy_file_range {help:?}");
            }
        }
    }

    #[test]
    fn holes_stay_holes() {
        let make = |file: &File| {
            file.write_all_at(b"front", 0).unwrap();
            file.write_all_at(b"middle", 4 << 20).unwrap();
            file.set_len(8 << 20).unwrap();
        };
        for help in [(false, false), (false, true), (true, true)] {
            let (from, to, stored) = copied(make, 8 << 20, help);
            assert!(from == to);
            assert!(stored <= 256 << 10, "{stored} bytes are stored for two blocks of data");
        }
    }

    #[test]
    fn a_content_of_another_size_is_found() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(b"four", 0).unwrap();
        let from = FileContent::new(from).unwrap();
        assert_eq!(Copier::new().copy(&from, &to, 5).unwrap(), Copied::WrongSize(4));
        assert_eq!(to.metadata().unwrap().len(), 0);
    }
}
