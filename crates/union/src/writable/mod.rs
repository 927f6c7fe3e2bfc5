//! The writable union: one lower, usually merged of many, and one upper directory.
//!
//! The upper keeps every change in the kernel's own format, so that overlayfs can mount it and
//! shows the same tree: whiteouts are character devices 0:0 or marked files (`whiteouts`), an
//! opaque directory is marked, a renamed directory says where its lower is, a file whose metadata
//! alone have changed says so (`marks` has the names). Where overlayfs.rst documents an exception
//! there is none here:
//!
//! * a node keeps its number over copy-up and remount: the upper remembers the lower's;
//! * a lower file of several names is copied up under all of them at once, so its names stay links
//!   of one inode, whatever mounts the upper;
//! * a program that has a file open sees what is written to it after its copy-up (`files`).
//!
//! [`Union`] hands each call to the part that does it; each part has its own state, and uses those
//! above it in this list:
//!
//! ```text
//! base       lower, upper, marks, table, locks, unsynced: what all parts use
//! readers    whiteouts     their form, and the one that others are links of
//!            listing       DirReader: the names of merged directories, link counts
//!            inodes        UpperInodes: opened, and what they say
//!            origin        Origins: the lower node whose number a copy keeps
//!            names         NameResolver: which node a name is, the upper first, then the lower
//!            protected     ProtectedNodes: what the flags `i` and `a` forbid
//! copies     inode_maker   InodeMaker: new inodes with owner, bits and attributes
//!            links         LinkFinder: all names of a lower node
//!            copy_up       CopyUp: made in the work directory, then moved
//! calls      open          FileOpener: real files, no bytes in between
//!            attrs, xattrs, inode_flags    shown, and changed after a copy-up
//!            make          NodeMaker: made in the work directory, then moved
//!            remove, rename    with whiteouts where the lower has the name
//!            recover       UpperUse: the beginning and the end
//! ```
//!
//! `locks` says in which order locks are taken.
//!
//! Invariants: nothing is ever written to a lower; a name in the upper is whole when it appears;
//! after a crash at any point the tree is that before or after each call.

mod access_times;
mod acl;
mod attrs;
mod base;
mod can;
mod changes;
mod claims;
mod copy_up;
mod copying;
mod descriptor;
mod error;
mod files;
mod inode_attrs;
mod inode_bits;
mod inode_flags;
mod inode_maker;
mod inodes;
mod links;
mod listing;
mod locks;
mod make;
mod marks;
mod names;
mod open;
mod open_bytes;
mod origin;
mod origin_mark;
mod probe;
mod protected;
mod readers;
mod recover;
mod remove;
mod rename;
mod stats;
mod table;
mod types;
mod unsynced;
mod upper;
mod upper_contents;
mod whiteouts;
mod xattrs;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use strata_content::FileTree;
use strata_tree::{FlagsForm, InodeFlags, Kind, NodeId, Xattr};

use attrs::Metadata;
use base::Base;
use can::Can;
pub use changes::{Layer, PathChange, UpperView};
use copy_up::CopyUp;
pub use error::{Error, Result};
pub use files::OpenFile;
use inode_flags::FlagChanges;
use links::LinkFinder;
use listing::DirReader;
use make::NodeMaker;
use names::NameResolver;
use open::FileOpener;
use protected::ProtectedNodes;
use readers::Readers;
use recover::UpperUse;
use remove::NameRemoval;
use rename::Renaming;
use table::NodeTable;
pub use types::*;
use upper::Upper;
use xattrs::XattrChanges;

/// One lower and one upper. See the module.
pub struct Union {
    ownership: Ownership,
    shared: bool,
    table: Arc<NodeTable>,
    dirs: Arc<DirReader>,
    names: Arc<NameResolver>,
    protected: Arc<ProtectedNodes>,
    copies: Arc<CopyUp>,
    files: Arc<FileOpener>,
    metadata: Metadata,
    xattrs: XattrChanges,
    flags: FlagChanges,
    nodes: Arc<NodeMaker>,
    removal: NameRemoval,
    renaming: Renaming,
    lifetime: UpperUse,
}

impl Union {
    /// Puts `upper` on top of `lower`. `work` is a directory on the same file system for what is
    /// being made; what a crash left there is completed or removed.
    ///
    /// # Errors
    /// `Unusable` if the directories cannot be used together; `InUse`; `Upper`, `Lower`.
    pub fn open(lower: FileTree, upper: &Path, work: &Path, options: UnionOptions) -> Result<Self> {
        Self::open_as_if(lower, upper, work, options, None)
    }

    /// The same, as if the upper's file system could do `can` and no more.
    fn open_as_if(
        lower: FileTree,
        upper: &Path,
        work: &Path,
        options: UnionOptions,
        can: Option<Can>,
    ) -> Result<Self> {
        let base = Base::new(lower, Upper::open(upper, work, options)?, options, can)?;
        let union = Self::of(&base, &Readers::new(&base), options);
        if !union.is_shared() {
            union.lifetime.recover()?;
        }
        Ok(union)
    }

    /// Puts the parts together.
    fn of(base: &Base, read: &Readers, options: UnionOptions) -> Self {
        let UnionOptions { volatile, no_metacopy, no_redirect, .. } = options;
        let links = Arc::new(LinkFinder::new(base, read));
        let copies = Arc::new(CopyUp::new(base, read, &links, no_metacopy));
        let files = Arc::new(FileOpener::new(base, read, &copies, volatile));
        let nodes = Arc::new(NodeMaker::new(base, read, &copies, &files));
        Self {
            ownership: options.ownership,
            shared: base.upper.is_shared(),
            table: Arc::clone(&base.table),
            dirs: Arc::clone(&read.dirs),
            names: Arc::clone(&read.names),
            protected: Arc::clone(&read.protected),
            metadata: Metadata::new(base, read, &copies),
            xattrs: XattrChanges::new(base, read, &copies),
            flags: FlagChanges::new(base, read, &copies),
            removal: NameRemoval::new(base, read, &copies),
            renaming: Renaming::new(base, read, &copies, &nodes, no_redirect),
            lifetime: UpperUse::new(base, read, &links, &copies, volatile),
            copies,
            files,
            nodes,
        }
    }

    /// Whether another union uses the same directories; see [`UnionOptions::shared`].
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// How owners, bits and types are kept.
    pub fn ownership(&self) -> Ownership {
        self.ownership
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

    /// All names of a directory, without `.` and `..`. Counts no lookups.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`; `Upper`, `Lower`.
    pub fn list(&self, dir: NodeId) -> Result<Vec<ListedName>> {
        self.dirs.list(dir)
    }

    /// The node called `bytes` in `dir`; counts one lookup if there is one.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOTDIR`, `ESTALE`; `Upper`, `Lower`.
    pub fn lookup(&self, dir: NodeId, bytes: &[u8]) -> Result<Option<Attr>> {
        self.names.lookup(dir, bytes)
    }

    /// The number and type of a name that was listed in a directory; `None` if it is gone.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`; `Upper`, `Lower`.
    pub fn identity(&self, dir: NodeId, listed: &ListedName) -> Result<Option<(NodeId, Kind)>> {
        self.names.identity(dir, listed)
    }

    /// Before room is made or taken in an open file; `mode` as of fallocate(2).
    ///
    /// # Errors
    /// `EPERM`, `ESTALE`; `Upper`.
    pub fn may_allocate(&self, node: NodeId, mode: u32) -> Result<()> {
        self.protected.may_allocate(node, mode)
    }

    /// How many bytes opening a node for writing would copy now.
    pub fn copy_up_bytes(&self, node: NodeId) -> u64 {
        self.copies.copy_up_bytes(node)
    }

    /// How many bytes changing a node's metadata would copy now.
    pub fn mark_up_bytes(&self, node: NodeId) -> u64 {
        self.copies.mark_up_bytes(node)
    }

    /// Whether a change of a node would wait for a long copy of bytes that is under way.
    pub fn waits_for_copy(&self, node: NodeId) -> bool {
        self.copies.waits_for_copy(node)
    }

    /// The same for a change of a name, whichever node it is.
    pub fn name_waits_for_copy(&self, dir: NodeId, bytes: &[u8]) -> bool {
        self.copies.name_waits_for_copy(dir, bytes)
    }

    /// Opens a regular file; for writing it is copied up first.
    ///
    /// # Errors
    /// `EISDIR`, `ENXIO` for what is no regular file, `ESTALE`; `Upper`, `Lower`.
    pub fn open_file(&self, node: NodeId, how: OpenHow) -> Result<Arc<OpenFile>> {
        self.files.open_file(node, how)
    }

    /// Puts a directory on disk (`fsyncdir`). Does nothing for a lower's and on a volatile union.
    ///
    /// # Errors
    /// `EIO`.
    pub fn sync_dir(&self, dir: NodeId) -> Result<()> {
        self.files.sync_dir(dir)
    }

    /// Metadata of a node.
    ///
    /// # Errors
    /// `ESTALE`; `Upper`, `Lower`.
    pub fn attr(&self, node: NodeId) -> Result<Attr> {
        self.metadata.attr(node)
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// `EINVAL` for other nodes than symlinks, `ESTALE`; `Upper`, `Lower`.
    pub fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.metadata.read_link(node)
    }

    /// Changes metadata; gives those after it.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` for the size of what is no regular file; `EPERM`; `Upper`, `Lower`.
    pub fn set_attr(&self, node: NodeId, changes: &Changes) -> Result<Attr> {
        self.metadata.set_attr(node, changes)
    }

    /// The file system below the upper.
    ///
    /// # Errors
    /// `Upper`.
    pub fn space(&self) -> Result<StatFs> {
        self.metadata.space()
    }

    /// All attributes of a node, sorted by name.
    ///
    /// # Errors
    /// `ESTALE`, `ENOENT`; `Upper`, `Lower`.
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.xattrs.xattrs(node)
    }

    /// The value of one attribute; `None` if the node does not have it.
    ///
    /// # Errors
    /// As [`Union::xattrs`].
    pub fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.xattrs.xattr(node, name)
    }

    /// Sets one attribute.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA` as `mode` says; `ERANGE` for a name that is too long; what the upper's
    /// file system says: `ENOSPC`, `E2BIG`, `EOPNOTSUPP`, `EPERM`.
    pub fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        self.xattrs.set_xattr(node, name, value, mode)
    }

    /// Removes one attribute. An ACL may be absent: without one a node has its bits, which is what
    /// is asked for.
    ///
    /// # Errors
    /// `ENODATA`.
    pub fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.xattrs.remove_xattr(node, name)
    }

    /// The flags of a regular file or a directory.
    ///
    /// # Errors
    /// `ENOTTY` where there are none; `EACCES` where the inode may not be read; `ESTALE`.
    pub fn inode_flags(&self, node: NodeId, form: FlagsForm) -> Result<InodeFlags> {
        self.flags.inode_flags(node, form)
    }

    /// The generation of the inode that has a node's metadata; 0 where that is no inode of its own.
    ///
    /// # Errors
    /// As [`Union::inode_flags`].
    pub fn inode_version(&self, node: NodeId) -> Result<u32> {
        self.flags.inode_version(node)
    }

    /// Gives a node these flags and takes all others away. The kernel decides who may do that.
    ///
    /// # Errors
    /// What the upper's file system says: `ENOTTY`, `EOPNOTSUPP`, `EINVAL`, `EPERM`; `ESTALE`.
    pub fn set_inode_flags(&self, node: NodeId, flags: InodeFlags) -> Result<()> {
        self.flags.set_inode_flags(node, flags)
    }

    /// Makes a node; counts one lookup.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` in a removed directory, `ENAMETOOLONG`; `Upper`, `Lower`.
    pub fn make(&self, who: &Caller, dir: NodeId, bytes: &[u8], new: New<'_>) -> Result<Attr> {
        self.nodes.make(who, dir, bytes, new)
    }

    /// Makes a regular file and opens it for reading and writing; counts one lookup.
    ///
    /// # Errors
    /// As [`Union::make`].
    pub fn create(
        &self,
        who: &Caller,
        dir: NodeId,
        bytes: &[u8],
        perm: u16,
    ) -> Result<(Attr, Arc<OpenFile>)> {
        self.nodes.create(who, dir, bytes, perm)
    }

    /// Gives a node a further name; counts one lookup.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` if the node was removed, `EPERM` for directories, `EMLINK`.
    pub fn link(&self, node: NodeId, dir: NodeId, bytes: &[u8]) -> Result<Attr> {
        self.nodes.link(node, dir, bytes)
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`; `Upper`, `Lower`.
    pub fn unlink(&self, dir: NodeId, bytes: &[u8]) -> Result<()> {
        self.removal.unlink(dir, bytes)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`; `Upper`, `Lower`.
    pub fn rmdir(&self, dir: NodeId, bytes: &[u8]) -> Result<()> {
        self.removal.rmdir(dir, bytes)
    }

    /// Moves `from` to `to`. `whiteout`: a character device 0:0 is made at the source.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `ENOTEMPTY`, `ENOTDIR`, `EISDIR`; `EXDEV` for a lower directory with
    /// `no_redirect`; `Upper`, `Lower`.
    pub fn rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        mode: RenameMode,
        whiteout: bool,
    ) -> Result<()> {
        self.renaming.rename(from, to, mode, whiteout)
    }

    /// Gives the root of a new upper the metadata of the lower's root; overlayfs shows the upper's.
    ///
    /// # Errors
    /// `Upper`, `Lower`.
    pub fn adopt_root(&self) -> Result<()> {
        self.lifetime.adopt_root()
    }

    /// Puts everything on disk, before the mount is taken away or while it goes on. Does nothing
    /// on a volatile union.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`: something that was written is lost.
    pub fn sync(&self) -> Result<()> {
        self.lifetime.sync()
    }

    /// Ends the use of the upper once nothing is mounted any more: little is left to do, and the
    /// next user of the directories waits for it. What was written is in the page cache, or on
    /// disk, as after any program's end; copies that came up are on disk.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`: something that was written is lost.
    pub fn finish(&self) -> Result<()> {
        self.lifetime.finish()
    }
}

impl Drop for Union {
    fn drop(&mut self) {
        // A caller that wants to know of failures has called `finish`.
        let _ = self.lifetime.close();
    }
}
