//! Removing names: from the upper, or by a whiteout where the lower has them.
//!
//! Invariants: a name that the lower has is never without its whiteout in between; a lower file
//! of several names comes into the upper before it loses one, for its link count; a removed node
//! that is still in use can be read and changed to the end.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use strata_tree::{Name, NameBuf, NodeId};

use super::Union;
use super::attrs::Dress;
use super::copy_up::Pins;
use super::error::{Error, Result};
use super::names::{Location, name, stat};
use super::table::{Because, Found, Seen, Stage};

impl Union {
    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`; `Upper`, `Lower`.
    pub fn unlink(&self, dir: NodeId, bytes: &[u8]) -> Result<()> {
        let name = name(bytes)?;
        let mut pins = self.pins();
        let found = self.known(dir, name, &mut pins)?;
        if found.kind.is_dir() {
            return Err(Error::Refused(Errno::ISDIR));
        }
        self.may_take(dir, &found)?;
        self.keep_links(&found)?;
        self.raise_dirs(dir)?;
        let _claim = self.claims.claim(&[found.id]);
        let _steady = self.steady();
        let _touching = self.touching(&[dir]);
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        let location = self.find(&seen, name)?.ok_or(Error::Refused(Errno::NOENT))?;
        let hidden = self.in_lower(&seen.found, name)?.is_some();
        let kept = match location {
            Location::Lower(..) => {
                self.white_out(parent.as_fd(), name)?;
                None
            }
            Location::Upper(_, fd, _) if hidden => {
                let whiteout = self.new_whiteout(&parent)?;
                self.upper.place(&whiteout, parent.as_fd(), name, true)?;
                Some(fd)
            }
            Location::Upper(_, fd, _) => {
                rustix::fs::unlinkat(&parent, name.as_os_str(), AtFlags::empty())?;
                Some(fd)
            }
        };
        self.table.lost(found.id, dir, &name.to_owned(), kept.map(File::from));
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`; `Upper`, `Lower`.
    pub fn rmdir(&self, dir: NodeId, bytes: &[u8]) -> Result<()> {
        let name = name(bytes)?;
        let mut pins = self.pins();
        let found = self.known(dir, name, &mut pins)?;
        if !found.kind.is_dir() {
            return Err(Error::Refused(Errno::NOTDIR));
        }
        self.may_take(dir, &found)?;
        if self.table.see(dir)?.found.stage == Stage::Lower && !self.is_empty_dir(found.id)? {
            return Err(Error::Refused(Errno::NOTEMPTY)); // And nothing comes up for it.
        }
        self.raise_dirs(dir)?;
        let _claim = self.claims.claim(&[found.id]);
        let _steady = self.steady();
        let _touching = self.touching(&[dir, found.id]);
        let child = self.table.see_dir(found.id)?;
        if !self.is_empty(&child)? {
            return Err(Error::Refused(Errno::NOTEMPTY));
        }
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        let hidden = self.in_lower(&seen.found, name)?.is_some();
        // Held as long as somebody is in it, so that nothing new gets its number meanwhile.
        let kept = match child.found.stage {
            Stage::Lower => None,
            Stage::Meta | Stage::Upper => Some(self.upper.node(child.place()?)?),
        };
        if child.found.stage == Stage::Lower {
            self.white_out(parent.as_fd(), name)?;
        } else if hidden {
            let whiteout = self.new_whiteout(&parent)?;
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
        let _steady = self.steady();
        self.is_empty(&self.table.see_dir(dir)?)
    }

    /// The node of a name, known to the table as long as `pins` live. `ENOENT`.
    pub(super) fn known(&self, dir: NodeId, name: Name<'_>, pins: &mut Pins<'_>) -> Result<Found> {
        let _steady = self.steady();
        let seen = self.table.see_dir(dir)?;
        let found = self.discover(&seen, name, Because::Pinned)?;
        let (location, _) = found.ok_or(Error::Refused(Errno::NOENT))?;
        pins.keep(location.found().id);
        Ok(location.found().clone())
    }

    /// Before a lower file of several names loses one.
    pub(super) fn keep_links(&self, found: &Found) -> Result<()> {
        match (found.stage, found.lower) {
            (Stage::Lower, Some(lower)) if self.lower.node(lower)?.stat.nlink > 1 => {
                self.copy_up(found.id, Stage::Meta, None).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that a directory of the upper holds no whiteouts, so that another may replace
    /// it: an empty one takes its place.
    pub(super) fn clear_whiteouts(
        &self,
        dir: &Seen,
        parent: &OwnedFd,
        name: &NameBuf,
    ) -> Result<()> {
        let old = self.upper.node(dir.place()?)?;
        let (uid, gid, perm) = self.owner_and_bits(&old, &stat(&old)?)?;
        let made = self.upper.temporary();
        let kind = dir.found.kind;
        let (work, bits) = (self.upper.work(), self.bits_of_new(kind, perm));
        let fd = self.make_inode(work, made.name(), kind, b"", bits)?;
        let xattrs = self.marks.all(&old)?;
        self.dress(&fd, &Dress { kind, uid, gid, perm, xattrs: &xattrs })?;
        self.marks.set(&fd, super::Mark::Opaque, b"y")?;
        self.upper.exchange(&made, parent.as_fd(), name.as_name())?;
        self.upper.discard(&made)
    }
}
