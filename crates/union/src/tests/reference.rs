//! The merge written the other way round: layers applied one after the other, base first, to a
//! plain map of paths, as unpacking them into one directory would do. No laziness, no sharing.
//!
//! Invariants: a layer's whiteouts and opaque marks touch only what was there before the layer;
//! a link to a lower layer means the map as it was before the layer.

use std::collections::{BTreeMap, HashMap};

use strata_content::FileTree;
use strata_tree::{
    DirMarks, Follow, InodeSpec, Item, Kind, Name, NodeId, Presence, Spec, Stat, TreePath, list,
    resolve,
};

/// Which inode: the layer that made it and its first path there.
type Made = (usize, TreePath);

/// The merged tree, by path.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    nodes: BTreeMap<TreePath, (InodeSpec, Made)>,
    layers: usize,
}

fn unstated() -> InodeSpec {
    let spec = Spec::new();
    match spec.items().next() {
        Some((_, Item::Inode(root))) => root.clone(),
        _ => unreachable!("a spec starts with its root"),
    }
}

impl Reference {
    pub(super) fn new() -> Self {
        let root = (unstated(), (0, TreePath::root()));
        Self { nodes: BTreeMap::from([(TreePath::root(), root)]), layers: 0 }
    }

    /// The paths of all non-directories.
    pub(super) fn leaves(&self) -> Vec<TreePath> {
        let leaves = self.nodes.iter().filter(|(_, (inode, _))| !inode.kind.is_dir());
        leaves.map(|(path, _)| path.clone()).collect()
    }

    fn remove_children(&mut self, path: &TreePath) {
        self.nodes.retain(|other, _| !is_below(other, path));
    }

    fn remove(&mut self, path: &TreePath) {
        self.remove_children(path);
        self.nodes.remove(path);
    }

    /// Applies one layer on top.
    pub(super) fn apply(&mut self, layer: &Spec) {
        let before = self.nodes.clone();
        let number = self.layers;
        self.layers += 1;
        let mut own: HashMap<TreePath, (InodeSpec, Made)> = HashMap::new();
        let mut skipped: Vec<TreePath> = Vec::new();
        for (raw, item) in layer.items() {
            let path = TreePath::clamped(raw).unwrap();
            if skipped.iter().any(|phantom| is_below(&path, phantom)) {
                continue;
            }
            let dir_here = self.nodes.get(&path).is_some_and(|(inode, _)| inode.kind.is_dir());
            let inode = match item {
                Item::Whiteout => {
                    self.remove(&path);
                    continue;
                }
                Item::Link(target) => {
                    self.remove(&path);
                    self.nodes.insert(path, own[target].clone());
                    continue;
                }
                Item::LowerLink(target) => {
                    self.remove(&path);
                    own.insert(path.clone(), before[target].clone());
                    self.nodes.insert(path, before[target].clone());
                    continue;
                }
                Item::Inode(inode) => inode,
            };
            let made = (inode.clone(), (number, path.clone()));
            if !inode.kind.is_dir() {
                self.remove(&path);
                own.insert(path.clone(), made.clone());
                self.nodes.insert(path, made);
                continue;
            }
            if inode.marks.presence == Presence::Phantom && !dir_here {
                skipped.push(path);
                continue;
            }
            if !dir_here {
                self.remove(&path);
                self.nodes.insert(path.clone(), (unstated(), (number, path.clone())));
            }
            if inode.marks.opaque {
                self.remove_children(&path);
            }
            if inode.marks.presence == Presence::Explicit {
                self.nodes.insert(path, made);
            }
        }
    }

    fn nlink(&self, path: &TreePath, inode: &InodeSpec, made: &Made) -> u32 {
        let counted = self.nodes.iter().filter(|(other, (it, maker))| {
            if inode.kind.is_dir() {
                let parent = other.split_last().map(|(parent, _)| parent);
                it.kind.is_dir() && parent.as_ref() == Some(path)
            } else {
                maker == made
            }
        });
        counted.count() as u32 + if inode.kind.is_dir() { 2 } else { 0 }
    }

    /// Compares `tree` with the map: every path both ways, and every fact of each. Link counts
    /// only where `counts` says that the tree knows them.
    pub(super) fn compare(&self, files: &FileTree, counts: bool) {
        let tree = &**files;
        let mut found: BTreeMap<TreePath, NodeId> = BTreeMap::new();
        let mut todo = vec![(TreePath::root(), tree.root())];
        while let Some((path, id)) = todo.pop() {
            found.insert(path.clone(), id);
            let node = tree.node(id).unwrap();
            if !node.stat.kind.is_dir() {
                continue;
            }
            // A directory that was listed may be asked another way.
            let children = self.nodes.keys().filter_map(TreePath::split_last);
            let before: Vec<_> = children
                .filter(|(dir, _)| *dir == path)
                .map(|(_, name)| tree.lookup(id, name).unwrap().unwrap())
                .collect();
            let all = list(tree, id).unwrap();
            assert!(all.is_sorted_by(|(a, _), (b, _)| a < b), "{path}: not sorted");
            assert!(all.iter().map(|(_, entry)| entry).eq(&before), "{path}");
            for (name, entry) in all {
                let looked_up = tree.lookup(id, name.as_name()).unwrap();
                assert_eq!(looked_up.as_ref(), Some(&entry), "{path}, {name:?}");
                let child = *entry.node().unwrap();
                assert_eq!(child, tree.node(child.id).unwrap(), "{path}, {name:?}");
                todo.push((path.join(name.as_name()), child.id));
            }
            for name in [&b"a"[..], b"b", b"c", b"d"] {
                let path = path.join(Name::new(name).unwrap());
                let listed = self.nodes.contains_key(&path);
                let got = tree.lookup(id, Name::new(name).unwrap()).unwrap();
                assert_eq!(got.is_some(), listed, "{path}");
            }
        }
        let want: Vec<_> = self.nodes.keys().collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), want);

        let mut by_made: HashMap<&Made, NodeId> = HashMap::new();
        let mut by_id: HashMap<NodeId, TreePath> = HashMap::new();
        for (path, (inode, made)) in &self.nodes {
            let node = tree.node(found[path]).unwrap();
            assert_eq!(node.stat, self.stat(path, node.stat, counts), "{path}");
            assert_eq!(node.marks, DirMarks::default(), "{path}");
            let xattrs: Vec<_> = inode.xattrs.clone().into_iter().collect();
            assert_eq!(tree.xattrs(node.id).unwrap(), xattrs, "{path}");
            match inode.kind {
                Kind::Directory => {
                    assert!(by_id.insert(node.id, path.clone()).is_none(), "{path}");
                    let parent = path.split_last().map_or(node.id, |(parent, _)| found[&parent]);
                    assert_eq!(tree.parent(node.id).unwrap(), Some(parent), "{path}");
                    continue;
                }
                Kind::Symlink => assert_eq!(tree.read_link(node.id).unwrap(), inode.body),
                Kind::Regular => {
                    let content = files.read(node.id).unwrap();
                    assert_eq!(content, inode.body, "{path}");
                    let which = tree.content(node.id).unwrap();
                    assert_eq!((which.layer as usize, &which.path), (made.0, &made.1));
                }
                _ => {}
            }
            // One inode, one number; two inodes, two numbers.
            assert_eq!(*by_made.entry(made).or_insert(node.id), node.id, "{path}");
            let other = by_id.entry(node.id).or_insert_with(|| path.clone());
            assert_eq!(self.nodes[other].1, *made, "{path} and {other}");
            let again = resolve(tree, path.as_bytes(), Follow::NotLast).unwrap();
            assert_eq!(again, Some(node), "{path}");
        }
    }

    fn stat(&self, path: &TreePath, got: Stat, counts: bool) -> Stat {
        let (inode, made) = &self.nodes[path];
        Stat {
            kind: inode.kind,
            perm: inode.perm,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size(),
            nlink: if counts { self.nlink(path, inode, made) } else { got.nlink },
            mtime: inode.mtime,
        }
    }
}

fn is_below(path: &TreePath, dir: &TreePath) -> bool {
    let (path, dir) = (path.as_bytes(), dir.as_bytes());
    path.len() > dir.len() && path.starts_with(dir) && (dir.is_empty() || path[dir.len()] == b'/')
}
