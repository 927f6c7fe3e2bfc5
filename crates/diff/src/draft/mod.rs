//! A layer being read: members of a tar applied, in order, to a tree.
//!
//! The draft decides what every path of a layer is. [`Draft`] holds names, directories and inodes
//! (`nodes.rs`), in memory as long as there is enough of it. What the disk must do to follow is
//! returned as [`Effects`]. `settle` and `finish` resolve what had to wait for the whole tar: hard
//! links before their targets, whiteouts of names that the same layer has.
//!
//! The rules (OCI image-spec layer.md; where it is silent, docs/SEMANTICS.md):
//! * a whiteout touches lower layers only, wherever it stands in the tar;
//! * the last member of a path wins; a path below something that is no directory makes it one;
//! * no link is followed when a member is placed.
//!
//! Invariants: directory 0 is the root; a path never leaves it; cost per member is logarithmic in
//! the directory's size, and replacing a subtree costs no more than adding it did; memory does not
//! grow with the layer, but by 12 bytes for each name that one member replaces.

mod attributes;
mod finish;
mod links;
mod nodes;
mod records;
mod rows;
mod sorted;
mod whiteouts;

use std::sync::Arc;

use strata_tree::{Device, Name, NameBuf, Presence, Timestamp, TreePath, Xattr};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::spill::SpillSpace;
use nodes::Nodes;
use records::Slot;

pub use finish::SettledDraft;
pub use rows::DraftRows;

/// A directory of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirId(u32);

/// A name of a draft, that of a file or of a directory. It keeps its path when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameId(u32);

impl NameId {
    /// Its number, from 0 in the order in which they came.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// An inode of a draft that is no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

impl FileId {
    /// Its number, from 0 in the order of their members.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The inode of that number.
    pub fn of_number(number: u32) -> Self {
        Self(number)
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

/// What must follow on disk, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Names of regular files that are gone.
    pub removed: Vec<RemovedName>,
    /// Directories that are gone, children before parents.
    pub removed_dirs: Vec<NameId>,
    /// Directories that are new, parents before children.
    pub made_dirs: Vec<TreePath>,
}

/// A name of a regular file that is gone. There may be millions, so its path is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedName {
    /// The name.
    pub name: NameId,
    /// The inode.
    pub file: FileId,
    /// Whether it was the inode's last name.
    pub last: bool,
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
        name: NameId,
        /// The path of that.
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
    nodes: Nodes,
    /// Whether a link has ever waited.
    links_waited: bool,
    /// Whether only the last directory of a link's target hides it. See
    /// [`Draft::take_earlier_links`].
    earlier_links: bool,
    /// What a person should know, the first hundred.
    warnings: Vec<String>,
}

const ROOT: DirId = DirId(0);

impl Draft {
    /// The empty layer, which errors call `label`; its names are kept in `scratch`.
    ///
    /// # Errors
    /// `Io` from the scratch file, as of all that follows.
    pub fn new(label: &str, limits: Limits, scratch: &Arc<SpillSpace>) -> Result<Self> {
        Ok(Self {
            label: label.to_owned(),
            limits,
            nodes: Nodes::new(scratch, label, limits.entries)?,
            links_waited: false,
            earlier_links: false,
            warnings: Vec::new(),
        })
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
                match self.nodes.slot(parent, name)? {
                    Some(Slot::Dir(dir)) => dir,
                    Some(Slot::File { .. } | Slot::Waiting { .. }) => {
                        self.warn_replaced(&path);
                        self.remove(parent, name, effects)?;
                        self.add_dir(parent, name, &path, Presence::Explicit, effects)?
                    }
                    None => self.add_dir(parent, name, &path, Presence::Explicit, effects)?,
                }
            }
        };
        self.strengthen(dir, Presence::Explicit, &path, effects)?;
        self.nodes.describe(dir, &facts, position)
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
        if let FileKind::Symlink(target) = &kind {
            self.check_target(raw, target)?;
        }
        let path = match self.classify(raw, false)? {
            MemberPlace::Plain(path) => path,
            MemberPlace::Hidden(path) => {
                let file = self.nodes.add_file(&kind, &facts)?;
                self.nodes.put_hidden(&path, file)?;
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
        let file = self.nodes.add_file(&kind, &facts)?;
        self.put(&path, Slot::File { file, position }, effects)?;
        self.nodes.add_name(file)?;
        Ok(Placed::File { file, path, hidden: false })
    }

    /// No tree that Linux holds has a longer target, and all targets of an image are in memory when
    /// its tree is compiled.
    fn check_target(&self, raw: &[u8], target: &[u8]) -> Result<()> {
        let (length, limit) = (target.len() as u64, self.limits.path_bytes);
        let limit = limit.max(Limits::TARGET_FREE);
        if length <= limit {
            return Ok(());
        }
        let rule = format!(
            "a symbolic link to {length} bytes, more than {limit}; raise it with --max-path if \
             you trust the image"
        );
        Err(self.rule_raw(raw, &rule))
    }

    /// Points `path` at `slot`, replacing whatever was there.
    fn put(&mut self, path: &TreePath, slot: Slot, effects: &mut Effects) -> Result<NameId> {
        let Some((parent, name)) = path.split_last() else {
            return Err(Error::rule(&self.label, path, "the root must be a directory"));
        };
        let dir = self.make_dirs(&parent, Presence::Implied, effects)?;
        if self.nodes.slot(dir, name)?.is_some() {
            self.warn_replaced(path);
            self.remove(dir, name, effects)?;
        }
        self.nodes.point(dir, name, slot)
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
            dir = match self.nodes.slot(dir, name)? {
                Some(Slot::Dir(known)) => {
                    self.strengthen(known, presence, &here, effects)?;
                    known
                }
                Some(Slot::File { .. } | Slot::Waiting { .. }) => {
                    self.warn_replaced(&here);
                    self.remove(dir, name, effects)?;
                    self.add_dir(dir, name, &here, presence, effects)?
                }
                None => self.add_dir(dir, name, &here, presence, effects)?,
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
    ) -> Result<DirId> {
        let dir = self.nodes.add_dir(parent, name, presence)?;
        if presence != Presence::Phantom {
            effects.made_dirs.push(path.clone());
        }
        Ok(dir)
    }

    /// A phantom becomes real once something real is in it; an implied one once it is described.
    fn strengthen(
        &mut self,
        dir: DirId,
        to: Presence,
        path: &TreePath,
        effects: &mut Effects,
    ) -> Result<()> {
        match (self.nodes.dir(dir)?.presence, to) {
            (Presence::Phantom, Presence::Implied | Presence::Explicit) => {
                effects.made_dirs.push(path.clone());
                self.nodes.set_presence(dir, to)
            }
            (Presence::Implied, Presence::Explicit) => self.nodes.set_presence(dir, to),
            (Presence::Explicit | Presence::Implied | Presence::Phantom, _) => Ok(()),
        }
    }

    /// Takes a name away, with everything below it.
    fn remove(&mut self, dir: DirId, name: Name<'_>, effects: &mut Effects) -> Result<()> {
        let Some((id, slot)) = self.nodes.take(dir, name)? else { return Ok(()) };
        if matches!(slot, Slot::File { .. } | Slot::Waiting { .. }) {
            // It hid what lower layers have here, and a directory in its place goes on to do so.
            self.nodes.hide(dir, name.as_bytes())?;
        }
        let (mut todo, mut gone) = (Vec::new(), Vec::new());
        self.drop_slot(id, slot, &mut todo, effects)?;
        while let Some((id, dir)) = todo.pop() {
            if self.nodes.dir(dir)?.presence != Presence::Phantom {
                gone.push(id);
            }
            let mut next = self.nodes.first_name(dir)?;
            while let Some(id) = next {
                let name = self.nodes.name(id)?;
                next = name.next;
                // Nothing leads here any more, so what its names point to may stay.
                if let Some(slot) = name.slot {
                    self.drop_slot(id, slot, &mut todo, effects)?;
                }
            }
        }
        effects.removed_dirs.extend(gone.into_iter().rev());
        Ok(())
    }

    /// A name goes with what it points to; a directory has its own names, and comes to `todo`.
    fn drop_slot(
        &mut self,
        name: NameId,
        slot: Slot,
        todo: &mut Vec<(NameId, DirId)>,
        effects: &mut Effects,
    ) -> Result<()> {
        match slot {
            Slot::Waiting { .. } => {}
            Slot::File { file, .. } => {
                let last = self.nodes.drop_name(file)? == 0;
                if self.nodes.file(file)?.is_regular() {
                    effects.removed.push(RemovedName { name, file, last });
                }
            }
            Slot::Dir(dir) => todo.push((name, dir)),
        }
        Ok(())
    }

    /// The path of a name, also of one that is gone.
    ///
    /// # Errors
    /// `Io`.
    pub fn path(&self, name: NameId) -> Result<TreePath> {
        self.nodes.path(name)
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
