//! Opening contents below a directory descriptor.
//!
//! Invariants: no symbolic link is followed, in no component; nothing above the directory is
//! reached; only regular files are handed out; opening never blocks (a name replaced by a FIFO
//! gives an error) and the descriptor is read-only and close-on-exec.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use crate::name::TreePath;

/// Opens the regular file at `path` below `dir` for reading, and says how many bytes it has.
/// `quiet`: reading leaves the access time alone, where the caller may ask for that (`O_NOATIME`).
///
/// # Errors
/// What the kernel says; `EISDIR` or `EINVAL` for what is not a regular file.
pub fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &TreePath,
    quiet: bool,
) -> rustix::io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = match quiet {
        // Only a file's owner may ask for that (open(2)).
        true => match reach(dir, path, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => reach(dir, path, flags)?,
            other => other?,
        },
        false => reach(dir, path, flags)?,
    };
    let stat = fstat(&fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((File::from(fd), stat.st_size as u64)),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}

/// Opens whatever is at `path` below `dir`, or `dir` itself, as `flags` say.
pub(crate) fn reach(
    dir: BorrowedFd<'_>,
    path: &TreePath,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(dir, path.as_os_str(), flags, Mode::empty(), resolve) {
        // Kernels before 5.6 lack the call, sandboxes forbid it (EPERM), and no single call
        // takes a path of 4096 bytes or more.
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => step_by_step(dir, path, flags),
        other => other,
    }
}

/// What `openat2` does in one call: each component opened below the one before, no links.
fn step_by_step(
    dir: BorrowedFd<'_>,
    path: &TreePath,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut here: Option<OwnedFd> = None;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        let at = here.as_ref().map_or(dir, AsFd::as_fd);
        let how = if names.peek().is_none() {
            flags
        } else {
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
        };
        here = Some(openat(at, name.as_os_str(), how, Mode::empty())?);
    }
    match here {
        Some(fd) => Ok(fd),
        None => openat(dir, ".", flags, Mode::empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::clamped(text.as_bytes()).unwrap()
    }

    #[test]
    fn opens_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), b"content").unwrap();
        symlink("f", dir.path().join("d/link")).unwrap();
        symlink("d", dir.path().join("through")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;

        let mut text = String::new();
        let (mut file, len) = open_beneath(root.as_fd(), &path("d/f"), true).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(len, 7);
        assert_eq!(text, "content");
        assert!(step_by_step(root.as_fd(), &path("d/f"), flags).is_ok());
        for bad in ["", "d", "d/link", "through/f", "absent", "d/f/x"] {
            assert!(open_beneath(root.as_fd(), &path(bad), false).is_err(), "{bad}");
        }
        for bad in ["d/link", "through/f", "absent", "d/f/x"] {
            assert!(step_by_step(root.as_fd(), &path(bad), flags).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_beyond_one_call_work() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let name = "n".repeat(250);
        let mut deep = TreePath::root();
        let mut at: OwnedFd = root.try_clone().unwrap().into();
        for _ in 0..20 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = openat(&at, name.as_str(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                .unwrap();
            deep = deep.join(crate::Name::new(name.as_bytes()).unwrap());
        }
        openat(&at, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        let leaf = deep.join(crate::Name::new(b"leaf").unwrap());
        assert!(leaf.as_bytes().len() > 4096);
        assert!(open_beneath(root.as_fd(), &leaf, false).is_ok());
    }
}
