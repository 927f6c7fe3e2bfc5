//! Going through a directory with everything in it, however deep it is.
//!
//! Who writes into a container makes directories as deep as they like: a call for each level would
//! overflow the stack, a descriptor for each reach the limit of open files, and a path from the top
//! be longer than the kernel takes, or be walked again for each level.
//!
//! Invariants: two directories are open at a time; no symbolic link is followed; a directory that
//! was moved away meanwhile does not lead out of the tree.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, Result};

/// What is done with the entries of each directory. What fails in one is the visitor's to note.
pub(crate) trait DeepVisitor {
    /// Does what is to be done with an entry of `dir`, and says whether it is a directory to be
    /// gone through.
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<bool>;

    /// The directory `name` of `dir` was gone through.
    fn left(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<()>;

    /// Something could not be done: an entry, or listing a directory.
    fn failed(&mut self, error: Errno);
}

/// A directory between the one that is open and the top.
struct Level {
    /// Its name in the one above.
    name: OsString,
    /// Its number, by which it is known again when `..` leads back to it.
    number: (u64, u64),
    /// Directories in it that are to be gone through yet.
    deeper: Vec<OsString>,
}

/// Goes through an open directory. A name that is gone meanwhile is no failure.
///
/// # Errors
/// What open(2) and getdents(2) say of the top; of `..` anywhere; `BUSY` if somebody moves the
/// directories meanwhile.
pub(crate) fn go_through(top: OwnedFd, visitor: &mut impl DeepVisitor) -> Result<()> {
    let mut open_dir = top;
    let mut level = Level::enter(&open_dir, OsString::new(), visitor)?;
    let mut above: Vec<Level> = Vec::new();
    loop {
        if let Some(name) = level.deeper.pop() {
            let entered = open(&open_dir, Path::new(&name))
                .and_then(|fd| Ok((Level::enter(&fd, name, visitor)?, fd)));
            match entered {
                Ok((deeper, fd)) => {
                    above.push(std::mem::replace(&mut level, deeper));
                    open_dir = fd;
                }
                Err(Errno::NOENT) => {}
                Err(error) => visitor.failed(error),
            }
            continue;
        }
        let Some(parent) = above.pop() else { return Ok(()) };
        let back = open(&open_dir, Path::new(".."))?;
        if number(&back)? != parent.number {
            return Err(Errno::BUSY);
        }
        open_dir = back;
        note(visitor.left(&open_dir, &level.name), visitor);
        level = parent;
    }
}

impl Level {
    fn enter(fd: &OwnedFd, name: OsString, visitor: &mut impl DeepVisitor) -> Result<Self> {
        let number = number(fd)?;
        let mut deeper = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = OsStr::from_bytes(name);
                if note(visitor.entry(fd, name), visitor) == Some(true) {
                    deeper.push(name.to_owned());
                }
            }
        }
        Ok(Self { name, number, deeper })
    }
}

/// What was done; what is gone needs nothing done.
fn note<T>(done: Result<T>, visitor: &mut impl DeepVisitor) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(Errno::NOENT) => None,
        Err(error) => {
            visitor.failed(error);
            None
        }
    }
}

/// Opens a directory, and follows no link in the last name.
///
/// # Errors
/// What open(2) says; `NOTDIR` for a symbolic link.
pub(crate) fn open(dir: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(dir, path, flags, Mode::empty())
}

fn number(dir: &OwnedFd) -> Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}
