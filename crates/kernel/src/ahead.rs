//! [`names_ahead`]: has the kernel make the names of a tree before somebody asks for them.
//!
//! The first walk of a mount waits for the names and inodes of its lower, one by one. Who walks the
//! lower at the same time, on another processor, is ahead of that walk after a few directories.
//!
//! ```text
//! todo: [a directory, ...]   the last one: its names are looked at, then its directories are todo
//! ```
//!
//! Invariants: nothing is read but names and inodes, no link is followed, one directory is open at
//! a time; what cannot be looked at is passed over, for all of it is a hint.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, openat, statx};

/// After how many names it is asked whether to go on.
const ASKED: u64 = 128;

/// Looks at the names of the tree below `root`, directory by directory as find(1) does, `most` of
/// them at most, as long as `wanted` says so; gives their number.
pub fn names_ahead(root: BorrowedFd<'_>, most: u64, wanted: &mut dyn FnMut() -> bool) -> u64 {
    let mut seen = 0;
    let mut todo = vec![c".".to_owned()];
    while let Some(path) = todo.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = openat(root, &path, flags, Mode::empty()) else { continue };
        let Ok(names) = Dir::read_from(&directory) else { continue };
        let first = todo.len();
        for entry in names.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
            let _ = statx(directory.as_fd(), name, flags, StatxFlags::TYPE);
            if entry.file_type() == FileType::Directory {
                let below = [path.as_bytes(), b"/", name.to_bytes()].concat();
                todo.extend(CString::new(below));
            }
            seen += 1;
            if seen == most || seen % ASKED == 0 && !wanted() {
                return seen;
            }
        }
        // The first is the next.
        if let Some(found) = todo.get_mut(first..) {
            found.reverse();
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir_all(dir.path().join(name).join("in")).unwrap();
            for number in 0..200 {
                fs::write(dir.path().join(name).join(format!("in/{number}")), "").unwrap();
            }
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn every_name_is_looked_at_once() {
        let dir = tree();
        let root = File::open(dir.path()).unwrap();
        assert_eq!(names_ahead(root.as_fd(), u64::MAX, &mut || true), 405);
    }

    #[test]
    fn it_ends_where_it_is_to_end() {
        let dir = tree();
        let root = File::open(dir.path()).unwrap();
        assert_eq!(names_ahead(root.as_fd(), 7, &mut || true), 7);
        let mut asked = 0;
        let mut twice = || {
            asked += 1;
            asked < 2
        };
        assert_eq!(names_ahead(root.as_fd(), u64::MAX, &mut twice), 2 * ASKED);
    }
}
