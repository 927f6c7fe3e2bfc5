//! [`Stack`]: many layers, merged on demand.
//!
//! A merged directory is the list of the layers' directories that show through it (`merge` has
//! the rules). A node of the stack is interned by the top-most (layer, node) that makes it: a
//! directory of a layer is at one path, so that pair names one merged directory; a non-directory
//! is the same inode under whatever names, hard links to lower layers included.
//!
//! Where a layer says that those below have a directory at another name, `redirect` finds it.
//!
//! Invariants: node ids are the stack's own (`intern`), stable while it lives, 1 for the root;
//! the locks guard the tables of this file and are never held while a layer is asked; nothing
//! recurses, neither over layers nor over depth; listing a directory costs one pass over its
//! parts, whatever the number of layers.
//!
//! Link counts are what the deciding layer knows: a name in another layer is not counted, nor
//! is a subdirectory of another layer. Compiling the stack counts truly.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use foldhash::HashMap;
use strata_tree::{
    ByHandle, ContentRef, DirEntry, DirMarks, Entry, Error, FileHandle, Lower, Name, NameBuf, Node,
    NodeId, Redirect, Result, Stat, TreePath, Xattr, list,
};

use crate::intern::{Dir, Interner, NodeSource};
use crate::listings::{Listings, MergedListing};
use crate::merge::{Merge, MergedDir, MergedName, Part, Told, may_go_on};

/// Layers merged into one tree. See the module.
pub struct Stack {
    /// Base first.
    lowers: Vec<Arc<dyn Lower>>,
    /// Where the layers of each lower's contents begin; nothing if each lower has one.
    first: Vec<u32>,
    /// Top-most first: they have contents and no names. Counted after the lowers.
    data: Vec<Arc<dyn Lower>>,
    root: OnceLock<Arc<Dir>>,
    nodes: Mutex<Interner>,
    listed: Mutex<Listings>,
    /// The directory that the last link to a lower layer led into: links come in groups.
    linked: Mutex<Option<LinkDir>>,
    /// Where links to lower layers were found to lead, by the link's layer and target: a chain
    /// of links through many layers is walked once, not once for each of its links.
    followed: Mutex<HashMap<Link, (u32, Node)>>,
}

type Link = (u32, TreePath);
type LinkDir = (u32, TreePath, Option<Arc<Vec<Part>>>);

/// Where one link to a lower layer leads: to a node of a layer, or to that layer's own link.
enum LinkEnd {
    Leaf(u32, Node),
    Link(u32, TreePath),
}

/// A panic elsewhere leaves the tables as valid as before: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stack {
    /// Merges `lowers`, base first, as in an image's `rootfs.diff_ids`. Asks nothing of them yet.
    /// No layers at all make an empty root.
    ///
    /// Node numbers are counted in the order of asking.
    pub fn new(lowers: Vec<Arc<dyn Lower>>) -> Self {
        Self::with(lowers, Interner::counted())
    }

    /// The same for lowers whose numbers are unique among each other, but for their roots', and
    /// below 2^62, as those of plain directories with shared `Numbers` are. Numbers are then the
    /// lowers' own: they repeat over remounts, and a layer more on top changes none but those of
    /// what it replaces.
    pub fn numbered(lowers: Vec<Arc<dyn Lower>>) -> Self {
        Self::with(lowers, Interner::numbered())
    }

    fn with(lowers: Vec<Arc<dyn Lower>>, nodes: Interner) -> Self {
        Self {
            lowers,
            first: Vec::new(),
            data: Vec::new(),
            root: OnceLock::new(),
            nodes: Mutex::new(nodes),
            listed: Mutex::default(),
            linked: Mutex::default(),
            followed: Mutex::default(),
        }
    }

    /// Merges trees that have several layers of contents each, base first: `(tree, layers)`. The
    /// contents are then those of the first tree, above them those of the next, and so on.
    pub fn joined(trees: Vec<(Arc<dyn Lower>, u32)>) -> Self {
        let mut first = Vec::new();
        let mut next = 0_u32;
        for (_, layers) in &trees {
            first.push(next);
            next = next.saturating_add(*layers);
        }
        let lowers = trees.into_iter().map(|(tree, _)| tree).collect();
        Self { first, ..Self::new(lowers) }
    }

    /// The same with layers that have contents alone (overlayfs.rst, "Data-only lower layers"),
    /// the first asked first: nothing of them shows but what a metacopy's absolute redirect leads
    /// to. Their numbers are to be unique among the lowers', too.
    #[must_use]
    pub fn with_data(self, data: Vec<Arc<dyn Lower>>) -> Self {
        Self { data, ..self }
    }

    /// The layers that have contents alone, by the numbers that they have here.
    pub(crate) fn data_layers(&self) -> impl Iterator<Item = u32> {
        let first = self.count();
        (0..u32::try_from(self.data.len()).unwrap_or(u32::MAX)).map(move |at| first + at)
    }

    /// The root, merged when it is first asked for.
    fn root_dir(&self) -> Result<Arc<Dir>> {
        if let Some(root) = self.root.get() {
            return Ok(Arc::clone(root));
        }
        let merged = self.merge_root(self.count())?;
        let root = Arc::new(Dir { merged, parent: NodeId::ROOT, name: None });
        // A thread that comes second has merged the same.
        Ok(Arc::clone(self.root.get_or_init(|| root)))
    }

    /// The number of layers; no tool makes images of 2^32.
    fn count(&self) -> u32 {
        u32::try_from(self.lowers.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn layer(&self, layer: u32) -> Result<&dyn Lower> {
        let mut all = self.lowers.iter().chain(&self.data);
        let found = usize::try_from(layer).ok().and_then(|index| all.nth(index));
        found.map(AsRef::as_ref).ok_or_else(|| Error::Corrupt {
            tree: "merged of layers".to_owned(),
            what: format!("there is no layer {layer}"),
        })
    }

    /// The root of the layers below `limit`, merged.
    fn merge_root(&self, limit: u32) -> Result<MergedDir> {
        let mut merge = Merge::default();
        for layer in (0..limit).rev() {
            let lower = self.layer(layer)?;
            merge.add(&Told::Node(layer, lower.node(lower.root())?));
            if merge.settled() {
                break;
            }
        }
        Ok(merge.finish_root())
    }

    /// What `name` stands for in a merged directory with these parts. `path` tells the path of
    /// the name, for errors.
    fn merge_name(
        &self,
        parts: &[Part],
        name: Name<'_>,
        path: &dyn Fn() -> TreePath,
    ) -> Result<MergedName> {
        let mut merge = Merge::default();
        for (index, part) in parts.iter().enumerate() {
            let Some(entry) = self.layer(part.layer)?.lookup(part.node, name)? else { continue };
            let redirect = self.tell(&mut merge, part.layer, entry, path)?;
            if let Some(redirect) = redirect {
                let left = &parts[index + 1..];
                self.tell_redirected(&mut merge, left, part.layer, redirect, path)?;
                break;
            }
            if merge.settled() {
                break;
            }
        }
        Ok(merge.finish())
    }

    /// Tells `merge` what one layer says of a name, a link to a lower layer followed. Gives where
    /// the layers below have it, if they are to be asked for another name.
    pub(crate) fn tell(
        &self,
        merge: &mut Merge,
        layer: u32,
        entry: Entry,
        path: &dyn Fn() -> TreePath,
    ) -> Result<Option<Redirect>> {
        let told = match entry {
            Entry::Node(node) => Told::Node(layer, node),
            Entry::Whiteout => Told::Whiteout,
            // A non-directory under a directory is hidden and ends the search, wherever it leads.
            Entry::LowerLink(_) if merge.met_directory() => Told::Whiteout,
            Entry::LowerLink(target) => {
                let (layer, node) = self.follow_link(layer, path(), target)?;
                Told::Node(layer, node)
            }
        };
        merge.add(&told);
        match told {
            Told::Node(layer, node) if !merge.settled() && may_go_on(layer, node.id) => {
                Ok(self.layer(layer)?.continues(node.id)?.redirect)
            }
            Told::Node(..) | Told::Whiteout => Ok(None),
        }
    }

    /// The non-directory that a link in `layer` stands for: what its target is in the merge of
    /// the layers strictly below. Each step goes at least one layer down, so it ends.
    pub(crate) fn follow_link(
        &self,
        layer: u32,
        path: TreePath,
        target: TreePath,
    ) -> Result<(u32, Node)> {
        let mut chain = Vec::new();
        let (mut path, mut link) = (path, (layer, target));
        let leaf = loop {
            let known = lock(&self.followed).get(&link).copied();
            if let Some(leaf) = known {
                break leaf;
            }
            match self.follow_once(link.0, &link.1)? {
                Some(LinkEnd::Leaf(layer, node)) => {
                    chain.push(link);
                    break (layer, node);
                }
                Some(LinkEnd::Link(layer, target)) => {
                    path = link.1.clone();
                    chain.push(std::mem::replace(&mut link, (layer, target)));
                }
                None => return Err(Error::DanglingLink { path, target: link.1 }),
            }
        };
        lock(&self.followed).extend(chain.into_iter().map(|link| (link, leaf)));
        Ok(leaf)
    }

    /// What `target` is in the merge of the layers below `limit`, if it is a non-directory.
    fn follow_once(&self, limit: u32, target: &TreePath) -> Result<Option<LinkEnd>> {
        let Some((dir, name)) = target.split_last() else { return Ok(None) };
        let Some(parts) = self.link_dir(limit, &dir)? else { return Ok(None) };
        let mut merge = Merge::default();
        for part in parts.iter() {
            match self.layer(part.layer)?.lookup(part.node, name)? {
                None => {}
                Some(Entry::Node(node)) => merge.add(&Told::Node(part.layer, node)),
                Some(Entry::Whiteout) => merge.add(&Told::Whiteout),
                // As in `tell`.
                Some(Entry::LowerLink(_)) if merge.met_directory() => merge.add(&Told::Whiteout),
                Some(Entry::LowerLink(next)) => return Ok(Some(LinkEnd::Link(part.layer, next))),
            }
            if merge.settled() {
                break;
            }
        }
        Ok(match merge.finish() {
            MergedName::Leaf(layer, node) => Some(LinkEnd::Leaf(layer, node)),
            MergedName::Absent | MergedName::Dir(_) => None,
        })
    }

    /// The parts of directory `dir` in the merge of the layers below `limit`, component by
    /// component; `None` if there is no such directory.
    fn link_dir(&self, limit: u32, dir: &TreePath) -> Result<Option<Arc<Vec<Part>>>> {
        if let Some((at, path, parts)) = &*lock(&self.linked)
            && *at == limit
            && path == dir
        {
            return Ok(parts.clone());
        }
        let mut parts = Some(self.merge_root(limit)?.parts);
        for name in dir.names() {
            let Some(above) = parts else { break };
            parts = self.merge_dirs(&above, name)?;
        }
        let parts = parts.map(Arc::new);
        *lock(&self.linked) = Some((limit, dir.clone(), parts.clone()));
        Ok(parts)
    }

    /// As `merge_name`, for a component that has to be a directory: a link to a lower layer is not
    /// one, wherever it leads.
    fn merge_dirs(&self, parts: &[Part], name: Name<'_>) -> Result<Option<Vec<Part>>> {
        let mut merge = Merge::default();
        for part in parts {
            match self.layer(part.layer)?.lookup(part.node, name)? {
                None => {}
                Some(Entry::Node(node)) => merge.add(&Told::Node(part.layer, node)),
                Some(Entry::Whiteout | Entry::LowerLink(_)) => break,
            }
            if merge.settled() {
                break;
            }
        }
        Ok(match merge.finish() {
            MergedName::Dir(dir) => Some(dir.parts),
            MergedName::Absent | MergedName::Leaf(..) => None,
        })
    }

    fn source(&self, node: NodeId) -> Result<NodeSource> {
        if node == NodeId::ROOT {
            return self.root_dir().map(NodeSource::Dir);
        }
        lock(&self.nodes).get(node).ok_or(Error::NoNode(node))
    }

    fn dir(&self, node: NodeId) -> Result<Arc<Dir>> {
        match self.source(node)? {
            NodeSource::Dir(dir) => Ok(dir),
            NodeSource::Leaf(_) => Err(Error::NotDirectory(node)),
        }
    }

    /// The path of a directory: asked only for errors and links.
    fn path(&self, dir: &Arc<Dir>) -> TreePath {
        let mut names = Vec::new();
        let mut here = Arc::clone(dir);
        while let Some(name) = &here.name {
            names.push(name.clone());
            match self.dir(here.parent) {
                Ok(parent) => here = parent,
                Err(_) => break,
            }
        }
        let mut path = TreePath::root();
        names.iter().rev().for_each(|name| path.push(name.as_name()));
        path
    }

    /// The stack's own node for what a name in `parent` was merged to.
    fn intern(&self, parent: NodeId, name: Name<'_>, merged: MergedName) -> Result<Option<Node>> {
        match merged {
            MergedName::Absent => Ok(None),
            MergedName::Leaf(layer, node) => {
                let id = lock(&self.nodes).leaf(Part { layer, node: node.id });
                Ok(Some(Node { id, stat: node.stat, marks: DirMarks::default() }))
            }
            MergedName::Dir(merged) => {
                let stat = self.dir_stat(&merged)?;
                let make = || Dir { merged: merged.clone(), parent, name: Some(name.to_owned()) };
                let id = lock(&self.nodes).dir(&merged, make);
                Ok(id.map(|id| Node { id, stat, marks: DirMarks::default() }))
            }
        }
    }

    fn dir_stat(&self, merged: &MergedDir) -> Result<Stat> {
        match merged.metadata {
            Some(part) => Ok(self.layer(part.layer)?.node(part.node)?.stat),
            None => Ok(Stat::unstated_dir()),
        }
    }

    /// All names of a directory, sorted by bytes.
    fn listing(&self, id: NodeId) -> Result<MergedListing> {
        if let Some(listing) = lock(&self.listed).get(id) {
            return Ok(listing);
        }
        let dir = self.dir(id)?;
        let base = self.path(&dir);
        let mut merges: BTreeMap<NameBuf, Merge> = BTreeMap::new();
        // The layers below have these at other names.
        let mut moved = BTreeSet::new();
        for part in &dir.merged.parts {
            for (name, entry) in list(self.layer(part.layer)?, part.node)? {
                let merge = merges.entry(name.clone()).or_default();
                if merge.settled() || moved.contains(&name) {
                    continue;
                }
                let path = || base.join(name.as_name());
                if self.tell(merge, part.layer, entry, &path)?.is_some() {
                    moved.insert(name);
                }
            }
        }
        let mut all = Vec::with_capacity(merges.len());
        for (name, merge) in merges {
            let merged = if moved.contains(&name) {
                let path = || base.join(name.as_name());
                self.merge_name(&dir.merged.parts, name.as_name(), &path)?
            } else {
                merge.finish()
            };
            if let Some(node) = self.intern(id, name.as_name(), merged)? {
                all.push((name, node));
            }
        }
        let listing = Arc::new(all);
        lock(&self.listed).add(id, Arc::clone(&listing));
        Ok(listing)
    }

    /// The layer and the node there that make a non-directory.
    fn leaf(&self, id: NodeId) -> Result<Option<Part>> {
        Ok(match self.source(id)? {
            NodeSource::Leaf(part) => Some(part),
            NodeSource::Dir(_) => None,
        })
    }

    /// The layer and the node there whose metadata `id` has; no layer states those of a directory
    /// that is only the way to others.
    fn metadata(&self, id: NodeId) -> Result<Option<Part>> {
        Ok(match self.source(id)? {
            NodeSource::Leaf(part) => Some(part),
            NodeSource::Dir(dir) => dir.merged.metadata,
        })
    }

    /// The layer and the node there that have `id`'s content.
    fn regular(&self, id: NodeId) -> Result<Part> {
        match self.leaf(id)? {
            Some(part) => self.content_part(part).map_err(|error| renamed(error, id)),
            None => Err(Error::NotRegular { node: id, kind: strata_tree::Kind::Directory }),
        }
    }
}

/// A layer's error about its node becomes one about ours.
fn renamed(error: Error, id: NodeId) -> Error {
    match error {
        Error::NoNode(_) => Error::NoNode(id),
        Error::NotDirectory(_) => Error::NotDirectory(id),
        Error::NotSymlink(_) => Error::NotSymlink(id),
        Error::NotRegular { kind, .. } => Error::NotRegular { node: id, kind },
        other => other,
    }
}

impl Lower for Stack {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        // A program that lists a directory asks for its names next.
        let listed = lock(&self.listed).get(dir);
        if let Some(listing) = listed {
            let at = listing.binary_search_by(|(other, _)| other.as_name().cmp(&name));
            return Ok(at.ok().map(|at| Entry::Node(listing[at].1)));
        }
        let found = self.dir(dir)?;
        let path = || self.path(&found).join(name);
        let merged = self.merge_name(&found.merged.parts, name, &path)?;
        Ok(self.intern(dir, name, merged)?.map(Entry::Node))
    }

    /// `next` is the number of names up to this one, in the order of name bytes.
    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let listing = self.listing(dir)?;
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        for (index, (name, node)) in listing.iter().enumerate().skip(start) {
            let next = index as u64 + 1;
            let item = DirEntry { name: name.as_name(), entry: Entry::Node(*node), next };
            if each(item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        let stat = match self.source(node)? {
            NodeSource::Leaf(part) => self.layer(part.layer)?.node(part.node)?.stat,
            NodeSource::Dir(dir) => self.dir_stat(&dir.merged)?,
        };
        Ok(Node { id: node, stat, marks: DirMarks::default() })
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let Some(part) = self.leaf(node)? else { return Err(Error::NotSymlink(node)) };
        self.layer(part.layer)?.read_link(part.node).map_err(|error| renamed(error, node))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        match self.metadata(node)? {
            Some(part) => self.layer(part.layer)?.xattrs(part.node),
            None => Ok(Vec::new()),
        }
    }

    /// `layer` is the index of the layer in this stack, those of data alone after all lowers, or
    /// what follows from the numbers of layers that [`Stack::joined`] was given.
    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let part = self.regular(node)?;
        let which = self.layer(part.layer)?.content(part.node);
        let which = which.map_err(|error| renamed(error, node))?;
        let first = self.first.get(part.layer as usize).copied().unwrap_or(part.layer);
        Ok(ContentRef { layer: first.saturating_add(which.layer), ..which })
    }

    fn inode(&self, node: NodeId) -> Result<Option<OwnedFd>> {
        match self.metadata(node)? {
            Some(part) => self.layer(part.layer)?.inode(part.node),
            None => Ok(None),
        }
    }

    fn file_handle(&self, node: NodeId) -> Result<Option<FileHandle>> {
        match self.leaf(node)? {
            Some(part) => self.layer(part.layer)?.file_handle(part.node),
            None => Ok(None),
        }
    }

    /// Numbers that are counted here tell nothing of the lowers' own.
    fn by_handle(&self, handle: &FileHandle) -> Result<ByHandle> {
        if !lock(&self.nodes).is_numbered() {
            return Ok(ByHandle::Unknown);
        }
        let mut told = ByHandle::Unknown;
        for lower in &self.lowers {
            match lower.by_handle(handle)? {
                ByHandle::Node(node) => return Ok(ByHandle::Node(node)),
                ByHandle::Gone => told = ByHandle::Gone,
                ByHandle::Unknown => {}
            }
        }
        Ok(told)
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        Ok(Some(self.dir(dir)?.parent))
    }
}
