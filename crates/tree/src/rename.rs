//! Moving something to a name that nothing has.
//!
//! `RENAME_NOREPLACE` does this where the file system knows it; bindfs, sshfs and others do not.
//!
//! Invariant: what is at the target stays. Without the flag a file is linked there and then loses
//! its old name; a directory, which has no links, is moved after a look, and replaces an empty one
//! that another process makes in between.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::{Errno, Result};

/// Moves `from` to `to`, each a path that starts at its directory.
///
/// # Errors
/// `EEXIST`; what rename(2) says.
pub fn rename_new(from: (impl AsFd, &Path), to: (impl AsFd, &Path)) -> Result<()> {
    let ((from_dir, from), (to_dir, to)) = (from, to);
    match renameat_with(&from_dir, from, &to_dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        done => return done,
    }
    rename_unflagged((from_dir, from), (to_dir, to))
}

fn rename_unflagged(
    (from_dir, from): (impl AsFd, &Path),
    (to_dir, to): (impl AsFd, &Path),
) -> Result<()> {
    match linkat(&from_dir, from, &to_dir, to, AtFlags::empty()) {
        Ok(()) => return unlinkat(&from_dir, from, AtFlags::empty()),
        Err(Errno::EXIST) => return Err(Errno::EXIST),
        // A directory, or a file system without links.
        Err(_) => {}
    }
    match statat(&to_dir, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => renameat(&from_dir, from, &to_dir, to),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        type Rename = fn(&Path, &Path) -> Result<()>;
        let flagged: Rename = |from, to| rename_new((CWD, from), (CWD, to));
        let unflagged: Rename = |from, to| rename_unflagged((CWD, from), (CWD, to));
        for rename in [flagged, unflagged] {
            fs::write(at("file"), "1").unwrap();
            fs::create_dir(at("dir")).unwrap();
            fs::create_dir(at("empty")).unwrap();
            for (from, to) in [("file", "empty"), ("dir", "empty"), ("dir", "file")] {
                let done = rename(&at(from), &at(to));
                assert_eq!(done, Err(Errno::EXIST), "{from} to {to}");
            }
            for (from, to) in [("file", "file2"), ("dir", "dir2")] {
                rename(&at(from), &at(to)).unwrap();
                assert!(!at(from).exists() && at(to).exists());
            }
            let gone = rename(&at("file"), &at("file3"));
            assert_eq!(gone, Err(Errno::NOENT));
            fs::remove_file(at("file2")).unwrap();
            fs::remove_dir(at("dir2")).unwrap();
            fs::remove_dir(at("empty")).unwrap();
        }
    }
}
