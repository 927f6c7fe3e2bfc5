//! Moving names.
//!
//! ```text
//! source               before it moves
//! directory of the lower   marked with the lower path it comes from (redirect)
//! directory of the upper   opaque, if the lower has a directory at the target
//! metacopy                 marked with the lower path of its content (redirect)
//!
//! at the source        left behind
//! the lower has the name   a whiteout, by the same call (RENAME_WHITEOUT, or by exchanging it
//!                          with the one at the target)
//! ```
//!
//! A file system without RENAME_WHITEOUT, or with whiteouts that are files, gets it in two calls:
//! a file is linked to its target first; for a directory a whiteout is put there and exchanged.
//!
//! Invariants: every state between two calls is the tree before or after the rename; nobody else
//! uses a path while a directory moves; nothing is copied but metadata.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use strata_tree::{Device, Kind, Name, NameBuf, NodeId};

use super::base::Base;
use super::copy_up::CopyUp;
use super::error::{Doing, Error, Result};
use super::inode_maker::{Dress, InodeMaker};
use super::inodes::UpperInodes;
use super::listing::DirReader;
use super::locks::NodeLocks;
use super::make::NodeMaker;
use super::marks::{Mark, Marks};
use super::names::{InUpper, NameResolver, ResolvedName, name};
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::stats::stat;
use super::table::{CopyStage, NodeState, NodeTable, SeenNode};
use super::types::{Caller, New, RenameMode};
use super::upper::{Temporary, Upper};
use super::whiteouts::Whiteouts;

/// One end of a rename.
struct End<'a> {
    dir: NodeId,
    name: Name<'a>,
    seen: SeenNode,
    fd: Arc<OwnedFd>,
    /// What the lower has under that name in that directory.
    below: Option<Kind>,
}

/// Moves names.
pub(super) struct Renaming {
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    whiteouts: Arc<Whiteouts>,
    dirs: Arc<DirReader>,
    inodes: Arc<UpperInodes>,
    names: Arc<NameResolver>,
    protected: Arc<ProtectedNodes>,
    maker: InodeMaker,
    copies: Arc<CopyUp>,
    nodes: Arc<NodeMaker>,
    no_redirect: bool,
}

impl Renaming {
    pub(super) fn new(
        base: &Base,
        read: &Readers,
        copies: &Arc<CopyUp>,
        nodes: &Arc<NodeMaker>,
        no_redirect: bool,
    ) -> Self {
        Self {
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            whiteouts: Arc::clone(&read.whiteouts),
            dirs: Arc::clone(&read.dirs),
            inodes: Arc::clone(&read.inodes),
            names: Arc::clone(&read.names),
            protected: Arc::clone(&read.protected),
            maker: InodeMaker::new(base.marks),
            copies: Arc::clone(copies),
            nodes: Arc::clone(nodes),
            no_redirect,
        }
    }

    /// Moves `from` to `to`. `whiteout`: a character device 0:0 is made at the source.
    pub(super) fn rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        mode: RenameMode,
        whiteout: bool,
    ) -> Result<()> {
        let (n1, n2) = (name(from.1)?, name(to.1)?);
        let mut pins = self.table.pins();
        let source = self.names.known(from.0, n1, &mut pins)?;
        let target = match self.names.known(to.0, n2, &mut pins) {
            Ok(found) => Some(found),
            Err(Error::Refused(Errno::NOENT)) => None,
            Err(error) => return Err(error),
        };
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Error::Refused(Errno::EXIST)),
            (RenameMode::Exchange, None) => return Err(Error::Refused(Errno::NOENT)),
            (RenameMode::Replace, Some(target)) => {
                if target.id == source.id {
                    return Ok(()); // Two names of one inode (rename(2)).
                }
                check_kinds(source.kind, target.kind)?;
            }
            _ => {}
        }
        self.protected.may_take(from.0, &source)?;
        match &target {
            Some(target) => self.protected.may_take(to.0, target)?,
            None => self.protected.may_fill(to.0)?,
        }
        // Both before either is copied up: what cannot move leaves the upper as it was.
        self.may_move(&source)?;
        if let (Some(target), RenameMode::Exchange) = (&target, mode) {
            self.may_move(target)?;
        }
        self.prepare(&source)?;
        match (&target, mode) {
            (Some(target), RenameMode::Exchange) => self.prepare(target)?,
            (Some(target), _) => self.copies.keep_links(target)?,
            (None, _) => {}
        }
        self.copies.raise_dirs(from.0)?;
        self.copies.raise_dirs(to.0)?;
        let mut claimed: Vec<NodeId> = vec![source.id];
        claimed.extend(target.as_ref().map(|found| found.id).filter(|id| *id != source.id));
        let _claim = self.locks.claim(&claimed);
        let moves_dir = source.kind.is_dir() || target.as_ref().is_some_and(|t| t.kind.is_dir());
        let _alone = moves_dir.then(|| self.locks.alone());
        let _steady = (!moves_dir).then(|| self.locks.steady());
        let _touching = self.locks.touching(&[from.0, to.0]);
        let (here, there) = (self.end(from.0, n1)?, self.end(to.0, n2)?);
        let moved = match mode {
            RenameMode::Exchange => self.exchange(&here, &there),
            RenameMode::Replace | RenameMode::NoReplace => {
                self.replace(&here, &there, target.as_ref())
            }
        };
        if moves_dir {
            // Also after a failure: it may have come after the move.
            self.upper.dirs_moved();
        }
        moved?;
        drop((_touching, _steady, _alone, _claim));
        if whiteout {
            let root = Caller { uid: 0, gid: 0, umask: 0 };
            let device = Kind::CharDevice(Device { major: 0, minor: 0 });
            let attr = self.nodes.make(&root, from.0, from.1, New::Plain(device, 0))?;
            self.table.forget(attr.id, 1);
        }
        Ok(())
    }

    /// A directory that a lower has moves by a redirect alone: otherwise `EXDEV`.
    fn may_move(&self, found: &NodeState) -> Result<()> {
        let by_redirect = found.kind.is_dir() && self.table.see(found.id)?.found.lower.is_some();
        if by_redirect && self.no_redirect {
            return Err(Error::Refused(Errno::XDEV));
        }
        Ok(())
    }

    /// Brings what will move into the upper.
    fn prepare(&self, found: &NodeState) -> Result<()> {
        if found.kind.is_dir() {
            return self.copies.raise_dirs(found.id);
        }
        self.copies.copy_up(found.id, CopyStage::Meta, None).map(drop)
    }

    fn end<'a>(&self, dir: NodeId, name: Name<'a>) -> Result<End<'a>> {
        let seen = self.table.see_dir(dir)?;
        let fd = self.upper.dir(seen.place()?)?;
        let below = self.dirs.in_lower(&seen.found, name)?.map(|node| node.stat.kind);
        Ok(End { dir, name, seen, fd, below })
    }

    /// The node at one end, which is in the upper.
    fn at(&self, end: &End<'_>) -> Result<(SeenNode, OwnedFd)> {
        match self.names.find(&end.seen, end.name)? {
            Some(ResolvedName::Upper(found, fd, _)) => Ok((self.table.see(found.id)?, fd)),
            Some(ResolvedName::Lower(..)) => Err(Error::Refused(Errno::AGAIN)),
            None => Err(Error::Refused(Errno::NOENT)),
        }
    }

    /// Makes a node of the upper independent of where it is.
    fn unmoor(&self, seen: &SeenNode, fd: &OwnedFd, target: &End<'_>) -> Result<()> {
        if seen.found.kind.is_dir() && seen.found.lower.is_none() {
            return match target.below {
                Some(Kind::Directory) => self.marks.set(fd, Mark::Opaque, b"y"),
                _ => Ok(()),
            };
        }
        self.names.point_below(seen, fd)
    }

    fn exchange(&self, here: &End<'_>, there: &End<'_>) -> Result<()> {
        let (source, source_fd) = self.at(here)?;
        let (target, target_fd) = self.at(there)?;
        self.unmoor(&source, &source_fd, there)?;
        self.unmoor(&target, &target_fd, here)?;
        self.move_name(here, there, RenameFlags::EXCHANGE)?;
        let (n1, n2) = (here.name.to_owned(), there.name.to_owned());
        self.table.exchanged(source.found.id, (here.dir, &n1), target.found.id, (there.dir, &n2));
        let is_dir = |seen: &SeenNode| i32::from(seen.found.kind.is_dir());
        self.table.count_directory(here.dir, is_dir(&target) - is_dir(&source));
        self.table.count_directory(there.dir, is_dir(&source) - is_dir(&target));
        Ok(())
    }

    fn replace(&self, here: &End<'_>, there: &End<'_>, target: Option<&NodeState>) -> Result<()> {
        let (source, source_fd) = self.at(here)?;
        let replaced = self.make_room(there, target)?;
        self.unmoor(&source, &source_fd, there)?;
        let hole = matches!(
            self.names.in_upper(&there.seen, &there.fd, there.name)?,
            Some(InUpper::Whiteout)
        );
        if here.below.is_some() {
            self.whiteouts.expect(&here.fd)?;
        }
        match (here.below.is_some(), hole, source.found.kind.is_dir()) {
            // The whiteout at the target is wanted at the source, or is removed there.
            (true, true, _) if self.upper.can.exchange => {
                self.move_name(here, there, RenameFlags::EXCHANGE)?;
            }
            (false, true, true) if self.upper.can.exchange => {
                self.move_name(here, there, RenameFlags::EXCHANGE)?;
                rustix::fs::unlinkat(&here.fd, here.name.as_os_str(), AtFlags::empty())
                    .doing(|| "remove a whiteout".to_owned())?;
            }
            (true, false, _) if self.upper.can.leave_whiteout => {
                self.move_name(here, there, RenameFlags::WHITEOUT)?;
            }
            (true, _, is_dir) => self.move_leaving(here, there, is_dir)?,
            (false, true, true) => {
                self.set_aside(there)?;
                self.move_name(here, there, RenameFlags::empty())?;
            }
            (false, _, _) => self.move_name(here, there, RenameFlags::empty())?,
        }
        let (n1, n2) = (here.name.to_owned(), there.name.to_owned());
        if let Some(target) = target {
            self.table.lost(target.id, there.dir, &n2, replaced.map(File::from));
        }
        self.table.moved(source.found.id, (here.dir, &n1), (there.dir, &n2));
        if source.found.kind.is_dir() {
            let gone = i32::from(target.is_some());
            self.table.count_directory(here.dir, -1);
            self.table.count_directory(there.dir, 1 - gone);
        }
        Ok(())
    }

    /// Lets a target be replaced: a directory has to be empty, also of whiteouts. Gives what
    /// keeps it for those who still use it.
    fn make_room(&self, there: &End<'_>, target: Option<&NodeState>) -> Result<Option<OwnedFd>> {
        let Some(target) = target else { return Ok(None) };
        let seen = self.table.see(target.id)?;
        if target.kind.is_dir() && !self.dirs.is_empty(&seen)? {
            return Err(Error::Refused(Errno::NOTEMPTY));
        }
        if seen.found.stage == CopyStage::Lower {
            // Nothing in the upper: its place is taken there, which hides it.
            return Ok(None);
        }
        let kept = self.inodes.open_own(&seen)?;
        if target.kind.is_dir() {
            self.clear_whiteouts(&seen, &there.fd, &there.name.to_owned())?;
        }
        Ok(Some(kept))
    }

    /// Moves a name and leaves a whiteout, where one call cannot do both.
    fn move_leaving(&self, here: &End<'_>, there: &End<'_>, is_dir: bool) -> Result<()> {
        let whiteout = self.whiteouts.new_whiteout(&here.fd)?;
        let moved = self.move_over(here, there, is_dir, &whiteout);
        moved.inspect_err(|_| drop(self.upper.discard(&whiteout)))
    }

    fn move_over(
        &self,
        here: &End<'_>,
        there: &End<'_>,
        is_dir: bool,
        whiteout: &Temporary,
    ) -> Result<()> {
        if !is_dir {
            // Under both names for a moment.
            let made = self.upper.temporary();
            let (from, work) = (here.name.as_os_str(), self.upper.work());
            if rustix::fs::linkat(&here.fd, from, work, made.name(), AtFlags::empty()).is_ok() {
                self.upper.place(&made, there.fd.as_fd(), there.name, true)?;
                return self.upper.place(whiteout, here.fd.as_fd(), here.name, true);
            }
        }
        if self.upper.can.exchange {
            // A target that shows something is an empty directory, or something for which there
            // are no links: it goes first.
            self.whiteouts.expect(&there.fd)?;
            if is_dir && self.upper.has(there.fd.as_fd(), there.name) {
                self.upper.exchange(whiteout, there.fd.as_fd(), there.name)?;
                self.upper.discard(whiteout)?;
            } else {
                self.upper.place(whiteout, there.fd.as_fd(), there.name, true)?;
            }
            return self.move_name(here, there, RenameFlags::EXCHANGE);
        }
        if is_dir {
            self.set_aside(there)?;
        }
        self.move_name(here, there, RenameFlags::empty())?;
        self.upper.place(whiteout, here.fd.as_fd(), here.name, false)
    }

    /// Takes away what the upper has at a name, so that a directory can be moved there.
    fn set_aside(&self, end: &End<'_>) -> Result<()> {
        if self.upper.has(end.fd.as_fd(), end.name) {
            let out = self.upper.take_out(end.fd.as_fd(), end.name)?;
            self.upper.discard(&out)?;
        }
        Ok(())
    }

    fn move_name(&self, here: &End<'_>, there: &End<'_>, flags: RenameFlags) -> Result<()> {
        let (n1, n2) = (here.name.as_os_str(), there.name.as_os_str());
        rustix::fs::renameat_with(here.fd.as_fd(), n1, there.fd.as_fd(), n2, flags)
            .doing(|| format!("move {n1:?} to {n2:?}"))
    }

    /// Makes sure that a directory of the upper holds no whiteouts, so that another may replace
    /// it: an empty one takes its place.
    pub(super) fn clear_whiteouts(
        &self,
        dir: &SeenNode,
        parent: &OwnedFd,
        name: &NameBuf,
    ) -> Result<()> {
        let old = self.upper.node(dir.place()?)?;
        let (uid, gid, perm) = self.inodes.owner_and_bits(&old, &stat(&old)?)?;
        let made = self.upper.temporary();
        let kind = dir.found.kind;
        let (work, bits) = (self.upper.work(), self.maker.bits_of_new(kind, perm));
        let fd = self.maker.make_inode(work, made.name(), kind, b"", bits)?;
        let xattrs = self.marks.all(&old)?;
        self.maker.dress(&fd, &Dress { kind, uid, gid, perm, xattrs: &xattrs })?;
        self.marks.set(&fd, Mark::Opaque, b"y")?;
        self.upper.exchange(&made, parent.as_fd(), name.as_name())?;
        self.upper.discard(&made)
    }
}

/// rename(2).
fn check_kinds(source: Kind, target: Kind) -> Result<()> {
    match (source.is_dir(), target.is_dir()) {
        (true, false) => Err(Error::Refused(Errno::NOTDIR)),
        (false, true) => Err(Error::Refused(Errno::ISDIR)),
        _ => Ok(()),
    }
}
