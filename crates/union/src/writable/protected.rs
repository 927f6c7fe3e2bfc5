//! What the flags `i` and `a` of a node forbid.
//!
//! The kernel checks them in inodes, and those of a FUSE mount never have them. So this does what
//! its virtual file system does (chattr(1); inode_permission, may_delete, may_open, may_setattr):
//!
//! ```text
//!                                          i on it      a on it
//! open for writing                         EPERM        EPERM but for O_APPEND without O_TRUNC
//! mode, owner, given times, attributes     EPERM        EPERM
//! the present as its times                 EPERM
//! length by name; through an open file     EPERM; -     EPERM; EPERM
//! fallocate                                EPERM        EPERM but for more room
//! a further name, another name, no name    EPERM        EPERM
//! a new name in it                         EPERM
//! a name in it goes or is replaced         EPERM        EPERM
//! ```
//!
//! Invariants: an upper is asked only if one of its nodes is known to be protected; what has no
//! flags forbids nothing.

use rustix::fs::{AtFlags, FallocateFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;
use strata_tree::{NodeId, Protection};

use super::base::Base;
use super::error::{Doing, Error, Result};
use super::inodes::UpperInodes;
use super::locks::NodeLocks;
use super::marks::{Mark, Marks, Met};
use super::table::{CopyStage, NodeState, NodeTable, SeenNode};
use super::types::{Changes, OpenHow, SetTime};

fn refuse(refused: bool) -> Result<()> {
    if refused { Err(Error::Refused(Errno::PERM)) } else { Ok(()) }
}

/// Knows which nodes are protected, and what that forbids.
pub(super) struct ProtectedNodes {
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    met: Arc<Met>,
    inodes: Arc<UpperInodes>,
}

impl ProtectedNodes {
    pub(super) fn new(base: &Base, inodes: &Arc<UpperInodes>) -> Self {
        Self {
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            met: Arc::clone(&base.met),
            inodes: Arc::clone(inodes),
        }
    }

    /// How a node is protected.
    fn protection(&self, node: NodeId) -> Result<Protection> {
        let _steady = self.locks.steady();
        self.protection_of(&self.table.see(node)?)
    }

    /// The same where the caller holds the paths still.
    pub(super) fn protection_of(&self, seen: &SeenNode) -> Result<Protection> {
        if seen.found.stage > CopyStage::Lower {
            if !self.met.any() {
                return Ok(Protection::default());
            }
            let text = self.marks.get(self.inodes.open(seen)?, Mark::Protattr)?;
            return Ok(Protection::parse(&text.unwrap_or_default()));
        }
        let Some(inode) = self.inodes.lower_inode(seen)? else { return Ok(Protection::default()) };
        let stat = rustix::fs::statx(inode, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
            .doing(|| "stat a node of the lower".to_owned())?;
        let has = |flag| stat.stx_attributes.contains(flag);
        Ok(Protection {
            append: has(StatxAttributes::APPEND),
            immutable: has(StatxAttributes::IMMUTABLE),
        })
    }

    /// Before a file is opened.
    pub(super) fn may_open(&self, node: NodeId, how: OpenHow) -> Result<()> {
        if !how.write && !how.truncate {
            return Ok(());
        }
        let is = self.protection(node)?;
        refuse(is.immutable || is.append && (how.truncate || !how.append))
    }

    /// Before metadata or the length change.
    pub(super) fn may_set(&self, node: NodeId, changes: &Changes) -> Result<()> {
        if changes.forced {
            return Ok(());
        }
        let is = self.protection(node)?;
        if !is.any() {
            return Ok(());
        }
        let given = |time: Option<SetTime>| matches!(time, Some(SetTime::To(_)));
        let owned = changes.perm.is_some() || changes.uid.is_some() || changes.gid.is_some();
        refuse(owned || given(changes.atime) || given(changes.mtime))?;
        match changes.size {
            Some(_) => refuse(is.append || !changes.held),
            None => refuse(is.immutable),
        }
    }

    /// Before an attribute changes, or the node gets a further name.
    pub(super) fn may_change(&self, node: NodeId) -> Result<()> {
        refuse(self.protection(node)?.any())
    }

    /// Before a directory gets a name.
    pub(super) fn may_fill(&self, dir: NodeId) -> Result<()> {
        refuse(self.protection(dir)?.immutable)
    }

    /// Before the name of a node goes out of a directory.
    pub(super) fn may_take(&self, dir: NodeId, node: &NodeState) -> Result<()> {
        refuse(self.protection(dir)?.any() || self.protection(node.id)?.any())
    }

    /// Before room is made or taken in an open file; `mode` as of fallocate(2).
    pub(super) fn may_allocate(&self, node: NodeId, mode: u32) -> Result<()> {
        let is = self.protection(node)?;
        let more = FallocateFlags::from_bits_retain(mode) - FallocateFlags::KEEP_SIZE;
        refuse(is.immutable || is.append && !more.is_empty())
    }

    /// Writes down that an inode of the upper is protected.
    pub(super) fn protect(&self, fd: impl AsFd, wanted: Protection) -> Result<()> {
        self.met.note();
        self.marks.set(fd, Mark::Protattr, wanted.format())
    }
}
