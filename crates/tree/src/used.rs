//! What a directory with everything in it takes on its disk.
//!
//! Invariants: those of `deep`; a file with several names counts once.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat, fstat, statat};
use rustix::io::{Errno, Result};

use crate::deep::{DeepVisitor, go_through, open};

/// How often a tree is measured whose directories are moved meanwhile.
const TRIES: usize = 5;

/// What files take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsedSpace {
    /// How many there are, directories among them.
    pub inodes: u64,
    /// Bytes of their blocks.
    pub bytes: u64,
}

/// What the directory at `path`, which starts at `dir`, and all in it takes; others may change it
/// meanwhile. What is not there takes nothing.
///
/// # Errors
/// What open(2), stat(2) and getdents(2) say; `BUSY` if somebody moves its directories again and
/// again.
pub fn space_used(dir: impl AsFd, path: &Path) -> Result<UsedSpace> {
    let mut tries = 1;
    loop {
        match measure(&dir, path) {
            Err(Errno::BUSY) if tries < TRIES => tries += 1,
            Err(Errno::NOENT) => return Ok(UsedSpace::default()),
            measured => return measured,
        }
    }
}

fn measure(dir: impl AsFd, path: &Path) -> Result<UsedSpace> {
    let top = open(dir, path)?;
    let mut measuring =
        Measuring { first: Ok(()), used: UsedSpace::default(), seen: HashSet::new() };
    measuring.count(&fstat(&top)?);
    go_through(top, &mut measuring)?;
    measuring.first.map(|()| measuring.used)
}

struct Measuring {
    /// The first failure.
    first: Result<()>,
    used: UsedSpace,
    /// Files that have further names.
    seen: HashSet<(u64, u64)>,
}

impl Measuring {
    fn count(&mut self, stat: &Stat) {
        let alone = stat.st_nlink == 1 || is_dir(stat);
        if alone || self.seen.insert((stat.st_dev, stat.st_ino)) {
            self.used.inodes += 1;
            self.used.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
    }
}

impl DeepVisitor for Measuring {
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<bool> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.count(&stat);
        Ok(is_dir(&stat))
    }

    fn left(&mut self, _dir: &OwnedFd, _name: &OsStr) -> Result<()> {
        Ok(())
    }

    fn failed(&mut self, error: Errno) {
        self.first = self.first.and(Err(error));
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::CWD;
    use strata_testkit::hard::{nest, quick_dir};

    use super::*;

    #[test]
    fn a_tree_is_measured_however_deep_and_each_file_once() {
        let place = quick_dir();
        let top = place.path().join("top");
        assert_eq!(space_used(CWD, &top), Ok(UsedSpace::default()));
        fs::create_dir_all(top.join("a")).unwrap();
        fs::write(top.join("a/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(top.join("a/file"), top.join("again")).unwrap();
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        let blocks = |name: &str| top.join(name).symlink_metadata().unwrap().blocks();
        let all = ["", "a", "a/file", "link"].map(blocks).iter().sum::<u64>();
        let used = space_used(CWD, &top).unwrap();
        assert_eq!(used, UsedSpace { inodes: 4, bytes: all * 512 });
        assert!(used.bytes >= 100_000);
        nest(&top.join("a"), 20_000);
        assert_eq!(space_used(CWD, &top).unwrap().inodes, 20_005);
        crate::remove_tree(CWD, &top).unwrap();
    }

    #[test]
    fn what_may_not_be_listed_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(space_used(CWD, &place.path().join("no/where")), Ok(UsedSpace::default()));
        fs::write(place.path().join("file"), "").unwrap();
        assert_eq!(space_used(CWD, &place.path().join("file")), Err(Errno::NOTDIR));
    }
}
