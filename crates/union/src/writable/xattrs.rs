//! Extended attributes of nodes.
//!
//! Invariants: our marks are never listed, read, set or removed by name (`marks` escapes the
//! image's own names of that form); a symbolic link's are its own, never its target's.

use rustix::io::Errno;
use std::sync::Arc;
use strata_content::FileTree;
use strata_tree::{NodeId, Xattr};

use super::acl::{ACCESS, DEFAULT, bits_of};
use super::base::Base;
use super::copy_up::CopyUp;
use super::error::{Error, Result};
use super::inodes::{OpenInode, UpperInodes};
use super::locks::NodeLocks;
use super::marks::{Marks, Override, state};
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::stats::stat;
use super::table::{CopyStage, NodeTable, SeenNode};
use super::types::SetMode;

/// The longest name (`XATTR_NAME_MAX`), in bytes.
const NAME_MAX: usize = 255;

/// Shows and changes extended attributes.
pub(super) struct XattrChanges {
    lower: FileTree,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    inodes: Arc<UpperInodes>,
    protected: Arc<ProtectedNodes>,
    copies: Arc<CopyUp>,
}

impl XattrChanges {
    pub(super) fn new(base: &Base, read: &Readers, copies: &Arc<CopyUp>) -> Self {
        Self {
            lower: base.lower.clone(),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            inodes: Arc::clone(&read.inodes),
            protected: Arc::clone(&read.protected),
            copies: Arc::clone(copies),
        }
    }

    /// All attributes of a node, sorted by name.
    pub(super) fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        match (seen.found.stage, seen.found.lower) {
            (CopyStage::Lower, Some(lower)) => Ok(self.lower.xattrs(lower)?),
            _ => self.marks.all(self.inodes.open(&seen)?),
        }
    }

    /// The value of one attribute; `None` if the node does not have it.
    pub(super) fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        match (seen.found.stage, seen.found.lower) {
            (CopyStage::Lower, Some(lower)) => {
                let all = self.lower.xattrs(lower)?;
                Ok(all.into_iter().find(|(known, _)| known == name).map(|(_, value)| value))
            }
            _ => self.marks.value(self.inodes.open(&seen)?, name),
        }
    }

    /// Sets one attribute.
    pub(super) fn set_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Result<()> {
        if name.len() > NAME_MAX || self.marks.escape(name).len() > NAME_MAX {
            return Err(Error::Refused(Errno::RANGE));
        }
        self.protected.may_change(node)?;
        self.copies.copy_up(node, CopyStage::Meta, None)?;
        let _claim = self.locks.claim(&[node]);
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        let fd = self.inodes.open(&seen)?;
        if self.marks.is_apart() && name == ACCESS {
            return self.set_access(&seen, &fd, value, mode);
        }
        self.marks.put(fd, name, value, mode)
    }

    /// Sets an access ACL where no file system sees to it that the bits follow.
    fn set_access(
        &self,
        seen: &SeenNode,
        fd: &OpenInode,
        value: &[u8],
        mode: SetMode,
    ) -> Result<()> {
        let (bits, more) = bits_of(value).ok_or(Error::Refused(Errno::INVAL))?;
        match (mode, self.marks.value(fd, ACCESS)?.is_some()) {
            (SetMode::Create, true) => return Err(Error::Refused(Errno::EXIST)),
            (SetMode::Replace, false) => return Err(Error::Refused(Errno::NODATA)),
            (_, true) if !more => self.marks.remove(fd, ACCESS)?,
            (_, false) if !more => {}
            _ => self.marks.put(fd, ACCESS, value, SetMode::Either)?,
        }
        let now = self.inodes.upper_attr(&seen.found, fd, &stat(fd)?)?.stat;
        let perm = now.perm & !0o777 | bits;
        state(fd, Override { uid: now.uid, gid: now.gid, perm, kind: Some(seen.found.kind) })
    }

    /// Removes one attribute. An ACL may be absent: without one a node has its bits, which is what
    /// is asked for.
    pub(super) fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.protected.may_change(node)?;
        if self.xattr(node, name)?.is_none() {
            let acl = name == ACCESS || name == DEFAULT;
            return if acl { Ok(()) } else { Err(Error::Refused(Errno::NODATA)) };
        }
        self.copies.copy_up(node, CopyStage::Meta, None)?;
        let _claim = self.locks.claim(&[node]);
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        self.marks.remove(self.inodes.open(&seen)?, name)
    }
}
