//! Copying the content of one file into another, which has none of its own: it is one hole.
//!
//! Invariants: a hole of a file stays a hole; where the file system can share the bytes (reflink)
//! none are copied; the source is only read; a copy that fails leaves no shorter file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use strata_content::Content;

use super::error::{Doing, Result};

/// Bytes that are copied at a time where the kernel cannot do it by itself.
const CHUNK: usize = 256 * 1024;

/// Copies the first `keep` bytes of `from` (`None`: all) to `to`, whose size is that then.
pub(super) fn copy_content(from: &dyn Content, to: &File, keep: Option<u64>) -> Result<()> {
    let doing = || "copy a file up".to_owned();
    let size = from.len();
    let wanted = keep.map_or(size, |keep| keep.min(size));
    if wanted == size
        && size > 0
        && from.as_file().is_some_and(|file| rustix::fs::ioctl_ficlone(to, file).is_ok())
    {
        return Ok(());
    }
    let has = rustix::fs::fstat(to).doing(doing)?.st_size as u64;
    if has < wanted {
        rustix::fs::ftruncate(to, wanted).doing(doing)?;
    }
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, wanted)? {
        copy_part(from, to, start, end)?;
        at = end;
    }
    if has > wanted {
        rustix::fs::ftruncate(to, wanted).doing(doing)?;
    }
    Ok(())
}

/// The next part at or after `at` and before `limit` that is no hole: its start, and its end, which
/// is behind that.
pub(super) fn next_data(content: &dyn Content, at: u64, limit: u64) -> Result<Option<(u64, u64)>> {
    let doing = || "look for holes".to_owned();
    if at >= limit {
        return Ok(None);
    }
    let Some(file) = content.as_file() else { return Ok(Some((at, limit))) };
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None), // Nothing but a hole is left.
        Err(Errno::INVAL) => at,             // A file system that knows no holes.
        Err(errno) => return Err(errno).doing(doing),
    };
    if start >= limit {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Hole(start)) {
        Ok(end) => Ok(Some((start, end.min(limit).max(start + 1)))),
        Err(Errno::INVAL | Errno::NXIO) => Ok(Some((start, limit))),
        Err(errno) => Err(errno).doing(doing),
    }
}

fn copy_part(from: &dyn Content, to: &File, start: u64, end: u64) -> Result<()> {
    let doing = || "copy a file up".to_owned();
    let mut at = start;
    while let Some(file) = from.as_file().filter(|_| at < end) {
        let (mut source, mut target) = (at, at);
        let len = usize::try_from(end - at).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(file, Some(&mut source), to, Some(&mut target), len) {
            Ok(0) => break, // It became shorter, which the source may call an error.
            Ok(done) => at += done as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                break;
            }
            Err(errno) => return Err(errno).doing(doing),
        }
    }
    let mut chunk = vec![0; CHUNK];
    while at < end {
        let len = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
        let read = from.read_at(&mut chunk[..len], at).doing(doing)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&chunk[..read], at).doing(doing)?;
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use strata_content::FileContent;

    #[test]
    fn holes_stay_holes_and_the_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut new = File::options();
        new.read(true).write(true).create_new(true);
        let from = new.open(dir.path().join("from")).unwrap();
        from.set_len(8 << 20).unwrap();
        from.write_all_at(b"middle", 4 << 20).unwrap();
        let from = FileContent::new(from).unwrap();
        for keep in [None, Some(0), Some((4 << 20) + 3), Some(1 << 30)] {
            let path = dir.path().join("to");
            let _ = std::fs::remove_file(&path);
            let to = new.open(&path).unwrap();
            copy_content(&from, &to, keep).unwrap();
            let mut bytes = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            let want = keep.unwrap_or(8 << 20).min(8 << 20) as usize;
            assert_eq!(bytes.len(), want);
            if want > 4 << 20 {
                let text = &b"middle"[..(want - (4 << 20)).min(6)];
                assert_eq!(&bytes[4 << 20..][..text.len()], text);
            }
            let blocks = rustix::fs::fstat(&to).unwrap().st_blocks as u64 * 512;
            assert!(blocks < 1 << 20, "{blocks} bytes in use");
        }
    }
}
