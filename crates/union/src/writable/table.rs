//! The nodes that the kernel knows.
//!
//! A node is known from the first lookup until the kernel forgets it, nobody has it open and no
//! known node lies in it. It has the places where it is known to be (a directory one, the root
//! none), the lower node it comes from, and a [`CopyStage`]: how much of it is in the upper.
//!
//! Invariants: everything here is in memory, and its lock is never held over a system call; a
//! stage only ever rises; a node without a place is one that was removed and is still held; an
//! inode of the upper is one node, whose number it has as long as the node is known, whatever its
//! marks say.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::io::Errno;
use strata_tree::{Kind, NameBuf, NodeId, TreePath};

use super::error::{Error, Result};
use super::open_bytes::OpenBytes;

/// How much of a node is in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CopyStage {
    /// Nothing.
    Lower,
    /// Its metadata; the content of the regular file is the lower's (metacopy).
    Meta,
    /// All of it.
    Upper,
}

/// What is known of one node without asking the disk.
#[derive(Debug, Clone)]
pub(super) struct NodeState {
    pub(super) id: NodeId,
    pub(super) kind: Kind,
    pub(super) stage: CopyStage,
    /// The lower node that it shows or comes from.
    pub(super) lower: Option<NodeId>,
    /// Where that is among the lowers, if not at the same place.
    pub(super) redirect: Option<TreePath>,
    /// The number of its inode in the upper: where it is one, or from the moment on when a copy of
    /// it is made.
    pub(super) real: Option<u64>,
}

/// What the table says of the number that a node was found under.
pub(super) enum Number {
    /// It is this node's, or free.
    Free,
    /// Another inode has it.
    Taken,
    /// Something was copied up since the disk was looked at, perhaps this.
    Again,
}

/// A node as an operation sees it.
#[derive(Debug, Clone)]
pub(super) struct SeenNode {
    pub(super) found: NodeState,
    /// Where it is in the merged tree, and so in the upper; `None` if it was removed.
    pub(super) path: Option<TreePath>,
    /// Its file, if it was removed while it was open.
    pub(super) orphan: Option<Arc<File>>,
}

impl SeenNode {
    /// Its path. `ENOENT` if it was removed.
    pub(super) fn place(&self) -> Result<&TreePath> {
        self.path.as_ref().ok_or(Error::Refused(Errno::NOENT))
    }
}

struct Known {
    found: NodeState,
    generation: u64,
    places: Vec<(NodeId, NameBuf)>,
    lookups: u64,
    /// Known nodes that lie in it, and operations under way.
    pins: u64,
    content: Weak<OpenBytes>,
    orphan: Option<Arc<File>>,
    /// How many directories are in it, once that was counted.
    subdirectories: Option<u32>,
    /// A copy of it is getting its names, one after the other: its stage is the lower's to the end.
    rising: bool,
}

/// The nodes that are known.
struct KnownNodes {
    all: HashMap<NodeId, Known>,
    /// The number of the node that an inode of the upper is, but for directories, which have one
    /// name. `None` in a view: others remove inodes there unheard of, and use their numbers again.
    of_inode: Option<HashMap<u64, NodeId>>,
}

impl KnownNodes {
    /// The number of the node that is known to be this inode.
    fn of_inode(&self, real: Option<u64>) -> Option<NodeId> {
        let id = *self.of_inode.as_ref()?.get(&real?)?;
        self.all.get(&id).is_some_and(|known| known.found.real == real).then_some(id)
    }

    /// A node that was an inode, or none, is another one now, or none.
    fn becomes_inode(&mut self, id: NodeId, was: Option<u64>, now: Option<u64>) {
        let Some(of_inode) = self.of_inode.as_mut().filter(|_| was != now) else { return };
        if let Some(was) = was
            && of_inode.get(&was) == Some(&id)
        {
            of_inode.remove(&was);
        }
        if let Some(now) = now {
            of_inode.insert(now, id);
        }
    }
}

/// All nodes that the kernel knows. See the module.
pub(super) struct NodeTable {
    nodes: Mutex<KnownNodes>,
    /// How often anything was copied up; see [`NodeTable::found`].
    raised: AtomicU64,
    /// How often a directory has moved.
    moves: AtomicU64,
}

/// Why a node becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// The kernel has looked it up.
    LookedUp,
    /// Somebody works on it, and unpins it.
    Pinned,
}

/// Nodes that stay known while this lives.
pub(super) struct Pins<'a> {
    table: &'a NodeTable,
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

type Nodes<'a> = MutexGuard<'a, KnownNodes>;

impl NodeTable {
    /// A table that knows the root. `view`: of an upper that others change.
    pub(super) fn new(root: NodeState, view: bool) -> Self {
        let known = Known {
            found: root,
            generation: 0,
            places: Vec::new(),
            lookups: 1,
            pins: 1,
            content: Weak::new(),
            orphan: None,
            subdirectories: None,
            rising: false,
        };
        let all = HashMap::from([(NodeId::ROOT, known)]);
        let nodes = Mutex::new(KnownNodes { all, of_inode: (!view).then(HashMap::new) });
        Self { nodes, raised: AtomicU64::new(0), moves: AtomicU64::new(0) }
    }

    /// Pins of nodes, none yet.
    pub(super) fn pins(&self) -> Pins<'_> {
        Pins { table: self, nodes: Vec::new() }
    }

    fn lock(&self) -> Nodes<'_> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node as it is now. `ESTALE` for a number that nobody was given.
    pub(super) fn see(&self, id: NodeId) -> Result<SeenNode> {
        let nodes = self.lock();
        let known = nodes.all.get(&id).ok_or(Error::Refused(Errno::STALE))?;
        let orphan = known.orphan.clone();
        Ok(SeenNode { found: known.found.clone(), path: path(&nodes.all, id), orphan })
    }

    /// A directory that still exists. `ENOTDIR`, `ENOENT`.
    pub(super) fn see_dir(&self, id: NodeId) -> Result<SeenNode> {
        let seen = self.see(id)?;
        match (seen.found.kind, &seen.path) {
            (Kind::Directory, Some(_)) => Ok(seen),
            (Kind::Directory, None) => Err(Error::Refused(Errno::NOENT)),
            _ => Err(Error::Refused(Errno::NOTDIR)),
        }
    }

    /// The number of its generation.
    pub(super) fn generation(&self, id: NodeId) -> u64 {
        self.lock().all.get(&id).map_or(0, |known| known.generation)
    }

    /// How often anything was copied up so far.
    pub(super) fn raised(&self) -> u64 {
        self.raised.load(Ordering::Acquire)
    }

    /// How often a directory has moved so far.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// The number of the node that an inode of the upper is, where that is known: more than its
    /// marks say, which not every inode can have.
    pub(super) fn known_number(&self, found: &NodeState) -> Option<NodeId> {
        self.lock().of_inode(found.real)
    }

    /// Whether `found` can have the number that it says, on a disk where `since` copy-ups had been
    /// done. Two inodes of the upper are two nodes, and a node that is in the upper is not one that
    /// shows the lower's, whatever marks and numbers say.
    pub(super) fn number_of(&self, found: &NodeState, since: u64) -> Number {
        self.judge(&self.lock(), found, since)
    }

    fn judge(&self, nodes: &Nodes<'_>, found: &NodeState, since: u64) -> Number {
        let Some(known) = nodes.all.get(&found.id).map(|known| &known.found) else {
            return Number::Free;
        };
        let taken = match (known.real, found.real) {
            (Some(known), Some(found)) => known != found,
            (None, Some(_)) => true,
            // A copy that is under way has its number already.
            (Some(_), None) => known.stage > CopyStage::Lower,
            (None, None) => false,
        };
        match taken {
            true if self.raised() != since => Number::Again,
            true => Number::Taken,
            false => Number::Free,
        }
    }

    /// Whether the node of that number is this inode of the upper.
    pub(super) fn has_inode(&self, id: NodeId, real: u64) -> bool {
        self.lock().all.get(&id).is_some_and(|known| known.found.real == Some(real))
    }

    /// A copy of a node is being made: this inode.
    pub(super) fn begins(&self, id: NodeId, real: u64) {
        let mut nodes = self.lock();
        let Some(known) = nodes.all.get_mut(&id) else { return };
        known.rising = true;
        let was = known.found.real.replace(real);
        if !known.found.kind.is_dir() {
            nodes.becomes_inode(id, was, Some(real));
        }
    }

    /// Whether a copy of a node is being made and has some of its names, perhaps.
    pub(super) fn rises(&self, id: NodeId) -> bool {
        self.lock().all.get(&id).is_some_and(|known| known.rising)
    }

    /// That copy has come to nothing.
    pub(super) fn gives_up(&self, id: NodeId) {
        let mut nodes = self.lock();
        let Some(known) = nodes.all.get_mut(&id) else { return };
        known.rising = false;
        let was = known.found.real.take();
        nodes.becomes_inode(id, was, None);
    }

    /// Takes note of a node that was found as `name` in `dir` on a disk where `since` copy-ups had
    /// been done; gives its generation. `None`: it was found below, nothing was known of it, and
    /// something was copied up since, perhaps this; look again.
    pub(super) fn found(
        &self,
        dir: NodeId,
        name: &NameBuf,
        found: &NodeState,
        because: Because,
        since: u64,
    ) -> Option<u64> {
        let mut nodes = self.lock();
        let late = found.stage < CopyStage::Upper && self.raised() != since;
        if late && !nodes.all.contains_key(&found.id) {
            return None;
        }
        // It may have become known since, or somebody else have taken the number.
        if nodes.of_inode(found.real).is_some_and(|id| id != found.id)
            || !matches!(self.judge(&nodes, found, since), Number::Free)
        {
            return None;
        }
        Some(note(&mut nodes, dir, name, found, because, false))
    }

    /// The same for a node that is in the upper; `fresh`: it was made just now, so whatever had
    /// its number is gone.
    pub(super) fn made(&self, dir: NodeId, name: &NameBuf, found: &NodeState, fresh: bool) -> u64 {
        note(&mut self.lock(), dir, name, found, Because::LookedUp, fresh)
    }
    /// `name` in `dir` no longer is this node. `file`: what keeps it, if somebody may still ask.
    pub(super) fn lost(&self, id: NodeId, dir: NodeId, name: &NameBuf, file: Option<File>) {
        let mut nodes = self.lock();
        let Some(known) = nodes.all.get_mut(&id) else { return };
        let before = known.places.len();
        known.places.retain(|(parent, known)| !(*parent == dir && known == name));
        let gone = before != known.places.len();
        if known.places.is_empty() && known.orphan.is_none() {
            known.orphan = file.map(Arc::new);
        }
        if gone {
            unpin(&mut nodes, dir);
        }
        drop_if_unused(&mut nodes, id);
    }

    /// A node has moved.
    pub(super) fn moved(&self, id: NodeId, from: (NodeId, &NameBuf), to: (NodeId, &NameBuf)) {
        let mut nodes = self.lock();
        let Some(known) = nodes.all.get_mut(&id) else { return };
        let Some(place) = known.places.iter_mut().find(|(dir, name)| (*dir, name) == from) else {
            return;
        };
        *place = (to.0, to.1.clone());
        if known.found.kind.is_dir() {
            self.moves.fetch_add(1, Ordering::Release);
        }
        if let Some(parent) = nodes.all.get_mut(&to.0) {
            parent.pins += 1;
        }
        unpin(&mut nodes, from.0);
    }

    /// Two nodes have taken each other's place.
    pub(super) fn exchanged(
        &self,
        a: NodeId,
        at: (NodeId, &NameBuf),
        b: NodeId,
        bt: (NodeId, &NameBuf),
    ) {
        let mut nodes = self.lock();
        for (id, from, to) in [(a, at, bt), (b, bt, at)] {
            let known = nodes.all.get_mut(&id);
            if known.as_ref().is_some_and(|known| known.found.kind.is_dir()) {
                self.moves.fetch_add(1, Ordering::Release);
            }
            let mut places = known.map(|known| &mut known.places).into_iter().flatten();
            if let Some(place) = places.find(|(dir, name)| (*dir, name) == from) {
                *place = (to.0, to.1.clone());
                if let Some(parent) = nodes.all.get_mut(&to.0) {
                    parent.pins += 1;
                }
                unpin(&mut nodes, from.0);
            }
        }
    }

    /// More of a node is in the upper than before, or its lower is elsewhere.
    pub(super) fn update(&self, id: NodeId, change: impl FnOnce(&mut NodeState)) {
        let mut nodes = self.lock();
        self.raised.fetch_add(1, Ordering::Release);
        if let Some(known) = nodes.all.get_mut(&id) {
            change(&mut known.found);
            known.rising = false;
        }
    }

    /// A removed node was copied up into a file without a name.
    pub(super) fn set_orphan(&self, id: NodeId, file: Arc<File>) {
        if let Some(known) = self.lock().all.get_mut(&id) {
            known.orphan = Some(file);
            known.found.stage = CopyStage::Upper;
            known.rising = false;
        }
    }

    /// The directory that holds a directory; the root's is itself.
    pub(super) fn parent(&self, dir: NodeId) -> Result<NodeId> {
        let nodes = self.lock();
        let known = nodes.all.get(&dir).ok_or(Error::Refused(Errno::STALE))?;
        Ok(known.places.first().map_or(dir, |(parent, _)| *parent))
    }

    /// Every place of a node: the path and the directory with the name.
    pub(super) fn places(&self, id: NodeId) -> Vec<(NodeId, NameBuf)> {
        self.lock().all.get(&id).map(|known| known.places.clone()).unwrap_or_default()
    }

    /// Where the lower of `dir` is among the lowers.
    pub(super) fn lower_path(&self, id: NodeId) -> Option<TreePath> {
        let nodes = self.lock();
        let mut names = Vec::new();
        let mut here = id;
        let mut path = loop {
            let known = nodes.all.get(&here)?;
            known.found.lower?;
            if let Some(redirect) = &known.found.redirect {
                break redirect.clone();
            }
            if here == NodeId::ROOT {
                break TreePath::root();
            }
            let (dir, name) = known.places.first()?;
            names.push(name.clone());
            here = *dir;
        };
        names.iter().rev().for_each(|name| path.push(name.as_name()));
        Some(path)
    }

    /// The content that all openers of a node share: theirs, or else `fresh`.
    pub(super) fn content(&self, id: NodeId, fresh: Arc<OpenBytes>) -> Arc<OpenBytes> {
        let mut nodes = self.lock();
        let Some(known) = nodes.all.get_mut(&id) else { return fresh };
        known.content.upgrade().unwrap_or_else(|| {
            known.content = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// That content, if anybody has it open.
    pub(super) fn open_content(&self, id: NodeId) -> Option<Arc<OpenBytes>> {
        self.lock().all.get(&id)?.content.upgrade()
    }

    /// How many directories are in a directory, if that was counted.
    pub(super) fn subdirectories(&self, dir: NodeId) -> Option<u32> {
        self.lock().all.get(&dir)?.subdirectories
    }

    /// Takes note of that count.
    pub(super) fn set_subdirectories(&self, dir: NodeId, count: u32) {
        if let Some(known) = self.lock().all.get_mut(&dir) {
            known.subdirectories = Some(count);
        }
    }

    /// A directory has been made in (`1`) or removed from (`-1`) a directory.
    pub(super) fn count_directory(&self, dir: NodeId, change: i32) {
        if let Some(known) = self.lock().all.get_mut(&dir) {
            known.subdirectories =
                known.subdirectories.and_then(|count| count.checked_add_signed(change));
        }
    }

    /// Keeps a node known.
    pub(super) fn pin(&self, id: NodeId) {
        if let Some(known) = self.lock().all.get_mut(&id) {
            known.pins += 1;
        }
    }

    /// Ends [`NodeTable::pin`].
    pub(super) fn unpin(&self, id: NodeId) {
        unpin(&mut self.lock(), id);
    }

    /// The kernel has dropped that many lookups.
    pub(super) fn forget(&self, id: NodeId, lookups: u64) {
        let mut nodes = self.lock();
        if let Some(known) = nodes.all.get_mut(&id) {
            known.lookups = known.lookups.saturating_sub(lookups);
        }
        drop_if_unused(&mut nodes, id);
    }

    /// How many nodes are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }
}

/// Writes down what was found.
fn note(
    nodes: &mut Nodes<'_>,
    dir: NodeId,
    name: &NameBuf,
    found: &NodeState,
    because: Because,
    fresh: bool,
) -> u64 {
    let place = (dir, name.clone());
    let was = nodes.all.get(&found.id).and_then(|known| known.found.real).filter(|_| !fresh);
    let known = nodes.all.entry(found.id).or_insert_with(|| Known {
        found: found.clone(),
        generation: 0,
        places: Vec::new(),
        lookups: 0,
        pins: 0,
        content: Weak::new(),
        orphan: None,
        subdirectories: None,
        rising: false,
    });
    let lookups = u64::from(because == Because::LookedUp);
    known.lookups += lookups;
    known.pins += u64::from(because == Because::Pinned);
    let mut left = Vec::new();
    if fresh
        && known.found.stage == CopyStage::Upper
        && known.places.is_empty()
        && known.lookups > lookups
    {
        // The upper's file system has given the number to another inode.
        known.generation += 1;
        known.found = found.clone();
        known.orphan = None;
        known.content = Weak::new();
    }
    // A name that a copy has got already says the same as one that it has not got yet.
    if known.found.stage <= found.stage && !known.rising {
        let real = found.real.or(known.found.real);
        known.found = NodeState { real, ..found.clone() };
    }
    if found.kind.is_dir() && !known.places.contains(&place) {
        left = std::mem::take(&mut known.places);
    }
    let new = !known.places.contains(&place);
    if new {
        known.places.push(place);
    }
    let (generation, now) = (known.generation, known.found.real);
    if !found.kind.is_dir() {
        nodes.becomes_inode(found.id, was, now);
    }
    if new && let Some(parent) = nodes.all.get_mut(&dir) {
        parent.pins += 1;
    }
    for (dir, _) in left {
        unpin(nodes, dir);
    }
    generation
}

fn path(nodes: &HashMap<NodeId, Known>, id: NodeId) -> Option<TreePath> {
    let mut names = Vec::new();
    let mut here = id;
    while here != NodeId::ROOT {
        let (dir, name) = nodes.get(&here)?.places.first()?;
        names.push(name);
        here = *dir;
    }
    let mut path = TreePath::root();
    names.iter().rev().for_each(|name| path.push(name.as_name()));
    Some(path)
}

fn unpin(nodes: &mut Nodes<'_>, id: NodeId) {
    if let Some(known) = nodes.all.get_mut(&id) {
        known.pins = known.pins.saturating_sub(1);
    }
    drop_if_unused(nodes, id);
}

/// Forgets a node that nothing needs, and the directories that only it needed.
fn drop_if_unused(nodes: &mut Nodes<'_>, id: NodeId) {
    let mut queue = vec![id];
    while let Some(id) = queue.pop() {
        let unused = nodes.all.get(&id).is_some_and(|known| {
            known.lookups == 0 && known.pins == 0 && known.content.strong_count() == 0
        });
        if !unused || id == NodeId::ROOT {
            continue;
        }
        let Some(known) = nodes.all.remove(&id) else { continue };
        nodes.becomes_inode(id, known.found.real, None);
        for (dir, _) in known.places {
            if let Some(parent) = nodes.all.get_mut(&dir) {
                parent.pins = parent.pins.saturating_sub(1);
                queue.push(dir);
            }
        }
    }
}
