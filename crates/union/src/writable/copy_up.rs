//! Copy-up: a lower's node comes into the upper before it is changed.
//!
//! A copy is made whole in the work directory and then moved to its place, so that nobody ever
//! sees half of one. It is synced then, and what a crash makes of it before is mended (`unsynced`).
//!
//! When only metadata change, the content of a regular file stays below ("metacopy"); it follows
//! when the file is opened for writing. A file of several names comes up under all of them: the
//! work directory has one more link to it, called `links-<number>`, until all names are in place,
//! and `recover` completes what a crash cut off.
//!
//! Invariants: a directory is in the upper before anything in it is; the times of a directory do
//! not change because something in it was copied up; holes stay holes.

use std::collections::HashMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use strata_content::Content;
use strata_tree::{DirEntry, Entry, Kind, NameBuf, NodeId, TreePath};

use super::attrs::{Dress, set_times};
use super::copying::copy_content;
use super::error::{Doing, Result, damaged};
use super::names::{Location, stat};
use super::table::{Because, Seen, Stage, Table};
use super::types::SetTime;
use super::upper::{Temporary, by_descriptor};
use super::{Mark, Union};

/// Lower nodes of several names, with the paths of those among the lowers.
pub(super) type Links = HashMap<NodeId, Vec<TreePath>>;

/// When a copy's content is synced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Never,
    /// Before it takes its name.
    Now,
    /// After that; see `unsynced`.
    Late,
}

/// Nodes that stay known while this lives.
pub(super) struct Pins<'a> {
    table: &'a Table,
    nodes: Vec<NodeId>,
}

impl Pins<'_> {
    /// Takes over the pin of one more.
    pub(super) fn keep(&mut self, id: NodeId) {
        self.nodes.push(id);
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| self.table.unpin(*node));
    }
}

impl Union {
    /// How many bytes opening a node for writing would copy now.
    pub fn copy_up_bytes(&self, node: NodeId) -> u64 {
        let Ok(seen) = self.table.see(node) else { return 0 };
        match (seen.found.stage, seen.found.kind, seen.found.lower) {
            (Stage::Lower | Stage::Meta, Kind::Regular, Some(lower)) => {
                self.lower.node(lower).map_or(0, |node| node.stat.size)
            }
            _ => 0,
        }
    }

    /// How many bytes changing a node's metadata would copy now.
    pub fn mark_up_bytes(&self, node: NodeId) -> u64 {
        let removed = || self.table.see(node).is_ok_and(|seen| seen.path.is_none());
        if self.options.no_metacopy || removed() { self.copy_up_bytes(node) } else { 0 }
    }

    /// Brings a directory and all above it into the upper.
    pub(super) fn raise_dirs(&self, dir: NodeId) -> Result<()> {
        let mut chain = Vec::new();
        let mut here = dir;
        while self.table.see_dir(here)?.found.stage == Stage::Lower {
            chain.push(here);
            here = self.table.parent(here)?;
        }
        let mut chain = chain.into_iter().rev();
        chain.try_for_each(|dir| self.copy_up_one(dir, Stage::Upper, None).map(drop))
    }

    /// Brings a node into the upper, to `stage` at least, with the first `keep` bytes of its
    /// content (`None`: all). The inode, if this made it and nobody else keeps it open; with its
    /// content it is open for reading and writing.
    pub(super) fn copy_up(
        &self,
        id: NodeId,
        stage: Stage,
        keep: Option<u64>,
    ) -> Result<Option<File>> {
        let stage = match stage {
            Stage::Meta if self.options.no_metacopy => Stage::Upper,
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

    fn copy_up_one(&self, id: NodeId, stage: Stage, keep: Option<u64>) -> Result<Option<File>> {
        let _claim = self.claims.claim(&[id]);
        let seen = self.table.see(id)?;
        // A removed file has no place for a mark: it comes up whole.
        let stage = if seen.path.is_none() { Stage::Upper } else { stage };
        match seen.found.stage {
            now if now >= stage => Ok(None),
            Stage::Meta => self.fill(&seen, keep),
            Stage::Lower | Stage::Upper => self.copy_node(&seen, stage, keep),
        }
    }

    /// Gives a metacopy its content; its mark goes last.
    fn fill(&self, seen: &Seen, keep: Option<u64>) -> Result<Option<File>> {
        let Some(lower) = seen.found.lower else {
            return Err(damaged("fill a metacopy that has no lower"));
        };
        let inode = super::names::inode(self, seen)?;
        let path = by_descriptor(inode.as_fd());
        let file: File = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open a file to copy its content up".to_owned())?
            .into();
        let sync = self.sync_of(seen, self.lower.node(lower)?.stat.size, keep);
        self.refill(&file, || self.copy_synced(&*self.lower.open(lower)?, &file, keep, sync))?;
        let marked = self.mark_origin(&file, lower, sync);
        marked.map_err(|error| error.of(|| self.copied_to(seen)))?;
        self.marks.clear(&file, Mark::Metacopy)?;
        self.marks.clear(&file, Mark::Redirect)?;
        self.table.update(seen.found.id, |found| {
            found.stage = Stage::Upper;
            found.redirect = None;
        });
        self.rise(seen.found.id, file)
    }

    /// When the first `keep` of a lower's `size` bytes are put on disk as a node's content.
    fn sync_of(&self, seen: &Seen, size: u64, keep: Option<u64>) -> Sync {
        let bytes = keep.map_or(size, |keep| keep.min(size));
        // Who may not write a file cannot set its user attributes (xattr(7)), as this does late.
        let (root, apart) = (self.upper.ids.0 == 0, self.apart());
        let markable = root || apart || !self.options.user_marks;
        match seen.path {
            // Of a removed file a crash leaves nothing, of an empty one nothing less.
            None => Sync::Never,
            Some(_) if bytes == 0 => Sync::Never,
            // A copy of a part cannot be distinguished from one that a crash has cut off.
            Some(_) if bytes == size && self.upper.late && markable => Sync::Late,
            Some(_) => Sync::Now,
        }
    }

    /// Copies content into a file of the upper.
    fn copy_synced(
        &self,
        from: &dyn Content,
        to: &File,
        keep: Option<u64>,
        sync: Sync,
    ) -> Result<()> {
        if sync == Sync::Late {
            self.unsynced.announce(self.upper.work())?;
        }
        copy_content(from, to, keep)?;
        match sync {
            Sync::Now => self.upper.sync_file(to),
            Sync::Never | Sync::Late => Ok(()),
        }
    }

    /// Marks a file of the upper with the lower's node that it is a copy of.
    fn mark_origin(&self, file: &File, lower: NodeId, sync: Sync) -> Result<()> {
        let origin = self.origin_of(file, lower, sync == Sync::Late)?;
        self.marks.set(file, Mark::StrataOrigin, &origin.format())?;
        if origin.unsynced { self.unsynced.add(file, origin) } else { Ok(()) }
    }

    /// Openers of the node read the upper's file from now on. Without any it is given back.
    fn rise(&self, id: NodeId, file: File) -> Result<Option<File>> {
        let file = self.made_to_read(id, file)?;
        let Some(content) = self.table.open_content(id) else { return Ok(Some(file)) };
        content.rise(Arc::new(file), true);
        Ok(None)
    }

    fn copy_node(&self, seen: &Seen, stage: Stage, keep: Option<u64>) -> Result<Option<File>> {
        let id = seen.found.id;
        let Some(lower) = seen.found.lower else {
            return Err(damaged("copy up a node that has no lower"));
        };
        let node = self.lower.node(lower)?;
        let kind = node.stat.kind;
        let stage = if kind == Kind::Regular { stage } else { Stage::Upper };
        let (work, made) = (self.upper.work(), self.upper.temporary());
        let target = match kind {
            Kind::Symlink => self.lower.read_link(lower)?,
            _ => Vec::new(),
        };
        let perm = self.bits_of_new(kind, node.stat.perm);
        let sync = match (kind, stage) {
            (Kind::Regular, Stage::Upper) => self.sync_of(seen, node.stat.size, keep),
            _ => Sync::Never,
        };
        let result = self.make_inode(work, made.name(), kind, &target, perm).and_then(|fd| {
            let file = (kind == Kind::Regular).then_some(&fd);
            if let Some(file) = file {
                match stage {
                    Stage::Meta => {
                        rustix::fs::ftruncate(file, node.stat.size)
                            .doing(|| "set the size of a metacopy".to_owned())?;
                        self.marks.set(&fd, Mark::Metacopy, b"")?;
                    }
                    Stage::Lower | Stage::Upper => {
                        self.copy_synced(&*self.lower.open(lower)?, file, keep, sync)?;
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
            self.dress(&fd, &stated)?;
            self.copy_inode_flags(seen, &fd)?;
            if self.keeps_origin(kind, stage) {
                self.mark_origin(&fd, lower, sync)?;
            }
            let mtime = SetTime::To(node.stat.mtime);
            set_times(&fd, mtime, mtime)?;
            self.table.begins(id, stat(&fd)?.stx_ino);
            let several = node.stat.nlink > 1 && !kind.is_dir();
            self.place_copy(seen, lower, &made, &fd, several)?;
            Ok(fd)
        });
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                let _ = self.upper.discard(&made);
                return Err(error.of(|| self.copied_to(seen)));
            }
        };
        self.table.update(id, |found| found.stage = found.stage.max(stage));
        match (kind, stage) {
            (Kind::Regular, Stage::Upper) => self.rise(id, file),
            _ => Ok(Some(file)),
        }
    }

    /// Where a copy is to be, for messages.
    fn copied_to(&self, seen: &Seen) -> String {
        match &seen.path {
            Some(path) => format!("cannot copy up to {}", self.upper.shown(path)),
            None => "cannot copy up a removed file".to_owned(),
        }
    }

    /// `user.*` attributes exist on files and directories only (xattr(7)); with owners kept apart
    /// there is nothing else in the upper.
    fn keeps_origin(&self, kind: Kind, stage: Stage) -> bool {
        match kind {
            // Its place, or its redirect, says what its lower is.
            Kind::Directory => false,
            Kind::Regular => stage == Stage::Upper,
            _ => !self.options.user_marks || self.apart(),
        }
    }

    /// Moves a finished copy to all the names that its lower has.
    fn place_copy(
        &self,
        seen: &Seen,
        lower: NodeId,
        made: &Temporary,
        fd: &File,
        several: bool,
    ) -> Result<()> {
        let id = seen.found.id;
        let mut pins = self.pins();
        let names = if several { self.names_of((id, lower), &mut pins)? } else { Vec::new() };
        let steady = self.steady();
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
        let links = format!("links-{}", lower.0);
        if link {
            let flags = AtFlags::empty();
            rustix::fs::linkat(self.upper.work(), made.name(), self.upper.work(), &links, flags)
                .doing(|| "link a copy of several names".to_owned())?;
        }
        self.quietly(dir, |fd| self.upper.place(made, fd, name.as_name(), false))?;
        if link {
            self.link_all(lower, &links, &names)?;
        }
        Ok(())
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
            match self.find(&seen, name.as_name())? {
                Some(Location::Lower(found, _)) if found.lower == Some(lower) => {}
                _ => continue,
            }
            self.quietly(*dir, |fd| {
                rustix::fs::linkat(work, links, fd, name.as_bytes(), AtFlags::empty())
                    .doing(|| format!("link {:?}", name.as_name().as_os_str()))
            })?;
        }
        rustix::fs::unlinkat(work, links, AtFlags::empty()).doing(|| format!("remove {links}"))
    }

    /// Changes a directory of the upper without changing its times.
    fn quietly(
        &self,
        dir: NodeId,
        change: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let _touching = self.touching(&[dir]);
        let fd = self.upper.dir(self.table.see_dir(dir)?.place()?)?;
        let before = stat(&fd)?;
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
        let paths = self.links()?.get(&lower).cloned().unwrap_or_default();
        // Paths are turned into directories before any of these can move.
        let steady = self.steady();
        let mut names = Vec::new();
        for path in &paths {
            names.extend(self.know(path, id, pins)?);
        }
        if names.len() < paths.len() {
            // A directory on the way has moved, in this use of the upper or in an earlier one.
            names.clear();
            for path in self.search(id)? {
                names.extend(self.know(&path, id, pins)?);
            }
        }
        drop(steady);
        names.iter().try_for_each(|(dir, _)| self.raise_dirs(*dir))?;
        Ok(names)
    }

    /// The place that `path` says, if it is the node's; the directories on the way become known,
    /// and stay so. The caller keeps the tree steady.
    fn know(
        &self,
        path: &TreePath,
        id: NodeId,
        pins: &mut Pins<'_>,
    ) -> Result<Option<(NodeId, NameBuf)>> {
        let Some((above, name)) = path.split_last() else { return Ok(None) };
        let mut dir = self.table.see(NodeId::ROOT)?;
        for name in above.names() {
            let found = self.discover(&dir, name, Because::Pinned)?;
            let Some((location, _)) = found else { return Ok(None) };
            let found = location.found();
            pins.keep(found.id);
            if !found.kind.is_dir() {
                return Ok(None);
            }
            dir = self.table.see(found.id)?;
        }
        let location = self.find(&dir, name)?;
        let there = location.is_some_and(|location| location.found().id == id);
        Ok(there.then(|| (dir.found.id, name.to_owned())))
    }

    pub(super) fn pins(&self) -> Pins<'_> {
        Pins { table: &self.table, nodes: Vec::new() }
    }

    /// The paths of a node, by looking everywhere. The caller keeps the tree steady.
    fn search(&self, id: NodeId) -> Result<Vec<TreePath>> {
        let mut places = Vec::new();
        let mut stack = vec![self.table.see(NodeId::ROOT)?];
        while let Some(dir) = stack.pop() {
            let path = dir.place()?.clone();
            for item in self.merged(&dir)? {
                let here = path.join(item.name.as_name());
                let Some(location) = self.find(&dir, item.name.as_name())? else { continue };
                let found = location.found();
                if found.id == id {
                    places.push(here);
                } else if found.kind.is_dir() {
                    stack.push(Seen { found: found.clone(), path: Some(here), orphan: None });
                }
            }
        }
        Ok(places)
    }

    /// All nodes of several names among the lowers, found by one walk when first needed.
    pub(super) fn links(&self) -> Result<Arc<Links>> {
        let mut known = self.links.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(links) = &*known {
            return Ok(Arc::clone(links));
        }
        let mut links: Links = HashMap::new();
        let mut stack = vec![(self.lower.root(), TreePath::root())];
        while let Some((dir, path)) = stack.pop() {
            self.lower.read_dir(dir, 0, &mut |item: DirEntry<'_>| {
                if let Entry::Node(node) = &item.entry {
                    let here = path.join(item.name);
                    if node.stat.kind.is_dir() {
                        stack.push((node.id, here));
                    } else if node.stat.nlink > 1 {
                        links.entry(node.id).or_default().push(here);
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        let links = Arc::new(links);
        *known = Some(Arc::clone(&links));
        Ok(links)
    }
}
