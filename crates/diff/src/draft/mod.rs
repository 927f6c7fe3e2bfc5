//! A layer being read: members of a tar applied, in order, to a tree in memory.
//!
//! The draft decides what every path of a layer is; it does no I/O. [`Draft`] holds directories
//! and inodes in two arenas; a name points into one of them. What the disk must do to follow is
//! returned as [`Effects`]. `finish` resolves what had to wait for the whole tar: hard links
//! before their targets, whiteouts of names that the same layer has.
//!
//! The rules (OCI image-spec layer.md; where it is silent, docs/SEMANTICS.md):
//! * a whiteout touches lower layers only, wherever it stands in the tar;
//! * the last member of a path wins; a path below something that is no directory makes it one;
//! * no link is followed when a member is placed.
//!
//! Invariants: directory 0 is the root; a path never leaves it; cost per member is logarithmic in
//! the directory's size, and replacing a subtree costs no more than adding it did.

mod attributes;
mod finish;
mod links;
mod whiteouts;

use std::collections::{BTreeMap, BTreeSet};

use strata_tree::{Device, Name, NameBuf, Presence, Timestamp, TreePath, Xattr};

use crate::error::{Error, Result};
use crate::limits::Limits;

pub use finish::{Finished, SettledDraft};

/// A directory in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirId(usize);

/// An inode that is no directory, in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

impl FileId {
    /// Its number in the arena, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Metadata as a member gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFacts {
    /// The 12 permission bits.
    pub perm: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// What an inode is. `Regular` content is kept by the caller, by [`FileId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    Regular {
        /// Bytes of its content.
        size: u64,
    },
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

#[derive(Debug)]
struct DirNode {
    facts: Option<MemberFacts>,
    presence: Presence,
    opaque: bool,
    children: BTreeMap<NameBuf, Slot>,
    whiteouts: BTreeSet<NameBuf>,
    position: Option<u64>,
}

#[derive(Debug)]
struct FileNode {
    facts: FileFacts,
    kind: FileKind,
    names: u32,
}

/// [`MemberFacts`] of a file. There may be millions, and few have attributes.
#[derive(Debug)]
struct FileFacts {
    perm: u16,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    xattrs: Option<Box<FileXattrs>>,
}

#[derive(Debug)]
struct FileXattrs(Vec<Xattr>);

impl From<MemberFacts> for FileFacts {
    fn from(facts: MemberFacts) -> Self {
        let MemberFacts { perm, uid, gid, mtime, xattrs } = facts;
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(FileXattrs(xattrs)));
        Self { perm, uid, gid, mtime, xattrs }
    }
}

/// What a name points to.
#[derive(Debug, Clone)]
enum Slot {
    Dir(DirId),
    File {
        file: FileId,
        position: u64,
    },
    /// A hard link whose target no member has given yet. Few links are: there is a slot for each
    /// name, so it is small.
    Waiting(Box<WaitingLink>),
}

#[derive(Debug, Clone)]
struct WaitingLink {
    target: TreePath,
    position: u64,
}

/// What must follow on disk, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Names of regular files that are gone; `true` if it was the inode's last name.
    pub removed: Vec<(TreePath, FileId, bool)>,
    /// Directories that are gone, children before parents.
    pub removed_dirs: Vec<TreePath>,
    /// Directories that are new, parents before children.
    pub made_dirs: Vec<TreePath>,
}

/// What a member turned out to be.
#[derive(Debug)]
pub enum Placed {
    /// An inode: if it is a regular file, its content goes to `path`, unless `hidden`.
    File {
        /// The inode.
        file: FileId,
        /// Its first name.
        path: TreePath,
        /// Whether the name is never shown.
        hidden: bool,
    },
    /// Another name of a known inode.
    Link {
        /// The inode.
        file: FileId,
        /// Its new name.
        path: TreePath,
    },
    /// Nothing to keep on disk.
    Nothing,
}

/// The tree being drafted.
#[derive(Debug)]
pub struct Draft {
    label: String,
    limits: Limits,
    dirs: Vec<DirNode>,
    files: Vec<FileNode>,
    /// AUFS' link store, `.wh..wh.plnk` and the like: link targets that are never shown.
    hidden: BTreeMap<TreePath, FileId>,
    /// What a person should know, the first hundred.
    warnings: Vec<String>,
}

const ROOT: DirId = DirId(0);

impl Draft {
    /// The empty layer, which errors call `label`.
    pub fn new(label: &str, limits: Limits) -> Self {
        let root = DirNode {
            facts: None,
            presence: Presence::Implied,
            opaque: false,
            children: BTreeMap::new(),
            whiteouts: BTreeSet::new(),
            position: None,
        };
        Self {
            label: label.to_owned(),
            limits,
            dirs: vec![root],
            files: Vec::new(),
            hidden: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// A directory member: new, or new metadata of a known one.
    ///
    /// # Errors
    /// `Rule`, `Limit`.
    pub fn directory(
        &mut self,
        raw: &[u8],
        facts: MemberFacts,
        position: u64,
        effects: &mut Effects,
    ) -> Result<()> {
        let path = match self.classify(raw, true)? {
            MemberPlace::Plain(path) => path,
            MemberPlace::Hidden(_) => return Ok(()),
            MemberPlace::Whiteout { .. } | MemberPlace::Opaque(_) => {
                return Err(self.rule_raw(raw, "a whiteout may not be a directory"));
            }
        };
        let dir = match path.split_last() {
            None => ROOT,
            Some((parent, name)) => {
                let parent = self.make_dirs(&parent, Presence::Implied, effects)?;
                match self.dirs[parent.0].children.get(name.as_bytes()) {
                    Some(Slot::Dir(dir)) => *dir,
                    Some(Slot::File { .. } | Slot::Waiting(_)) => {
                        self.warn_replaced(&path);
                        self.remove(parent, name, &path, effects);
                        self.add_dir(parent, name, &path, Presence::Explicit, effects)
                    }
                    None => self.add_dir(parent, name, &path, Presence::Explicit, effects),
                }
            }
        };
        self.strengthen(dir, Presence::Explicit, &path, effects);
        let node = &mut self.dirs[dir.0];
        node.facts = Some(facts);
        node.position = Some(position);
        Ok(())
    }

    /// A member that is an inode of its own: regular file, symlink, device, fifo.
    ///
    /// # Errors
    /// `Rule`, `Limit`.
    pub fn file(
        &mut self,
        raw: &[u8],
        kind: FileKind,
        facts: MemberFacts,
        position: u64,
        effects: &mut Effects,
    ) -> Result<Placed> {
        let path = match self.classify(raw, false)? {
            MemberPlace::Plain(path) => path,
            MemberPlace::Hidden(path) => {
                let file = self.add_file(kind, facts)?;
                self.hidden.insert(path.clone(), file);
                return Ok(Placed::File { file, path, hidden: true });
            }
            MemberPlace::Whiteout { parent, name } => {
                self.whiteout(&parent, &name)?;
                return Ok(Placed::Nothing);
            }
            MemberPlace::Opaque(dir) => {
                self.opaque(&dir)?;
                return Ok(Placed::Nothing);
            }
        };
        let file = self.add_file(kind, facts)?;
        self.put(&path, Slot::File { file, position }, effects)?;
        self.files[file.index()].names += 1;
        Ok(Placed::File { file, path, hidden: false })
    }

    /// Points `path` at `slot`, replacing whatever was there.
    fn put(&mut self, path: &TreePath, slot: Slot, effects: &mut Effects) -> Result<()> {
        let Some((parent, name)) = path.split_last() else {
            return Err(Error::rule(&self.label, path, "the root must be a directory"));
        };
        let dir = self.make_dirs(&parent, Presence::Implied, effects)?;
        if self.dirs[dir.0].children.contains_key(name.as_bytes()) {
            self.warn_replaced(path);
            self.remove(dir, name, path, effects);
        }
        self.dirs[dir.0].children.insert(name.to_owned(), slot);
        Ok(())
    }

    fn add_file(&mut self, kind: FileKind, facts: MemberFacts) -> Result<FileId> {
        let Ok(number) = u32::try_from(self.files.len()) else {
            let (layer, limit) = (self.label.clone(), u64::from(u32::MAX));
            return Err(Error::Limit { layer, what: "members", limit, option: "--max-entries" });
        };
        self.files.push(FileNode { facts: facts.into(), kind, names: 0 });
        Ok(FileId(number))
    }

    /// Finds or makes the directory `path`; what is in its way and no directory is replaced.
    fn make_dirs(
        &mut self,
        path: &TreePath,
        presence: Presence,
        effects: &mut Effects,
    ) -> Result<DirId> {
        let mut dir = ROOT;
        let mut here = TreePath::root();
        for name in path.names() {
            here.push(name);
            dir = match self.dirs[dir.0].children.get(name.as_bytes()) {
                Some(Slot::Dir(known)) => {
                    let known = *known;
                    self.strengthen(known, presence, &here, effects);
                    known
                }
                Some(Slot::File { .. } | Slot::Waiting(_)) => {
                    self.warn_replaced(&here);
                    self.remove(dir, name, &here, effects);
                    self.add_dir(dir, name, &here, presence, effects)
                }
                None => self.add_dir(dir, name, &here, presence, effects),
            };
        }
        Ok(dir)
    }

    fn add_dir(
        &mut self,
        parent: DirId,
        name: Name<'_>,
        path: &TreePath,
        presence: Presence,
        effects: &mut Effects,
    ) -> DirId {
        let id = DirId(self.dirs.len());
        self.dirs.push(DirNode {
            facts: None,
            presence,
            opaque: false,
            children: BTreeMap::new(),
            whiteouts: BTreeSet::new(),
            position: None,
        });
        self.dirs[parent.0].children.insert(name.to_owned(), Slot::Dir(id));
        if presence != Presence::Phantom {
            effects.made_dirs.push(path.clone());
        }
        id
    }

    /// A phantom becomes real once something real is in it; an implied one once it is described.
    fn strengthen(&mut self, dir: DirId, to: Presence, path: &TreePath, effects: &mut Effects) {
        let node = &mut self.dirs[dir.0];
        match (node.presence, to) {
            (Presence::Phantom, Presence::Implied | Presence::Explicit) => {
                effects.made_dirs.push(path.clone());
                node.presence = to;
            }
            (Presence::Implied, Presence::Explicit) => node.presence = to,
            (Presence::Explicit | Presence::Implied | Presence::Phantom, _) => {}
        }
    }

    /// Takes a name away, with everything below it.
    fn remove(&mut self, dir: DirId, name: Name<'_>, path: &TreePath, effects: &mut Effects) {
        let Some(slot) = self.dirs[dir.0].children.remove(name.as_bytes()) else { return };
        if matches!(slot, Slot::File { .. } | Slot::Waiting(_)) {
            // It hid what lower layers have here, and a directory in its place goes on to do so.
            self.dirs[dir.0].whiteouts.insert(name.to_owned());
        }
        let mut todo = vec![(slot, path.clone())];
        let mut gone = Vec::new();
        while let Some((slot, path)) = todo.pop() {
            match slot {
                Slot::Waiting(_) => {}
                Slot::File { file, .. } => {
                    let node = &mut self.files[file.index()];
                    node.names -= 1;
                    if matches!(node.kind, FileKind::Regular { .. }) {
                        effects.removed.push((path, file, node.names == 0));
                    }
                }
                Slot::Dir(dir) => {
                    let node = &mut self.dirs[dir.0];
                    for (name, child) in std::mem::take(&mut node.children) {
                        todo.push((child, path.join(name.as_name())));
                    }
                    if node.presence != Presence::Phantom {
                        gone.push(path);
                    }
                }
            }
        }
        gone.reverse();
        effects.removed_dirs.extend(gone);
    }

    fn warn_replaced(&mut self, path: &TreePath) {
        self.warn(|| format!("{path} is replaced by a later member of the same layer"));
    }

    fn warn(&mut self, text: impl FnOnce() -> String) {
        const MOST: usize = 100;
        if self.warnings.len() < MOST {
            self.warnings.push(text());
        }
    }

    fn rule_raw(&self, raw: &[u8], rule: &str) -> Error {
        Error::Rule {
            layer: self.label.clone(),
            path: format!("{}", raw.escape_ascii()),
            rule: rule.to_owned(),
        }
    }
}

/// What a member's path means.
enum MemberPlace {
    /// An ordinary path.
    Plain(TreePath),
    /// Inside AUFS' own directories: kept as a link target, never shown.
    Hidden(TreePath),
    /// `.wh.NAME`.
    Whiteout { parent: TreePath, name: NameBuf },
    /// `.wh..wh..opq`.
    Opaque(TreePath),
}

#[cfg(test)]
mod tests;
