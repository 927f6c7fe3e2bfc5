//! A layer directory while it is being written: `staging/<token>/`, later `layers/<diff id>/`.
//!
//! ```text
//! staging/<token>/diff/...       regular files and directories at their image paths
//!                 shadow/<n>     bodies that no path holds any more, until headers.zst has them
//!                 headers.zst
//! ```
//!
//! Nothing but directories (0755) and regular files (0444) is ever made, every path comes from
//! the draft (no link was followed to make it) and is opened beneath the stage's own descriptor,
//! symbolic links refused.
//!
//! Invariants: the stage is locked exclusively as long as it lives; dropped before it is
//! published, its directory is removed.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use strata_tree::{TreePath, remove_tree, rename_new};

use crate::error::{Error, IoContext, Result};
use crate::layout::diff_path;
use crate::lock::{Lock, flock, still_there};
use crate::measure::{Space, space};
use strata_diff::body::CHUNK;
use strata_diff::stream::data;

/// The mode of every file of a layer directory.
pub(crate) const FILE_MODE: u32 = 0o444;
/// That of every directory, its own too.
pub(crate) const DIR_MODE: u32 = 0o755;

/// Where a body lies, below the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StagePath {
    /// At an image path.
    Diff(TreePath),
    /// Among the bodies without a path.
    Shadow(u64),
    /// On its way to replace another.
    Relink,
}

impl StagePath {
    /// The path below the layer directory.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Diff(path) => diff_path(path),
            Self::Shadow(n) => PathBuf::from(format!("shadow/{n}")),
            Self::Relink => PathBuf::from("relink"),
        }
    }
}

/// What became of a try to link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    /// Done.
    Yes,
    /// It cannot be linked (EMLINK: no more links; ENOENT: the source is gone): write the bytes.
    No,
    /// The source is on another device or quota (EXDEV), its bytes were shared by reflink.
    Cloned,
}

/// A layer directory being written.
pub(crate) struct Stage {
    path: PathBuf,
    root: OwnedFd,
    /// A umask or default ACL takes bits away from what is created.
    fix_modes: bool,
    /// The directory of the last file, since tars list directory by directory.
    last_dir: Option<(PathBuf, OwnedFd)>,
    next_temporary: u64,
    published: bool,
}

impl Stage {
    /// Makes and locks `staging/<token>`.
    pub(crate) fn new(staging: &Path, token: &str) -> Result<Self> {
        let (path, root) = locked_dir(staging, token)?;
        let stat = rustix::fs::fstat(&root).doing(|| format!("cannot stat {}", path.display()))?;
        let fix_modes = stat.st_mode & 0o7777 != DIR_MODE;
        let mut stage =
            Self { path, root, fix_modes, last_dir: None, next_temporary: 0, published: false };
        if fix_modes {
            rustix::fs::fchmod(&stage.root, Mode::from_raw_mode(DIR_MODE))
                .doing(|| format!("cannot chmod {}", stage.path.display()))?;
        }
        stage.mkdir(Path::new("diff"))?;
        stage.mkdir(Path::new("shadow"))?;
        Ok(stage)
    }

    /// The stage's own directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the directory is not removed when the stage is dropped. Gives the locked
    /// descriptor.
    pub(crate) fn keep(mut self) -> Result<OwnedFd> {
        self.published = true;
        self.root.try_clone().doing(|| "cannot duplicate a descriptor".into())
    }

    /// Makes a directory at an image path.
    pub(crate) fn make_dir(&mut self, path: &TreePath) -> Result<()> {
        self.mkdir(&diff_path(path))
    }

    fn mkdir(&mut self, path: &Path) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(DIR_MODE))
            .doing(|| format!("cannot make {}", path.display()))?;
        if self.fix_modes {
            let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(DIR_MODE))
                .doing(|| format!("cannot chmod {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes an empty directory at an image path.
    pub(crate) fn remove_dir(&mut self, path: &TreePath) -> Result<()> {
        let path = diff_path(path);
        self.last_dir = None;
        let (dir, name) = self.parent(&path)?;
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
            .doing(|| format!("cannot remove {}", path.display()))
    }

    /// Makes a file for a body, for [`write_body`].
    pub(crate) fn create_body(&mut self, place: &StagePath) -> Result<File> {
        self.create(&place.path())
    }

    /// A new file for a body too large for memory; [`Stage::rename`] gives it its place.
    pub(crate) fn temporary(&mut self) -> Result<(StagePath, File)> {
        let place = StagePath::Shadow(self.unused_shadow());
        let file = self.create(&place.path())?;
        Ok((place, file))
    }

    /// The number of a shadow that nothing else uses.
    pub(crate) fn unused_shadow(&mut self) -> u64 {
        // Counted from the top, so that they never meet the numbers of inodes.
        let number = u64::MAX - self.next_temporary;
        self.next_temporary += 1;
        number
    }

    fn create(&mut self, path: &Path) -> Result<File> {
        self.create_as(path, OFlags::WRONLY)
    }

    fn create_as(&mut self, path: &Path, access: OFlags) -> Result<File> {
        let fix = self.fix_modes;
        let (dir, name) = self.parent(path)?;
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(FILE_MODE))
            .doing(|| format!("cannot create {}", path.display()))?;
        if fix {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(FILE_MODE))
                .doing(|| format!("cannot chmod {}", path.display()))?;
        }
        Ok(fd.into())
    }

    /// Moves a body.
    pub(crate) fn rename(&mut self, from: &StagePath, to: &StagePath) -> Result<()> {
        let (from, to) = (from.path(), to.path());
        let doing = || format!("cannot move {} to {}", from.display(), to.display());
        let (to_dir, to_name) = self.parent(&to)?;
        let to_dir = to_dir.try_clone_to_owned().doing(doing)?;
        let to_name = to_name.to_owned();
        let (dir, name) = self.parent(&from)?;
        rename_new((dir, name), (to_dir, &to_name)).doing(doing)
    }

    /// Removes a body.
    pub(crate) fn remove(&mut self, place: &StagePath) -> Result<()> {
        let path = place.path();
        let (dir, name) = self.parent(&path)?;
        rustix::fs::unlinkat(dir, name, AtFlags::empty())
            .doing(|| format!("cannot remove {}", path.display()))
    }

    /// Makes `to` another name of the file `source` below `dir`.
    pub(crate) fn link(
        &mut self,
        dir: BorrowedFd<'_>,
        source: &Path,
        to: &StagePath,
    ) -> Result<Linked> {
        match self.link_name(dir, source, to)? {
            Some(linked) => Ok(linked),
            None => self.clone_from(dir, source, to),
        }
    }

    /// The same, or `None` where only its bytes can be shared.
    fn link_name(
        &mut self,
        dir: BorrowedFd<'_>,
        source: &Path,
        to: &StagePath,
    ) -> Result<Option<Linked>> {
        let path = to.path();
        let (to_dir, name) = self.parent(&path)?;
        match rustix::fs::linkat(dir, source, to_dir, name, AtFlags::empty()) {
            Ok(()) => Ok(Some(Linked::Yes)),
            Err(Errno::MLINK | Errno::NOENT) => Ok(Some(Linked::No)),
            // EPERM: a file system without hard links.
            Err(Errno::XDEV | Errno::PERM) => Ok(None),
            Err(error) => Err(error)
                .doing(|| format!("cannot link {} to {}", source.display(), path.display())),
        }
    }

    fn clone_from(&mut self, dir: BorrowedFd<'_>, source: &Path, to: &StagePath) -> Result<Linked> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(from) = rustix::fs::openat(dir, source, flags, Mode::empty()) else {
            return Ok(Linked::No);
        };
        let file = self.create(&to.path())?;
        if rustix::fs::ioctl_ficlone(&file, &from).is_ok() {
            return Ok(Linked::Cloned);
        }
        self.remove(to)?;
        Ok(Linked::No)
    }

    /// Another name of one of the stage's own bodies; `written` sees to it that its bytes are
    /// there, if they are needed.
    pub(crate) fn link_own(
        &mut self,
        from: &StagePath,
        to: &StagePath,
        written: impl FnOnce() -> Result<()>,
    ) -> Result<Linked> {
        let root = self.root.try_clone().doing(|| "cannot duplicate a descriptor".to_owned())?;
        let from = from.path();
        match self.link_name(root.as_fd(), &from, to)? {
            Some(linked) => Ok(linked),
            None => {
                written()?;
                self.clone_from(root.as_fd(), &from, to)
            }
        }
    }

    /// A copy of one of the stage's own bodies, where a link is not to be had; with its holes.
    pub(crate) fn copy_own(&mut self, from: &StagePath, to: &StagePath) -> Result<()> {
        let from = self.open(from)?;
        self.copy_from(from, to)
    }

    /// A copy of a file, with its holes.
    pub(crate) fn copy_from(&mut self, mut from: File, to: &StagePath) -> Result<()> {
        let path = to.path();
        let to = self.create(&path)?;
        let doing = || format!("cannot copy to {}", path.display());
        let (mut chunk, mut at) = (vec![0; CHUNK], 0);
        loop {
            let n = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).doing(doing),
            };
            for (offset, part) in data(&chunk[..n]) {
                to.write_all_at(part, at + offset as u64).doing(doing)?;
            }
            at += n as u64;
        }
        to.set_len(at).doing(doing)
    }

    /// Replaces the body at `place` by another name of `source`, at no moment without a file.
    pub(crate) fn relink(
        &mut self,
        dir: BorrowedFd<'_>,
        source: &Path,
        place: &StagePath,
    ) -> Result<bool> {
        // Not among the shadows: they are gone by then.
        let temporary = StagePath::Relink;
        match self.link(dir, source, &temporary)? {
            Linked::Yes => {}
            Linked::No => return Ok(false),
            Linked::Cloned => {
                self.remove(&temporary)?;
                return Ok(false);
            }
        }
        let path = place.path();
        let (to_dir, name) = self.parent(&path)?;
        let to_dir = to_dir.try_clone_to_owned().doing(|| path.display().to_string())?;
        let name = name.to_owned();
        match rustix::fs::renameat(&self.root, temporary.path(), to_dir, name) {
            Ok(()) => {}
            // Where the limit is one for each directory (btrfs without extref).
            Err(Errno::MLINK) => {
                self.remove(&temporary)?;
                return Ok(false);
            }
            Err(error) => {
                return Err(error).doing(|| format!("cannot replace {}", path.display()));
            }
        }
        // Two names of one inode: the rename then does nothing and leaves the first.
        match rustix::fs::unlinkat(&self.root, temporary.path(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error).doing(|| "cannot remove a temporary name".to_owned()),
        }
    }

    /// Makes every other of `places` a name of the file at `keep` again.
    pub(crate) fn relink_own(
        &mut self,
        keep: &StagePath,
        places: impl Iterator<Item = Result<StagePath>>,
    ) -> Result<()> {
        let root = self.root.try_clone().doing(|| "cannot duplicate a descriptor".to_owned())?;
        for place in places {
            let place = place?;
            if place != *keep && !self.relink(root.as_fd(), &keep.path(), &place)? {
                let path = place.path();
                return Err(Errno::MLINK).doing(|| format!("cannot link {} back", path.display()));
            }
        }
        Ok(())
    }

    /// Opens a body for reading.
    pub(crate) fn open(&self, place: &StagePath) -> Result<File> {
        Ok(self.open_beneath(&place.path(), OFlags::RDONLY)?.into())
    }

    /// What a body takes on disk; `None` if it is not there.
    pub(crate) fn space(&mut self, place: &StagePath) -> Result<Option<Space>> {
        let path = place.path();
        let (dir, name) = self.parent(&path)?;
        space(dir, name)
    }

    /// Creates a file beside `diff/`, to write and read it.
    pub(crate) fn create_beside(&mut self, name: &str) -> Result<File> {
        self.create_as(Path::new(name), OFlags::RDWR)
    }

    /// Removes `shadow/` with what is in it.
    pub(crate) fn drop_shadows(&mut self) -> Result<()> {
        self.last_dir = None;
        let path = self.path.join("shadow");
        std::fs::remove_dir_all(&path).doing(|| format!("cannot remove {}", path.display()))
    }

    fn parent<'p>(&mut self, path: &'p Path) -> Result<(BorrowedFd<'_>, &'p Path)> {
        let name = path.file_name().map(Path::new).unwrap_or(path);
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return Ok((self.root.as_fd(), name));
        }
        if self.last_dir.as_ref().is_none_or(|(known, _)| known != parent) {
            let fd = self.open_beneath(parent, OFlags::PATH | OFlags::DIRECTORY)?;
            self.last_dir = Some((parent.to_owned(), fd));
        }
        match &self.last_dir {
            Some((_, fd)) => Ok((fd.as_fd(), name)),
            None => Ok((self.root.as_fd(), path)),
        }
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        open_beneath(self.root.as_fd(), path, flags)
            .doing(|| format!("cannot open {} in {}", path.display(), self.path.display()))
    }
}

/// Opens a path that may not leave `root` nor pass a symbolic link.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::io::retry_on_intr(|| rustix::fs::openat2(root, path, flags, Mode::empty(), resolve))
}

/// Makes and locks a directory of this process in `staging`; its name begins with `token`.
pub(crate) fn locked_dir(staging: &Path, token: &str) -> Result<(PathBuf, OwnedFd)> {
    let mut n = 0u32;
    loop {
        let path = staging.join(format!("{token}-{}-{n}", std::process::id()));
        n += 1;
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(DIR_MODE)) {
            Ok(()) => {}
            Err(Errno::EXIST) => continue,
            Err(error) => return Err(error).doing(|| format!("cannot make {}", path.display())),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(root) => root,
            // A starting process took it for a dead one's before it was locked.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).doing(|| format!("cannot open {}", path.display())),
        };
        flock(&root, Lock::Exclusive).doing(|| format!("cannot lock {}", path.display()))?;
        if still_there(&root, &path)? {
            return Ok((path, root));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = remove_tree(CWD, &self.path)
        {
            // The next start removes it: nobody holds its lock any more.
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Writes a body whole into a file that is empty; long runs of zeros are left as holes.
pub(crate) fn write_body(file: &File, bytes: &[u8]) -> std::io::Result<()> {
    let mut end = 0;
    for (at, part) in data(bytes) {
        file.write_all_at(part, at as u64)?;
        end = at + part.len();
    }
    if end < bytes.len() {
        file.set_len(bytes.len() as u64)?;
    }
    Ok(())
}

/// Flushes the whole file system that holds `fd`.
pub(crate) fn sync_filesystem(fd: BorrowedFd<'_>) -> Result<()> {
    // FUSE tells so late that a file had gone before its times were written: nothing is lost.
    let synced = match rustix::fs::syncfs(fd) {
        Err(Errno::NOENT) => rustix::fs::syncfs(fd),
        synced => synced,
    };
    synced.map_err(|error| Error::io("cannot sync the file system", error))
}
