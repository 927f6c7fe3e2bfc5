//! The calls of [`Lower`] on a directory.
//!
//! Invariants: the position after a name is the file system's own; a device is never opened.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, OFlags, readlinkat};
use rustix::io::Errno;

use super::disk::{Spot, device_of, stat_of};
use super::inode::{Answer, OverlayInode};
use super::known::DirFacts;
use super::options::OverrideStat;
use super::{OverlayDir, aufs};
use crate::dialect::Mark;
use crate::file_handle::{ByHandle, FileHandle};
use crate::lower::{ContentRef, Continues, DirEntry, Error, Lower, Result, Xattr};
use crate::name::{Name, TreePath};
use crate::node::{DirMarks, Entry, Kind, Node, NodeId, Presence};

/// What is read of a node.
fn node(id: NodeId, inode: &OverlayInode) -> Node {
    let opaque = inode.facts.is_some_and(|facts| facts.opaque);
    let marks = DirMarks { opaque, presence: Presence::Explicit };
    Node { id, stat: inode.stat, marks }
}

impl OverlayDir {
    /// The identity of the root's file system, as handles have it.
    fn file_system(&self) -> rustix::io::Result<u64> {
        Ok(rustix::fs::fstatvfs(self.dir(NodeId::ROOT).map_err(|_| Errno::IO)?.as_fd())?.f_fsid)
    }

    /// What is kept of a directory.
    fn dir_facts(&self, dir: NodeId) -> Result<DirFacts> {
        self.known_facts(dir)?.ok_or(Error::NotDirectory(dir))
    }

    fn known_facts(&self, node: NodeId) -> Result<Option<DirFacts>> {
        if node == NodeId::ROOT {
            return Ok(Some(self.root_facts));
        }
        self.known.facts(node).ok_or(Error::NoNode(node))
    }

    /// The entry for a name in the directory `dir`, open as `at`; `None` if nothing is there.
    fn entry(
        &self,
        dir: NodeId,
        at: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> rustix::io::Result<Option<Entry>> {
        let aufs = self.options.dialect.aufs;
        let mut inode = match self.inode(Spot::Named(at, name), None) {
            Ok(Some(inode)) => inode,
            Ok(None) => return Ok(Some(Entry::Whiteout)),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => {
                let hidden = aufs && aufs::has_whiteout(at, name)?;
                return Ok(hidden.then_some(Entry::Whiteout));
            }
            Err(errno) => return Err(errno),
        };
        if let Some(facts) = &mut inode.facts
            && aufs
            && !facts.opaque
        {
            facts.opaque = aufs::makes_opaque(at, name)?;
        }
        self.known.add(inode.id, dir, name, inode.facts);
        Ok(Some(Entry::Node(node(inode.id, &inode))))
    }

    /// A known node's inode.
    fn known_inode(&self, node: NodeId, spot: Spot<'_>) -> Result<OverlayInode> {
        let facts = self.known_facts(node)?;
        let inode =
            self.inode(spot, facts).map_err(|errno| self.failed_at("reading", node, errno))?;
        // What is a whiteout now was a node when its number was given.
        inode.ok_or(Error::NoNode(node))
    }
}

impl Lower for OverlayDir {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        self.dir_facts(dir)?;
        if self.options.dialect.aufs && aufs::is_own(name) {
            return Ok(None);
        }
        self.entry(dir, self.dir(dir)?.as_fd(), name).map_err(|errno| match self.path(dir) {
            Ok(path) => self.failed("reading", &path.join(name), errno),
            Err(error) => error,
        })
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.dir_facts(dir)?;
        let path = self.path(dir)?;
        let failed = |errno| self.failed("listing", &path, errno);
        let fd = self.reach(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Dir::read_from(&fd).map_err(failed)?;
        if from != 0 {
            names.seek(i64::from_ne_bytes(from.to_ne_bytes())).map_err(failed)?;
        }
        while let Some(item) = names.read() {
            let item = item.map_err(failed)?;
            let Ok(own) = Name::new(item.file_name().to_bytes()) else { continue };
            let next = u64::from_ne_bytes(item.offset().to_ne_bytes());
            let mut name = own;
            if self.options.dialect.aufs && aufs::is_own(own) {
                // A whiteout is listed under the name that it hides, unless this directory has that
                // name too.
                let Some(hidden) = aufs::hidden(own) else { continue };
                match Spot::Named(fd.as_fd(), hidden).stat() {
                    Err(Errno::NOENT) => name = hidden,
                    Ok(_) => continue,
                    Err(errno) => return Err(failed(errno)),
                }
            }
            let entry = self.entry(dir, fd.as_fd(), name);
            // Gone since: as if it had never been there.
            let Some(entry) = entry.map_err(failed)? else { continue };
            if next == 0 {
                return Err(Error::Corrupt {
                    tree: self.label.clone(),
                    what: format!("its file system gives no positions in {path}"),
                });
            }
            if each(DirEntry { name, entry, next }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        let at = self.at(node)?;
        Ok(self::node(node, &self.known_inode(node, at.spot())?))
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let failed = |errno| self.failed_at("reading", node, errno);
        let fd = self.at(node)?.open(OFlags::PATH).map_err(failed)?;
        if self.known_inode(node, Spot::Open(fd.as_fd()))?.stat.kind != Kind::Symlink {
            return Err(Error::NotSymlink(node));
        }
        match readlinkat(&fd, "", Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // A file that stands for one (`OverlayDir::state`).
            Err(Errno::INVAL | Errno::NOENT) => {
                let target = std::fs::read(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                target.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let at = self.at(node)?;
        let failed = |errno| self.failed_at("reading the attributes of", node, errno);
        let spot = at.spot();
        let names = spot.xattr_names().map_err(failed)?;
        let mut all = Vec::new();
        for name in names.iter() {
            if self.overrides && OverrideStat::is_name(name) {
                continue;
            }
            if let Some(shown) = self.options.dialect.shown(name)
                && let Some(value) = spot.xattr(name).map_err(failed)?
            {
                all.push((shown.into_owned(), value));
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// `layer` is 0; the path is the first under which the file was seen.
    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let at = self.at(node)?;
        let stat = self.known_inode(node, at.spot())?.stat;
        match stat.kind {
            Kind::Regular => {
                Ok(ContentRef { layer: 0, path: self.path(node)?, digest: None, size: stat.size })
            }
            kind => Err(Error::NotRegular { node, kind }),
        }
    }

    fn continues(&self, node: NodeId) -> Result<Continues> {
        let facts = self.known_facts(node)?;
        if node == NodeId::ROOT || facts.is_some_and(|facts| !facts.redirected) {
            return Ok(Continues::default());
        }
        let at = self.at(node)?;
        let doing = "following the marks of";
        let failed = |errno| self.failed_at(doing, node, errno);
        let path = self.path(node)?;
        let text = |what: &str| format!("{doing} {path} in the lower {}: {what}", self.label);
        match self.goes_on(at.spot(), facts.is_some()).map_err(failed)? {
            Answer::Goes(goes) => Ok(goes),
            Answer::Refused(Mark::Metacopy) => {
                Err(Error::io(text("its content is in a layer below: metacopy=on"), Errno::PERM))
            }
            Answer::Refused(_) => {
                Err(Error::io(text("it is redirected: redirect_dir=follow"), Errno::PERM))
            }
            Answer::Invalid(redirect) => Err(Error::io(
                text(&format!("redirected to \"{}\"", redirect.escape_ascii())),
                Errno::INVAL,
            )),
        }
    }

    fn inode(&self, node: NodeId) -> Result<Option<OwnedFd>> {
        let failed = |errno| self.failed_at("opening", node, errno);
        let fd = self.at(node)?.open(OFlags::PATH).map_err(failed)?;
        let kind = stat_of(&Spot::Open(fd.as_fd()).stat().map_err(failed)?).map_err(failed)?.kind;
        Ok(matches!(kind, Kind::Regular | Kind::Directory).then_some(fd))
    }

    fn file_handle(&self, node: NodeId) -> Result<Option<FileHandle>> {
        let failed = |errno| self.failed_at("asking for the handle of", node, errno);
        let fd = self.at(node)?.open(OFlags::PATH).map_err(failed)?;
        FileHandle::of(&fd).map_err(failed)
    }

    fn by_handle(&self, handle: &FileHandle) -> Result<ByHandle> {
        let failed = |errno| self.failed("opening by a handle", &TreePath::root(), errno);
        if self.file_system().map_err(failed)? != handle.fs {
            // Another file system may be mounted somewhere in the lower.
            return Ok(ByHandle::Unknown);
        }
        let near = self.reach(&TreePath::root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        match handle.open(&near) {
            Ok(fd) => {
                let stat = Spot::Open(fd.as_fd()).stat().map_err(failed)?;
                // Removed, and still open somewhere.
                if stat.stx_nlink == 0 {
                    return Ok(ByHandle::Gone);
                }
                Ok(ByHandle::Node(self.numbers.number(device_of(&stat), stat.stx_ino)))
            }
            Err(Errno::STALE) => Ok(ByHandle::Gone),
            // Without the capability, or on a file system that encodes and does not decode.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => Ok(ByHandle::Unknown),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        self.dir_facts(dir)?;
        if dir == NodeId::ROOT {
            return Ok(Some(dir));
        }
        Ok(Some(self.known.parent(dir).ok_or(Error::NoNode(dir))?))
    }
}
