//! The writable union, as its callers see it. (Signatures only; the work follows.)

mod error;
mod types;

use std::path::Path;
use std::sync::Arc;

use strata_tree::{Lower, NodeId, Xattr};

pub use error::{Error, Result};
pub use types::*;

/// One lower (usually merged of many) and one upper directory.
pub struct Union;

/// An open regular file. Reads see what any other opener wrote, also those of a file that was
/// opened before it was copied up.
pub struct OpenFile;

#[allow(unused_variables, missing_docs)]
impl Union {
    /// `upper` and `work` are directories on one file system; `work` is emptied.
    pub fn open(lower: Arc<dyn Lower>, upper: &Path, work: &Path, o: UnionOptions) -> Result<Self> {
        unimplemented!()
    }
    /// Counts one lookup for a name that is found; `None`: no such name. `ENAMETOOLONG`.
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<Attr>> {
        unimplemented!()
    }
    /// The kernel has dropped that many lookups.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        unimplemented!()
    }
    pub fn attr(&self, node: NodeId) -> Result<Attr> {
        unimplemented!()
    }
    pub fn set_attr(&self, node: NodeId, changes: &Changes) -> Result<Attr> {
        unimplemented!()
    }
    pub fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        unimplemented!()
    }
    /// Counts one lookup. `EEXIST`.
    pub fn make(&self, who: &Caller, dir: NodeId, name: &[u8], new: New<'_>) -> Result<Attr> {
        unimplemented!()
    }
    /// Makes a regular file and opens it for reading and writing. Counts one lookup.
    pub fn create(
        &self,
        who: &Caller,
        dir: NodeId,
        name: &[u8],
        perm: u16,
    ) -> Result<(Attr, Arc<OpenFile>)> {
        unimplemented!()
    }
    /// Counts one lookup.
    pub fn link(&self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<Attr> {
        unimplemented!()
    }
    pub fn unlink(&self, dir: NodeId, name: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn rmdir(&self, dir: NodeId, name: &[u8]) -> Result<()> {
        unimplemented!()
    }
    /// `whiteout`: leave a whiteout (char 0:0) at the source (`RENAME_WHITEOUT`).
    pub fn rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        mode: RenameMode,
        whiteout: bool,
    ) -> Result<()> {
        unimplemented!()
    }
    /// A snapshot of all names of a directory, without `.` and `..`; counts no lookups.
    pub fn list(&self, dir: NodeId) -> Result<Vec<Listed>> {
        unimplemented!()
    }
    /// The directory that holds `dir` (the root's is itself).
    pub fn parent(&self, dir: NodeId) -> Result<NodeId> {
        unimplemented!()
    }
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        unimplemented!()
    }
    pub fn set_xattr(&self, n: NodeId, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        unimplemented!()
    }
    /// `ENODATA`.
    pub fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        unimplemented!()
    }
    /// `EISDIR`, `ENXIO` for what is no regular file.
    pub fn open_file(&self, node: NodeId, how: OpenHow) -> Result<Arc<OpenFile>> {
        unimplemented!()
    }
    /// How many bytes a copy-up for writing would have to copy now: worth another thread?
    pub fn copy_up_bytes(&self, node: NodeId) -> u64 {
        unimplemented!()
    }
    pub fn space(&self) -> Result<Space> {
        unimplemented!()
    }
    /// Syncs a directory (fsyncdir); nothing for a lower one or a volatile union.
    pub fn sync_dir(&self, dir: NodeId) -> Result<()> {
        unimplemented!()
    }
    /// Syncs the upper's file system, for a clean end.
    pub fn sync(&self) -> Result<()> {
        unimplemented!()
    }
}

#[allow(unused_variables, missing_docs)]
impl OpenFile {
    pub fn node(&self) -> NodeId {
        unimplemented!()
    }
    /// Fewer bytes only at the end.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        unimplemented!()
    }
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        unimplemented!()
    }
    /// `fallocate` with its mode bits.
    pub fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        unimplemented!()
    }
    /// `SEEK_DATA` or `SEEK_HOLE`; `ENXIO` past the end.
    pub fn seek(&self, offset: u64, hole: bool) -> Result<u64> {
        unimplemented!()
    }
    pub fn copy_range(&self, at: u64, to: &OpenFile, to_at: u64, len: u64) -> Result<u64> {
        unimplemented!()
    }
    pub fn sync(&self, data_only: bool) -> Result<()> {
        unimplemented!()
    }
    /// The upper file, for passthrough: `None` while the content is a lower's, which must never
    /// be handed to the kernel on a writable mount.
    pub fn upper_file(&self) -> Option<Arc<std::fs::File>> {
        unimplemented!()
    }
}
