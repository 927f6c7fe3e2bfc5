//! Removing a directory with everything in it, however deep it is.
//!
//! Who writes into a container makes directories as deep as they like: a call for each level would
//! overflow the stack, and a descriptor for each reach the limit of open files.
//!
//! Invariants: two directories are open at a time; no symbolic link is followed; a directory that
//! was moved away meanwhile does not lead out of the tree; what cannot be removed keeps nothing
//! else from it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::{Errno, Result};

/// A directory between the one that is being emptied and the top.
struct EmptiedLevel {
    /// Its name in the one above.
    name: OsString,
    /// Its number, by which it is known again when `..` leads back to it.
    number: (u64, u64),
    /// What is to be emptied in it yet.
    deeper: Vec<OsString>,
}

/// Removes what is at `path`, which starts at `dir`: a file, a link, or a directory with all that
/// is in it. What can be removed is, also if something else cannot.
///
/// # Errors
/// What unlink(2), open(2) and getdents(2) say, of the first that cannot be removed; `NOENT` if
/// there is nothing at `path`; `BUSY` if somebody moves its directories meanwhile.
pub fn remove_tree(dir: impl AsFd, path: &Path) -> Result<()> {
    match unlinkat(&dir, path, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    let emptied = empty(open(&dir, path)?);
    let removed = unlinkat(&dir, path, AtFlags::REMOVEDIR);
    emptied.and(removed)
}

/// Empties an open directory.
fn empty(top: OwnedFd) -> Result<()> {
    let mut first = Ok(());
    let mut note = |failed: Errno| {
        if first.is_ok() {
            first = Err(failed);
        }
    };
    let mut open_dir = top;
    let mut level = EmptiedLevel::enter(&open_dir, OsString::new(), &mut note)?;
    let mut above: Vec<EmptiedLevel> = Vec::new();
    loop {
        if let Some(name) = level.deeper.pop() {
            let entered = open(&open_dir, Path::new(&name))
                .and_then(|fd| Ok((EmptiedLevel::enter(&fd, name, &mut note)?, fd)));
            match entered {
                Ok((deeper, fd)) => {
                    above.push(std::mem::replace(&mut level, deeper));
                    open_dir = fd;
                }
                Err(Errno::NOENT) => {}
                Err(failed) => note(failed),
            }
            continue;
        }
        let Some(parent) = above.pop() else { return first };
        let back = open(&open_dir, Path::new(".."))?;
        if number(&back)? != parent.number {
            return Err(Errno::BUSY);
        }
        open_dir = back;
        match unlinkat(&open_dir, &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(failed) => note(failed),
        }
        level = parent;
    }
}

impl EmptiedLevel {
    /// Removes the files of a directory; what is left are directories.
    fn enter(fd: &OwnedFd, name: OsString, note: &mut impl FnMut(Errno)) -> Result<Self> {
        let number = number(fd)?;
        let mut deeper = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match unlinkat(fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => deeper.push(name.to_owned()),
                Err(failed) => note(failed),
            }
        }
        Ok(Self { name, number, deeper })
    }
}

fn open(dir: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(dir, path, flags, Mode::empty())
}

fn number(dir: &OwnedFd) -> Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::CWD;
    use strata_testkit::hard::{Immutable, nest, quick_dir};

    use super::*;

    #[test]
    fn a_tree_goes_however_deep_and_nothing_beside_it() {
        let place = quick_dir();
        let top = place.path().join("top");
        for dir in ["a/b/c", "a/e", "f"] {
            fs::create_dir_all(top.join(dir)).unwrap();
            fs::write(top.join(dir).join("text"), "text").unwrap();
        }
        nest(&top.join("a/b"), 20_000);
        fs::create_dir(place.path().join("beside")).unwrap();
        fs::write(place.path().join("beside/text"), "stays").unwrap();
        std::os::unix::fs::symlink("../beside", top.join("link")).unwrap();
        // Less than a thread has by default.
        let thread = std::thread::Builder::new().stack_size(128 << 10);
        let removing = thread.spawn(move || remove_tree(CWD, &top)).unwrap();
        assert_eq!(removing.join().unwrap(), Ok(()));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(place.path().join("beside/text")).unwrap(), "stays");

        let beside = place.path().join("beside");
        assert_eq!(remove_tree(CWD, &beside.join("text")), Ok(()));
        assert_eq!(remove_tree(CWD, &beside.join("text")), Err(Errno::NOENT));
        std::os::unix::fs::symlink(".", beside.join("link")).unwrap();
        assert_eq!(remove_tree(CWD, &beside.join("link")), Ok(()));
        assert_eq!(fs::read_dir(&beside).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_go_keeps_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        for dir in ["a", "b", "c"] {
            fs::create_dir_all(top.join(dir)).unwrap();
            fs::write(top.join(dir).join("text"), "text").unwrap();
        }
        let Some(kept) = Immutable::make(&top.join("b/text")) else { return };
        assert_eq!(remove_tree(CWD, &top), Err(Errno::PERM));
        assert_eq!(fs::read_dir(&top).unwrap().count(), 1);
        drop(kept);
        assert_eq!(remove_tree(CWD, &top), Ok(()));
        assert!(!top.exists());
    }
}
