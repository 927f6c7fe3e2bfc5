//! The upper directory and its work directory: every system call on them.
//!
//! ```text
//! UPPER/...             the merged tree's changes, in the kernel's own format (overlayfs.rst)
//! WORK/work/#<n>        what is being made in steps; renamed into UPPER when it is whole
//! WORK/work/links-<id>  a file of several names that is being copied up: one more link to it
//! WORK/work/unsynced-<pid>  copies may be in their places and not on disk (`unsynced`)
//! ```
//!
//! Paths are those of the merged tree, resolved beneath the upper's own descriptor with every
//! symbolic link refused, and the last component never followed.
//!
//! Directories stay open for a while, by their paths, because nearly every call needs one.
//!
//! Invariants: nothing appears under UPPER that is not whole, but for bits of a new node that our
//! umask took or that its move needs, and that are put back next; what is in WORK/work belongs to
//! nobody after a crash, but for `links-*` and `unsynced-*`, of which `recover` completes what they
//! tell of.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use strata_tree::{Name, TreePath, remove_tree};

use crate::{UseLock, private_mount};

use super::access_times::reading;
use super::can::Can;
use super::error::{Doing, Error, Result};
use super::inode_bits::{chmod, make_writable};
use super::types::{AccessTimes, UnionOptions};
use super::unsynced::serves;

/// Bytes of a path that one call may be given; the kernel's bound is 4096 with the end.
const PATH_PIECE: usize = 3072;

/// How many directories stay open.
const MOST_OPEN: usize = 256;

/// Directories that stay open. One that is opened while another moves or goes may be the wrong
/// one, and is not kept.
#[derive(Default)]
struct OpenDirs {
    by_path: HashMap<TreePath, Arc<OwnedFd>>,
    /// How often directories have moved or gone.
    moves: u64,
}

/// Both directories, open.
pub(super) struct Upper {
    /// The upper once more, for what is read of it (`access_times`). Closed first: as long as it is
    /// open its file system is in use, also where its mount is not.
    reading: Option<OwnedFd>,
    root: OwnedFd,
    work: OwnedFd,
    /// Opening for reading leaves access times alone, where that may be said.
    unseen: bool,
    moves_access_times: bool,
    uses: Uses,
    shown: PathBuf,
    next: AtomicU64,
    dirs: Mutex<OpenDirs>,
    /// Owner and group of what we make, unless its directory chooses the group.
    pub(super) ids: (u32, u32),
    /// Never sync.
    pub(super) volatile: bool,
    /// Copies may be synced after they have their names; see `unsynced`.
    pub(super) late: bool,
    /// Opened for reading only.
    pub(super) view: bool,
    /// What its file system can do.
    pub(super) can: Can,
}

/// That the directories are in use. Two unions at once would each take the other's temporaries for
/// what a crash has left.
#[derive(Default)]
struct Uses {
    /// The upper and the directory given for work: while something is mounted.
    live: Mutex<Vec<UseLock>>,
    /// WORK/work: until the end of this.
    _work: Option<UseLock>,
    /// Another union has them.
    shared: bool,
}

impl Uses {
    fn take(dirs: [(&OwnedFd, &Path, &'static str); 2], shared: bool) -> Result<Self> {
        let mut live = Vec::with_capacity(dirs.len());
        for (fd, path, role) in dirs {
            match UseLock::take(fd)? {
                Some(lock) => live.push(lock),
                None if shared => return Ok(Self { shared, ..Self::default() }),
                None => return Err(Error::InUse { path: path.display().to_string(), role }),
            }
        }
        Ok(Self { live: Mutex::new(live), ..Self::default() })
    }
}

/// A name in the work directory.
#[derive(Debug, Clone)]
pub(super) struct Temporary(OsString);

impl Temporary {
    pub(super) fn name(&self) -> &OsStr {
        &self.0
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::Unusable {
        path: path.display().to_string(),
        why: format!("cannot open it: {errno}"),
    })
}

impl Upper {
    pub(super) fn open(upper: &Path, work: &Path, options: UnionOptions) -> Result<Self> {
        let volatile = options.volatile;
        let unusable =
            |why: &str| Error::Unusable { path: upper.display().to_string(), why: why.to_owned() };
        let (root, outer) = match private_mount::directories(upper, work) {
            Some(both) => both,
            None => (directory(upper)?, directory(work)?),
        };
        let dirs = [(&root, upper, "upper"), (&outer, work, "work directory")];
        let mut uses = Uses::take(dirs, options.shared)?;
        match rustix::fs::mkdirat(&outer, "work", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(unusable(&format!("cannot make a work directory: {errno}"))),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let inner = rustix::fs::openat(&outer, "work", flags, Mode::empty())
            .map_err(|errno| unusable(&format!("cannot open its work directory: {errno}")))?;
        let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
        if device(root.as_fd())? != device(inner.as_fd())? {
            return Err(unusable(
                "the work directory is on another file system; choose one beside",
            ));
        }
        without_acl(&inner)?;
        if !uses.shared {
            // The user before this one may still be writing to disk.
            uses._work = Some(UseLock::wait(&inner)?);
        }
        // overlayfs.rst, "Volatile mount": a crash may have lost anything of it.
        if rustix::fs::statat(&inner, "incompat/volatile", AtFlags::empty()).is_ok() {
            return Err(unusable(
                "it was used without syncing and not ended cleanly; if you trust it, remove \
                 work/incompat in its work directory, else start with a new upper",
            ));
        }
        // Names of temporaries are of this process, should another one use the directory, too.
        let first = if uses.shared { u64::from(std::process::id()) << 32 } else { 1 };
        // A mount in no name space cannot be cloned, not before Linux 6.15.
        let reading = reading(directory(upper)?, options.access_times);
        Ok(Self {
            unseen: reading.is_none() && options.access_times == AccessTimes::Never,
            late: !volatile && serves(&root),
            next: AtomicU64::new(first),
            view: false,
            moves_access_times: options.access_times != AccessTimes::Never,
            reading,
            uses,
            volatile,
            ..Self::looked_at(root, inner, upper)
        })
    }

    /// For reading: there is no work directory.
    pub(super) fn view(upper: &Path) -> Result<Self> {
        Ok(Self::looked_at(directory(upper)?, directory(upper)?, upper))
    }

    /// An upper that nothing is done to.
    fn looked_at(root: OwnedFd, work: OwnedFd, shown: &Path) -> Self {
        Self {
            root,
            work,
            reading: None,
            unseen: true,
            moves_access_times: false,
            uses: Uses::default(),
            shown: shown.to_owned(),
            next: AtomicU64::new(1),
            dirs: Mutex::default(),
            ids: own_ids(),
            volatile: false,
            late: false,
            view: true,
            can: Can::ALL,
        }
    }

    /// Whether another union uses the directories, too.
    pub(super) fn is_shared(&self) -> bool {
        self.uses.shared
    }

    /// Nothing is mounted any more: a union that waits for the directories may go on to wait for
    /// the end of this one.
    pub(super) fn release(&self) {
        self.uses.live.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether reading may move access times.
    pub(super) fn moves_access_times(&self) -> bool {
        self.moves_access_times
    }

    /// The work directory's descriptor.
    pub(super) fn work(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    /// The upper's own descriptor.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory itself, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.shown
    }

    /// The path on the host, for messages.
    pub(super) fn shown(&self, path: &TreePath) -> String {
        self.shown.join(path.as_os_str()).display().to_string()
    }

    /// A directory of the upper, for *at calls.
    pub(super) fn dir(&self, path: &TreePath) -> Result<Arc<OwnedFd>> {
        let moves = {
            let dirs = self.open_dirs();
            if let Some(fd) = dirs.by_path.get(path) {
                return Ok(Arc::clone(fd));
            }
            dirs.moves
        };
        let fd = Arc::new(self.open_path(path, OFlags::PATH | OFlags::DIRECTORY)?);
        let mut dirs = self.open_dirs();
        if dirs.moves == moves {
            if dirs.by_path.len() >= MOST_OPEN {
                dirs.by_path.clear();
            }
            dirs.by_path.insert(path.clone(), Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Paths may lead to other directories than before. To be called after every move or removal
    /// of one, before anybody else may make something there.
    pub(super) fn dirs_moved(&self) {
        let mut dirs = self.open_dirs();
        dirs.by_path.clear();
        dirs.moves += 1;
    }

    fn open_dirs(&self) -> MutexGuard<'_, OpenDirs> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node of the upper, not followed, for calls on a descriptor alone.
    pub(super) fn node(&self, path: &TreePath) -> Result<OwnedFd> {
        let Some((dir, name)) = path.split_last() else {
            return self.open_path(path, OFlags::PATH);
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.dir(&dir)?, name.as_os_str(), flags, Mode::empty())
            .doing(|| format!("open {}", self.shown(path)))
    }

    /// A regular file or a directory, opened for its content.
    pub(super) fn content(&self, path: &TreePath, flags: OFlags) -> Result<File> {
        let root = self.reading.as_ref().unwrap_or(&self.root);
        if self.unseen {
            match self.open_below(root, path, flags | OFlags::NOATIME) {
                // Only a file's owner may ask for that.
                Err(Error::Upper { errno: Errno::PERM, .. }) => {}
                opened => return Ok(opened?.into()),
            }
        }
        Ok(self.open_below(root, path, flags)?.into())
    }

    /// A file that was made by way of the upper's own mount, as it is to be read: it may stay open
    /// for writing, and then all readers share it. `path` is where it should be by now.
    pub(super) fn made_to_read(&self, made: File, path: Option<&TreePath>) -> Result<File> {
        let Some(path) = path.filter(|_| self.reading.is_some() || self.unseen) else {
            return Ok(made);
        };
        let identity = |file: &File| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        match self.content(path, OFlags::RDWR) {
            Ok(file) if identity(&file)? == identity(&made)? => Ok(file),
            // It has moved on meanwhile, or only root may open it again.
            Ok(_)
            | Err(Error::Upper {
                errno: Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP,
                ..
            }) => Ok(made),
            Err(error) => Err(error),
        }
    }

    /// A node, not followed, to be read by its descriptor.
    pub(super) fn node_to_read(&self, path: &TreePath) -> Result<OwnedFd> {
        self.open_below(self.reading.as_ref().unwrap_or(&self.root), path, OFlags::PATH)
    }

    fn open_path(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd> {
        self.open_below(&self.root, path, flags)
    }

    fn open_below(&self, root: &OwnedFd, path: &TreePath, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let doing = || format!("open {}", self.shown(path));
        if path.is_root() {
            return beneath(root.as_fd(), Path::new("."), flags).doing(doing);
        }
        let mut rest = path.as_bytes();
        let mut held: Option<OwnedFd> = None;
        while rest.len() > PATH_PIECE {
            let cut = rest[..PATH_PIECE].iter().rposition(|byte| *byte == b'/');
            let cut = cut.ok_or(Error::Refused(Errno::NAMETOOLONG))?;
            let from = held.as_ref().map_or(root.as_fd(), AsFd::as_fd);
            let piece = Path::new(OsStr::from_bytes(&rest[..cut]));
            held = Some(beneath(from, piece, OFlags::PATH | OFlags::CLOEXEC).doing(doing)?);
            rest = &rest[cut + 1..];
        }
        let from = held.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        beneath(from, Path::new(OsStr::from_bytes(rest)), flags).doing(doing)
    }

    /// A name in the work directory that nothing has yet.
    pub(super) fn temporary(&self) -> Temporary {
        Temporary(format!("#{}", self.next.fetch_add(1, Ordering::Relaxed)).into())
    }

    /// Moves what was made to its place; what is there (a whiteout, a file) is replaced only if
    /// `replace`.
    pub(super) fn place(
        &self,
        made: &Temporary,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        replace: bool,
    ) -> Result<()> {
        let doing = || format!("place {:?}", name.as_os_str());
        let mut flags = RenameFlags::empty();
        if !replace && self.can.no_replace {
            flags = RenameFlags::NOREPLACE;
        } else if !replace && self.has(dir, name) {
            return Err(Errno::EXIST).doing(doing);
        }
        self.renamed((self.work(), made.name()), (dir, name.as_os_str()), flags).doing(doing)
    }

    /// Moves a name between the work directory and the upper. A directory that comes into another
    /// one has to be writable for its owner (rename(2)): one of ours is that meanwhile.
    fn renamed(
        &self,
        from: (BorrowedFd<'_>, &OsStr),
        to: (BorrowedFd<'_>, &OsStr),
        flags: RenameFlags,
    ) -> rustix::io::Result<()> {
        let rename = || rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags);
        match rename() {
            Err(Errno::ACCESS) => {}
            done => return done,
        }
        let swapped = (flags == RenameFlags::EXCHANGE).then_some(to);
        let both = [Some(from), swapped].into_iter().flatten();
        let writable: Vec<_> = both.filter_map(|(dir, name)| writable_dir(dir, name)).collect();
        let moved = if writable.is_empty() { Err(Errno::ACCESS) } else { rename() };
        for (dir, perm) in writable {
            // That it has moved, or not, is what counts.
            let _ = chmod(dir, perm);
        }
        moved
    }

    /// Swaps what was made with what is at its place; that is then in the work directory. Where
    /// the file system cannot, it takes two steps, and a crash between them shows the lower's.
    pub(super) fn exchange(
        &self,
        made: &Temporary,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<()> {
        if !self.can.exchange {
            let out = self.take_out(dir, name)?;
            self.place(made, dir, name, false)?;
            return rustix::fs::renameat(&self.work, out.name(), &self.work, made.name())
                .doing(|| format!("put {:?} aside", name.as_os_str()));
        }
        let flags = RenameFlags::EXCHANGE;
        let swapped = self.renamed((self.work(), made.name()), (dir, name.as_os_str()), flags);
        self.dirs_moved();
        swapped.doing(|| format!("exchange {:?}", name.as_os_str()))
    }

    /// Whether a directory of the upper has a name.
    pub(super) fn has(&self, dir: BorrowedFd<'_>, name: Name<'_>) -> bool {
        rustix::fs::statat(dir, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Moves a name into the work directory.
    pub(super) fn take_out(&self, dir: BorrowedFd<'_>, name: Name<'_>) -> Result<Temporary> {
        let out = self.temporary();
        let to = (self.work(), out.name());
        let moved = self.renamed((dir, name.as_os_str()), to, RenameFlags::empty());
        self.dirs_moved();
        moved.doing(|| format!("take out {:?}", name.as_os_str()))?;
        Ok(out)
    }

    /// Removes something from the work directory, whatever it is.
    pub(super) fn discard(&self, made: &Temporary) -> Result<()> {
        self.remove_from_work(made.name())
    }

    /// The same by its name there, which may be gone.
    pub(super) fn remove_from_work(&self, name: &OsStr) -> Result<()> {
        let remove = || remove_tree(&self.work, Path::new(name));
        let removed = match remove() {
            // A directory with whiteouts in it that its owner may not write.
            Err(Errno::ACCESS) if writable_dir(self.work(), name).is_some() => remove(),
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                Err(errno).doing(|| format!("remove {} from the work directory", name.display()))
            }
        }
    }

    /// The file behind a descriptor on disk, unless syncing is off.
    pub(super) fn sync_file(&self, file: &File) -> Result<()> {
        if self.volatile {
            return Ok(());
        }
        rustix::fs::fsync(file).doing(|| "sync a file that was copied up".to_owned())
    }
}

/// What is made in the work directory would inherit its default ACL, and be moved into the upper
/// with it: the kernel's overlayfs takes both off as well.
fn without_acl(work: &OwnedFd) -> Result<()> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match rustix::fs::fremovexattr(work, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno).doing(|| format!("take {name} off a work directory")),
        }
    }
    Ok(())
}

/// A directory, open, that its owner may write only from now on, and the bits that it had.
fn writable_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Option<(OwnedFd, u16)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty()).ok()?;
    let perm = make_writable(&dir)?;
    Some((dir, perm))
}

fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Opens beneath `dir`, no symbolic link on the way.
fn beneath(dir: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    // A link as the last component is opened itself, with O_PATH and O_NOFOLLOW (openat2(2)).
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::io::retry_on_intr(|| rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve))
}
