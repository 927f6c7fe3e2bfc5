//! The mark of origin: the node of the lower whose number a whole copy keeps.
//!
//! A mark is a claim, and the lower may be another one by now: changed, made again, on another
//! disk. The upper's inode may be a copy as well (`cp -a`, `rsync -X` in an upper that is not
//! mounted). So the mark says what both inodes were (`origin_mark`), and counts only if both still
//! are.
//!
//! The lower is asked for the handle (`Lower::by_handle`). Where it cannot tell, the mark counts
//! as long as the lower has that node at the copy's own name, with the same handle if it has one.
//! A node whose mark does not count stands for itself: it has the upper's own number.
//!
//! Invariants: a mark decides a number and nothing else, but for a copy that a crash cut off,
//! whose content comes from a lower node that has the handle; that two nodes never have one
//! number is the table's care, whatever marks say.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Statx;
use strata_content::FileTree;
use strata_tree::{ByHandle, Kind, Name, NodeId};

use super::base::Base;
use super::error::Result;
use super::listing::DirReader;
use super::marks::{Mark, Marks};
use super::origin_mark::Origin;
use super::stats::{stat, upper_number};
use super::table::NodeState;

/// Reads and writes the marks of origin.
pub(super) struct Origins {
    lower: FileTree,
    marks: Marks,
    dirs: Arc<DirReader>,
}

impl Origins {
    pub(super) fn new(base: &Base, dirs: &Arc<DirReader>) -> Self {
        Self { lower: base.lower.clone(), marks: base.marks, dirs: Arc::clone(dirs) }
    }

    /// The mark of an inode of the upper.
    pub(super) fn read(&self, fd: &OwnedFd) -> Result<Option<Origin>> {
        let origin = self.marks.get(fd, Mark::StrataOrigin)?;
        Ok(origin.and_then(|text| Origin::parse(&text)))
    }

    /// The mark of a copy of the lower's node.
    pub(super) fn of(&self, copy: impl AsFd, lower: NodeId, unsynced: bool) -> Result<Origin> {
        let handle = self.lower.file_handle(lower)?;
        Ok(Origin { lower, inode: Some(stat(copy)?.stx_ino), handle, unsynced })
    }

    /// The lower's number that an inode called `name` in `dir` keeps, if its mark counts. `knows`
    /// says whether the table has that inode under a number.
    pub(super) fn kept_number(
        &self,
        origin: &Origin,
        inode: &Statx,
        (dir, name): (&NodeState, Name<'_>),
        knows: impl Fn(NodeId) -> bool,
    ) -> Result<Option<NodeId>> {
        if origin.inode.is_some_and(|own| own != inode.stx_ino) {
            return Ok(None);
        }
        if let Some(handle) = &origin.handle {
            match self.lower.by_handle(handle)? {
                ByHandle::Node(node) => return Ok(Some(node)),
                ByHandle::Gone => return Ok(None),
                ByHandle::Unknown => {}
            }
        }
        // One inode has one number, also under a name that the lower does not have.
        if knows(origin.lower) {
            return Ok(Some(origin.lower));
        }
        if knows(upper_number(inode)) {
            return Ok(None);
        }
        let below = self.dirs.in_lower(dir, name)?.filter(|node| node.id == origin.lower);
        let Some(below) = below.filter(|node| node.stat.kind != Kind::Directory) else {
            return Ok(None);
        };
        // One of the inode's names is new, and would say another number.
        if inode.stx_nlink > below.stat.nlink {
            return Ok(None);
        }
        let same = origin.handle.is_none() || self.lower.file_handle(below.id)? == origin.handle;
        Ok(same.then_some(below.id))
    }

    /// Whether the lower still has the very node that a mark names, which was looked up by now.
    pub(super) fn still_has(&self, origin: &Origin) -> Result<bool> {
        Ok(origin.handle.is_none() || self.lower.file_handle(origin.lower)? == origin.handle)
    }
}
