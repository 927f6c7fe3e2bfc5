//! The flags of nodes that lsattr(1) shows and chattr(1) sets.
//!
//! As with the kernel's overlayfs they are those of the inode that has the metadata, and a copy-up
//! takes `S` and `A` along. `i` and `a` are never set in the upper, where they would stop our own
//! work: they are written down (`overlay.protattr`) and shown.
//!
//! Invariant: what has no flags, because its tree or its file system does not have them, has none
//! when it is asked and is copied up without.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use strata_tree::{FlagsForm, InodeFlags, NodeId, Protection, inode_version};

use super::base::Base;
use super::copy_up::CopyUp;
use super::error::Result;
use super::inodes::UpperInodes;
use super::locks::NodeLocks;
use super::marks::{Mark, Marks};
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::table::{CopyStage, NodeTable};

/// Shows and changes the flags of inodes.
pub(super) struct FlagChanges {
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    inodes: Arc<UpperInodes>,
    protected: Arc<ProtectedNodes>,
    copies: Arc<CopyUp>,
}

impl FlagChanges {
    pub(super) fn new(base: &Base, read: &Readers, copies: &Arc<CopyUp>) -> Self {
        Self {
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            inodes: Arc::clone(&read.inodes),
            protected: Arc::clone(&read.protected),
            copies: Arc::clone(copies),
        }
    }

    /// The flags of a regular file or a directory.
    pub(super) fn inode_flags(&self, node: NodeId, form: FlagsForm) -> Result<InodeFlags> {
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        if seen.found.stage > CopyStage::Lower {
            let fd = self.inodes.open(&seen)?;
            let protected = self.protected.protection_of(&seen)?;
            let own = form.of(&fd)?;
            // An upper's own are there where something else has set them.
            let kept = own.protection();
            return Ok(own.with_protection(Protection {
                append: protected.append || kept.append,
                immutable: protected.immutable || kept.immutable,
            }));
        }
        match self.inodes.lower_inode(&seen)? {
            Some(fd) => Ok(form.of(fd)?),
            None => Ok(form.none()),
        }
    }

    /// The generation of the inode that has a node's metadata; 0 where that is no inode of its own.
    pub(super) fn inode_version(&self, node: NodeId) -> Result<u32> {
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        if seen.found.stage > CopyStage::Lower {
            return Ok(inode_version(self.inodes.open(&seen)?)?);
        }
        Ok(self.inodes.lower_inode(&seen)?.map_or(Ok(0), inode_version)?)
    }

    /// Gives a node these flags and takes all others away. The kernel decides who may do that.
    pub(super) fn set_inode_flags(&self, node: NodeId, flags: InodeFlags) -> Result<()> {
        // A lower may be on a file system that has other flags: extents, compression.
        let shown = match self.table.see(node)?.found.stage {
            CopyStage::Lower => Some(self.inode_flags(node, flags.form())?),
            CopyStage::Meta | CopyStage::Upper => None,
        };
        self.copies.copy_up(node, CopyStage::Meta, None)?;
        let _claim = self.locks.claim(&[node]);
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        let fd = self.inodes.open(&seen)?;
        let wanted = flags.protection();
        let flags = flags.with_protection(Protection::default());
        match shown {
            Some(shown) => set_as_shown(&fd, flags, shown.with_protection(Protection::default()))?,
            None => flags.set(&fd)?,
        }
        match wanted.any() {
            true => self.protected.protect(&fd, wanted),
            false => self.marks.clear(&fd, Mark::Protattr),
        }
    }
}

/// Gives a copy the flags that a caller chose by what its lower showed. The copy keeps those of its
/// own that were not shown, and does not get those that its file system lacks, unless the caller
/// asked for them.
fn set_as_shown(fd: impl AsFd, flags: InodeFlags, shown: InodeFlags) -> rustix::io::Result<()> {
    let now = flags.form().of(&fd)?;
    match flags.with_unseen(shown, now).set(&fd) {
        Err(Errno::OPNOTSUPP | Errno::INVAL) => flags.difference_on(shown, now).set(&fd),
        done => done,
    }
}
