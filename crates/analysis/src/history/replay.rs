//! [`Replay`]: the layers applied one after the other, the base first, and what each does to each
//! name.
//!
//! This is the merge of `strata_union::Stack` seen from below: a stack says what a name is in the
//! end, this says which layer made it so. For each layer, first its links into lower layers are
//! followed, in the tree as it was; then each of its directories is applied to the merged one:
//!
//! ```text
//! the layer says            the name was: nothing    a directory          anything else
//! whiteout                  -                        removed with all     removed
//!                                                    that is below
//! directory                 added                    changed              changed (type)
//!   implied                 added, unstated          as it was            changed (type)
//!   phantom                 -                        as it was            -
//!   opaque                  -                        what it holds, and this layer has not,
//!                                                    is removed
//! anything else             added                    changed (type), all  changed
//!                                                    below is removed
//! ```
//!
//! Below an opaque directory nothing of the lower ones shows, so there an implied directory takes
//! no metadata from below and a phantom does not exist.
//!
//! Invariants: nothing recurses; a name is reported at most once for each layer, where a removal
//! and an addition are one change; the work is one step for each row of each layer and one for each
//! name that it removes.

use std::collections::{BTreeMap, HashMap};

use strata_diff::rows::{EntryRow, RowKind};
use strata_layer::Result;
use strata_tree::{NodeId, Presence, TreePath};

use super::chain::{Chain, LayerNode, Shown};
use super::facts::ChangedFacts;

/// Why a name is hidden in the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HiddenBy {
    /// A whiteout of the name, or of a directory above it.
    Whiteout,
    /// A directory above it is opaque.
    Opaque,
    /// A directory above it became something else.
    Replaced,
}

/// What a layer does to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameChange {
    /// There was nothing.
    Added(Shown),
    /// There was something. No facts: the layer has the same again.
    Changed {
        /// What it was.
        was: Shown,
        /// What it is.
        now: Shown,
        /// What differs.
        facts: ChangedFacts,
    },
    /// There is nothing any more.
    Removed {
        /// What it was.
        was: Shown,
        /// What hides it.
        by: HiddenBy,
        /// How many bytes of the path name what was whited out, opaque or replaced.
        at: usize,
    },
}

/// What one layer does to one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameEvent<'e> {
    /// The layer's position in the image, counted from the base.
    pub layer: usize,
    /// The name's path, as in [`TreePath::as_bytes`].
    pub path: &'e [u8],
    /// What happens to it.
    pub what: NameChange,
}

impl NameEvent<'_> {
    /// The path, owned.
    pub fn tree_path(&self) -> TreePath {
        // The path of an event is made of names.
        TreePath::clamped(self.path).unwrap_or_default()
    }
}

/// One name of the merged tree.
#[derive(Debug, Clone, Copy)]
enum Child {
    Dir(usize),
    Leaf(LayerNode),
}

#[derive(Debug, Default)]
struct Dir<'a> {
    from: Option<LayerNode>,
    children: BTreeMap<&'a [u8], Child>,
}

/// A merged tree: what every name shows.
pub struct Merged<'a> {
    dirs: Vec<Dir<'a>>,
}

impl<'a> Merged<'a> {
    /// What a path shows, no link followed; `None` for nothing.
    pub fn find(&self, path: &TreePath) -> Option<Shown> {
        let mut here = Child::Dir(0);
        for name in path.names() {
            match here {
                Child::Dir(dir) => here = *self.dirs[dir].children.get(name.as_bytes())?,
                Child::Leaf(_) => return None,
            }
        }
        Some(self.shown(here))
    }

    fn shown(&self, child: Child) -> Shown {
        match child {
            Child::Dir(dir) => Shown::Dir(self.dirs[dir].from),
            Child::Leaf(leaf) => Shown::Leaf(leaf),
        }
    }

    /// Calls `each` for every path below `top` and for `top`, parents before children, sorted.
    pub fn walk(&self, top: &TreePath, each: &mut dyn FnMut(&[u8], Shown)) {
        let mut here = Child::Dir(0);
        for name in top.names() {
            let Child::Dir(dir) = here else { return };
            match self.dirs[dir].children.get(name.as_bytes()) {
                Some(child) => here = *child,
                None => return,
            }
        }
        let mut path = top.as_bytes().to_vec();
        each(&path, self.shown(here));
        let open = |child| match child {
            Child::Dir(dir) => Some(self.dirs[dir].children.iter()),
            Child::Leaf(_) => None,
        };
        let mut todo: Vec<_> = open(here).map(|names| (names, path.len())).into_iter().collect();
        while let Some((names, length)) = todo.last_mut() {
            path.truncate(*length);
            let Some((name, child)) = names.next() else {
                todo.pop();
                continue;
            };
            push(&mut path, name);
            each(&path, self.shown(*child));
            todo.extend(open(*child).map(|names| (names, path.len())));
        }
    }
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// A directory of the layer that is being put on the merged one.
struct Frame<'a> {
    rows: &'a [EntryRow],
    first: u64,
    next: usize,
    dir: usize,
    /// The length of the directory's path.
    length: usize,
    /// The length of the path of the opaque directory that hides what the lower ones hold here.
    cut: Option<usize>,
}

/// Where links into lower layers lead, by the number of their row.
type Links = HashMap<NodeId, LayerNode>;

/// What one layer's walk needs everywhere.
struct Walk<'w> {
    layer: usize,
    links: Links,
    path: Vec<u8>,
    each: &'w mut dyn FnMut(&NameEvent<'_>),
}

impl Walk<'_> {
    fn tell(&mut self, what: NameChange) {
        (self.each)(&NameEvent { layer: self.layer, path: &self.path, what });
    }
}

/// See the module.
pub(super) struct Replay<'a> {
    chain: &'a Chain<'a>,
    dirs: Vec<Dir<'a>>,
}

impl<'a> Replay<'a> {
    /// The tree of no layers: an empty root.
    pub(super) fn new(chain: &'a Chain<'_>) -> Result<Self> {
        Ok(Self { chain, dirs: vec![Dir::default()] })
    }

    pub(super) fn finish(self) -> Merged<'a> {
        Merged { dirs: self.dirs }
    }

    /// Puts the next layer on top.
    pub(super) fn apply(
        &mut self,
        layer: usize,
        each: &mut dyn FnMut(&NameEvent<'_>),
    ) -> Result<()> {
        let tree = self.chain.layer(layer)?;
        let links = self.follow_links(tree.rows());
        let mut walk = Walk { layer, links, path: Vec::new(), each };
        let root = LayerNode { layer, node: NodeId::ROOT };
        let RowKind::Directory { marks, .. } = tree.row(NodeId::ROOT)?.kind else {
            return Err(strata_tree::Error::NotDirectory(NodeId::ROOT).into());
        };
        let explicit = marks.presence == Presence::Explicit;
        let now = Shown::Dir(if explicit { Some(root) } else { self.dirs[0].from });
        let was = Shown::Dir(std::mem::replace(&mut self.dirs[0].from, now.from()));
        if layer == 0 {
            walk.tell(NameChange::Added(now));
        } else if explicit {
            walk.tell(NameChange::Changed { was, now, facts: self.chain.between(was, now)? });
        }
        let cut = marks.opaque.then_some(0);
        let mut frames = vec![self.meet(&mut walk, NodeId::ROOT, 0, cut)?];
        while let Some(frame) = frames.last_mut() {
            walk.path.truncate(frame.length);
            let Some(row) = frame.rows.get(frame.next) else {
                frames.pop();
                continue;
            };
            let at = LayerNode { layer, node: NodeId(frame.first + frame.next as u64) };
            frame.next += 1;
            push(&mut walk.path, &row.name);
            let (dir, cut) = (frame.dir, frame.cut);
            if let Some(below) = self.row(&mut walk, row, at, dir, cut)? {
                frames.push(below);
            }
        }
        Ok(())
    }

    /// Where the links into lower layers lead, in the tree as the layers below make it. One that
    /// leads nowhere is left out: no name of the merged image is such a link (it would have been
    /// refused), so a later layer hides it.
    fn follow_links(&self, rows: &[EntryRow]) -> Links {
        let mut links = Links::new();
        for (node, row) in (1..).map(NodeId).zip(rows) {
            let RowKind::LowerLink(target) = &row.kind else { continue };
            let mut here = Some(Child::Dir(0));
            for name in target.names() {
                here = match here {
                    Some(Child::Dir(dir)) => self.dirs[dir].children.get(name.as_bytes()).copied(),
                    Some(Child::Leaf(_)) | None => None,
                };
            }
            if let Some(Child::Leaf(leaf)) = here {
                links.insert(node, leaf);
            }
        }
        links
    }

    /// The directory `node` of the layer meets the merged directory `dir`, which is at the
    /// walk's path.
    fn meet(
        &mut self,
        walk: &mut Walk<'_>,
        node: NodeId,
        dir: usize,
        cut: Option<usize>,
    ) -> Result<Frame<'a>> {
        let (first, rows) = self.chain.layer(walk.layer)?.children(node)?;
        let length = walk.path.len();
        if let Some(at) = cut {
            let has = |name: &[u8]| rows.binary_search_by(|row| row.name[..].cmp(name)).is_ok();
            let names = self.dirs[dir].children.keys();
            let hidden: Vec<&[u8]> = names.filter(|name| !has(name)).copied().collect();
            for name in hidden {
                push(&mut walk.path, name);
                self.remove(walk, dir, name, HiddenBy::Opaque, at);
                walk.path.truncate(length);
            }
        }
        Ok(Frame { rows, first, next: 0, dir, length, cut })
    }

    /// One name of the layer; a directory is to be met next.
    fn row(
        &mut self,
        walk: &mut Walk<'_>,
        row: &'a EntryRow,
        at: LayerNode,
        dir: usize,
        cut: Option<usize>,
    ) -> Result<Option<Frame<'a>>> {
        let own = walk.path.len();
        let leaf = match &row.kind {
            RowKind::Whiteout => {
                self.remove(walk, dir, &row.name, HiddenBy::Whiteout, own);
                return Ok(None);
            }
            RowKind::LowerLink(_) => match walk.links.get(&at.node) {
                Some(leaf) => *leaf,
                None => {
                    self.remove(walk, dir, &row.name, HiddenBy::Replaced, own);
                    return Ok(None);
                }
            },
            RowKind::HardLink(target) => LayerNode { node: *target, ..at },
            RowKind::Directory { marks, .. } => {
                let known = self.dirs[dir].children.get(&row.name[..]).copied();
                let below = match (marks.presence, known, cut) {
                    (Presence::Phantom, Some(_), Some(cut)) => {
                        self.remove(walk, dir, &row.name, HiddenBy::Opaque, cut);
                        return Ok(None);
                    }
                    (Presence::Phantom, Some(Child::Dir(known)), None) => known,
                    (Presence::Phantom, Some(Child::Leaf(_)) | None, _) => return Ok(None),
                    (presence @ (Presence::Explicit | Presence::Implied), ..) => {
                        let from = (presence == Presence::Explicit).then_some(at);
                        self.put_dir(walk, dir, &row.name, from, cut.is_some())?
                    }
                };
                let cut = if marks.opaque { Some(own) } else { cut };
                return self.meet(walk, at.node, below, cut).map(Some);
            }
            RowKind::Regular(_)
            | RowKind::Symlink(_)
            | RowKind::CharDevice(_)
            | RowKind::BlockDevice(_)
            | RowKind::Fifo => at,
        };
        self.put_leaf(walk, dir, &row.name, leaf)?;
        Ok(None)
    }

    fn put_leaf(
        &mut self,
        walk: &mut Walk<'_>,
        dir: usize,
        name: &'a [u8],
        leaf: LayerNode,
    ) -> Result<()> {
        let now = Shown::Leaf(leaf);
        match self.dirs[dir].children.insert(name, Child::Leaf(leaf)) {
            None => walk.tell(NameChange::Added(now)),
            Some(Child::Leaf(old)) => {
                let was = Shown::Leaf(old);
                walk.tell(NameChange::Changed { was, now, facts: self.chain.between(was, now)? });
            }
            Some(Child::Dir(old)) => {
                let was = Shown::Dir(self.dirs[old].from);
                walk.tell(NameChange::Changed { was, now, facts: self.chain.between(was, now)? });
                self.empty(walk, old, HiddenBy::Replaced, walk.path.len());
            }
        }
        Ok(())
    }

    /// A directory that `from` describes; if no node does, it keeps what it has from below, unless
    /// that is hidden. Gives its number.
    fn put_dir(
        &mut self,
        walk: &mut Walk<'_>,
        dir: usize,
        name: &'a [u8],
        from: Option<LayerNode>,
        hidden: bool,
    ) -> Result<usize> {
        let known = self.dirs[dir].children.get(name).copied();
        if let Some(Child::Dir(known)) = known {
            if from.is_some() || hidden {
                let now = Shown::Dir(from);
                let was = Shown::Dir(std::mem::replace(&mut self.dirs[known].from, from));
                let facts = self.chain.between(was, now)?;
                if from.is_some() || !facts.is_empty() {
                    walk.tell(NameChange::Changed { was, now, facts });
                }
            }
            return Ok(known);
        }
        let made = self.dirs.len();
        self.dirs.push(Dir { from, children: BTreeMap::new() });
        self.dirs[dir].children.insert(name, Child::Dir(made));
        let now = Shown::Dir(from);
        match known {
            Some(Child::Leaf(old)) => {
                let was = Shown::Leaf(old);
                walk.tell(NameChange::Changed { was, now, facts: self.chain.between(was, now)? });
            }
            Some(Child::Dir(_)) | None => walk.tell(NameChange::Added(now)),
        }
        Ok(made)
    }

    /// Removes the name at the walk's path with all that is below it.
    fn remove(&mut self, walk: &mut Walk<'_>, dir: usize, name: &[u8], by: HiddenBy, at: usize) {
        match self.dirs[dir].children.remove(name) {
            None => {}
            Some(Child::Leaf(leaf)) => {
                walk.tell(NameChange::Removed { was: Shown::Leaf(leaf), by, at });
            }
            Some(Child::Dir(gone)) => {
                walk.tell(NameChange::Removed { was: Shown::Dir(self.dirs[gone].from), by, at });
                self.empty(walk, gone, by, at);
            }
        }
    }

    /// Removes all that is below a directory at the walk's path.
    fn empty(&mut self, walk: &mut Walk<'_>, dir: usize, by: HiddenBy, at: usize) {
        let top = walk.path.len();
        let names = std::mem::take(&mut self.dirs[dir].children).into_iter();
        let mut todo = vec![(names, top)];
        while let Some((names, length)) = todo.last_mut() {
            walk.path.truncate(*length);
            let Some((name, child)) = names.next() else {
                todo.pop();
                continue;
            };
            push(&mut walk.path, name);
            match child {
                Child::Leaf(leaf) => {
                    walk.tell(NameChange::Removed { was: Shown::Leaf(leaf), by, at })
                }
                Child::Dir(gone) => {
                    walk.tell(NameChange::Removed {
                        was: Shown::Dir(self.dirs[gone].from),
                        by,
                        at,
                    });
                    let names = std::mem::take(&mut self.dirs[gone].children).into_iter();
                    todo.push((names, walk.path.len()));
                }
            }
        }
        walk.path.truncate(top);
    }
}
