//! The way down: the directories between the destination and the one being filled.
//!
//! The model: a stack of names with the inode each was when it was first entered. Only the
//! deepest [`HELD`] levels keep their descriptor; a level that lost its own is opened again from
//! the destination, beneath it, without following any link.
//!
//! Invariants: at most `HELD` + 1 descriptors; a directory that is not the inode that it was when
//! it was entered is never used.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use strata_tree::{Name, NameBuf};

/// How many levels keep their descriptor.
const HELD: usize = 64;

/// How many bytes of path go into one `openat2`: below `PATH_MAX` (4,096).
const CHUNK: usize = 3_800;

/// What tells one inode from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The inode that `fd` is open on.
    pub(super) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let stat = fstat(fd)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// Opens a directory that is a real one, beneath `parent`.
pub(super) fn open_dir(parent: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    openat2(
        parent,
        OsStr::from_bytes(path),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// A second descriptor, closed on exec.
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

/// Opens the directory that `names` lead to beneath `root`, however long the path is.
pub(super) fn open_below<'a>(
    root: BorrowedFd<'_>,
    names: impl Iterator<Item = Name<'a>>,
) -> Result<OwnedFd, Errno> {
    let mut at = duplicate(root)?;
    let mut path = Vec::new();
    for name in names {
        if path.len() + name.as_bytes().len() > CHUNK {
            at = open_dir(at.as_fd(), &path)?;
            path.clear();
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
    }
    if path.is_empty() { Ok(at) } else { open_dir(at.as_fd(), &path) }
}

struct Level {
    name: NameBuf,
    identity: Identity,
    fd: Option<OwnedFd>,
}

/// The stack of directories from the destination down.
pub(super) struct Descent {
    root: OwnedFd,
    levels: Vec<Level>,
}

impl Descent {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, levels: Vec::new() }
    }

    /// The destination itself.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory on top, opened again if need be; the destination if none was entered.
    pub(super) fn current(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.levels.last().is_some_and(|level| level.fd.is_none()) {
            self.reopen()?;
        }
        self.top()
    }

    /// The directory on top as [`Descent::current`] left it.
    pub(super) fn top(&self) -> Result<BorrowedFd<'_>, Errno> {
        match self.levels.last() {
            None => Ok(self.root.as_fd()),
            Some(level) => level.fd.as_ref().map(OwnedFd::as_fd).ok_or(Errno::BADF),
        }
    }

    /// Goes down into `name`, which must be a directory; `expected` is what it was last time.
    ///
    /// Errors: `ENOTDIR` for anything else, a link too, `ESTALE` for another directory.
    pub(super) fn enter(
        &mut self,
        name: Name<'_>,
        expected: Option<Identity>,
    ) -> Result<Identity, Errno> {
        let fd = open_dir(self.current()?, name.as_bytes())?;
        let identity = Identity::of(&fd)?;
        if expected.is_some_and(|expected| expected != identity) {
            return Err(Errno::STALE);
        }
        self.levels.push(Level { name: name.to_owned(), identity, fd: Some(fd) });
        if let Some(above) = self.levels.len().checked_sub(HELD + 1) {
            self.levels[above].fd = None;
        }
        Ok(identity)
    }

    /// Goes up one level; nothing at the destination.
    pub(super) fn leave(&mut self) {
        self.levels.pop();
    }

    /// Opens the deepest levels again: half of what may be held, so that a walk back up a very
    /// deep tree does this once in a while, not at each level.
    fn reopen(&mut self) -> Result<(), Errno> {
        let first = self.levels.len().saturating_sub(HELD / 2);
        let (above, below) = self.levels.split_at_mut(first);
        let mut parent = open_below(self.root.as_fd(), above.iter().map(|l| l.name.as_name()))?;
        if above.last().is_some_and(|level| Identity::of(&parent) != Ok(level.identity)) {
            return Err(Errno::STALE);
        }
        for level in below {
            let fd = open_dir(parent.as_fd(), level.name.as_bytes())?;
            if Identity::of(&fd)? != level.identity {
                return Err(Errno::STALE);
            }
            parent = duplicate(level.fd.insert(fd).as_fd())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_fds() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_deep_way_down_and_up_holds_few_descriptors() {
        const DEPTH: usize = 2_000;
        let base = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(base.path()).unwrap();
        let mut way = Descent::new(root.into());
        let name = Name::new(&[b'n'; 200]).unwrap();
        let before = open_fds();
        let mut identities = Vec::new();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(way.current().unwrap(), name.as_os_str(), Mode::RWXU).unwrap();
            identities.push(way.enter(name, None).unwrap());
        }
        for identity in identities.iter().rev() {
            assert_eq!(Identity::of(way.current().unwrap()).unwrap(), *identity);
            way.leave();
        }
        // Other tests of this process open files too, far fewer than the depth.
        assert!(open_fds() < before + DEPTH / 2);
        // The tree is too deep for a plain removal by path to be taken for granted.
        for _ in 0..DEPTH - 1 {
            way.enter(name, None).unwrap();
        }
        for _ in 0..DEPTH {
            let dir = way.current().unwrap();
            rustix::fs::unlinkat(dir, name.as_os_str(), rustix::fs::AtFlags::REMOVEDIR).unwrap();
            way.leave();
        }
    }

    #[test]
    fn a_link_or_another_directory_is_refused() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("a")).unwrap();
        std::fs::create_dir(base.path().join("b")).unwrap();
        std::os::unix::fs::symlink("a", base.path().join("l")).unwrap();
        let mut way = Descent::new(std::fs::File::open(base.path()).unwrap().into());
        let (a, b, l) = (&b"a"[..], &b"b"[..], &b"l"[..]);
        let a_is = way.enter(Name::new(a).unwrap(), None).unwrap();
        way.leave();
        assert_eq!(way.enter(Name::new(b).unwrap(), Some(a_is)), Err(Errno::STALE));
        assert_eq!(way.enter(Name::new(l).unwrap(), None), Err(Errno::NOTDIR));
        assert_eq!(way.enter(Name::new(a).unwrap(), Some(a_is)), Ok(a_is));
    }
}
