//! From a draft to rows: what every name of the layer is, numbered breadth first.
//!
//! Invariants: see [`EntryRow`]; a whiteout of a name that the layer has vanishes (the layer's own
//! entry replaces the lower one) or, for a directory, makes it opaque.

use std::collections::VecDeque;

use strata_tree::{DirMarks, NodeId, Presence, Stat, TreePath};

use super::attributes::{Holder, too_much};
use super::{DirId, Draft, FileFacts, FileId, FileKind, FileNode, MemberFacts, ROOT, Slot};
use crate::error::{Error, Result};
use crate::rows::{EntryRow, Meta, RowKind};

/// A layer's rows before the contents are known.
#[derive(Debug, Default)]
pub struct Finished {
    /// As the index keeps them; contents are asked of the caller by [`FileId`].
    pub rows: Vec<EntryRow>,
    /// For every row that is a regular file, and for every further name of one: its inode.
    pub regular: Vec<(usize, FileId)>,
    /// What a person should know, one line each.
    pub warnings: Vec<String>,
}

enum Item {
    Dir(DirId),
    File(FileId, u64),
    Waiting(TreePath, u64),
    Whiteout,
}

/// A draft of which every link has found its inode, or leads into a lower layer.
#[derive(Debug)]
pub struct SettledDraft {
    draft: Draft,
    linked: Vec<(FileId, TreePath)>,
}

impl SettledDraft {
    /// Links that had waited: inode and new name. Only regular files.
    pub fn linked(&self) -> &[(FileId, TreePath)] {
        &self.linked
    }

    /// Ends the draft. `content` gives the digest of each regular inode.
    ///
    /// # Errors
    /// `Rule` for links in a circle; those of `content`.
    pub fn finish(
        self,
        content: &dyn Fn(FileId) -> Result<strata_tree::ContentDigest>,
    ) -> Result<Finished> {
        self.draft.finish(content)
    }
}

impl Draft {
    /// Settles the links that wait: no member comes any more.
    ///
    /// # Errors
    /// `Rule` for links that lead nowhere.
    pub fn settle(mut self) -> Result<SettledDraft> {
        let mut linked = self.settle_links()?;
        linked.retain(|(file, _)| regular(&self.files[file.index()]));
        Ok(SettledDraft { draft: self, linked })
    }

    fn finish(
        mut self,
        content: &dyn Fn(FileId) -> Result<strata_tree::ContentDigest>,
    ) -> Result<Finished> {
        let mut out = Finished::default();
        // Each of these is as large as it gets: to grow takes what was there once more.
        let names: usize =
            self.dirs.iter().map(|dir| dir.children.len() + dir.whiteouts.len()).sum();
        out.rows.reserve_exact(names + 1);
        out.regular.reserve_exact(names);
        let mut first_name: Vec<Option<NodeId>> = vec![None; self.files.len()];
        let has_links = self.has_waiting_links();
        let root_subdirs = self.subdirs(ROOT);
        let root_meta = self.dir_meta(ROOT, 0);
        self.warn_of_attributes(&TreePath::root(), &root_meta, Holder::FileOrDirectory);
        out.rows.push(EntryRow {
            parent: NodeId::ROOT,
            name: Box::default(),
            kind: self.dir_kind(ROOT, false),
            meta: Some(root_meta),
            position: self.dirs[0].position,
        });
        let mut queue = VecDeque::from([(ROOT, NodeId::ROOT, TreePath::root())]);
        while let Some((dir, node, path)) = queue.pop_front() {
            let items = self.items(dir);
            // Links into lower layers are looked for among the names; nothing else is.
            if !has_links {
                self.dirs[dir.0].children.clear();
            }
            let first = out.rows.len() as u64 + 1;
            if let RowKind::Directory { first: f, children, .. } =
                &mut out.rows[node.0 as usize - 1].kind
                && !items.is_empty()
            {
                (*f, *children) = (first, items.len() as u64);
            }
            for (name, hidden_below, item) in items {
                let id = NodeId(out.rows.len() as u64 + 1);
                let here = path.join(name.as_name());
                let (kind, meta, position) = match item {
                    Item::Whiteout => (RowKind::Whiteout, None, None),
                    Item::Waiting(target, position) => {
                        let target = self.below(&target).ok_or_else(|| {
                            Error::rule(&self.label, &here, "hard links form a circle")
                        })?;
                        (RowKind::LowerLink(target), None, Some(position))
                    }
                    Item::Dir(child) => {
                        let kind = self.dir_kind(child, hidden_below);
                        let subdirs = self.subdirs(child);
                        let meta = self.dir_meta(child, subdirs);
                        self.warn_of_attributes(&here, &meta, Holder::FileOrDirectory);
                        queue.push_back((child, id, here));
                        (kind, Some(meta), self.dirs[child.0].position)
                    }
                    Item::File(file, position) => {
                        if regular(&self.files[file.index()]) {
                            out.regular.push((out.rows.len(), file));
                        }
                        let first = &mut first_name[file.index()];
                        let (kind, meta) = self.file_row(file, (first, id), &here, content)?;
                        (kind, meta, Some(position))
                    }
                };
                let name = name.as_bytes().into();
                out.rows.push(EntryRow { parent: node, name, kind, meta, position });
            }
        }
        if let Some(root) = &mut out.rows[0].meta {
            root.nlink = 2 + root_subdirs;
        }
        out.warnings = self.warnings;
        Ok(out)
    }

    fn has_waiting_links(&self) -> bool {
        let waits = |slot: &Slot| matches!(slot, Slot::Waiting(_));
        self.dirs.iter().any(|dir| dir.children.values().any(waits))
    }

    /// What a name of a file is, as the row `id`: its inode, or a further name of the `first` one.
    fn file_row(
        &mut self,
        file: FileId,
        (first, id): (&mut Option<NodeId>, NodeId),
        here: &TreePath,
        content: &dyn Fn(FileId) -> Result<strata_tree::ContentDigest>,
    ) -> Result<(RowKind, Option<Meta>)> {
        if let Some(primary) = first {
            return Ok((RowKind::HardLink(*primary), None));
        }
        *first = Some(id);
        let node = &self.files[file.index()];
        let (kind, size) = file_kind(&node.kind, file, content)?;
        let FileFacts { perm, uid, gid, mtime, ref xattrs } = node.facts;
        let xattrs = xattrs.as_deref().map(|all| all.0.clone()).unwrap_or_default();
        let meta = Meta { perm, uid, gid, size, nlink: node.names, mtime, xattrs };
        let holder = if regular(node) { Holder::FileOrDirectory } else { Holder::Other };
        self.warn_of_attributes(here, &meta, holder);
        Ok((kind, Some(meta)))
    }

    /// Warns of attributes that nothing but the store can hold.
    fn warn_of_attributes(&mut self, path: &TreePath, meta: &Meta, holder: Holder) {
        if meta.xattrs.is_empty() {
            return;
        }
        for what in too_much(&meta.xattrs, holder) {
            self.warn(|| {
                format!(
                    "{path}: {what}; it is kept, but a file that is unpacked or copied up to be \
                     changed cannot have it"
                )
            });
        }
    }

    /// The directory's names in order, whiteouts among them; `true`: the layer hides what lower
    /// layers have under a name that is its own directory.
    fn items(&self, dir: DirId) -> Vec<(strata_tree::NameBuf, bool, Item)> {
        let node = &self.dirs[dir.0];
        let mut items: Vec<_> = node
            .children
            .iter()
            .map(|(name, slot)| {
                let item = match slot {
                    Slot::Dir(dir) => Item::Dir(*dir),
                    Slot::File { file, position } => Item::File(*file, *position),
                    Slot::Waiting(link) => Item::Waiting(link.target.clone(), link.position),
                };
                (name.clone(), node.whiteouts.contains(name), item)
            })
            .collect();
        let hidden = node.whiteouts.iter().filter(|name| !node.children.contains_key(*name));
        items.extend(hidden.map(|name| (name.clone(), false, Item::Whiteout)));
        // A directory that only whiteouts imply, itself whited out, says just that.
        for (_, hidden_below, item) in &mut items {
            if let Item::Dir(dir) = item
                && *hidden_below
                && self.dirs[dir.0].presence == Presence::Phantom
            {
                *item = Item::Whiteout;
            }
        }
        items.sort_by(|a, b| a.0.cmp(&b.0));
        items
    }

    fn subdirs(&self, dir: DirId) -> u32 {
        let dirs = self.dirs[dir.0].children.values();
        dirs.filter(|slot| matches!(slot, Slot::Dir(_))).count() as u32
    }

    fn dir_kind(&self, dir: DirId, hidden_below: bool) -> RowKind {
        let node = &self.dirs[dir.0];
        // Nothing below shows through, so there are no metadata to take from there.
        let presence = match node.presence {
            Presence::Implied if hidden_below => Presence::Explicit,
            presence => presence,
        };
        let marks = DirMarks { opaque: node.opaque || hidden_below, presence };
        RowKind::Directory { marks, first: 0, children: 0 }
    }

    fn dir_meta(&self, dir: DirId, subdirs: u32) -> Meta {
        match &self.dirs[dir.0].facts {
            Some(facts) => meta(facts, 0, 2 + subdirs),
            None => {
                let stat = Stat::unstated_dir();
                Meta {
                    perm: stat.perm,
                    uid: stat.uid,
                    gid: stat.gid,
                    size: 0,
                    nlink: 2 + subdirs,
                    mtime: stat.mtime,
                    xattrs: Vec::new(),
                }
            }
        }
    }
}

fn regular(node: &FileNode) -> bool {
    matches!(node.kind, FileKind::Regular { .. })
}

fn meta(facts: &MemberFacts, size: u64, nlink: u32) -> Meta {
    Meta {
        perm: facts.perm,
        uid: facts.uid,
        gid: facts.gid,
        size,
        nlink,
        mtime: facts.mtime,
        xattrs: facts.xattrs.clone(),
    }
}

fn file_kind(
    kind: &FileKind,
    file: FileId,
    content: &dyn Fn(FileId) -> Result<strata_tree::ContentDigest>,
) -> Result<(RowKind, u64)> {
    Ok(match kind {
        FileKind::Regular { size } => (RowKind::Regular(content(file)?), *size),
        FileKind::Symlink(to) => (RowKind::Symlink(to.clone()), to.len() as u64),
        FileKind::CharDevice(device) => (RowKind::CharDevice(*device), 0),
        FileKind::BlockDevice(device) => (RowKind::BlockDevice(*device), 0),
        FileKind::Fifo => (RowKind::Fifo, 0),
    })
}
