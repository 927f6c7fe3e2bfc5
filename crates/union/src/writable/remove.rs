//! Removing names: from the upper, or by a whiteout where the lower has them.
//!
//! Invariants: a name that the lower has is never without its whiteout in between; a lower file
//! of several names comes into the upper before it loses one, for its link count; a removed node
//! that is still in use can be read and changed to the end.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use strata_tree::NodeId;

use super::base::Base;
use super::copy_up::CopyUp;
use super::error::{Error, Result};
use super::listing::DirReader;
use super::locks::NodeLocks;
use super::names::{NameResolver, ResolvedName, name};
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::table::{CopyStage, NodeTable};
use super::upper::Upper;
use super::whiteouts::Whiteouts;

/// Removes names.
pub(super) struct NameRemoval {
    upper: Arc<Upper>,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    whiteouts: Arc<Whiteouts>,
    dirs: Arc<DirReader>,
    names: Arc<NameResolver>,
    protected: Arc<ProtectedNodes>,
    copies: Arc<CopyUp>,
}

impl NameRemoval {
    pub(super) fn new(base: &Base, read: &Readers, copies: &Arc<CopyUp>) -> Self {
        Self {
            upper: Arc::clone(&base.upper),
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            whiteouts: Arc::clone(&read.whiteouts),
            dirs: Arc::clone(&read.dirs),
            names: Arc::clone(&read.names),
            protected: Arc::clone(&read.protected),
            copies: Arc::clone(copies),
        }
    }

    /// Removes a name that is no directory.
    pub(super) fn unlink(&self, dir: NodeId, bytes: &[u8]) -> Result<()> {
        let name = name(bytes)?;
        let mut pins = self.table.pins();
        let found = self.names.known(dir, name, &mut pins)?;
        if found.kind.is_dir() {
            return Err(Error::Refused(Errno::ISDIR));
        }
        self.protected.may_take(dir, &found)?;
        self.copies.keep_links(&found)?;
        self.copies.raise_dirs(dir)?;
        let _claim = self.locks.claim(&[found.id]);
        let _steady = self.locks.steady();
        let _touching = self.locks.touching(&[dir]);
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        let location = self.names.find(&seen, name)?.ok_or(Error::Refused(Errno::NOENT))?;
        let hidden = self.dirs.in_lower(&seen.found, name)?.is_some();
        let kept = match location {
            ResolvedName::Lower(..) => {
                self.whiteouts.white_out(parent.as_fd(), name)?;
                None
            }
            ResolvedName::Upper(_, fd, _) if hidden => {
                let whiteout = self.whiteouts.new_whiteout(&parent)?;
                self.upper.place(&whiteout, parent.as_fd(), name, true)?;
                Some(fd)
            }
            ResolvedName::Upper(_, fd, _) => {
                rustix::fs::unlinkat(&parent, name.as_os_str(), AtFlags::empty())?;
                Some(fd)
            }
        };
        self.table.lost(found.id, dir, &name.to_owned(), kept.map(File::from));
        Ok(())
    }

    /// Removes an empty directory.
    pub(super) fn rmdir(&self, dir: NodeId, bytes: &[u8]) -> Result<()> {
        let name = name(bytes)?;
        let mut pins = self.table.pins();
        let found = self.names.known(dir, name, &mut pins)?;
        if !found.kind.is_dir() {
            return Err(Error::Refused(Errno::NOTDIR));
        }
        self.protected.may_take(dir, &found)?;
        if self.table.see(dir)?.found.stage == CopyStage::Lower && !self.is_empty_dir(found.id)? {
            return Err(Error::Refused(Errno::NOTEMPTY)); // And nothing comes up for it.
        }
        self.copies.raise_dirs(dir)?;
        let _claim = self.locks.claim(&[found.id]);
        let _steady = self.locks.steady();
        let _touching = self.locks.touching(&[dir, found.id]);
        let child = self.table.see_dir(found.id)?;
        if !self.dirs.is_empty(&child)? {
            return Err(Error::Refused(Errno::NOTEMPTY));
        }
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        let hidden = self.dirs.in_lower(&seen.found, name)?.is_some();
        // Held as long as somebody is in it, so that nothing new gets its number meanwhile.
        let kept = match child.found.stage {
            CopyStage::Lower => None,
            CopyStage::Meta | CopyStage::Upper => Some(self.upper.node(child.place()?)?),
        };
        if child.found.stage == CopyStage::Lower {
            self.whiteouts.white_out(parent.as_fd(), name)?;
        } else if hidden {
            let whiteout = self.whiteouts.new_whiteout(&parent)?;
            self.upper.exchange(&whiteout, parent.as_fd(), name)?;
            self.upper.discard(&whiteout)?;
        } else {
            let out = self.upper.take_out(parent.as_fd(), name)?;
            self.upper.discard(&out)?;
        }
        self.table.lost(found.id, dir, &name.to_owned(), kept.map(File::from));
        self.table.count_directory(dir, -1);
        Ok(())
    }

    fn is_empty_dir(&self, dir: NodeId) -> Result<bool> {
        let _steady = self.locks.steady();
        self.dirs.is_empty(&self.table.see_dir(dir)?)
    }
}
