//! [`GivenFiles`]: files outside of the store that a layer may take for its own, in place of copies
//! of them.
//!
//! ```text
//! of         which are nobody else's: no name elsewhere, open nowhere
//! link       a name of such a file in the stage, where its bytes would have been written
//! unchanged  asked before the layer is published: nobody has written to one meanwhile
//! settle     once it is published: the modes, owners and attributes that files of a store have
//! ```
//!
//! Until `settle` nothing of a file changes but the number of its names, so a process that dies
//! before the layer is in the index has changed nothing. One that dies after that leaves files of
//! the layer with a mode of their own: whoever gives files notes the layer before it is published,
//! and settles it at its next start. Others may share such a file meanwhile; it is the same inode.
//!
//! Invariants: a file is given only if its bytes cannot change any more; no link is followed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use strata_tree::TreePath;

use crate::error::{Error, IoContext, Result};
use crate::measure::link_count;
use crate::stage::{FILE_MODE, open_beneath, sync_filesystem};
use crate::store::LeasedLayer;

/// Attributes with which a file of the store could do something: an image's are in the index.
const ATTRIBUTES: [&[u8]; 4] =
    [b"user.", b"trusted.", b"security.capability", b"system.posix_acl_"];

/// Files that a layer may take. See the module.
pub struct GivenFiles {
    dir: OwnedFd,
    shown: PathBuf,
    files: HashMap<TreePath, GivenFile>,
    taken: RefCell<HashSet<TreePath>>,
}

/// A file, as it was when it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
struct GivenFile {
    inode: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, u64),
}

impl GivenFile {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

impl GivenFiles {
    /// Those of `paths`, below `dir`, that can be given: regular files all of whose names are among
    /// `paths`, and that nobody has open. The others are copied as ever.
    ///
    /// # Errors
    /// `Io`.
    pub fn of(dir: &Path, paths: impl IntoIterator<Item = TreePath>) -> Result<Self> {
        let doing = || format!("cannot open {}", dir.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, Mode::empty()).doing(doing)?;
        let mut files = HashMap::new();
        let mut names: HashMap<(u64, u64), (u64, u64)> = HashMap::new();
        for path in paths {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let opened = open_beneath(fd.as_fd(), Path::new(path.as_os_str()), flags);
            // Whoever copies it says better what is wrong.
            let Ok(file) = opened.map(File::from) else { continue };
            let stat = rustix::fs::fstat(&file).doing(|| format!("cannot stat {path}"))?;
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            // Where that cannot be asked, somebody may have it open.
            if !regular || strata_tree::is_open_elsewhere(&file).unwrap_or(true) {
                continue;
            }
            let given = GivenFile::of(&stat);
            let (seen, _) = names.entry(given.inode).or_insert((0, link_count(stat.st_nlink)));
            *seen += 1;
            files.insert(path, given);
        }
        files.retain(|_, given| names.get(&given.inode).is_some_and(|(seen, all)| seen == all));
        Ok(Self { dir: fd, shown: dir.to_owned(), files, taken: RefCell::default() })
    }

    /// The directory, and the path below it, of a file of that size that can be taken.
    pub(crate) fn get(&self, path: &TreePath, size: u64) -> Option<(BorrowedFd<'_>, PathBuf)> {
        let given = self.files.get(path)?;
        (given.size == size).then(|| (self.dir.as_fd(), PathBuf::from(path.as_os_str())))
    }

    /// A file was taken.
    pub(crate) fn took(&self, path: &TreePath) {
        self.taken.borrow_mut().insert(path.clone());
    }

    /// Whether that file was taken.
    pub(crate) fn has_taken(&self, path: &TreePath) -> bool {
        self.taken.borrow().contains(path)
    }

    /// How many files were taken.
    pub fn taken(&self) -> usize {
        self.taken.borrow().len()
    }

    /// Sees that nobody has written to a file that was taken.
    ///
    /// # Errors
    /// `InUse`: somebody has; `Io`.
    pub(crate) fn unchanged(&self) -> Result<()> {
        for path in self.taken.borrow().iter() {
            let shown = || self.shown.join(path.as_os_str()).display().to_string();
            let stat = rustix::fs::statat(&self.dir, path.as_os_str(), AtFlags::SYMLINK_NOFOLLOW);
            let now = GivenFile::of(&stat.doing(|| format!("cannot stat {}", shown()))?);
            if self.files.get(path) != Some(&now) {
                return Err(Error::InUse { what: shown() });
            }
        }
        Ok(())
    }
}

impl LeasedLayer {
    /// Gives every file of the layer the mode, the owner and the attributes of a file of the store,
    /// durably: for a layer that files were given to. One that is as it is to be is left alone.
    ///
    /// # Errors
    /// `Io`.
    pub fn settle(&self) -> Result<()> {
        let what = || format!("cannot list layer {}", self.diff_id());
        let root = rustix::fs::fstat(self.dir()).doing(what)?;
        let mut changed = false;
        let mut open = vec![PathBuf::from("diff")];
        while let Some(path) = open.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = open_beneath(self.dir(), &path, flags).doing(what)?;
            for entry in rustix::fs::Dir::read_from(&dir).doing(what)? {
                let entry = entry.doing(what)?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        open.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                    }
                    _ => changed |= settle_file(dir.as_fd(), name, &stat, &root).doing(what)?,
                }
            }
        }
        if changed { sync_filesystem(self.dir()) } else { Ok(()) }
    }
}

/// Settles one file; says whether it had to be.
fn settle_file(
    dir: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    root: &Stat,
) -> rustix::io::Result<bool> {
    let (uid, gid) = (root.st_uid, root.st_gid);
    let owned = (stat.st_uid, stat.st_gid) == (uid, gid);
    let moded = stat.st_mode & 0o7777 == FILE_MODE;
    // The owner first: who may write to it can give it another mode.
    if !owned {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let removed = remove_attributes(dir, name)?;
    if !owned || !moded {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(FILE_MODE), AtFlags::empty())?;
    }
    Ok(removed || !owned || !moded)
}

fn remove_attributes(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<bool> {
    use std::os::fd::AsRawFd;
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let mut list = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(&path, &mut list) {
        Ok(length) => length,
        // A file system without attributes.
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut removed = false;
    for attribute in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if ATTRIBUTES.iter().any(|beginning| attribute.starts_with(beginning)) {
            rustix::fs::lremovexattr(&path, attribute)?;
            removed = true;
        }
    }
    Ok(removed)
}
