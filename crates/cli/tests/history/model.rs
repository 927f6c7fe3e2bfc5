//! The reference: an image as a map from path to node, to which layers are applied by the letter
//! of the OCI image specification (layer.md, "Applying Changesets").
//!
//! Invariants: nothing of the program is used here; a layer first hides what its whiteouts name,
//! in the layers below alone, then adds its own members.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Path = Vec<u8>;

/// One member of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Member {
    Node { path: Path, node: Node },
    Link { path: Path, to: Path },
    Whiteout { path: Path },
    Opaque { path: Path },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// `dir`, `file`, `symlink`, `char`.
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattr: Option<u8>,
}

impl Node {
    fn unstated() -> Self {
        let (body, mode, uid, mtime, xattr) = (Vec::new(), 0o755, 0, 0, None);
        Self { kind: "dir", body, mode, uid, mtime, xattr }
    }

    /// The words for what differs.
    pub(crate) fn unlike(&self, other: &Self) -> Vec<&'static str> {
        if self.kind != other.kind {
            return vec!["type"];
        }
        let body = match self.kind {
            "file" => "content",
            "symlink" => "target",
            _ => "device",
        };
        let all = [
            (self.body != other.body, body),
            (self.mode != other.mode, "mode"),
            (self.uid != other.uid, "owner"),
            (self.xattr != other.xattr, "xattr"),
            (self.mtime != other.mtime, "time"),
        ];
        all.into_iter().filter(|(differs, _)| *differs).map(|(_, word)| word).collect()
    }
}

/// A name of the image: its node, and the number of its inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) node: Node,
    pub(crate) inode: usize,
}

pub(crate) type Tree = BTreeMap<Path, Named>;

/// What a layer does to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Added,
    Changed(Vec<&'static str>),
    Removed,
}

/// An inode, the layer that has it and the name of its member.
#[derive(Debug, Clone)]
pub(crate) struct LayerInode {
    pub(crate) layer: usize,
    pub(crate) node: Node,
    pub(crate) name: Path,
}

#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) tree: Tree,
    pub(crate) inodes: Vec<LayerInode>,
    pub(crate) layers: Vec<Vec<Member>>,
    /// What each layer does.
    pub(crate) deeds: Vec<BTreeMap<Path, Deed>>,
    /// The trees before each layer.
    pub(crate) before: Vec<Tree>,
}

pub(crate) fn below(path: &[u8], top: &[u8]) -> bool {
    path != top && (top.is_empty() || (path.starts_with(top) && path[top.len()] == b'/'))
}

pub(crate) fn parents(path: &[u8]) -> Vec<Path> {
    let mut all = vec![Vec::new()];
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    all.extend(ends.map(|(at, _)| path[..at].to_vec()));
    all
}

impl Image {
    pub(crate) fn empty() -> Self {
        let inode = LayerInode { layer: 0, node: Node::unstated(), name: Vec::new() };
        let root = Named { node: Node::unstated(), inode: 0 };
        let tree = Tree::from([(Vec::new(), root)]);
        let (layers, deeds, before) = (Vec::new(), Vec::new(), Vec::new());
        Self { tree, inodes: vec![inode], layers, deeds, before }
    }

    fn inode(&mut self, node: &Node, path: &[u8]) -> Named {
        let layer = self.layers.len();
        self.inodes.push(LayerInode { layer, node: node.clone(), name: path.to_vec() });
        Named { node: node.clone(), inode: self.inodes.len() - 1 }
    }

    pub(crate) fn apply(&mut self, layer: &[Member]) {
        let before = self.tree.clone();
        for member in layer {
            match member {
                Member::Whiteout { path } => {
                    self.tree.retain(|known, _| known != path && !below(known, path));
                }
                Member::Opaque { path } => self.tree.retain(|known, _| !below(known, path)),
                Member::Node { .. } | Member::Link { .. } => {}
            }
        }
        // A link into a lower layer means what that layer has.
        let mut said = BTreeSet::new();
        let mut implied = BTreeSet::new();
        let mut links = Vec::new();
        for member in layer {
            let (path, named) = match member {
                Member::Node { path, node } => {
                    let named = match self.tree.get(path) {
                        // The same directory, described again.
                        Some(known) if known.node.kind == "dir" && node.kind == "dir" => {
                            Named { node: node.clone(), inode: known.inode }
                        }
                        _ => self.inode(node, path),
                    };
                    (path, named)
                }
                Member::Link { path, to } => {
                    links.push((path, to));
                    continue;
                }
                Member::Whiteout { .. } | Member::Opaque { .. } => continue,
            };
            self.put(path, named, &mut implied);
            said.insert(path.clone());
        }
        for (path, to) in links {
            let own = said.contains(to).then(|| self.tree[to].clone());
            let named = own.unwrap_or_else(|| before[to].clone());
            self.put(path, named, &mut implied);
            said.insert(path.clone());
        }
        let hidden = |path: &Path| {
            layer.iter().any(|m| matches!(m, Member::Whiteout { path: p } if p == path))
        };
        let mut deeds = BTreeMap::new();
        for path in before.keys().chain(self.tree.keys()) {
            let deed = match (before.get(path), self.tree.get(path)) {
                (Some(_), None) => Deed::Removed,
                (None, _) => Deed::Added,
                (Some(was), Some(now)) => {
                    let facts = was.node.unlike(&now.node);
                    let remade = implied.contains(path) && hidden(path);
                    if facts.is_empty() && !said.contains(path) && !remade {
                        continue;
                    }
                    Deed::Changed(facts)
                }
            };
            deeds.insert(path.clone(), deed);
        }
        if self.layers.is_empty() {
            deeds.insert(Vec::new(), Deed::Added);
        }
        self.deeds.push(deeds);
        self.before.push(before);
        self.layers.push(layer.to_vec());
    }

    fn put(&mut self, path: &Path, named: Named, implied: &mut BTreeSet<Path>) {
        for parent in parents(path) {
            if &parent == path {
                continue;
            }
            implied.insert(parent.clone());
            if self.tree.get(&parent).is_none_or(|known| known.node.kind != "dir") {
                let dir = self.inode(&Node::unstated(), &parent);
                self.tree.insert(parent, dir);
            }
        }
        if named.node.kind != "dir" {
            self.tree.retain(|known, _| !below(known, path));
        }
        self.tree.insert(path.clone(), named);
    }

    /// The names of an inode in the image.
    pub(crate) fn names(&self, inode: usize) -> Vec<Path> {
        let names = self.tree.iter().filter(|(_, named)| named.inode == inode);
        names.map(|(path, _)| path.clone()).collect()
    }

    /// The last layer that took a name of the inode away.
    pub(crate) fn lost(&self, inode: usize) -> Option<usize> {
        let has = |tree: &Tree| tree.values().any(|named| named.inode == inode);
        if has(&self.tree) {
            return None;
        }
        (0..self.before.len()).rev().find(|layer| has(&self.before[*layer]))
    }

    /// The score of dive: see the text of `strata_analysis::history`.
    pub(crate) fn dive(&self) -> f64 {
        let mut paths: BTreeMap<Path, Vec<u64>> = BTreeMap::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let mut own: BTreeMap<Path, u64> = BTreeMap::new();
            let has = |top: &Path| {
                layer.iter().any(|member| match member {
                    Member::Node { path, .. } | Member::Link { path, .. } => {
                        path == top || below(path, top)
                    }
                    Member::Whiteout { .. } | Member::Opaque { .. } => false,
                })
            };
            let hides = |path: &Path| {
                !has(path)
                    && layer.iter().any(|m| matches!(m, Member::Whiteout { path: p } if p == path))
            };
            // Marks below a whiteout say nothing more.
            let within = |path: &Path| parents(path).iter().any(|top| top != path && hides(top));
            for member in layer {
                let (path, size) = match member {
                    Member::Node { path, node } if node.kind == "file" => {
                        (path.clone(), node.body.len() as u64)
                    }
                    Member::Node { path, .. } | Member::Link { path, .. } => (path.clone(), 0),
                    Member::Whiteout { path } => {
                        let before = &self.before[at];
                        let gone = before.iter().filter(|(known, _)| below(known, path));
                        let size = gone.map(|(known, named)| {
                            let inode = &self.inodes[named.inode];
                            let own = inode.node.kind == "file" && inode.name == *known;
                            if own { inode.node.body.len() as u64 } else { 0 }
                        });
                        let size = size.sum();
                        // A name that the layer has too is no whiteout any more.
                        if has(path) || within(path) {
                            continue;
                        }
                        (path.clone(), size)
                    }
                    // Its directory alone, if nothing else is in it.
                    Member::Opaque { path } if within(path) || hides(path) => continue,
                    Member::Opaque { path } => {
                        own.entry(path.clone()).or_default();
                        continue;
                    }
                };
                own.insert(path, size);
            }
            let leaf = |path: &Path| hides(path) || !own.keys().any(|other| below(other, path));
            for (path, size) in own.iter().filter(|(path, _)| leaf(path)) {
                paths.entry(path.clone()).or_default().push(*size);
            }
        }
        let smallest: u64 = paths.values().filter_map(|sizes| sizes.iter().min()).sum();
        let all: u64 = paths.values().flatten().sum();
        if all == 0 { 1.0 } else { smallest as f64 / all as f64 }
    }
}
