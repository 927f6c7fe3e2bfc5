//! The flags of nodes that lsattr(1) shows and chattr(1) sets.
//!
//! As with the kernel's overlayfs they are those of the inode that has the metadata, and a copy-up
//! takes `S` and `A` along. `i` and `a` are never set in the upper, where they would stop our own
//! work: they are written down (`overlay.protattr`) and shown.
//!
//! Invariant: what has no flags, because its tree or its file system does not have them, has none
//! when it is asked and is copied up without.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use strata_tree::{FlagsForm, InodeFlags, Kind, NodeId, Protection, inode_version};

use super::error::{Doing, Error, Result};
use super::names::inode;
use super::table::{Seen, Stage};
use super::{Mark, Union};

impl Union {
    /// The flags of a regular file or a directory.
    ///
    /// # Errors
    /// `ENOTTY` where there are none; `EACCES` where the inode may not be read; `ESTALE`.
    pub fn inode_flags(&self, node: NodeId, form: FlagsForm) -> Result<InodeFlags> {
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        if seen.found.stage > Stage::Lower {
            let fd = inode(self, &seen)?;
            let protected = self.protection_of(&seen)?;
            let own = form.of(&fd)?;
            // An upper's own are there where something else has set them.
            let kept = own.protection();
            return Ok(own.with_protection(Protection {
                append: protected.append || kept.append,
                immutable: protected.immutable || kept.immutable,
            }));
        }
        match self.lower_inode(&seen)? {
            Some(fd) => Ok(form.of(fd)?),
            None => Ok(form.none()),
        }
    }

    /// The generation of the inode that has a node's metadata; 0 where that is none of its own.
    ///
    /// # Errors
    /// As [`Union::inode_flags`].
    pub fn inode_version(&self, node: NodeId) -> Result<u32> {
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        if seen.found.stage > Stage::Lower {
            return Ok(inode_version(inode(self, &seen)?)?);
        }
        Ok(self.lower_inode(&seen)?.map_or(Ok(0), inode_version)?)
    }

    /// Gives a node these flags and takes all others away. Who may do that the kernel decides.
    ///
    /// # Errors
    /// What the upper's file system says: `ENOTTY`, `EOPNOTSUPP`, `EINVAL`, `EPERM`; `ESTALE`.
    pub fn set_inode_flags(&self, node: NodeId, flags: InodeFlags) -> Result<()> {
        // A lower may be on a file system that has other flags: extents, compression.
        let shown = match self.table.see(node)?.found.stage {
            Stage::Lower => Some(self.inode_flags(node, flags.form())?),
            Stage::Meta | Stage::Upper => None,
        };
        self.copy_up(node, Stage::Meta, None)?;
        let _claim = self.claims.claim(&[node]);
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        let fd = inode(self, &seen)?;
        let wanted = flags.protection();
        let flags = flags.with_protection(Protection::default());
        match shown {
            Some(shown) => set_as_shown(&fd, flags, shown.with_protection(Protection::default()))?,
            None => flags.set(&fd)?,
        }
        match wanted.any() {
            true => self.protect(&fd, wanted),
            false => self.marks.clear(&fd, Mark::Protattr),
        }
    }

    /// Writes down that an inode of the upper is protected.
    fn protect(&self, fd: impl AsFd, wanted: Protection) -> Result<()> {
        self.protected.note();
        self.marks.set(fd, Mark::Protattr, wanted.format())
    }

    /// Gives a copy in the work directory the flags of its lower that a copy-up takes along.
    pub(super) fn copy_inode_flags(&self, seen: &Seen, copy: &File) -> Result<()> {
        let Some(fd) = self.lower_inode(seen)? else { return Ok(()) };
        let flags = match FlagsForm::Plain.of(fd) {
            Ok(flags) => flags,
            Err(Errno::NOTTY | Errno::ACCESS | Errno::PERM) => return Ok(()),
            Err(errno) => return Err(errno).doing(|| "read the flags of a lower".to_owned()),
        };
        if flags.protection().any() {
            self.protect(copy, flags.protection())?;
        }
        if !flags.has_copied() {
            return Ok(());
        }
        let now = match FlagsForm::Plain.of(copy) {
            Ok(now) => now,
            Err(Errno::NOTTY) => return Ok(()),
            Err(errno) => return Err(errno).doing(|| "read the flags of a copy".to_owned()),
        };
        match now.with_copied(flags).set(copy) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno).doing(|| "set the flags of a copy".to_owned()),
        }
    }

    /// The inode that is a node's lower, if it is one and has flags.
    pub(super) fn lower_inode(&self, seen: &Seen) -> Result<Option<OwnedFd>> {
        match (seen.found.kind, seen.found.lower) {
            (Kind::Regular | Kind::Directory, Some(lower)) => Ok(self.lower.inode(lower)?),
            (_, Some(_)) => Ok(None),
            (_, None) => Err(Error::Refused(Errno::STALE)),
        }
    }
}

/// Gives a copy the flags that were chosen by what its lower showed. It keeps its own that did not
/// show, and what its file system does not have it does not get, unless it was asked for.
fn set_as_shown(fd: impl AsFd, flags: InodeFlags, shown: InodeFlags) -> rustix::io::Result<()> {
    let now = flags.form().of(&fd)?;
    match flags.with_unseen(shown, now).set(&fd) {
        Err(Errno::OPNOTSUPP | Errno::INVAL) => flags.difference_on(shown, now).set(&fd),
        done => done,
    }
}
