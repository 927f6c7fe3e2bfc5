//! Making nodes: files, directories, links and the rest.
//!
//! A new inode gets its owner, bits and attributes in the work directory and is then moved to its
//! name, over a whiteout if the lower had the name once. One that has all it needs from the call
//! that makes it, is made at its name.
//!
//! Invariants: a directory that takes the place of a whiteout is opaque; a device 0:0 is kept as
//! a marked file, for the device itself would be a whiteout; where owners are kept apart, what is
//! no directory is a regular file that says its type, a symbolic link one that holds its target.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use strata_tree::{Device, Kind, Name, NodeId};

use super::acl::{Inherited, inherit};
use super::attrs::Dress;
use super::error::{Doing, Error, Result};
use super::marks::{Mark, format_kind};
use super::names::{InUpper, name, stat, upper_number};
use super::table::{Found, Seen, Stage};
use super::types::{Attr, Caller, New};
use super::upper::Temporary;
use super::{OpenFile, Union};

/// A name of an upper's directory that shows nothing.
#[derive(PartialEq, Eq)]
enum Vacant {
    Nothing,
    Whiteout,
}

impl Inherited {
    fn dress(&self, kind: Kind) -> Dress<'_> {
        let Self { uid, gid, perm, xattrs } = self;
        Dress { kind, uid: *uid, gid: *gid, perm: *perm, xattrs }
    }
}

impl Union {
    /// Makes a node; counts one lookup.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` in a removed directory, `ENAMETOOLONG`; `Upper`, `Lower`.
    pub fn make(&self, who: &Caller, dir: NodeId, bytes: &[u8], new: New<'_>) -> Result<Attr> {
        let (kind, perm, target) = match new {
            New::Plain(kind, perm) => (kind, perm, &b""[..]),
            New::Symlink(target) => (Kind::Symlink, 0o777, target),
        };
        Ok(self.make_node(who, dir, name(bytes)?, kind, perm, target)?.0)
    }

    /// Makes a regular file and opens it for reading and writing; counts one lookup.
    ///
    /// # Errors
    /// As [`Union::make`].
    pub fn create(
        &self,
        who: &Caller,
        dir: NodeId,
        bytes: &[u8],
        perm: u16,
    ) -> Result<(Attr, Arc<OpenFile>)> {
        let (attr, made) = self.make_node(who, dir, name(bytes)?, Kind::Regular, perm, b"")?;
        match self.open_made(attr.id, made) {
            Ok(file) => Ok((attr, file)),
            Err(error) => {
                self.forget(attr.id, 1);
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
        self.may_fill(dir)?;
        self.raise_dirs(dir)?;
        let start = self.start_of(who, dir, kind, perm)?;
        if let Some(made) = self.make_at_once(dir, name, kind, target, &start)? {
            return Ok(made);
        }
        let (work, made) = (self.upper.work(), self.upper.temporary());
        let bits = self.bits_of_new(kind, start.perm);
        let result = self.make_inode(work, made.name(), kind, target, bits).and_then(|fd| {
            self.dress(&fd, &start.dress(kind))?;
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
            && !self.apart()
            && start.xattrs.is_empty()
            && start.perm & 0o7000 == 0
            && self.upper.ids == (start.uid, start.gid);
        if !plain {
            return Ok(None);
        }
        let _steady = self.steady();
        let _touching = self.touching(&[dir]);
        let seen = self.table.see_dir(dir)?;
        let parent = self.upper.dir(seen.place()?)?;
        if self.vacant(&seen, &parent, name)? == Vacant::Whiteout {
            return Ok(None);
        }
        let fd = self.make_inode(parent.as_fd(), name.as_os_str(), kind, target, start.perm)?;
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
        self.dress(fd, &start.dress(kind))?;
        stat(fd)
    }

    /// What a new node takes from its directory and its maker.
    fn start_of(&self, who: &Caller, dir: NodeId, kind: Kind, perm: u16) -> Result<Inherited> {
        let _steady = self.steady();
        let seen = self.table.see_dir(dir)?;
        let fd = self.upper.dir(seen.place()?)?;
        let parent = self.owner_and_bits(&fd, &stat(&fd)?)?;
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
        let _steady = self.steady();
        let _touching = self.touching(&[dir]);
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
        let stage = Stage::Upper;
        let found = Found { id, kind, stage, lower: None, redirect: None, real };
        let generation = self.table.made(dir, &name.to_owned(), &found, true);
        if kind.is_dir() {
            self.table.count_directory(dir, 1);
        }
        Ok(Attr { generation, ..self.upper_attr(&found, fd, stat)? })
    }

    /// What has to go for a new node. `EEXIST` if the name shows something.
    fn vacant(&self, dir: &Seen, parent: &OwnedFd, name: Name<'_>) -> Result<Vacant> {
        match self.in_upper(dir, parent, name)? {
            Some(InUpper::Node(..)) => Err(Error::Refused(Errno::EXIST)),
            Some(InUpper::Whiteout) => Ok(Vacant::Whiteout),
            None if self.in_lower(&dir.found, name)?.is_some() => Err(Error::Refused(Errno::EXIST)),
            None => Ok(Vacant::Nothing),
        }
    }

    /// Moves what was made to a name that shows nothing. `EEXIST` if it does.
    pub(super) fn settle(
        &self,
        made: &Temporary,
        fd: impl AsFd,
        dir: &Seen,
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

    /// The permission bits that a new inode in the work directory has from the start. It stays
    /// writable until it has its marks, where these are user attributes (xattr(7)).
    pub(super) fn bits_of_new(&self, kind: Kind, perm: u16) -> u16 {
        match kind {
            _ if !self.options.user_marks && !self.apart() => perm & 0o777,
            Kind::Directory => 0o700,
            _ => 0o600,
        }
    }

    /// An inode without anything but its type and bits (less our umask) and, for a regular file,
    /// open.
    pub(super) fn make_inode(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
        target: &[u8],
        bits: u16,
    ) -> Result<File> {
        let doing = || format!("make {}", name.display());
        let apart = self.apart();
        let mode = Mode::from_raw_mode(u32::from(bits));
        let node = |kind, device: u64| rustix::fs::mknodat(dir, name, kind, mode, device);
        let file = |content| self.make_file(dir, name, kind, content, mode);
        let whole = |device: Device| rustix::fs::makedev(device.major, device.minor);
        match kind {
            Kind::Directory => rustix::fs::mkdirat(dir, name, mode).doing(doing)?,
            Kind::Symlink if !apart => rustix::fs::symlinkat(target, dir, name).doing(doing)?,
            Kind::CharDevice(Device { major: 0, minor: 0 }) | Kind::Regular => return file(b""),
            // xattr(7): a symbolic link could not say whose it is.
            Kind::Symlink => return file(target),
            _ if apart => return file(b""),
            Kind::CharDevice(device) => {
                node(FileType::CharacterDevice, whole(device)).doing(doing)?;
            }
            Kind::BlockDevice(device) => {
                node(FileType::BlockDevice, whole(device)).doing(doing)?;
            }
            Kind::Fifo => node(FileType::Fifo, 0).doing(doing)?,
            Kind::Socket => node(FileType::Socket, 0).doing(doing)?,
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).doing(doing)?;
        Ok(fd.into())
    }

    /// A regular file, or one that stands for what cannot be kept as itself.
    fn make_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
        content: &[u8],
        mode: Mode,
    ) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(dir, name, flags, mode)
            .doing(|| format!("make {}", name.display()))?
            .into();
        if kind == (Kind::CharDevice(Device { major: 0, minor: 0 })) {
            self.marks.set(&file, Mark::StrataDevice, format_kind(kind).as_bytes())?;
        }
        if !content.is_empty() {
            file.write_all_at(content, 0).doing(|| "write a target".to_owned())?;
        }
        Ok(file)
    }

    /// Gives a node a further name; counts one lookup.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` if the node was removed, `EPERM` for directories, `EMLINK`.
    pub fn link(&self, node: NodeId, dir: NodeId, bytes: &[u8]) -> Result<Attr> {
        let name = name(bytes)?;
        if self.table.see(node)?.found.kind.is_dir() {
            // In Linux' order: what is there comes first.
            let _steady = self.steady();
            let there = self.find(&self.table.see_dir(dir)?, name)?.is_some();
            return Err(Error::Refused(if there { Errno::EXIST } else { Errno::PERM }));
        }
        self.may_change(node)?;
        self.may_fill(dir)?;
        self.copy_up(node, Stage::Meta, None)?;
        self.raise_dirs(dir)?;
        let _claim = self.claims.claim(&[node]);
        let _steady = self.steady();
        let _touching = self.touching(&[dir]);
        let seen = self.table.see(node)?;
        let (from, last) = seen.place()?.split_last().ok_or(Error::Refused(Errno::PERM))?;
        let from = self.upper.dir(&from)?;
        let fd = self.upper.node(seen.place()?)?;
        self.point_below(&seen, &fd)?;
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
        self.attr_of(&self.table.see(node)?)
    }
}
