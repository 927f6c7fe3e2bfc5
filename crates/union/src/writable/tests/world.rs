//! A union over a compiled lower, with its model beside it.
//!
//! Invariant: [`World::check`] compares everything that a user can see.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_content::conformance::lay_out;
use strata_content::{FileTree, Joined, Memory};
use strata_tree::{FlatTree, Kind, Lower, MemTree, NodeId, Spec, compile, list};

use super::model::Model;
use super::rights::lay_trap;
use crate::Stack;
use crate::writable::can::Can;
use crate::writable::{
    Attr, OpenFile, OpenHow, Ownership, PathChange, Union, UnionOptions, UpperView,
};

pub(super) const READ: OpenHow =
    OpenHow { write: false, truncate: false, append: false, synced: false, unseen: false };
/// More than any world has.
const LAYERS: u32 = 100;

pub(super) const WRITE: OpenHow =
    OpenHow { write: true, truncate: false, append: false, synced: false, unseen: false };

/// Both, and what is held open.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) spec: Spec,
    pub(super) options: UnionOptions,
    /// What the file system can do, if less than it can.
    can: Option<Can>,
    pub(super) union: Option<Union>,
    pub(super) model: Model,
    /// Numbers that were seen, by model node.
    pub(super) numbers: BTreeMap<usize, NodeId>,
    /// Open files, by model node.
    pub(super) open: Vec<(usize, Arc<OpenFile>)>,
    lower: FileTree,
    /// Every lookup that is not forgotten.
    lookups: RefCell<Vec<NodeId>>,
}

/// Root keeps everything in the inodes; other users keep it apart.
pub(super) fn options() -> UnionOptions {
    let root = rustix::process::geteuid().is_root();
    let ownership = if root { Ownership::Inode } else { Ownership::Override };
    UnionOptions { ownership, ..UnionOptions::default() }
}

impl World {
    pub(super) fn new(spec: Spec, options: UnionOptions) -> Self {
        Self::layered(vec![spec.clone()], spec, options)
    }

    /// Several layers, base first, that merge to `spec`: compiled, as an image is.
    pub(super) fn layered(layers: Vec<Spec>, spec: Spec, options: UnionOptions) -> Self {
        // Extended attributes of every kind are wanted, which not every /tmp has.
        Self::within(Path::new("/var/tmp"), layers, spec, options)
    }

    /// The same, with all that is on disk in `parent`.
    pub(super) fn within(
        parent: &Path,
        layers: Vec<Spec>,
        spec: Spec,
        options: UnionOptions,
    ) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        for name in ["upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            lay_trap(dir.path(), "work");
        }
        let trees = layers.iter().map(|layer| {
            let layer: Arc<dyn Lower> = Arc::new(MemTree::new(layer).unwrap());
            layer
        });
        let stack = Stack::new(trees.collect());
        let stack = FileTree::new(Arc::new(stack), Arc::new(Memory::of(&layers).unwrap()));
        let compiled = tempfile::tempfile_in(dir.path()).unwrap();
        compile(&*stack, &compiled).unwrap();
        let contents = lay_out(&stack, &dir.path().join("contents")).unwrap();
        let lower = FlatTree::open(compiled, "lower".to_owned()).unwrap();
        let lower = FileTree::new(Arc::new(lower), Arc::new(contents));
        let model = Model::new(&spec);
        let mut world = Self {
            dir,
            spec,
            options,
            can: None,
            union: None,
            model,
            numbers: BTreeMap::new(),
            open: Vec::new(),
            lower,
            lookups: RefCell::default(),
        };
        world.mount();
        world.union().adopt_root().unwrap();
        world
    }

    /// Ends the union.
    pub(super) fn leave(&mut self) {
        self.open.clear();
        self.lookups.borrow_mut().clear();
        self.union = None;
    }

    /// Ends the union and puts another over the same upper.
    pub(super) fn mount(&mut self) {
        self.leave();
        let lower = self.lower.clone();
        let (upper, work) = (self.upper(), self.work());
        let union = Union::open_as_if(lower, &upper, &work, self.options, self.can).unwrap();
        self.union = Some(union);
    }

    /// As if the file system could do no more, from now on.
    pub(super) fn limit(&mut self, can: Can) {
        self.can = Some(can);
        self.mount();
    }

    pub(super) fn lower(&self) -> FileTree {
        self.lower.clone()
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(super) fn union(&self) -> &Union {
        self.union.as_ref().unwrap()
    }

    /// Looks a path up; the lookups of the way stay counted.
    pub(super) fn attr(&self, path: &str) -> Option<Attr> {
        let mut attr = self.union().attr(NodeId::ROOT).unwrap();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            attr = self.union().lookup(attr.id, name.as_bytes()).unwrap()?;
            self.lookups.borrow_mut().push(attr.id);
        }
        Some(attr)
    }

    /// As the kernel does when it needs memory; what is open stays known.
    pub(super) fn forget_all(&self) {
        let lookups = std::mem::take(&mut *self.lookups.borrow_mut());
        lookups.into_iter().for_each(|id| self.union().forget(id, 1));
    }

    pub(super) fn id(&self, path: &str) -> NodeId {
        self.attr(path).unwrap_or_else(|| panic!("{path} is not there")).id
    }

    pub(super) fn read(&self, id: NodeId) -> Vec<u8> {
        let file = self.union().open_file(id, READ).unwrap();
        read_all(&file)
    }

    /// Compares the whole tree, and what is open, with the model.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut ids: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (path, node) in self.model.paths() {
            let inode = self.model.inodes[node].clone();
            let Some(attr) = self.attr(&path) else { return Err(format!("{path:?} is missing")) };
            let bad = |what: &str| Err(format!("{path:?}: {what}: {attr:?}, expected {inode:?}"));
            if attr.stat.kind != inode.kind {
                return bad("type");
            }
            if inode.kind != Kind::Symlink && attr.stat.perm != inode.perm {
                return bad("mode");
            }
            let kept = self.options.ownership == Ownership::Inode || inode.kind != Kind::Symlink;
            if kept && (attr.stat.uid, attr.stat.gid) != (inode.uid, inode.gid) {
                return bad("owner");
            }
            if attr.stat.nlink != self.model.links(node) {
                return bad(&format!("links, not {}", self.model.links(node)));
            }
            if inode.mtime.is_some_and(|mtime| mtime != attr.stat.mtime.seconds) {
                return bad("mtime");
            }
            let xattrs: BTreeMap<_, _> =
                self.union().xattrs(attr.id).unwrap().into_iter().collect();
            if xattrs != inode.xattrs {
                return bad(&format!("xattrs {xattrs:?}"));
            }
            match inode.kind {
                Kind::Regular => {
                    let body = self.read(attr.id);
                    if body != inode.body || attr.stat.size != body.len() as u64 {
                        return bad(&format!("content of {} bytes", body.len()));
                    }
                }
                Kind::Symlink if self.union().read_link(attr.id).unwrap() != inode.body => {
                    return bad("target");
                }
                Kind::Directory => self.check_listing(&path, node, attr.id)?,
                _ => {}
            }
            if ids.insert(attr.id, node).is_some_and(|other| other != node) {
                return bad("two nodes have this number");
            }
            let stable = inode.kind != Kind::Symlink || self.options.ownership == Ownership::Inode;
            let known = *self.numbers.entry(node).or_insert(attr.id);
            if stable && known != attr.id {
                return bad(&format!("its number was {known:?}"));
            }
        }
        for (node, file) in &self.open {
            if read_all(file) != self.model.inodes[*node].body {
                return Err(format!("an open descriptor of node {node} reads something else"));
            }
        }
        Ok(())
    }

    /// Stacks the upper's changes, seen as a layer, on the lower, and compares with the model; the
    /// list of changes has to name just what differs.
    pub(super) fn check_changes(&mut self) -> Result<(), String> {
        self.open.clear();
        self.union = None;
        let view = UpperView::open(self.lower.clone(), &self.upper(), self.options).unwrap();
        let layer = view.changes().unwrap();
        let listed: BTreeMap<String, PathChange> = layer
            .list()
            .map(|(path, change)| (path.to_string().trim_start_matches('/').to_owned(), change))
            .collect();
        let (below, own) = (Arc::clone(self.lower.contents()), layer.contents());
        let names = Stack::joined(vec![
            (Arc::clone(self.lower.names()), LAYERS),
            (Arc::new(layer) as Arc<dyn Lower>, LAYERS + 1),
        ]);
        let contents = Joined::new(vec![(LAYERS, below), (LAYERS + 1, own)]);
        let stack = FileTree::new(Arc::new(names), Arc::new(contents));
        let mut seen = BTreeMap::new();
        let mut open = vec![(String::new(), stack.root())];
        while let Some((path, node)) = open.pop() {
            let stat = stack.node(node).unwrap().stat;
            if stat.kind.is_dir() {
                for (name, entry) in list(&*stack, node).unwrap() {
                    let name = String::from_utf8(name.as_bytes().to_vec()).unwrap();
                    let at = if path.is_empty() { name } else { format!("{path}/{name}") };
                    open.push((at, entry.node().unwrap().id));
                }
            }
            let body = match stat.kind {
                Kind::Regular => stack.read(node).unwrap(),
                Kind::Symlink => stack.read_link(node).unwrap(),
                _ => Vec::new(),
            };
            let xattrs: BTreeMap<_, _> = stack.xattrs(node).unwrap().into_iter().collect();
            let perm = if stat.kind == Kind::Symlink { 0o777 } else { stat.perm };
            seen.insert(path, (stat.kind, perm, body, xattrs));
        }
        let before = Model::new(&self.spec);
        for (path, node) in self.model.paths() {
            let inode = self.model.inodes[node].clone();
            let perm = if inode.kind == Kind::Symlink { 0o777 } else { inode.perm };
            let expected = (inode.kind, perm, inode.body, inode.xattrs);
            let found = seen.remove(&path);
            if found.as_ref() != Some(&expected) {
                return Err(format!("{path:?}: {found:?}, expected {expected:?}"));
            }
            let was = before.walk(&path).is_some();
            match listed.get(&path) {
                Some(PathChange::Added) if was => return Err(format!("{path:?} is not new")),
                Some(PathChange::Changed) if !was => return Err(format!("{path:?} is new")),
                Some(PathChange::Deleted) => return Err(format!("{path:?} is not gone")),
                None if !was => return Err(format!("{path:?} is new and not listed")),
                _ => {}
            }
        }
        match seen.keys().next() {
            Some(extra) => Err(format!("{extra:?} is there as well")),
            None => Ok(()),
        }
    }

    fn check_listing(&self, path: &str, node: usize, id: NodeId) -> Result<(), String> {
        let mut listed = self.union().list(id).unwrap();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&[u8]> = listed.iter().map(|item| item.name.as_bytes()).collect();
        let wanted = self.model.inodes[node].names.keys();
        if names != wanted.map(String::as_bytes).collect::<Vec<_>>() {
            return Err(format!("{path:?} lists {listed:?}"));
        }
        for item in &listed {
            let found = self.union().lookup(id, item.name.as_bytes()).unwrap().unwrap();
            let told = self.union().identity(id, item).unwrap();
            if told != Some((found.id, found.stat.kind)) {
                return Err(format!("{path:?} lists {item:?} as {told:?}, which is {found:?}"));
            }
        }
        Ok(())
    }
}

pub(super) fn read_all(file: &OpenFile) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let len = file.read(0, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}
