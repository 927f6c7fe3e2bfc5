//! Copy-up: a lower's node comes into the upper before it is changed.
//!
//! A copy is made whole in the work directory and then moved to its place, so that nobody ever sees
//! half of one. Then it is synced; `unsynced` repairs what a crash before that leaves.
//!
//! When only metadata change, the content of a regular file stays below ("metacopy"); it follows
//! when the file is opened for writing. A file of several names comes up under all of them: the
//! work directory has one more link to it, called `links-<number>`, until all names are in place,
//! and `recover` completes what a crash cut off.
//!
//! Invariants: a directory is in the upper before anything in it is; the times of a directory do
//! not change because something in it was copied up; holes stay holes; a copy-up that fails leaves
//! what was there: a file of several names has none of them in the upper.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{FlagsForm, Kind, NameBuf, NodeId};

use super::base::Base;
use super::copying::copy_content;
use super::descriptor::by_descriptor;
use super::error::{Doing, Result, damaged};
use super::inode_attrs::{refill, set_times};
use super::inode_maker::{Dress, InodeMaker};
use super::inodes::{UpperInodes, without_content};
use super::links::LinkFinder;
use super::locks::NodeLocks;
use super::marks::{Mark, Marks};
use super::names::{NameResolver, ResolvedName};
use super::origin::Origins;
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::stats::{stat, stat_named};
use super::table::{CopyStage, NodeState, NodeTable, Pins, SeenNode};
use super::types::SetTime;
use super::unsynced::Unsynced;
use super::upper::{Temporary, Upper};

/// From how many bytes on a copy takes longer than a request may hold others up.
const LONG: u64 = 1024 * 1024;

/// The work directory's link to the copy of a lower's node, while that gets its names.
fn links_of(lower: NodeId) -> String {
    format!("links-{}", lower.0)
}

/// When a copy's content is synced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Never,
    /// Before it takes its name.
    Now,
    /// After that; see `unsynced`.
    Late,
}

/// Brings nodes of the lower into the upper.
pub(super) struct CopyUp {
    lower: FileTree,
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    unsynced: Arc<Unsynced>,
    inodes: Arc<UpperInodes>,
    origins: Arc<Origins>,
    names: Arc<NameResolver>,
    protected: Arc<ProtectedNodes>,
    maker: InodeMaker,
    links: Arc<LinkFinder>,
    no_metacopy: bool,
}

impl CopyUp {
    pub(super) fn new(
        base: &Base,
        read: &Readers,
        links: &Arc<LinkFinder>,
        no_metacopy: bool,
    ) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            unsynced: Arc::clone(&base.unsynced),
            inodes: Arc::clone(&read.inodes),
            origins: Arc::clone(&read.origins),
            names: Arc::clone(&read.names),
            protected: Arc::clone(&read.protected),
            maker: InodeMaker::new(base.marks),
            links: Arc::clone(links),
            no_metacopy,
        }
    }

    /// How many bytes opening a node for writing would copy now.
    pub(super) fn copy_up_bytes(&self, node: NodeId) -> u64 {
        let Ok(seen) = self.table.see(node) else { return 0 };
        match (seen.found.stage, seen.found.kind, seen.found.lower) {
            (CopyStage::Lower | CopyStage::Meta, Kind::Regular, Some(lower)) => {
                self.lower.node(lower).map_or(0, |node| node.stat.size)
            }
            _ => 0,
        }
    }

    /// How many bytes changing a node's metadata would copy now.
    pub(super) fn mark_up_bytes(&self, node: NodeId) -> u64 {
        let removed = || self.table.see(node).is_ok_and(|seen| seen.path.is_none());
        if self.no_metacopy || removed() { self.copy_up_bytes(node) } else { 0 }
    }

    /// Whether a change of a node would wait for a long copy that is under way.
    pub(super) fn waits_for_copy(&self, node: NodeId) -> bool {
        self.locks.claimed_long().contains(&node)
    }

    /// The same for a change of a name; the kernel has looked it up, so it is known.
    pub(super) fn name_waits_for_copy(&self, dir: NodeId, name: &[u8]) -> bool {
        let is = |(parent, known): &(NodeId, NameBuf)| *parent == dir && known.as_bytes() == name;
        self.locks.claimed_long().iter().any(|node| self.table.places(*node).iter().any(is))
    }

    /// Brings a directory and all above it into the upper.
    pub(super) fn raise_dirs(&self, dir: NodeId) -> Result<()> {
        let mut chain = Vec::new();
        let mut here = dir;
        while self.table.see_dir(here)?.found.stage == CopyStage::Lower {
            chain.push(here);
            here = self.table.parent(here)?;
        }
        let mut chain = chain.into_iter().rev();
        chain.try_for_each(|dir| self.copy_up_one(dir, CopyStage::Upper, None).map(drop))
    }

    /// Brings a node into the upper, to `stage` at least, with the first `keep` bytes of its
    /// content (`None`: all). The inode, if this made it and nobody else keeps it open; with its
    /// content it is open for reading and writing.
    pub(super) fn copy_up(
        &self,
        id: NodeId,
        stage: CopyStage,
        keep: Option<u64>,
    ) -> Result<Option<File>> {
        let stage = match stage {
            CopyStage::Meta if self.no_metacopy => CopyStage::Upper,
            stage => stage,
        };
        if self.table.see(id)?.found.stage >= stage {
            return Ok(None);
        }
        for (dir, _) in self.table.places(id) {
            self.raise_dirs(dir)?;
        }
        self.copy_up_one(id, stage, keep)
    }

    fn copy_up_one(&self, id: NodeId, stage: CopyStage, keep: Option<u64>) -> Result<Option<File>> {
        let mut claim = self.locks.claim(&[id]);
        let seen = self.table.see(id)?;
        // A removed file has no place for a mark: it comes up whole.
        let stage = if seen.path.is_none() { CopyStage::Upper } else { stage };
        if stage == CopyStage::Upper && keep.unwrap_or(LONG).min(self.copy_up_bytes(id)) >= LONG {
            claim.takes_long();
        }
        match seen.found.stage {
            now if now >= stage => Ok(None),
            CopyStage::Meta => self.fill(id, keep),
            CopyStage::Lower | CopyStage::Upper => self.copy_node(&seen, stage, keep),
        }
    }

    /// The inode of a node that is claimed, open for reading and writing. A directory above may
    /// move until this has it, and another file may then be at the node's old path.
    fn open_to_fill(&self, id: NodeId) -> Result<(SeenNode, File)> {
        let _steady = self.locks.steady();
        let seen = self.table.see(id)?;
        let inode = self.inodes.open(&seen)?;
        let path = by_descriptor(inode.as_fd());
        let file = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open a file to copy its content up".to_owned())?;
        Ok((seen, file.into()))
    }

    /// Gives a metacopy, which is claimed, its content; its mark goes last.
    fn fill(&self, id: NodeId, keep: Option<u64>) -> Result<Option<File>> {
        let (seen, file) = self.open_to_fill(id)?;
        let Some(lower) = seen.found.lower else {
            return Err(without_content());
        };
        let sync = self.sync_of(&seen, self.lower.node(lower)?.stat.size, keep);
        let size = stat(&file)?.stx_size;
        let filled = refill(&file, || self.copy_synced(lower, &file, keep, sync))
            .and_then(|()| self.mark_origin(&file, lower, sync))
            .and_then(|()| self.marks.clear(&file, Mark::Metacopy));
        if let Err(error) = filled {
            // It still is a metacopy, and shows its own size.
            let _ = refill(&file, || {
                rustix::fs::ftruncate(&file, size).doing(|| "keep a size".to_owned())
            });
            return Err(error.of(|| self.copied_to(&seen)));
        }
        self.marks.clear(&file, Mark::Redirect)?;
        self.table.update(id, |found| {
            found.stage = CopyStage::Upper;
            found.redirect = None;
        });
        self.rise(id, file)
    }

    /// When the first `keep` of a lower's `size` bytes are put on disk as a node's content.
    fn sync_of(&self, seen: &SeenNode, size: u64, keep: Option<u64>) -> Sync {
        let bytes = keep.map_or(size, |keep| keep.min(size));
        // A user who may not write a file cannot set its user attributes (xattr(7)), which this
        // sets late.
        let (root, apart) = (self.upper.ids.0 == 0, self.marks.is_apart());
        let markable = root || apart || !self.marks.is_user();
        match seen.path {
            // A crash leaves nothing of a removed file, and nothing less of an empty one.
            None => Sync::Never,
            Some(_) if bytes == 0 => Sync::Never,
            // A copy of a part cannot be distinguished from one that a crash has cut off.
            Some(_) if bytes == size && self.upper.late && markable => Sync::Late,
            Some(_) => Sync::Now,
        }
    }

    /// Copies a lower's content into a file of the upper.
    fn copy_synced(&self, lower: NodeId, to: &File, keep: Option<u64>, sync: Sync) -> Result<()> {
        if sync == Sync::Late {
            self.unsynced.announce(self.upper.work())?;
        }
        match keep {
            // What is replaced whole may be damaged below.
            Some(0) => rustix::fs::ftruncate(to, 0).doing(|| "empty a file".to_owned())?,
            keep => copy_content(&*self.lower.open(lower)?, to, keep)?,
        }
        match sync {
            Sync::Now => self.upper.sync_file(to),
            Sync::Never | Sync::Late => Ok(()),
        }
    }

    /// Marks a file of the upper with the lower's node that it is a copy of. One whose attributes
    /// leave no room for the mark goes without, as kinds do that can have none.
    fn mark_origin(&self, file: &File, lower: NodeId, sync: Sync) -> Result<()> {
        let origin = self.origins.of(file, lower, sync == Sync::Late)?;
        match self.marks.set(file, Mark::StrataOrigin, &origin.format()) {
            Ok(()) if origin.unsynced => self.unsynced.add(file, origin),
            // Nothing would tell that it is still to be synced.
            Err(error) if error.is_full() && origin.unsynced => self.upper.sync_file(file),
            Err(error) if error.is_full() => Ok(()),
            done => done,
        }
    }

    /// Openers of the node read the upper's file from now on. If there are none, the file is given
    /// back.
    fn rise(&self, id: NodeId, file: File) -> Result<Option<File>> {
        let file = self.inodes.made_to_read(id, file)?;
        let Some(content) = self.table.open_content(id) else { return Ok(Some(file)) };
        content.rise(Arc::new(file), true);
        Ok(None)
    }

    fn copy_node(
        &self,
        seen: &SeenNode,
        stage: CopyStage,
        keep: Option<u64>,
    ) -> Result<Option<File>> {
        let id = seen.found.id;
        let Some(lower) = seen.found.lower else {
            return Err(damaged("copy up a node that has no lower"));
        };
        let node = self.lower.node(lower)?;
        let kind = node.stat.kind;
        let stage = if kind == Kind::Regular { stage } else { CopyStage::Upper };
        let several = node.stat.nlink > 1 && !kind.is_dir();
        // Of another union that uses the directories, too, it may be under way.
        if several && !self.upper.is_shared() {
            self.take_back((id, lower))?;
        }
        let (work, made) = (self.upper.work(), self.upper.temporary());
        let target = match kind {
            Kind::Symlink => self.lower.read_link(lower)?,
            _ => Vec::new(),
        };
        let perm = self.maker.bits_of_new(kind, node.stat.perm);
        let sync = match (kind, stage) {
            (Kind::Regular, CopyStage::Upper) => self.sync_of(seen, node.stat.size, keep),
            _ => Sync::Never,
        };
        let result = self.maker.make_inode(work, made.name(), kind, &target, perm).and_then(|fd| {
            let file = (kind == Kind::Regular).then_some(&fd);
            if let Some(file) = file {
                match stage {
                    CopyStage::Meta => {
                        rustix::fs::ftruncate(file, node.stat.size)
                            .doing(|| "set the size of a metacopy".to_owned())?;
                        self.marks.set(&fd, Mark::Metacopy, b"")?;
                    }
                    CopyStage::Lower | CopyStage::Upper => {
                        self.copy_synced(lower, file, keep, sync)?;
                    }
                }
            }
            let stated = Dress {
                kind,
                uid: node.stat.uid,
                gid: node.stat.gid,
                perm: node.stat.perm,
                xattrs: &self.lower.xattrs(lower)?,
            };
            self.maker.dress(&fd, &stated)?;
            self.copy_inode_flags(seen, &fd)?;
            if self.keeps_origin(kind, stage) {
                self.mark_origin(&fd, lower, sync)?;
            }
            let mtime = SetTime::To(node.stat.mtime);
            set_times(&fd, mtime, mtime)?;
            self.table.begins(id, stat(&fd)?.stx_ino);
            self.place_copy(seen, lower, &made, &fd, several)?;
            Ok(fd)
        });
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                if several {
                    // While it had some names, they were not the lower's.
                    self.links.look_again();
                }
                if !several || !self.is_left(lower) {
                    self.table.gives_up(id);
                }
                let _ = self.upper.discard(&made);
                return Err(error.of(|| self.copied_to(seen)));
            }
        };
        self.table.update(id, |found| found.stage = found.stage.max(stage));
        match (kind, stage) {
            (Kind::Regular, CopyStage::Upper) => self.rise(id, file),
            _ => Ok(Some(file)),
        }
    }

    /// Where a copy is to be, for messages.
    fn copied_to(&self, seen: &SeenNode) -> String {
        match &seen.path {
            Some(path) => format!("cannot copy up to {}", self.upper.shown(path)),
            None => "cannot copy up a removed file".to_owned(),
        }
    }

    /// `user.*` attributes exist on files and directories only (xattr(7)); with owners kept apart
    /// there is nothing else in the upper.
    fn keeps_origin(&self, kind: Kind, stage: CopyStage) -> bool {
        match kind {
            // Its place, or its redirect, says what its lower is.
            Kind::Directory => false,
            Kind::Regular => stage == CopyStage::Upper,
            _ => !self.marks.is_user() || self.marks.is_apart(),
        }
    }

    /// Moves a finished copy to all the names that its lower has.
    fn place_copy(
        &self,
        seen: &SeenNode,
        lower: NodeId,
        made: &Temporary,
        fd: &File,
        several: bool,
    ) -> Result<()> {
        let id = seen.found.id;
        let mut pins = self.table.pins();
        let mut names = if several { self.names_of((id, lower), &mut pins)? } else { Vec::new() };
        let steady = self.locks.steady();
        let Some((dir, name)) = self.table.places(id).into_iter().next() else {
            // Removed, but still open: a file without a name.
            drop(steady);
            let file: File = match seen.found.kind {
                Kind::Regular => {
                    let flags = OFlags::RDWR | OFlags::CLOEXEC;
                    rustix::fs::open(by_descriptor(fd.as_fd()), flags, Mode::empty())
                        .doing(|| "open a removed file".to_owned())?
                        .into()
                }
                _ => fd.try_clone().doing(|| "duplicate a descriptor".to_owned())?,
            };
            self.upper.discard(made)?;
            self.table.set_orphan(id, Arc::new(file));
            return Ok(());
        };
        let link = names.iter().any(|other| *other != (dir, name.clone()));
        let links = links_of(lower);
        if link {
            let flags = AtFlags::empty();
            rustix::fs::linkat(self.upper.work(), made.name(), self.upper.work(), &links, flags)
                .doing(|| "link a copy of several names".to_owned())?;
        }
        let placed = self.quietly(dir, |fd| self.upper.place(made, fd, name.as_name(), false));
        if !link {
            return placed;
        }
        placed.and_then(|()| self.link_all(lower, &links, &names)).inspect_err(|_| {
            // Under some names alone it would be two files. What cannot be taken back now is taken
            // back by the next try, or completed by the next use of the upper, as after a crash.
            names.push((dir, name));
            let _ = stat(fd).and_then(|copy| self.unlink_all(copy.stx_ino, &links, &names));
        })
    }

    /// Whether a copy of several names has failed, and still has some of them.
    fn is_left(&self, lower: NodeId) -> bool {
        let links = links_of(lower);
        rustix::fs::statat(self.upper.work(), &links, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Takes back what is left of such a copy, before another is made. One that somebody may have
    /// used since, under the names that it has, stays for the next use of the upper to complete.
    fn take_back(&self, (id, lower): (NodeId, NodeId)) -> Result<()> {
        let links = links_of(lower);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let left = match rustix::fs::statat(self.upper.work(), &links, flags) {
            Err(Errno::NOENT) => return Ok(()),
            left => left.doing(|| format!("stat {links}"))?,
        };
        let unused = self.table.rises(id) && self.table.has_inode(id, left.st_ino);
        let mut pins = self.table.pins();
        let mut names = match (left.st_nlink, unused) {
            (1, _) => Vec::new(),
            (_, true) => self.names_of((id, lower), &mut pins)?,
            (_, false) => return Ok(()),
        };
        let _steady = self.locks.steady();
        names.extend(self.table.places(id));
        self.unlink_all(left.st_ino, &links, &names)
    }

    /// Takes a copy its names away, but for those that are no more its own. One that stays keeps
    /// no other, and the link in the work directory.
    fn unlink_all(&self, number: u64, links: &str, names: &[(NodeId, NameBuf)]) -> Result<()> {
        let unlink = |(dir, name): &(NodeId, NameBuf)| {
            let ours = |fd: BorrowedFd<'_>| {
                stat_named(fd, name.as_name()).map(|it| it.is_some_and(|it| it.stx_ino == number))
            };
            if !ours(self.upper.dir(self.table.see_dir(*dir)?.place()?)?.as_fd())? {
                return Ok(());
            }
            self.quietly(*dir, |fd| match ours(fd)? {
                true => rustix::fs::unlinkat(fd, name.as_bytes(), AtFlags::empty())
                    .doing(|| format!("remove {:?}", name.as_name().as_os_str())),
                false => Ok(()),
            })
        };
        names.iter().map(unlink).fold(Ok(()), Result::and)?;
        rustix::fs::unlinkat(self.upper.work(), links, AtFlags::empty())
            .doing(|| format!("remove {links}"))
    }

    /// Gives a copy those of its names that still are the lower's.
    pub(super) fn link_all(
        &self,
        lower: NodeId,
        links: &str,
        names: &[(NodeId, NameBuf)],
    ) -> Result<()> {
        let work = self.upper.work();
        for (dir, name) in names {
            let seen = self.table.see_dir(*dir)?;
            match self.names.find(&seen, name.as_name())? {
                Some(ResolvedName::Lower(found, _)) if found.lower == Some(lower) => {}
                _ => continue,
            }
            self.quietly(*dir, |fd| {
                rustix::fs::linkat(work, links, fd, name.as_bytes(), AtFlags::empty())
                    .doing(|| format!("link {:?}", name.as_name().as_os_str()))
            })?;
        }
        rustix::fs::unlinkat(work, links, AtFlags::empty()).doing(|| format!("remove {links}"))
    }

    /// Changes a directory of the upper without changing its times. One whose times cannot be set
    /// (`chattr +a`) is refused before, as what was changed in it could not be taken back.
    fn quietly(
        &self,
        dir: NodeId,
        change: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let _touching = self.locks.touching(&[dir]);
        let fd = self.upper.dir(self.table.see_dir(dir)?.place()?)?;
        let before = stat(&fd)?;
        set_times(&fd, SetTime::stat(before.stx_atime), SetTime::stat(before.stx_mtime))?;
        change(fd.as_fd())?;
        set_times(&fd, SetTime::stat(before.stx_atime), SetTime::stat(before.stx_mtime))
    }

    /// Where a lower node of several names is in the merged tree: its names, and their
    /// directories, which are in the upper from now on. The node is given by its number here and
    /// in the lower.
    pub(super) fn names_of(
        &self,
        (id, lower): (NodeId, NodeId),
        pins: &mut Pins<'_>,
    ) -> Result<Vec<(NodeId, NameBuf)>> {
        let names = self.links.names((id, lower), pins)?;
        names.iter().try_for_each(|(dir, _)| self.raise_dirs(*dir))?;
        Ok(names)
    }

    /// Before a lower file of several names loses one.
    pub(super) fn keep_links(&self, found: &NodeState) -> Result<()> {
        match (found.stage, found.lower) {
            (CopyStage::Lower, Some(lower)) if self.lower.node(lower)?.stat.nlink > 1 => {
                self.copy_up(found.id, CopyStage::Meta, None).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Gives a copy in the work directory the flags of its lower that a copy-up takes along.
    pub(super) fn copy_inode_flags(&self, seen: &SeenNode, copy: &File) -> Result<()> {
        let Some(fd) = self.inodes.lower_inode(seen)? else { return Ok(()) };
        let flags = match FlagsForm::Plain.of(fd) {
            Ok(flags) => flags,
            Err(Errno::NOTTY | Errno::ACCESS | Errno::PERM) => return Ok(()),
            Err(errno) => return Err(errno).doing(|| "read the flags of a lower".to_owned()),
        };
        if flags.protection().any() {
            self.protected.protect(copy, flags.protection())?;
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
}
