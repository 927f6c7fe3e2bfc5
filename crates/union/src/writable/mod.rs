//! The writable union: one lower, usually merged of many, and one upper directory.
//!
//! The upper keeps every change in the kernel's own format, so that overlayfs can mount it and
//! shows the same tree: whiteouts are character devices 0:0 or marked files (`whiteouts`), an
//! opaque directory is marked, a renamed directory says where its lower is, a file whose metadata
//! alone have changed says so (`marks` has the names). Where overlayfs.rst documents an exception
//! there is none here:
//!
//! * a node keeps its number over copy-up and remount: the upper remembers the lower's;
//! * a lower file of several names is copied up under all of them at once, so its names stay
//!   links of one inode, for whoever mounts the upper;
//! * a program that has a file open sees what is written to it after its copy-up (`files`).
//!
//! ```text
//! lookup, list, attr        names, listing, attrs   read the upper first, then the lower
//! make, link                make                    made in the work directory, then moved
//! unlink, rmdir, rename     remove, rename          with whiteouts where the lower has the name
//! set_attr, set_xattr       attrs, xattrs           after copy_up
//! set_inode_flags           inode_flags             what they forbid: protected
//! open_file                 files                   real files, no bytes in between
//! ```
//!
//! Locks, in the order in which they are taken: `claims` (one node's changes), `tree` (shared by
//! whoever uses a path, alone by who moves a directory), `touched` (a directory's times), the
//! table's. A copy of bytes holds a claim and nothing else.
//!
//! Invariants: nothing is ever written to a lower; a name in the upper is whole when it appears;
//! after a crash at any point the tree is that before or after each call.

mod access_times;
mod acl;
mod attrs;
mod changes;
mod claims;
mod copy_up;
mod copying;
mod error;
mod files;
mod inode_flags;
mod listing;
mod make;
mod marks;
mod names;
mod open;
mod origin;
mod protected;
mod recover;
mod remove;
mod rename;
mod table;
mod types;
mod unsynced;
mod upper;
mod whiteouts;
mod xattrs;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use strata_content::FileTree;
use strata_tree::{Kind, NodeId, TreePath};

pub use changes::{Change, Layer, View};
use claims::Claims;
use copy_up::Links;
pub use error::{Error, Result};
pub use files::OpenFile;
use marks::{Mark, Marks};
use protected::Met;
use table::{Found, Stage, Table};
pub use types::*;
use unsynced::Unsynced;
use upper::Upper;
use whiteouts::Shared;

/// How many locks the directories share for their times.
const TOUCH_LOCKS: usize = 32;

/// One lower and one upper. See the module.
pub struct Union {
    lower: FileTree,
    upper: Upper,
    marks: Marks,
    options: UnionOptions,
    table: Arc<Table>,
    claims: Claims,
    unsynced: Arc<Unsynced>,
    /// Paths stay as they are while it is held.
    tree: RwLock<()>,
    touched: [Mutex<()>; TOUCH_LOCKS],
    whiteout: Shared,
    protected: Met,
    /// Lower nodes of several names; found when first needed.
    links: Mutex<Option<Arc<Links>>>,
}

impl Union {
    /// Puts `upper` on top of `lower`. `work` is a directory on the same file system for what is
    /// being made; what a crash left there is completed or removed.
    ///
    /// # Errors
    /// `Unusable` if the directories cannot be used together; `InUse`; `Upper`, `Lower`.
    pub fn open(lower: FileTree, upper: &Path, work: &Path, options: UnionOptions) -> Result<Self> {
        let mut union = Self::new(lower, Upper::open(upper, work, options)?, options)?;
        union.upper.can = whiteouts::probe(&union.upper, union.marks)?;
        if !union.is_shared() {
            union.recover()?;
        }
        Ok(union)
    }

    fn new(lower: FileTree, upper: Upper, options: UnionOptions) -> Result<Self> {
        let apart = options.ownership == Ownership::Override;
        // Only root may set trusted attributes, and not every file system has them.
        let user_marks = options.user_marks || apart || marks::only_users(upper.root());
        let options = UnionOptions { user_marks, ..options };
        let marks = Marks::new(user_marks, apart);
        let opaque = marks.get(upper.root(), Mark::Opaque)?.is_some_and(|value| value == b"y");
        let protected = Met::default();
        if marks.get(upper.root(), Mark::Protattr)?.is_some() {
            protected.note();
        }
        let root = Found {
            id: NodeId::ROOT,
            kind: Kind::Directory,
            stage: Stage::Upper,
            lower: (!opaque).then(|| lower.root()),
            redirect: Some(TreePath::root()),
            real: None,
        };
        Ok(Self {
            lower,
            upper,
            marks,
            options,
            table: Arc::new(Table::new(root)),
            claims: Claims::default(),
            unsynced: Arc::new(Unsynced::new(marks)),
            tree: RwLock::new(()),
            touched: Default::default(),
            whiteout: Shared::default(),
            protected,
            links: Mutex::default(),
        })
    }

    /// Whether another union uses the same directories; see [`UnionOptions::shared`].
    pub fn is_shared(&self) -> bool {
        self.upper.is_shared()
    }

    /// How owners, bits and types are kept.
    pub fn ownership(&self) -> Ownership {
        self.options.ownership
    }

    /// Owners, bits and types are kept apart from the upper's inodes.
    fn apart(&self) -> bool {
        self.ownership() == Ownership::Override
    }

    /// The kernel has dropped that many lookups of a node.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        self.table.forget(node, lookups);
    }

    /// The directory that holds `dir`; the root's is the root itself.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn parent(&self, dir: NodeId) -> Result<NodeId> {
        self.table.parent(dir)
    }

    /// How many nodes are known.
    #[cfg(test)]
    fn known_nodes(&self) -> usize {
        self.table.len()
    }

    /// Paths stay as they are while this is held.
    fn steady(&self) -> RwLockReadGuard<'_, ()> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else uses a path while this is held.
    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else changes these directories' lists of names, and so their times.
    fn touching(&self, dirs: &[NodeId]) -> Vec<MutexGuard<'_, ()>> {
        let mut which: Vec<usize> =
            dirs.iter().map(|dir| (dir.0 % TOUCH_LOCKS as u64) as usize).collect();
        which.sort_unstable();
        which.dedup();
        let lock = |index: usize| self.touched[index].lock();
        which.into_iter().map(|i| lock(i).unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

impl Drop for Union {
    fn drop(&mut self) {
        // Whoever wants to know of failures has called `finish`.
        let _ = (self.unsynced.end(), self.end_whiteouts());
    }
}
