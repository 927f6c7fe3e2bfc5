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
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::Errno;
use strata_tree::Name;
use strata_tree::xattrs::XattrNames;

use super::Union;
use super::error::{Doing, Error, Result, damaged};
use super::marks::{self, Mark, Marks};
use super::names::{is_device_whiteout, stat_named};
use super::upper::{Temporary, Upper};

/// How whiteouts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Device,
    Attribute,
}

/// What the upper's file system can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Can {
    pub(super) form: Form,
    /// `RENAME_EXCHANGE`.
    pub(super) exchange: bool,
    /// `RENAME_NOREPLACE`.
    pub(super) no_replace: bool,
    /// `RENAME_WHITEOUT`, with a whiteout of our form.
    pub(super) leave_whiteout: bool,
    /// Hard links.
    pub(super) link: bool,
}

impl Can {
    /// What nearly all file systems can.
    pub(super) const ALL: Self = Self {
        form: Form::Device,
        exchange: true,
        no_replace: true,
        leave_whiteout: true,
        link: true,
    };
}

fn file(dir: BorrowedFd<'_>, at: &Temporary) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(dir, at.name(), flags, Mode::from_raw_mode(0o600))
}

fn device(dir: BorrowedFd<'_>, at: &Temporary) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, at.name(), FileType::CharacterDevice, Mode::empty(), 0)
}

/// Tries what the upper's file system can do.
///
/// # Errors
/// `Unusable` if it keeps no marks.
pub(super) fn probe(upper: &Upper, marks: Marks) -> Result<Can> {
    let work = upper.work();
    let names = [upper.temporary(), upper.temporary(), upper.temporary()];
    // A crash may have left some.
    let clear = || names.iter().try_for_each(|name| upper.discard(name));
    clear()?;
    let can = tried(work, marks, &names);
    clear()?;
    can.map_err(|error| Error::Unusable {
        path: upper.path().display().to_string(),
        why: format!(
            "its file system does not keep {}* attributes ({}), and without these nothing says \
             that a directory is opaque or where a file is from; put it on one that keeps them \
             (ext4, xfs, btrfs, tmpfs), in a container on a volume",
            marks.prefix(),
            match error {
                Error::Upper { what, errno } => format!("cannot {what}: {errno}"),
                Error::Attribute { name, errno, .. } => format!("cannot set {name}: {errno}"),
                error => error.to_string(),
            }
        ),
    })
}

fn tried(work: BorrowedFd<'_>, marks: Marks, names: &[Temporary; 3]) -> Result<Can> {
    let [one, two, three] = names;
    let rename =
        |flags| rustix::fs::renameat_with(work, one.name(), work, two.name(), flags).is_ok();
    let gone = |at: &Temporary| {
        rustix::fs::unlinkat(work, at.name(), AtFlags::empty()).doing(|| "remove a file".to_owned())
    };
    let make = |at: &Temporary| file(work, at).doing(|| "make a file".to_owned());
    let made = make(one)?;
    marks.set(&made, Mark::Whiteout, b"y")?;
    if marks.get(&made, Mark::Whiteout)?.is_none() {
        // An overlay in user space keeps it, but for itself.
        return Err(damaged("read back a mark that was set"));
    }
    // An overlay in user space makes it, and takes it for its own whiteout.
    let kept = device(work, three).is_ok()
        && rustix::fs::statat(work, three.name(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice);
    let form = if kept { Form::Device } else { Form::Attribute };
    let link = rustix::fs::linkat(work, one.name(), work, two.name(), AtFlags::empty()).is_ok();
    if link {
        // Two names of one inode are moved by doing nothing.
        gone(two)?;
    }
    make(two)?;
    let exchange = rename(RenameFlags::EXCHANGE);
    gone(two)?;
    let no_replace = rename(RenameFlags::NOREPLACE);
    if no_replace {
        make(one)?;
    }
    let leave_whiteout = form == Form::Device && rename(RenameFlags::WHITEOUT);
    Ok(Can { form, exchange, no_replace, leave_whiteout, link })
}

/// The whiteout that others are made links of.
#[derive(Default)]
pub(super) struct Shared(Mutex<Option<Temporary>>);

/// Whether an inode of the upper is marked as a whiteout. `names` are those of its attributes.
pub(super) fn is_marked(marks: Marks, names: &XattrNames, stat: &Statx) -> bool {
    is_empty_file(stat) && marks.has(names, Mark::Whiteout)
}

fn is_empty_file(stat: &Statx) -> bool {
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    kind == FileType::RegularFile && stat.stx_size == 0
}

impl Union {
    /// Makes a whiteout at a name that the upper does not have.
    pub(super) fn white_out(&self, dir: impl AsFd, name: Name<'_>) -> Result<()> {
        self.expect_whiteouts(&dir)?;
        self.share_whiteout(dir.as_fd(), name.as_os_str())
    }

    /// Makes a whiteout in the work directory, to be moved into the directory `dir`.
    pub(super) fn new_whiteout(&self, dir: impl AsFd) -> Result<Temporary> {
        self.expect_whiteouts(dir)?;
        let made = self.upper.temporary();
        self.share_whiteout(self.upper.work(), made.name())?;
        Ok(made)
    }

    /// Lets whoever lists a directory look for whiteouts that are files.
    pub(super) fn expect_whiteouts(&self, dir: impl AsFd) -> Result<()> {
        if self.upper.can.form == Form::Attribute && self.marks.get(&dir, Mark::Opaque)?.is_none() {
            self.marks.set(dir, Mark::Opaque, b"x")?;
        }
        Ok(())
    }

    /// Makes a name that is a whiteout.
    fn share_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let doing = || format!("make a whiteout for {name:?}");
        let work = self.upper.work();
        if !self.upper.can.link {
            let made = self.whiteout_inode()?;
            let moved = rustix::fs::renameat(work, made.name(), dir, name).doing(doing);
            return moved.inspect_err(|_| drop(self.upper.discard(&made)));
        }
        let mut shared = self.whiteout.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*shared {
            match rustix::fs::linkat(work, made.name(), dir, name, AtFlags::empty()) {
                // It has all the links that it can have, or somebody has cleaned up.
                Err(Errno::MLINK | Errno::NOENT) => self.upper.discard(made)?,
                other => return other.doing(doing),
            }
        }
        let made = shared.insert(self.whiteout_inode()?);
        rustix::fs::linkat(work, made.name(), dir, name, AtFlags::empty()).doing(doing)
    }

    /// Removes the one that others are links of; the next whiteout makes another.
    pub(super) fn end_whiteouts(&self) -> Result<()> {
        let shared = self.whiteout.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.map_or(Ok(()), |made| self.upper.discard(&made))
    }

    /// An inode that is a whiteout, in the work directory.
    fn whiteout_inode(&self) -> Result<Temporary> {
        let (work, made) = (self.upper.work(), self.upper.temporary());
        let doing = || "make a whiteout".to_owned();
        match self.upper.can.form {
            Form::Device => device(work, &made).doing(doing)?,
            Form::Attribute => {
                self.marks.set(file(work, &made).doing(doing)?, Mark::Whiteout, b"y")?;
            }
        }
        Ok(made)
    }

    /// Whether listings of a directory of the upper look for whiteouts that are files.
    pub(super) fn expects_whiteouts(&self, dir: impl AsFd) -> Result<bool> {
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
