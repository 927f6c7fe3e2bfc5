//! Which node a name stands for: the upper's answer first, then the lower's.
//!
//! Invariants: a whiteout, a mark or a private attribute is never seen from outside; a node that
//! was copied up has its lower's number, one that was made in the upper has the upper's inode
//! number with [`UPPER`] set, which no lower's number has. An inode of the upper that is known has
//! the number that it is known by. A number that another inode has here already is not given again:
//! a node of the upper has its own then, a lower's one with [`DOUBT`] set, and a directory is
//! `ESTALE`, for what is below it would have two places.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{Entry, Kind, Name, NameBuf, NameError, Node, NodeId, TreePath};

use strata_tree::xattrs::XattrNames;

use super::base::Base;
use super::descriptor::by_descriptor;
use super::error::{Doing, Error, Result, damaged};
use super::inodes::{UpperInodes, lower_attr};
use super::listing::DirReader;
use super::locks::NodeLocks;
use super::marks::{self, Mark, Marks, Met};
use super::origin::Origins;
use super::stats::{is_device_whiteout, other_number, stat, upper_number};
use super::table::{Because, CopyStage, NodeState, NodeTable, Number, Pins, SeenNode};
use super::types::{Attr, ListedName};
use super::unsynced::is_whole;
use super::upper::Upper;
use super::whiteouts::is_marked;

/// What a name of the upper is.
pub(super) enum InUpper {
    /// Nothing, and the lower's is hidden.
    Whiteout,
    /// A node, its inode, and what `stat` says of that.
    Node(NodeState, OwnedFd, Box<Statx>),
}

/// Where a name was found.
pub(super) enum ResolvedName {
    /// In the upper, with its inode and what `stat` says of that.
    Upper(NodeState, OwnedFd, Box<Statx>),
    /// Only in the lower.
    Lower(NodeState, Node),
}

impl ResolvedName {
    pub(super) fn found(&self) -> &NodeState {
        match self {
            Self::Upper(found, ..) | Self::Lower(found, _) => found,
        }
    }

    fn found_mut(&mut self) -> &mut NodeState {
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

/// Finds the nodes that names stand for.
pub(super) struct NameResolver {
    lower: FileTree,
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    met: Arc<Met>,
    dirs: Arc<DirReader>,
    inodes: Arc<UpperInodes>,
    origins: Arc<Origins>,
}

impl NameResolver {
    pub(super) fn new(
        base: &Base,
        dirs: &Arc<DirReader>,
        inodes: &Arc<UpperInodes>,
        origins: &Arc<Origins>,
    ) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            met: Arc::clone(&base.met),
            dirs: Arc::clone(dirs),
            inodes: Arc::clone(inodes),
            origins: Arc::clone(origins),
        }
    }

    /// The node called `bytes` in `dir`; counts one lookup if there is one.
    pub(super) fn lookup(&self, dir: NodeId, bytes: &[u8]) -> Result<Option<Attr>> {
        let name = name(bytes)?;
        let _steady = self.locks.steady();
        let seen = self.table.see(dir)?;
        if !seen.found.kind.is_dir() {
            return Err(Error::Refused(Errno::NOTDIR));
        }
        if seen.path.is_none() {
            return Ok(None); // A removed directory is empty.
        }
        let since = self.table.raised();
        let found = self.discover(&seen, name, Because::LookedUp)?;
        let Some((location, generation)) = found else { return Ok(None) };
        let attr = match &location {
            // Its names are being linked, or were while this was looked at: their number is not
            // that of any moment.
            ResolvedName::Upper(found, fd, stat)
                if stat.stx_nlink > 1
                    && !found.kind.is_dir()
                    && (self.table.rises(found.id) || self.table.raised() != since) =>
            {
                self.attr_now(found.id, fd)
            }
            ResolvedName::Upper(found, fd, stat) => self.inodes.upper_attr(found, fd, stat),
            ResolvedName::Lower(found, node) => Ok(lower_attr(found, node)),
        };
        // Who gets an error has looked up nothing.
        let attr = attr.inspect_err(|_| self.table.forget(location.found().id, 1))?;
        Ok(Some(Attr { generation, ..attr }))
    }

    /// What is shown of a node that has this inode of the upper or, until all its names are there,
    /// only its lower's. The inode has other names, which may go meanwhile.
    fn attr_now(&self, id: NodeId, fd: &OwnedFd) -> Result<Attr> {
        let seen = self.table.see(id)?;
        match seen.found.stage {
            CopyStage::Lower => self.inodes.attr_of(&seen),
            CopyStage::Meta | CopyStage::Upper => {
                self.inodes.upper_attr(&seen.found, fd, &stat(fd)?)
            }
        }
    }

    /// The name's node, known to the table from now on; its generation.
    pub(super) fn discover(
        &self,
        dir: &SeenNode,
        name: Name<'_>,
        because: Because,
    ) -> Result<Option<(ResolvedName, u64)>> {
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
    pub(super) fn find(&self, dir: &SeenNode, name: Name<'_>) -> Result<Option<ResolvedName>> {
        loop {
            let since = self.table.raised();
            let Some(mut location) = self.claimed(dir, name)? else { return Ok(None) };
            if let Some(known) = self.table.known_number(location.found()) {
                location.found_mut().id = known;
            }
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
    pub(super) fn claimed(&self, dir: &SeenNode, name: Name<'_>) -> Result<Option<ResolvedName>> {
        if dir.found.stage == CopyStage::Upper {
            let fd = self.upper.dir(dir.place()?)?;
            match self.in_upper(dir, fd.as_fd(), name)? {
                Some(InUpper::Whiteout) => return Ok(None),
                Some(InUpper::Node(found, fd, stat)) => {
                    return Ok(Some(ResolvedName::Upper(found, fd, stat)));
                }
                None => {}
            }
        }
        Ok(self.dirs.in_lower(&dir.found, name)?.map(|node| {
            let found = NodeState {
                id: node.id,
                kind: node.stat.kind,
                stage: CopyStage::Lower,
                lower: Some(node.id),
                redirect: None,
                real: None,
            };
            ResolvedName::Lower(found, node)
        }))
    }

    /// What the upper has under a name; `fd` is the directory there.
    pub(super) fn in_upper(
        &self,
        dir: &SeenNode,
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
        dir: &NodeState,
        name: Name<'_>,
        (fd, names): (&OwnedFd, &XattrNames),
        stat: &Statx,
    ) -> Result<NodeState> {
        let kind = self.inodes.kind(fd, names, stat)?;
        if self.marks.has(names, Mark::Protattr) {
            self.met.note();
        }
        let own = upper_number(stat);
        let (stage, real) = (CopyStage::Upper, Some(stat.stx_ino));
        let mut found = NodeState { id: own, kind, stage, lower: None, redirect: None, real };
        if kind.is_dir() {
            if self.marks.get_of(fd, names, Mark::Opaque)?.is_some_and(|value| value == b"y") {
                return Ok(found);
            }
            found.redirect = self.redirect(dir, fd, names)?;
            let below = match &found.redirect {
                Some(path) => self.walk_lower(path)?,
                None => self.dirs.in_lower(dir, name)?,
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
                    None => self.dirs.in_lower(dir, name)?,
                };
                found.redirect = redirect;
                found.stage = CopyStage::Meta;
                // Where the lower has lost it, its content alone is gone.
                if let Some(below) = below.filter(|node| node.stat.kind == Kind::Regular) {
                    found.lower = Some(below.id);
                    found.id = below.id;
                }
                return Ok(found);
            }
        }
        // A metacopy that has come up meanwhile has an origin now.
        if !metacopy && !self.marks.has(names, Mark::StrataOrigin) {
            return Ok(found);
        }
        let Some(origin) = self.origins.read(fd)? else { return Ok(found) };
        let knows = |id| self.table.has_inode(id, stat.stx_ino);
        let Some(lower) = self.origins.kept_number(&origin, stat, (dir, name), knows)? else {
            return Ok(found);
        };
        found.id = lower;
        if origin.unsynced && self.upper.view && !self.is_whole(fd, lower)? {
            // The machine has crashed, and nobody has used the upper since.
            found.stage = CopyStage::Meta;
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
    fn redirect(
        &self,
        dir: &NodeState,
        fd: &OwnedFd,
        names: &XattrNames,
    ) -> Result<Option<TreePath>> {
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

    /// The node of a name, known to the table as long as `pins` live. `ENOENT`.
    pub(super) fn known(
        &self,
        dir: NodeId,
        name: Name<'_>,
        pins: &mut Pins<'_>,
    ) -> Result<NodeState> {
        let _steady = self.locks.steady();
        let seen = self.table.see_dir(dir)?;
        let found = self.discover(&seen, name, Because::Pinned)?;
        let (location, _) = found.ok_or(Error::Refused(Errno::NOENT))?;
        pins.keep(location.found().id);
        Ok(location.found().clone())
    }

    /// The number and type of a name that was listed in a directory; `None` if it is gone.
    pub(super) fn identity(
        &self,
        dir: NodeId,
        listed: &ListedName,
    ) -> Result<Option<(NodeId, Kind)>> {
        if let Some(node) = listed.below {
            return Ok(Some(node));
        }
        let _steady = self.locks.steady();
        let seen = self.table.see(dir)?;
        if seen.path.is_none() {
            return Ok(None);
        }
        let location = match self.find(&seen, listed.name.as_name()) {
            // The name is there, and so is listed.
            Err(Error::Refused(Errno::STALE)) => {
                let claimed = self.claimed(&seen, listed.name.as_name())?;
                return Ok(claimed.map(|it| (other_number(it.found()), it.found().kind)));
            }
            found => found?,
        };
        Ok(location.map(|location| (location.found().id, location.found().kind)))
    }

    /// Marks a merged directory or a metacopy with the lower path of what it shows.
    pub(super) fn point_below(&self, seen: &SeenNode, fd: &OwnedFd) -> Result<()> {
        let depends = seen.found.stage == CopyStage::Meta
            || seen.found.kind.is_dir() && seen.found.lower.is_some();
        if !depends {
            return Ok(());
        }
        let path = self.table.lower_path(seen.found.id);
        let path = path.ok_or_else(|| damaged("tell where a moved node has its lower"))?;
        let text = [b"/", path.as_bytes()].concat();
        self.marks.set(fd, Mark::Redirect, &text).map_err(|error| {
            let shown = seen.path.as_ref().map_or_else(String::new, |path| self.upper.shown(path));
            error.of(|| format!("cannot move or link {shown}"))
        })?;
        self.table.update(seen.found.id, |found| found.redirect = Some(path));
        Ok(())
    }
}
