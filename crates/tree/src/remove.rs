//! Removing a directory with everything in it, however deep it is.
//!
//! Invariants: those of `deep`; what cannot be removed keeps nothing else from it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::{Errno, Result};

use crate::deep::{DeepVisitor, go_through, open};

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
    let mut emptying = Emptying { first: Ok(()) };
    let emptied = go_through(open(&dir, path)?, &mut emptying);
    let removed = unlinkat(&dir, path, AtFlags::REMOVEDIR);
    emptied.and(emptying.first).and(removed)
}

/// Removes files, and directories that it has emptied.
struct Emptying {
    /// The first failure.
    first: Result<()>,
}

impl DeepVisitor for Emptying {
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<bool> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => Ok(false),
            Err(Errno::ISDIR) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn left(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        unlinkat(dir, name, AtFlags::REMOVEDIR)
    }

    fn failed(&mut self, error: Errno) {
        self.first = self.first.and(Err(error));
    }
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
