//! Making nodes: files, directories, links and the rest.
//!
//! A new inode gets its owner, bits and attributes in the work directory and is then moved to its
//! name, over a whiteout if the lower had the name once. An inode that needs nothing beyond the
//! call that makes it is made at its name.
//!
//! Invariants: a directory that takes the place of a whiteout is opaque; a name is whole when it
//! appears.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Statx};
use rustix::io::Errno;
use strata_tree::{Kind, Name, NodeId};

use super::acl::{Inherited, inherit};
use super::base::Base;
use super::copy_up::CopyUp;
use super::error::{Error, Result};
use super::files::OpenFile;
use super::inode_maker::InodeMaker;
use super::inodes::UpperInodes;
use super::listing::DirReader;
use super::locks::NodeLocks;
use super::marks::{Mark, Marks};
use super::names::{InUpper, NameResolver, name};
use super::open::FileOpener;
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::stats::{stat, upper_number};
use super::table::{CopyStage, NodeState, NodeTable, SeenNode};
use super::types::{Attr, Caller, New};
use super::upper::{Temporary, Upper};

/// A name of an upper's directory that shows nothing.
#[derive(PartialEq, Eq)]
enum Vacant {
    Nothing,
    Whiteout,
}

/// Makes nodes, and further names of nodes.
pub(super) struct NodeMaker {
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    dirs: Arc<DirReader>,
    inodes: Arc<UpperInodes>,
    names: Arc<NameResolver>,
    protected: Arc<ProtectedNodes>,
    maker: InodeMaker,
    copies: Arc<CopyUp>,
    files: Arc<FileOpener>,
}

impl NodeMaker {
    pub(super) fn new(
        base: &Base,
        read: &Readers,
        copies: &Arc<CopyUp>,
        files: &Arc<FileOpener>,
    ) -> Self {
        Self {
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            dirs: Arc::clone(&read.dirs),
            inodes: Arc::clone(&read.inodes),
            names: Arc::clone(&read.names),
            protected: Arc::clone(&read.protected),
            maker: InodeMaker::new(base.marks),
            copies: Arc::clone(copies),
            files: Arc::clone(files),
        }
    }

    /// Makes a node; counts one lookup.
    pub(super) fn make(
        &self,
        who: &Caller,
        dir: NodeId,
        bytes: &[u8],
        new: New<'_>,
    ) -> Result<Attr> {
        let (kind, perm, target) = match new {
            New::Plain(kind, perm) => (kind, perm, &b""[..]),
            New::Symlink(target) => (Kind::Symlink, 0o777, target),
        };
        Ok(self.make_node(who, dir, name(bytes)?, kind, perm, target)?.0)
    }

    /// Makes a regular file and opens it for reading and writing; counts one lookup.
    pub(super) fn create(
        &self,
        who: &Caller,
        dir: NodeId,
        bytes: &[u8],
        perm: u16,
    ) -> Result<(Attr, Arc<OpenFile>)> {
        let (attr, made) = self.make_node(who, dir, name(bytes)?, Kind::Regular, perm, b"")?;
        match self.files.open_made(attr.id, made) {
            Ok(file) => Ok((attr, file)),
            Err(error) => {
                self.table.forget(attr.id, 1);
                Err(error)
            }
        }
    }

    fn make_node(
        &self,
        who: &Caller,
        dir: NodeId,
        name: Name<'_>,
        kind: Kind,
        perm: u16,
        target: &[u8],
    ) -> Result<(Attr, File)> {
        self.protected.may_fill(dir)?;
        self.copies.raise_dirs(dir)?;
        let start = self.start_of(who, dir, kind, perm)?;
        if let Some(made) = self.make_at_once(dir, name, kind, target, &start)? {
            return Ok(made);
        }
        let (work, made) = (self.upper.work(), self.upper.temporary());
        let bits = self.maker.bits_of_new(kind, start.perm);
        let result = self.maker.make_inode(work, made.name(), kind, target, bits).and_then(|fd| {
            self.maker.dress(&fd, &start.dress(kind))?;
            Ok((self.put_in_place(&made, &fd, dir, name, kind)?, fd))
        });
        if result.is_err() {
            let _ = self.upper.discard(&made);
        }
        result
    }

    /// Makes a node at its name by one call, if that gives it its owner and bits and it needs
    /// nothing else.
    fn make_at_once(
        &self,
        dir: NodeId,
        name: Name<'_>,
        kind: Kind,
        target: &[u8],
        start: &Inherited,
    ) -> Result<Option<(Attr, File)>> {
        let plain = matches!(kind, Kind::Regular | Kind::Directory | Kind::Symlink)
            && !self.marks.is_apart()
            && start.xattrs.is_empty()
            && start.perm & 0o7000 == 0
            && self.upper.ids == (start.uid, start.gid);
        if !plain {
            return Ok(None);
        }
        let _steady = self.locks.steady();
        let _touching = self.locks.touching(&[dir]);
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        if self.vacant(&seen, &parent, name)? == Vacant::Whiteout {
            return Ok(None);
        }
        let fd =
            self.maker.make_inode(parent.as_fd(), name.as_os_str(), kind, target, start.perm)?;
        let known = self.restored(&fd, kind, start).and_then(|stat| {
            let attr = self.make_known(dir, name, kind, &fd, &stat)?;
            Ok(Some((attr, fd)))
        });
        if known.is_err() {
            let flags = if kind.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let _ = rustix::fs::unlinkat(&parent, name.as_os_str(), flags);
        }
        known
    }

    /// What `stat` says of a new node that has, from now on, its owner and bits: our umask may
    /// have taken some of these, a mount option have chosen its group.
    fn restored(&self, fd: &File, kind: Kind, start: &Inherited) -> Result<Statx> {
        let now = stat(fd)?;
        let has = (now.stx_uid, now.stx_gid, now.stx_mode & 0o7777);
        if has == (start.uid, start.gid, start.perm) {
            return Ok(now);
        }
        self.maker.dress(fd, &start.dress(kind))?;
        stat(fd)
    }

    /// What a new node takes from its directory and its maker.
    fn start_of(&self, who: &Caller, dir: NodeId, kind: Kind, perm: u16) -> Result<Inherited> {
        let _steady = self.locks.steady();
        let seen = self.table.see_dir(dir)?;
        let fd = self.upper.dir(seen.place()?)?;
        let parent = self.inodes.owner_and_bits(&fd, &stat(&fd)?)?;
        let acl = self.marks.default_acl(&fd)?;
        let symlink = kind == Kind::Symlink;
        Ok(inherit(who, perm, kind.is_dir(), symlink, (parent.1, parent.2, &acl)))
    }

    fn put_in_place(
        &self,
        made: &Temporary,
        fd: &File,
        dir: NodeId,
        name: Name<'_>,
        kind: Kind,
    ) -> Result<Attr> {
        let _steady = self.locks.steady();
        let _touching = self.locks.touching(&[dir]);
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        self.settle(made, fd, &seen, &parent, name, kind.is_dir())?;
        self.make_known(dir, name, kind, fd, &stat(fd)?)
    }

    /// Tells the table of a new node; counts one lookup.
    fn make_known(
        &self,
        dir: NodeId,
        name: Name<'_>,
        kind: Kind,
        fd: &File,
        stat: &Statx,
    ) -> Result<Attr> {
        let id = upper_number(stat);
        let real = Some(stat.stx_ino);
        let stage = CopyStage::Upper;
        let found = NodeState { id, kind, stage, lower: None, redirect: None, real };
        let generation = self.table.made(dir, &name.to_owned(), &found, true);
        if kind.is_dir() {
            self.table.count_directory(dir, 1);
        }
        Ok(Attr { generation, ..self.inodes.upper_attr(&found, fd, stat)? })
    }

    /// What has to go for a new node. `EEXIST` if the name shows something.
    fn vacant(&self, dir: &SeenNode, parent: &OwnedFd, name: Name<'_>) -> Result<Vacant> {
        match self.names.in_upper(dir, parent, name)? {
            Some(InUpper::Node(..)) => Err(Error::Refused(Errno::EXIST)),
            Some(InUpper::Whiteout) => Ok(Vacant::Whiteout),
            None if self.dirs.in_lower(&dir.found, name)?.is_some() => {
                Err(Error::Refused(Errno::EXIST))
            }
            None => Ok(Vacant::Nothing),
        }
    }

    /// Moves what was made to a name that shows nothing. `EEXIST` if it does.
    pub(super) fn settle(
        &self,
        made: &Temporary,
        fd: impl AsFd,
        dir: &SeenNode,
        parent: &OwnedFd,
        name: Name<'_>,
        is_dir: bool,
    ) -> Result<()> {
        match self.vacant(dir, parent, name)? {
            Vacant::Whiteout if is_dir => {
                self.marks.set(fd, Mark::Opaque, b"y")?;
                self.upper.exchange(made, parent.as_fd(), name)?;
                self.upper.discard(made)
            }
            Vacant::Whiteout => self.upper.place(made, parent.as_fd(), name, true),
            Vacant::Nothing => self.upper.place(made, parent.as_fd(), name, false),
        }
    }

    /// Gives a node a further name; counts one lookup.
    pub(super) fn link(&self, node: NodeId, dir: NodeId, bytes: &[u8]) -> Result<Attr> {
        let name = name(bytes)?;
        if self.table.see(node)?.found.kind.is_dir() {
            // In Linux' order: what is there comes first.
            let _steady = self.locks.steady();
            let there = self.names.find(&self.table.see_dir(dir)?, name)?.is_some();
            return Err(Error::Refused(if there { Errno::EXIST } else { Errno::PERM }));
        }
        self.protected.may_change(node)?;
        self.protected.may_fill(dir)?;
        self.copies.copy_up(node, CopyStage::Meta, None)?;
        self.copies.raise_dirs(dir)?;
        let _claim = self.locks.claim(&[node]);
        let _steady = self.locks.steady();
        let _touching = self.locks.touching(&[dir]);
        let seen = self.table.see(node)?;
        let (from, last) = seen.place()?.split_last().ok_or(Error::Refused(Errno::PERM))?;
        let from = self.upper.dir(&from)?;
        let fd = self.upper.node(seen.place()?)?;
        self.names.point_below(&seen, &fd)?;
        let made = self.upper.temporary();
        let (old, work) = (last.as_os_str(), self.upper.work());
        rustix::fs::linkat(from, old, work, made.name(), AtFlags::empty())?;
        let target = self.table.see_dir(dir)?;
        let parent = self.upper.dir(target.place()?)?;
        if let Err(error) = self.settle(&made, &fd, &target, &parent, name, false) {
            let _ = self.upper.discard(&made);
            return Err(error);
        }
        self.table.made(dir, &name.to_owned(), &seen.found, false);
        self.inodes.attr_of(&self.table.see(node)?)
    }
}
