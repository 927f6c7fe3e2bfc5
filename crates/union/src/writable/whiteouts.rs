//! Whiteouts, in the form that the upper's file system can hold, and what else it can do.
//!
//! ```text
//! form        on disk                                                  where
//! Device      a character device 0:0                                   most file systems
//! Attribute   an empty file marked `whiteout`, in a directory marked   overlayfs, FUSE: those
//!             `opaque` "x" (overlayfs.rst, "xattr whiteouts")          refuse the device
//! ```
//!
//! All whiteouts of one use of an upper are links of one inode, which stays in the work directory,
//! until it has as many links as the file system allows; then of the next.
//!
//! Invariants: what is tried is tried once, in the work directory, and leaves nothing there; both
//! forms are read, whichever is written, so that an upper may move to another file system.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use strata_tree::Name;
use strata_tree::xattrs::XattrNames;

use super::base::Base;
use super::can::WhiteoutForm;
use super::error::{Doing, Result};
use super::marks::{self, Mark, Marks};
use super::probe::{device, file};
use super::stats::{is_device_whiteout, stat_named};
use super::upper::{Temporary, Upper};

/// Whether an inode of the upper is marked as a whiteout. `names` are those of its attributes.
pub(super) fn is_marked(marks: Marks, names: &XattrNames, stat: &Statx) -> bool {
    is_empty_file(stat) && marks.has(names, Mark::Whiteout)
}

fn is_empty_file(stat: &Statx) -> bool {
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    kind == FileType::RegularFile && stat.stx_size == 0
}

/// The whiteouts of one upper: reading and writing them.
pub(super) struct Whiteouts {
    upper: Arc<Upper>,
    marks: Marks,
    /// The whiteout that others are made links of.
    shared: Mutex<Option<Temporary>>,
}

impl Whiteouts {
    pub(super) fn new(base: &Base) -> Self {
        Self { upper: Arc::clone(&base.upper), marks: base.marks, shared: Mutex::default() }
    }

    /// Makes a whiteout at a name that the upper does not have.
    pub(super) fn white_out(&self, dir: impl AsFd, name: Name<'_>) -> Result<()> {
        self.expect(&dir)?;
        self.share(dir.as_fd(), name.as_os_str())
    }

    /// Makes a whiteout in the work directory, to be moved into the directory `dir`.
    pub(super) fn new_whiteout(&self, dir: impl AsFd) -> Result<Temporary> {
        self.expect(dir)?;
        let made = self.upper.temporary();
        self.share(self.upper.work(), made.name())?;
        Ok(made)
    }

    /// Marks a directory so that its listings look for whiteouts that are files.
    pub(super) fn expect(&self, dir: impl AsFd) -> Result<()> {
        if self.upper.can.form == WhiteoutForm::Attribute
            && self.marks.get(&dir, Mark::Opaque)?.is_none()
        {
            self.marks.set(dir, Mark::Opaque, b"x")?;
        }
        Ok(())
    }

    /// Makes a name that is a whiteout.
    fn share(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let doing = || format!("make a whiteout for {name:?}");
        let work = self.upper.work();
        if !self.upper.can.link {
            let made = self.new_inode()?;
            let moved = rustix::fs::renameat(work, made.name(), dir, name).doing(doing);
            return moved.inspect_err(|_| drop(self.upper.discard(&made)));
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*shared {
            match rustix::fs::linkat(work, made.name(), dir, name, AtFlags::empty()) {
                // It has all the links that it can have, or somebody has cleaned up.
                Err(Errno::MLINK | Errno::NOENT) => self.upper.discard(made)?,
                other => return other.doing(doing),
            }
        }
        let made = shared.insert(self.new_inode()?);
        rustix::fs::linkat(work, made.name(), dir, name, AtFlags::empty()).doing(doing)
    }

    /// Removes the one that others are links of; the next whiteout makes another.
    pub(super) fn end(&self) -> Result<()> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.map_or(Ok(()), |made| self.upper.discard(&made))
    }

    /// An inode that is a whiteout, in the work directory.
    fn new_inode(&self) -> Result<Temporary> {
        let (work, made) = (self.upper.work(), self.upper.temporary());
        let doing = || "make a whiteout".to_owned();
        match self.upper.can.form {
            WhiteoutForm::Device => device(work, &made).doing(doing)?,
            WhiteoutForm::Attribute => {
                self.marks.set(file(work, &made).doing(doing)?, Mark::Whiteout, b"y")?;
            }
        }
        Ok(made)
    }

    /// Whether listings of a directory of the upper look for whiteouts that are files.
    pub(super) fn are_expected(&self, dir: impl AsFd) -> Result<bool> {
        Ok(self.marks.get(dir, Mark::Opaque)?.is_some_and(|value| value == b"x"))
    }

    /// Whether a name of an open directory of the upper is a whiteout; `None` if it is gone.
    pub(super) fn is_whiteout(&self, dir: impl AsFd, name: Name<'_>) -> Result<Option<bool>> {
        let Some(stat) = stat_named(&dir, name)? else { return Ok(None) };
        if is_device_whiteout(&stat) {
            return Ok(Some(true));
        }
        if !is_empty_file(&stat) {
            return Ok(Some(false));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = match rustix::fs::openat(dir, name.as_os_str(), flags, Mode::empty()) {
            Ok(node) => node,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).doing(|| format!("open {:?}", name.as_os_str())),
        };
        Ok(Some(is_marked(self.marks, &marks::names(&node)?, &stat)))
    }
}
