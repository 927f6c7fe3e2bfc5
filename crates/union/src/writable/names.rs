//! Which node a name stands for: the upper's answer first, then the lower's.
//!
//! Invariants: a whiteout, a mark or a private attribute is never seen from outside; a node that
//! was copied up has its lower's number, one that was made in the upper has the upper's inode
//! number with [`UPPER`] set, which no lower's number has. A number that another inode has here
//! already is not given again: a node of the upper has its own then, a lower's one with [`DOUBT`]
//! set, and a directory is `ESTALE`, for what is below it would have two places.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use strata_tree::{
    Device, Entry, Kind, Name, NameBuf, NameError, Node, NodeId, Stat, Timestamp, TreePath,
};

use strata_tree::xattrs::XattrNames;

use super::error::{Doing, Error, Result, damaged};
use super::marks::{self, Mark, parse_kind, stated};
use super::table::{Because, Found, Number, Seen, Stage};
use super::types::Attr;
use super::unsynced::is_whole;
use super::upper::by_descriptor;
use super::whiteouts::is_marked;
use super::{Union, upper};

/// Bytes of the longest target of a symbolic link (PATH_MAX less its end).
const TARGET_MAX: u64 = 4095;

/// Set in the numbers of nodes that no lower has.
const UPPER: u64 = 1 << 62;

/// Set in the numbers of a lower's nodes whose own a node of the upper has.
const DOUBT: u64 = 1 << 63;

/// What a name of the upper is.
pub(super) enum InUpper {
    /// Nothing, and the lower's is hidden.
    Whiteout,
    /// A node, its inode, and what `stat` says of that.
    Node(Found, OwnedFd, Box<Statx>),
}

/// Where a name was found.
pub(super) enum Location {
    /// In the upper, with its inode and what `stat` says of that.
    Upper(Found, OwnedFd, Box<Statx>),
    /// Only in the lower.
    Lower(Found, Node),
}

impl Location {
    pub(super) fn found(&self) -> &Found {
        match self {
            Self::Upper(found, ..) | Self::Lower(found, _) => found,
        }
    }

    fn found_mut(&mut self) -> &mut Found {
        match self {
            Self::Upper(found, ..) | Self::Lower(found, _) => found,
        }
    }
}

/// A name that can be: `ENAMETOOLONG`, `ENOENT` else, as the kernel has checked the rest.
pub(super) fn name(bytes: &[u8]) -> Result<Name<'_>> {
    Name::new(bytes).map_err(|error| match error {
        NameError::TooLong(_) => Error::Refused(Errno::NAMETOOLONG),
        NameError::Empty | NameError::Dots | NameError::Forbidden => Error::Refused(Errno::NOENT),
    })
}

impl Union {
    /// The node called `bytes` in `dir`; counts one lookup if there is one.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOTDIR`, `ESTALE`; `Upper`, `Lower`.
    pub fn lookup(&self, dir: NodeId, bytes: &[u8]) -> Result<Option<Attr>> {
        let name = name(bytes)?;
        let _steady = self.steady();
        let seen = self.table.see(dir)?;
        if !seen.found.kind.is_dir() {
            return Err(Error::Refused(Errno::NOTDIR));
        }
        if seen.path.is_none() {
            return Ok(None); // A removed directory is empty.
        }
        let found = self.discover(&seen, name, Because::LookedUp)?;
        let Some((location, generation)) = found else { return Ok(None) };
        let attr = match &location {
            Location::Upper(found, fd, stat) => self.upper_attr(found, fd, stat)?,
            Location::Lower(found, node) => lower_attr(found, node),
        };
        Ok(Some(Attr { generation, ..attr }))
    }

    /// The name's node, known to the table from now on; its generation.
    pub(super) fn discover(
        &self,
        dir: &Seen,
        name: Name<'_>,
        because: Because,
    ) -> Result<Option<(Location, u64)>> {
        loop {
            let since = self.table.raised();
            let Some(location) = self.find(dir, name)? else { return Ok(None) };
            let (found, name) = (location.found(), name.to_owned());
            let known = self.table.found(dir.found.id, &name, found, because, since);
            if let Some(generation) = known {
                return Ok(Some((location, generation)));
            }
        }
    }

    /// The name's node, not yet known to the table. `ESTALE` for a directory that is known
    /// elsewhere.
    pub(super) fn find(&self, dir: &Seen, name: Name<'_>) -> Result<Option<Location>> {
        loop {
            let since = self.table.raised();
            let Some(mut location) = self.claimed(dir, name)? else { return Ok(None) };
            match self.table.number_of(location.found(), since) {
                Number::Free => return Ok(Some(location)),
                Number::Again => continue,
                Number::Taken => {}
            }
            let found = location.found_mut();
            if found.kind.is_dir() {
                return Err(Error::Refused(Errno::STALE));
            }
            found.id = other_number(found);
            match self.table.number_of(found, since) {
                Number::Free => return Ok(Some(location)),
                Number::Again => {}
                Number::Taken => return Err(Error::Refused(Errno::STALE)),
            }
        }
    }

    /// The name's node, with the number that its marks claim.
    pub(super) fn claimed(&self, dir: &Seen, name: Name<'_>) -> Result<Option<Location>> {
        if dir.found.stage == Stage::Upper {
            let fd = self.upper.dir(dir.place()?)?;
            match self.in_upper(dir, fd.as_fd(), name)? {
                Some(InUpper::Whiteout) => return Ok(None),
                Some(InUpper::Node(found, fd, stat)) => {
                    return Ok(Some(Location::Upper(found, fd, stat)));
                }
                None => {}
            }
        }
        Ok(self.in_lower(&dir.found, name)?.map(|node| {
            let found = Found {
                id: node.id,
                kind: node.stat.kind,
                stage: Stage::Lower,
                lower: Some(node.id),
                redirect: None,
                real: None,
            };
            Location::Lower(found, node)
        }))
    }

    /// What the lower has under a name of a merged directory.
    pub(super) fn in_lower(&self, dir: &Found, name: Name<'_>) -> Result<Option<Node>> {
        let Some(lower) = dir.lower else { return Ok(None) };
        Ok(match self.lower.lookup(lower, name)? {
            Some(Entry::Node(node)) => Some(node),
            Some(Entry::Whiteout | Entry::LowerLink(_)) | None => None,
        })
    }

    /// What the upper has under a name; `fd` is the directory there.
    pub(super) fn in_upper(
        &self,
        dir: &Seen,
        fd: impl AsFd,
        name: Name<'_>,
    ) -> Result<Option<InUpper>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = match rustix::fs::openat(fd, name.as_os_str(), flags, Mode::empty()) {
            Ok(node) => node,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).doing(|| format!("open {:?}", name.as_os_str())),
        };
        let stat = stat(&node)?;
        if is_device_whiteout(&stat) {
            return Ok(Some(InUpper::Whiteout));
        }
        let names = marks::names(&node)?;
        if is_marked(self.marks, &names, &stat) {
            return Ok(Some(InUpper::Whiteout));
        }
        let found = self.identify(&dir.found, name, (&node, &names), &stat)?;
        Ok(Some(InUpper::Node(found, node, Box::new(stat))))
    }

    /// Reads the marks of an inode of the upper that is called `name` in `dir`.
    fn identify(
        &self,
        dir: &Found,
        name: Name<'_>,
        (fd, names): (&OwnedFd, &XattrNames),
        stat: &Statx,
    ) -> Result<Found> {
        let kind = self.kind(fd, names, stat)?;
        if self.marks.has(names, Mark::Protattr) {
            self.protected.note();
        }
        let own = upper_number(stat);
        let (stage, real) = (Stage::Upper, Some(stat.stx_ino));
        let mut found = Found { id: own, kind, stage, lower: None, redirect: None, real };
        if kind.is_dir() {
            if self.marks.get_of(fd, names, Mark::Opaque)?.is_some_and(|value| value == b"y") {
                return Ok(found);
            }
            found.redirect = self.redirect(dir, fd, names)?;
            let below = match &found.redirect {
                Some(path) => self.walk_lower(path)?,
                None => self.in_lower(dir, name)?,
            };
            if let Some(below) = below.filter(|node| node.stat.kind.is_dir()) {
                found.id = below.id;
                found.lower = Some(below.id);
            }
            return Ok(found);
        }
        let metacopy = self.marks.has(names, Mark::Metacopy);
        if kind == Kind::Regular && metacopy {
            let redirect = self.redirect(dir, fd, names)?;
            // The content may come up meanwhile, which sets the origin and removes first this mark,
            // then the redirect: with this mark still there, what was read of the other is true.
            if self.marks.get(fd, Mark::Metacopy)?.is_some() {
                let below = match &redirect {
                    Some(path) => self.walk_lower(path)?,
                    None => self.in_lower(dir, name)?,
                };
                let below = below.filter(|node| node.stat.kind == Kind::Regular);
                // overlayfs.rst, "Metadata only copy up": without its lower it is an I/O error.
                let below =
                    below.ok_or_else(|| damaged("find the content of a metacopy in the lower"))?;
                found.redirect = redirect;
                found.stage = Stage::Meta;
                found.lower = Some(below.id);
                found.id = below.id;
                return Ok(found);
            }
        }
        // A metacopy that has come up meanwhile has an origin now.
        if !metacopy && !self.marks.has(names, Mark::StrataOrigin) {
            return Ok(found);
        }
        let Some(origin) = self.origin(fd)? else { return Ok(found) };
        let Some(lower) = self.kept_number(&origin, stat.stx_ino, dir, name)? else {
            return Ok(found);
        };
        found.id = lower;
        if origin.unsynced && self.upper.view && !self.is_whole(fd, lower)? {
            // The machine has crashed, and nobody has used the upper since.
            found.stage = Stage::Meta;
            found.lower = Some(lower);
        }
        Ok(found)
    }

    fn is_whole(&self, fd: &OwnedFd, lower: NodeId) -> Result<bool> {
        let file = rustix::fs::open(by_descriptor(fd.as_fd()), OFlags::CLOEXEC, Mode::empty());
        is_whole(&file.doing(|| "open a copy".to_owned())?.into(), &*self.lower.open(lower)?)
    }

    /// The lower path that a redirect says: absolute, or a sibling's name (overlayfs.rst,
    /// "Renaming directories").
    fn redirect(&self, dir: &Found, fd: &OwnedFd, names: &XattrNames) -> Result<Option<TreePath>> {
        let Some(text) = self.marks.get_of(fd, names, Mark::Redirect)? else { return Ok(None) };
        let bad = |_| damaged("follow a redirect that is no path");
        if text.first() == Some(&b'/') {
            return TreePath::clamped(&text).map(Some).map_err(bad);
        }
        let path = self.table.lower_path(dir.id);
        let mut path =
            path.ok_or_else(|| damaged("follow a redirect in a directory without lower"))?;
        path.push(NameBuf::new(&text).map_err(bad)?.as_name());
        Ok(Some(path))
    }

    /// A node of the lower by its path there.
    fn walk_lower(&self, path: &TreePath) -> Result<Option<Node>> {
        let mut node = self.lower.node(self.lower.root())?;
        for name in path.names() {
            if !node.stat.kind.is_dir() {
                return Ok(None);
            }
            match self.lower.lookup(node.id, name)? {
                Some(Entry::Node(next)) => node = next,
                Some(Entry::Whiteout | Entry::LowerLink(_)) | None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// The type of an inode of the upper, as the image has it.
    fn kind(&self, fd: &OwnedFd, names: &XattrNames, stat: &Statx) -> Result<Kind> {
        let kind = kind_of(stat);
        let apart = self.apart();
        if kind != Kind::Regular || stat.stx_size != 0 && !apart {
            return Ok(kind);
        }
        let told = || Ok::<_, Error>(stated(fd)?.and_then(|stated| stated.kind));
        if stat.stx_size != 0 {
            let target = stat.stx_size <= TARGET_MAX && told()? == Some(Kind::Symlink);
            return Ok(if target { Kind::Symlink } else { kind });
        }
        let told = match self.marks.get_of(fd, names, Mark::StrataDevice)? {
            Some(text) => std::str::from_utf8(&text).ok().and_then(parse_kind),
            None if apart => told()?,
            None => None,
        };
        // An empty file can stand for what has no content, and for nothing else.
        Ok(match told {
            Some(
                told @ (Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket),
            ) => told,
            Some(Kind::Regular | Kind::Directory | Kind::Symlink) | None => kind,
        })
    }

    /// Owner, group and permission bits of an inode of the upper.
    pub(super) fn owner_and_bits(&self, fd: impl AsFd, stat: &Statx) -> Result<(u32, u32, u16)> {
        if self.apart()
            && let Some(stated) = stated(&fd)?
        {
            return Ok((stated.uid, stated.gid, stated.perm));
        }
        Ok((stat.stx_uid, stat.stx_gid, stat.stx_mode & 0o7777))
    }

    /// The size of a metacopy. Its inode's is the same, unless a crash has left part of a copy,
    /// which only a view shows: all others have mended it.
    fn size_below(&self, found: &Found) -> Result<u64> {
        let lower = found.lower.ok_or_else(|| damaged("ask for the size of a metacopy"))?;
        Ok(self.lower.node(lower)?.stat.size)
    }

    /// `stat` of a node of the upper.
    pub(super) fn upper_attr(&self, found: &Found, fd: impl AsFd, stat: &Statx) -> Result<Attr> {
        let (uid, gid, perm) = self.owner_and_bits(fd, stat)?;
        let nlink = match found.kind {
            Kind::Directory if found.lower.is_some() && stat.stx_nlink > 0 => {
                2 + self.subdirectories(found)?
            }
            _ => stat.stx_nlink,
        };
        let size = match found.kind {
            Kind::Regular if self.upper.view && found.stage == Stage::Meta => {
                self.size_below(found)?
            }
            Kind::Regular | Kind::Symlink | Kind::Directory => stat.stx_size,
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => 0,
        };
        let blocks = match found.stage {
            Stage::Meta => size.div_ceil(512),
            Stage::Lower | Stage::Upper => stat.stx_blocks,
        };
        let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Attr {
            id: found.id,
            generation: self.table.generation(found.id),
            stat: Stat {
                kind: found.kind,
                perm,
                uid,
                gid,
                size,
                nlink,
                mtime: time(stat.stx_mtime),
            },
            atime: time(stat.stx_atime),
            ctime: time(stat.stx_ctime),
            birth: born.then(|| time(stat.stx_btime)),
            blocks,
        })
    }
}

/// `stat` of a node that is only in the lower.
pub(super) fn lower_attr(found: &Found, node: &Node) -> Attr {
    let mtime = node.stat.mtime;
    Attr {
        id: found.id,
        generation: 0,
        stat: node.stat,
        atime: mtime,
        ctime: mtime,
        birth: None,
        blocks: node.stat.size.div_ceil(512),
    }
}

/// Everything that `stat` knows of an open inode.
pub(super) fn stat(fd: impl AsFd) -> Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(fd, "", flags, wanted).doing(|| "stat a node of the upper".to_owned())
}

/// The same of a name in an open directory of the upper; `None` if there is none.
pub(super) fn stat_named(dir: impl AsFd, name: Name<'_>) -> Result<Option<Statx>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(dir, name.as_os_str(), flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("stat {:?}", name.as_os_str())),
    }
}

/// The number of a node whose claimed one another has.
pub(super) fn other_number(found: &Found) -> NodeId {
    match found.real {
        Some(real) => NodeId(UPPER | real),
        None => NodeId(DOUBT | found.id.0),
    }
}

/// The number of a node that no lower has.
pub(super) fn upper_number(stat: &Statx) -> NodeId {
    NodeId(UPPER | stat.stx_ino)
}

/// overlayfs.rst, "whiteouts and opaque directories".
pub(super) fn is_device_whiteout(stat: &Statx) -> bool {
    matches!(kind_of(stat), Kind::CharDevice(Device { major: 0, minor: 0 }))
}

fn kind_of(stat: &Statx) -> Kind {
    let device = Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
    Kind::of_mode(u32::from(stat.stx_mode), device).unwrap_or(Kind::Regular)
}

fn time(time: rustix::fs::StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec }
}

/// The inode of a node of the upper: what is open of it, or else opened for this.
pub(super) fn inode(union: &Union, seen: &Seen) -> Result<Inode> {
    if let (true, Some(path)) = (seen.found.kind.is_dir(), &seen.path) {
        return Ok(Inode::Dir(union.upper.dir(path)?));
    }
    if seen.found.kind == Kind::Regular
        && let Some(file) = union.table.open_content(seen.found.id).and_then(|c| c.upper_file())
    {
        return Ok(Inode::File(file));
    }
    Ok(Inode::Own(own_inode(union, seen)?))
}

/// A descriptor of an inode of the upper.
pub(super) enum Inode {
    Dir(Arc<OwnedFd>),
    File(Arc<File>),
    /// Of this use alone.
    Own(OwnedFd),
}

impl AsFd for Inode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Dir(fd) => fd.as_fd(),
            Self::File(file) => file.as_fd(),
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// The inode of a node of the upper, opened by its path or, when it has none, by what keeps it.
pub(super) fn own_inode(union: &Union, seen: &Seen) -> Result<OwnedFd> {
    match (&seen.path, &seen.orphan) {
        (Some(path), _) => union.upper.node(path),
        (None, Some(file)) => {
            let path = upper::by_descriptor(file.as_fd());
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .doing(|| "open a removed node".to_owned())
        }
        (None, None) => Err(Error::Refused(Errno::NOENT)),
    }
}
