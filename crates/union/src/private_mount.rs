//! Directories opened by a private clone of their mount, as the kernel's overlayfs reads its
//! layers.
//!
//! A descriptor keeps busy the mount that it was opened by. A daemon ends some time after its mount
//! is gone, so that `umount m && umount DISK` would find DISK busy now and then. A descriptor that
//! was opened by a clone of the mount, which is in no name space, keeps the file system alive and
//! no mount busy; nor does it notice when DISK is mounted read-only later, or elsewhere.
//!
//! Invariants: what is mounted somewhere in the directory is not seen by way of a clone, least of
//! all a union that is mounted there; names move only within one mount, so two directories between
//! which they do have one clone; without the privilege (`CAP_SYS_ADMIN`) or before Linux 5.2 there
//! is none, and the caller opens the directory itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

/// The directory at `path`, `O_PATH`; `None` if there can be no clone of its mount.
pub fn directory(path: &Path) -> Option<OwnedFd> {
    let path = path.canonicalize().ok()?;
    clone_of(&path)
}

/// Two directories of one mount, open for reading; `None` as for [`directory`], and if they are on
/// two mounts.
pub fn directories(one: &Path, other: &Path) -> Option<(OwnedFd, OwnedFd)> {
    let (one, other) = (one.canonicalize().ok()?, other.canonicalize().ok()?);
    let above: PathBuf = one
        .components()
        .zip(other.components())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect();
    let clone = clone_of(&above)?;
    let below = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let rest = path.strip_prefix(&above).ok()?;
        let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
        let opened = openat(&clone, rest, flags, Mode::empty()).ok()?;
        // Something is mounted on the way to it.
        is_same(opened.as_fd(), path).then_some(opened)
    };
    below(&one).zip(below(&other))
}

fn clone_of(path: &Path) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags);
    let said = |errno: &Errno| {
        tracing::debug!("{} has no mount of its own: {errno}", path.display());
    };
    clone.inspect_err(said).ok()
}

fn is_same(opened: BorrowedFd<'_>, path: &Path) -> bool {
    let (Ok(a), Ok(b)) = (fstat(opened), rustix::fs::stat(path)) else { return false };
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Names move between the two, and what they show is what is there.
    #[test]
    fn two_directories_are_of_one_mount() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir_all(path.join("a/upper")).unwrap();
        fs::create_dir(path.join("work")).unwrap();
        fs::write(path.join("work/file"), "x").unwrap();
        let Some((upper, work)) = directories(&path.join("a/upper"), &path.join("work")) else {
            // An ordinary user may not, nor root in a container.
            assert!(open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE).is_err());
            return;
        };
        rustix::fs::renameat(&work, "file", &upper, "moved").unwrap();
        assert_eq!(fs::read(path.join("a/upper/moved")).unwrap(), b"x");
        let lower = directory(&path.join("a")).unwrap();
        assert!(rustix::fs::statat(&lower, "upper/moved", rustix::fs::AtFlags::empty()).is_ok());
    }
}
