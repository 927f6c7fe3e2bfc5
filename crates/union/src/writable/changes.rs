//! What an upper changes, as a layer: a [`Lower`] with whiteouts and marks, and as a list.
//!
//! A layer is what the upper holds: what was made or changed, and a whiteout for what was removed.
//! What was only copied up, all names of it, is no change. A directory that was moved counts as
//! made, with all that is in it, because no layer format knows moves; it is opaque if its new place
//! had a directory below.
//!
//! A union may write to the upper meanwhile. What is removed while the view is taken is not in it,
//! and is removed from the lower's tree as well; where that cannot be told, as after a move of a
//! directory that was still to be read, all of it is taken again. A file that shrinks or goes
//! later, when its bytes are read, is an error that says so.
//!
//! Invariants: applied to the lower, the layer gives the merged tree, and where that changes
//! meanwhile each name as it was at some moment; the view is taken once, and stays as it was even
//! if the upper changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use strata_content::{Content, Contents, FileTree};
use strata_tree::{
    ContentRef, DirEntry, DirMarks, Entry, Error as TreeError, Kind, Lower, Name, NameBuf, Node,
    NodeId, Presence, Stat, TreePath, Xattr,
};

use super::Union;
use super::base::Base;
use super::error::{Error, Result, damaged};
use super::files::OpenFile;
use super::readers::Readers;
use super::stats::stat;
use super::table::{CopyStage, SeenNode};
use super::types::{OpenHow, UnionOptions};
use super::upper::Upper;
use super::upper_contents::{AGAIN, UpperContents, is_gone, told};
use super::whiteouts::Whiteouts;

/// How often a view is taken, at most, of an upper whose directories move meanwhile.
const TRIES: u32 = 3;

/// Up to how many directories that are still to be read are held open.
const HELD: usize = 100;

/// How a path of the merged tree differs from the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathChange {
    /// The lower has no such path.
    Added,
    /// The lower has another node, or other metadata, there; or something below differs.
    Changed,
    /// Only the lower has it.
    Deleted,
}

/// The view. See the module.
pub struct Layer {
    union: Arc<Union>,
    parts: Arc<Base>,
    whiteouts: Whiteouts,
    dirs: HashMap<NodeId, Directory>,
    nodes: HashMap<NodeId, Node>,
    list: BTreeMap<TreePath, PathChange>,
    /// Paths that the lower has with the same metadata and content.
    same: BTreeMap<TreePath, Same>,
}

/// An entry of the upper that may be no change.
struct Same {
    dir: NodeId,
    name: NameBuf,
    id: NodeId,
}

#[derive(Default)]
struct Directory {
    parent: Option<NodeId>,
    names: BTreeMap<NameBuf, Entry>,
}

/// A directory that is being read.
struct PendingDir {
    id: NodeId,
    /// The directory that it was found in.
    parent: NodeId,
    path: TreePath,
    /// What the lower has at the same path.
    base: Option<Node>,
    /// That directory hides what the lower has in it.
    hidden: bool,
    /// It was moved here, or lies in one that was.
    moved: bool,
    /// Its inode, which tells later whether it was removed.
    held: Option<Arc<OwnedFd>>,
}

/// What was read of one directory.
#[derive(Default)]
struct ReadDir {
    names: BTreeMap<NameBuf, Entry>,
    list: Vec<(TreePath, PathChange)>,
    same: Vec<(TreePath, Same)>,
    /// The directories in it.
    dirs: Vec<PendingDir>,
}

/// Where a directory is once it was read.
enum Fate {
    Stays,
    Removed,
    /// Elsewhere, or it cannot be told.
    Moved,
}

/// An upper to be read only, also while a union writes to it.
pub struct UpperView {
    union: Arc<Union>,
    parts: Arc<Base>,
    options: UnionOptions,
}

impl UpperView {
    /// Puts `upper` on top of `lower`.
    ///
    /// # Errors
    /// `Unusable`, `Upper`, `Lower`.
    pub fn open(lower: FileTree, upper: &Path, options: UnionOptions) -> Result<Self> {
        let parts = Base::new(lower, Upper::view(upper)?, options, None)?;
        let union = Union::of(&parts, &Readers::new(&parts), options);
        Ok(Self { union: Arc::new(union), parts: Arc::new(parts), options })
    }

    /// What the upper changes.
    ///
    /// # Errors
    /// `Upper`, `Lower`; `Unusable` for an upper whose directories do not stop to move.
    pub fn changes(&self) -> Result<Layer> {
        let upper = self.parts.upper.path();
        let mut taken = self.take()?;
        for _ in 1..TRIES {
            if let Some(layer) = taken {
                return Ok(layer);
            }
            // By a view that knows nothing of where things were.
            taken = Self::open(self.parts.lower.clone(), upper, self.options)?.take()?;
        }
        taken.ok_or_else(|| Error::Unusable {
            path: upper.display().to_string(),
            why: format!("its directories were moved while they were read; {AGAIN}"),
        })
    }

    /// One view; `None` if what it would say was true at no moment.
    fn take(&self) -> Result<Option<Layer>> {
        let base = self.parts.lower.node(self.parts.lower.root())?;
        let mut layer = Layer {
            union: Arc::clone(&self.union),
            parts: Arc::clone(&self.parts),
            whiteouts: Whiteouts::new(&self.parts),
            dirs: HashMap::new(),
            nodes: HashMap::new(),
            list: BTreeMap::new(),
            same: BTreeMap::new(),
        };
        layer.record(NodeId::ROOT, false)?;
        let mut open = vec![PendingDir {
            id: NodeId::ROOT,
            parent: NodeId::ROOT,
            path: TreePath::root(),
            base: Some(base),
            hidden: false,
            moved: false,
            held: None,
        }];
        while let Some(place) = open.pop() {
            let read = match layer.directory(&place, open.len()) {
                Err(error) if !is_gone(&error) => return Err(error),
                read => read.ok().flatten(),
            };
            match (layer.fate(&place)?, read) {
                (Fate::Stays, Some(read)) => open.extend(layer.take_in(&place, read)),
                (Fate::Removed, _) => layer.leave_out(&place),
                (Fate::Stays, None) | (Fate::Moved, _) => return Ok(None),
            }
        }
        layer.leave_out_the_same();
        Ok(Some(layer))
    }
}

impl Layer {
    /// The bytes that the layer refers to.
    pub fn contents(&self) -> Arc<dyn Contents> {
        Arc::new(UpperContents::of(&self.parts))
    }

    /// Every path that differs, sorted; a directory is changed if anything in it is.
    pub fn list(&self) -> impl Iterator<Item = (&TreePath, PathChange)> {
        self.list.iter().map(|(path, change)| (path, *change))
    }

    /// The paths of regular files whose bytes are in the upper, at the same path.
    ///
    /// # Errors
    /// `Lower`.
    pub fn own_files(&self) -> Result<Vec<TreePath>> {
        let mut own = Vec::new();
        let mut open = vec![(NodeId::ROOT, TreePath::root())];
        while let Some((dir, path)) = open.pop() {
            let Some(dir) = self.dirs.get(&dir) else { continue };
            for (name, entry) in &dir.names {
                let Some(node) = entry.node() else { continue };
                let path = path.join(name.as_name());
                match node.stat.kind {
                    Kind::Directory => open.push((node.id, path)),
                    Kind::Regular if self.content(node.id)?.layer == 0 => own.push(path),
                    _ => {}
                }
            }
        }
        Ok(own)
    }

    /// Whether the root directory itself has another mode, owner or attribute than the lower's.
    /// Its time alone is none: every change of a name in it changes that.
    ///
    /// # Errors
    /// `Upper`, `Lower`.
    pub fn changes_root(&self) -> Result<bool> {
        let base = self.parts.lower.node(self.parts.lower.root())?;
        let facts = |stat: &Stat| (stat.perm, stat.uid, stat.gid);
        let now = self.nodes.get(&NodeId::ROOT).map(|node| facts(&node.stat));
        Ok(now != Some(facts(&base.stat))
            || self.union.xattrs(NodeId::ROOT)? != self.parts.lower.xattrs(base.id)?)
    }

    /// What the lower has at a name of a place, whatever the upper says.
    fn base_of(&self, place: &PendingDir, name: Name<'_>) -> Result<Option<Node>> {
        let Some(base) = place.base.filter(|base| base.stat.kind.is_dir()) else { return Ok(None) };
        Ok(self.parts.lower.lookup(base.id, name)?.and_then(|entry| entry.node().copied()))
    }

    fn record(&mut self, id: NodeId, opaque: bool) -> Result<()> {
        let mut stat = self.union.attr(id)?.stat;
        let marks = match stat.kind {
            Kind::Directory => DirMarks { opaque, presence: Presence::Explicit },
            _ => DirMarks::default(),
        };
        if !matches!(stat.kind, Kind::Regular | Kind::Symlink) {
            // What the upper's file system counts is not the tree's.
            stat.size = 0;
        }
        self.nodes.insert(id, Node { id, stat, marks });
        Ok(())
    }

    /// Reads a directory, while `pending` others are to be read; `None` if names in it changed so
    /// that what was read of them was true at no moment.
    fn directory(&mut self, place: &PendingDir, pending: usize) -> Result<Option<ReadDir>> {
        let union = Arc::clone(&self.union);
        let seen = self.parts.table.see_dir(place.id)?;
        // An opaque directory needs no whiteouts, but what it hides is gone all the same.
        let hidden = place.base.is_some_and(|base| seen.found.lower != Some(base.id));
        let mut read = ReadDir::default();
        let mut below = HashSet::new();
        for item in union.list(place.id)? {
            match self.entry(place, (&item.name, hidden), &mut read) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if is_gone(&error) || self.has_moved(&error, &seen, &item.name)? => {}
                Err(error) => return Err(error),
            }
            if item.below.is_some() {
                below.insert(item.name);
            }
        }
        let holds = HELD.saturating_sub(pending);
        for dir in read.dirs.iter_mut().rev().take(holds) {
            dir.held = self.parts.upper.dir(&dir.path).ok();
        }
        let whole = self.deleted(place, &seen, &below, &mut read)?;
        Ok(whole.then_some(read))
    }

    /// Takes note of a name that the upper has in a directory, if it is not the lower's alone.
    /// `false`: it is a directory that was read under another name.
    fn entry(
        &mut self,
        place: &PendingDir,
        (name, hidden): (&NameBuf, bool),
        read: &mut ReadDir,
    ) -> Result<bool> {
        let bytes = name.as_bytes();
        let Some(attr) = self.union.lookup(place.id, bytes)? else { return Ok(true) };
        let child = self.parts.table.see(attr.id)?;
        if !place.moved && child.found.stage == CopyStage::Lower {
            return Ok(true);
        }
        let base = self.base_of(place, name.as_name())?;
        let moved = place.moved || is_moved(&child, base);
        let covers = base.is_some_and(|base| base.stat.kind.is_dir());
        let is_dir = child.found.kind.is_dir();
        if is_dir && self.nodes.contains_key(&attr.id) {
            return Ok(false);
        }
        let opaque = is_dir && covers && (moved || child.found.lower.is_none());
        self.record(attr.id, opaque)?;
        let same = !moved && self.is_same(&child, base)?;
        let path = place.path.join(name.as_name());
        let change = if base.is_some() { PathChange::Changed } else { PathChange::Added };
        read.list.push((path.clone(), change));
        if same {
            let same = Same { dir: place.id, name: name.clone(), id: attr.id };
            read.same.push((path.clone(), same));
        }
        if is_dir {
            let (id, parent) = (attr.id, place.id);
            read.dirs.push(PendingDir { id, parent, path, base, hidden, moved, held: None });
        }
        read.names.insert(name.clone(), Entry::Node(self.nodes[&attr.id]));
        Ok(true)
    }

    /// Whether a name is refused because its directory had another place when that was read, and
    /// has left it.
    fn has_moved(&self, error: &Error, dir: &SeenNode, name: &NameBuf) -> Result<bool> {
        if !matches!(error, Error::Refused(Errno::STALE)) {
            return Ok(false);
        }
        let Some(claimed) = self.union.names.claimed(dir, name.as_name())? else {
            return Ok(true);
        };
        let known = self.parts.table.see(claimed.found().id)?;
        Ok(known.path.is_some_and(|path| self.parts.upper.node(&path).is_err_and(|e| is_gone(&e))))
    }

    /// What has become of a directory while it was read.
    fn fate(&self, place: &PendingDir) -> Result<Fate> {
        let real = self.parts.table.see(place.id)?.found.real;
        let (Some(real), false) = (real, place.path.is_root()) else { return Ok(Fate::Stays) };
        match self.parts.upper.node_to_read(&place.path).and_then(stat) {
            Ok(there) if there.stx_ino == real => return Ok(Fate::Stays),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        let held = place.held.as_ref().map(stat).transpose()?;
        let removed = held.is_some_and(|held| held.stx_ino == real && held.stx_nlink == 0);
        Ok(if removed { Fate::Removed } else { Fate::Moved })
    }

    /// Adds what was read of a directory; gives the directories in it.
    fn take_in(&mut self, place: &PendingDir, read: ReadDir) -> Vec<PendingDir> {
        self.dirs.insert(place.id, Directory { parent: Some(place.parent), names: read.names });
        self.list.extend(read.list);
        self.same.extend(read.same);
        read.dirs
    }

    /// Takes a directory out that was removed before it was read.
    fn leave_out(&mut self, place: &PendingDir) {
        self.list.remove(&place.path);
        self.same.remove(&place.path);
        self.nodes.remove(&place.id);
        if place.base.is_some() {
            self.list.insert(place.path.clone(), PathChange::Deleted);
        }
        let parent = self.dirs.get_mut(&place.parent);
        if let (Some(parent), Some((_, name))) = (parent, place.path.split_last()) {
            match place.base {
                Some(_) if !place.hidden => {
                    parent.names.insert(name.to_owned(), Entry::Whiteout);
                }
                Some(_) | None => {
                    parent.names.remove(&name.to_owned());
                }
            }
        }
    }

    /// Whether a node of the upper is what the lower has there: copied up, and not changed.
    fn is_same(&self, child: &SeenNode, base: Option<Node>) -> Result<bool> {
        let Some(base) = base.filter(|base| base.id == child.found.id) else { return Ok(false) };
        let union = Arc::clone(&self.union);
        let (now, before) = (self.nodes[&child.found.id].stat, base.stat);
        let facts = |stat: &Stat| (stat.kind, stat.perm, stat.uid, stat.gid, stat.mtime);
        let sized = !now.kind.is_dir();
        if facts(&now) != facts(&before)
            || sized && now.size != before.size
            || union.xattrs(child.found.id)? != self.parts.lower.xattrs(base.id)?
        {
            return Ok(false);
        }
        if now.kind != Kind::Regular || child.found.stage != CopyStage::Upper {
            return Ok(true);
        }
        let ours = union.open_file(child.found.id, OpenHow::default())?;
        same_bytes(&ours, &*self.parts.lower.open(base.id)?, now.size)
    }

    /// Takes out what is no change: files under all their names, then directories with nothing
    /// in them that is.
    fn leave_out_the_same(&mut self) {
        let mut names: HashMap<NodeId, u32> = HashMap::new();
        for same in self.same.values() {
            *names.entry(same.id).or_default() += 1;
        }
        // What is in a directory sorts after it.
        for (path, same) in std::mem::take(&mut self.same).into_iter().rev() {
            let stat = self.nodes[&same.id].stat;
            let unchanged = match stat.kind {
                Kind::Directory => {
                    let opaque = self.nodes[&same.id].marks.opaque;
                    !opaque && self.dirs.get(&same.id).is_none_or(|dir| dir.names.is_empty())
                }
                _ => names.get(&same.id) == Some(&stat.nlink),
            };
            if unchanged {
                self.list.remove(&path);
                if let Some(dir) = self.dirs.get_mut(&same.dir) {
                    dir.names.remove(&same.name);
                }
            }
        }
    }

    /// What only the lower has under this directory's path. `false`: the upper hid or had a name
    /// when it was listed, and what it has there now was not read. `below`: the names that were
    /// the lower's then.
    fn deleted(
        &mut self,
        place: &PendingDir,
        seen: &SeenNode,
        below: &HashSet<NameBuf>,
        read: &mut ReadDir,
    ) -> Result<bool> {
        let Some(base) = place.base.filter(|base| base.stat.kind.is_dir()) else { return Ok(true) };
        let hidden = seen.found.lower != Some(base.id);
        let mut gone = Vec::new();
        self.parts.lower.read_dir(base.id, 0, &mut |item: DirEntry<'_>| {
            if item.entry.node().is_some() {
                gone.push(item.name.to_owned());
            }
            ControlFlow::Continue(())
        })?;
        let dir = match (seen.found.stage, hidden) {
            (CopyStage::Upper, false) => Some(self.parts.upper.dir(seen.place()?)?),
            _ => None,
        };
        for name in gone {
            let path = place.path.join(name.as_name());
            if hidden {
                if !read.names.contains_key(&name) {
                    read.list.push((path, PathChange::Deleted));
                }
            } else if let Some(dir) = &dir {
                let known = read.names.get(&name).and_then(Entry::node);
                if known.is_some_and(|node| node.stat.kind.is_dir()) {
                    // What has become of it since is asked when it is read.
                } else if self.whiteouts.is_whiteout(dir, name.as_name())? == Some(true) {
                    if read.names.insert(name, Entry::Whiteout).is_some() {
                        read.same.retain(|(same, _)| *same != path);
                    }
                    read.list.push((path, PathChange::Deleted));
                } else if !read.names.contains_key(&name) && !below.contains(&name) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn known(&self, dir: NodeId) -> strata_tree::Result<&Directory> {
        match (self.dirs.get(&dir), self.nodes.contains_key(&dir)) {
            (Some(known), _) => Ok(known),
            (None, true) => Err(TreeError::NotDirectory(dir)),
            (None, false) => Err(TreeError::NoNode(dir)),
        }
    }
}

fn same_bytes(ours: &OpenFile, theirs: &dyn Content, size: u64) -> Result<bool> {
    const CHUNK: usize = 64 * 1024;
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < size {
        let len = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
        let read = ours.read(at, &mut a[..len])?;
        if !theirs.read_at(&mut b[..len], at).is_ok_and(|read| read == len) {
            return Err(damaged("compare a file with its lower, which is shorter than it says"));
        }
        // One that became shorter meanwhile is another.
        if read != len || a[..len] != b[..len] {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}

/// Whether a merged directory shows another directory of the lower than the one at its path.
fn is_moved(child: &SeenNode, base: Option<Node>) -> bool {
    child.found.kind.is_dir()
        && child.found.lower.is_some()
        && child.found.lower != base.map(|base| base.id)
}

impl Lower for Layer {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> strata_tree::Result<Option<Entry>> {
        Ok(self.known(dir)?.names.get(&name.to_owned()).cloned())
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> strata_tree::Result<()> {
        let names = self.known(dir)?.names.iter().enumerate();
        for (index, (name, entry)) in names.skip(usize::try_from(from).unwrap_or(usize::MAX)) {
            let next = index as u64 + 1;
            if each(DirEntry { name: name.as_name(), entry: entry.clone(), next }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> strata_tree::Result<Node> {
        self.nodes.get(&node).copied().ok_or(TreeError::NoNode(node))
    }

    fn read_link(&self, node: NodeId) -> strata_tree::Result<Vec<u8>> {
        match self.node(node)?.stat.kind {
            Kind::Symlink => self.union.read_link(node).map_err(told),
            _ => Err(TreeError::NotSymlink(node)),
        }
    }

    fn xattrs(&self, node: NodeId) -> strata_tree::Result<Vec<Xattr>> {
        self.node(node)?;
        self.union.xattrs(node).map_err(told)
    }

    /// Layer 0 is the upper; the layers of the lower follow, counted from 1.
    fn content(&self, node: NodeId) -> strata_tree::Result<ContentRef> {
        let stat = self.node(node)?.stat;
        let seen = self.parts.table.see(node).map_err(told)?;
        match (stat.kind, seen.found.stage, seen.found.lower, seen.path) {
            (Kind::Regular, CopyStage::Lower | CopyStage::Meta, Some(lower), _) => {
                let below = self.parts.lower.content(lower)?;
                Ok(ContentRef { layer: below.layer.saturating_add(1), ..below })
            }
            (Kind::Regular, _, _, Some(path)) => {
                Ok(ContentRef { layer: 0, path, digest: None, size: stat.size })
            }
            (kind, ..) => Err(TreeError::NotRegular { node, kind }),
        }
    }

    fn parent(&self, dir: NodeId) -> strata_tree::Result<Option<NodeId>> {
        Ok(self.known(dir)?.parent)
    }
}
