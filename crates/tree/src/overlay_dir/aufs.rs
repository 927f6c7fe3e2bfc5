//! Whiteouts that are names, as aufs and the OCI layer format write them.
//!
//! `.wh.NAME` is a whiteout of NAME; beside a directory NAME it makes that opaque, because a
//! whiteout hides layers below and not its own (OCI layer.md, "Whiteouts"). `.wh..wh..opq` makes
//! its directory opaque; other names beginning with `.wh..wh.` are aufs' own.
//!
//! Invariant: no name beginning with `.wh.` is shown.

use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};

use super::disk::Spot;
use crate::beneath::reach;
use crate::dialect::{AUFS_OPAQUE, AUFS_WHITEOUT};
use crate::name::{Name, TreePath};

/// Whether a name is one of the dialect's own.
pub(super) fn is_own(name: Name<'_>) -> bool {
    name.as_bytes().starts_with(AUFS_WHITEOUT)
}

/// The name that a whiteout hides; `None` for other names of the dialect's own.
pub(super) fn hidden(name: Name<'_>) -> Option<Name<'_>> {
    let rest = name.as_bytes().strip_prefix(AUFS_WHITEOUT)?;
    Name::new(rest).ok().filter(|rest| !is_own(*rest))
}

/// Whether `dir` has a whiteout of `name`.
pub(super) fn has_whiteout(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<bool> {
    // A longer name than file systems hold cannot be there.
    match Name::new(&[AUFS_WHITEOUT, name.as_bytes()].concat()) {
        Ok(whiteout) => exists(dir, whiteout),
        Err(_) => Ok(false),
    }
}

/// Whether a directory says itself that it is opaque.
pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    match Name::new(AUFS_OPAQUE).map(|name| exists(dir, name)) {
        // A user who may not look into it sees nothing there, of any layer.
        Ok(Err(Errno::ACCESS)) | Err(_) => Ok(false),
        Ok(answer) => answer,
    }
}

/// Whether the directory `name` of `parent` is opaque, by a whiteout beside it or by itself.
pub(super) fn makes_opaque(parent: BorrowedFd<'_>, name: Name<'_>) -> Result<bool> {
    if has_whiteout(parent, name)? {
        return Ok(true);
    }
    let dir = reach(parent, &TreePath::root().join(name), OFlags::PATH | OFlags::DIRECTORY)?;
    is_opaque(std::os::fd::AsFd::as_fd(&dir))
}

fn exists(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<bool> {
    match Spot::Named(dir, name).stat() {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno),
    }
}
