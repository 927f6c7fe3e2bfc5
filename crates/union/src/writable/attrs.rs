//! Metadata: what `stat` shows, and changing it.
//!
//! Invariants: a change of metadata copies no content (but for `metacopy` off, and for a size);
//! an inode's bits are set last, for a change of owner takes set-user-id away.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{Kind, NodeId};

use super::acl::{ACCESS, with_bits};
use super::base::Base;
use super::copy_up::CopyUp;
use super::descriptor::by_descriptor;
use super::error::{Doing, Error, Result};
use super::inode_attrs::{chown, times};
use super::inode_bits::chmod;
use super::inodes::{OpenInode, UpperInodes};
use super::locks::NodeLocks;
use super::marks::{Marks, Override, state};
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::stats::stat;
use super::table::{CopyStage, NodeTable, SeenNode};
use super::types::{Attr, Changes, SetMode, StatFs};
use super::unsynced::Unsynced;
use super::upper::Upper;

/// Shows and changes metadata.
pub(super) struct Metadata {
    lower: FileTree,
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    unsynced: Arc<Unsynced>,
    inodes: Arc<UpperInodes>,
    protected: Arc<ProtectedNodes>,
    copies: Arc<CopyUp>,
}

impl Metadata {
    pub(super) fn new(base: &Base, read: &Readers, copies: &Arc<CopyUp>) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            unsynced: Arc::clone(&base.unsynced),
            inodes: Arc::clone(&read.inodes),
            protected: Arc::clone(&read.protected),
            copies: Arc::clone(copies),
        }
    }

    /// Metadata of a node.
    pub(super) fn attr(&self, node: NodeId) -> Result<Attr> {
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        self.inodes.attr_of(&seen)
    }

    /// A symbolic link's target.
    pub(super) fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        match (seen.found.kind, seen.found.stage, seen.found.lower) {
            (Kind::Symlink, CopyStage::Lower, Some(lower)) => Ok(self.lower.read_link(lower)?),
            (Kind::Symlink, ..) => {
                let inode = match &seen.path {
                    Some(path) => OpenInode::Own(self.upper.node_to_read(path)?),
                    None => self.inodes.open(&seen)?,
                };
                match rustix::fs::readlinkat(inode.as_fd(), "", Vec::new()) {
                    Ok(target) => Ok(target.into_bytes()),
                    // A file that stands for one (see `make`).
                    Err(Errno::INVAL | Errno::NOENT) => std::fs::read(by_descriptor(inode.as_fd()))
                        .doing(|| "read the target of a link".to_owned()),
                    Err(errno) => Err(errno).doing(|| "read a link".to_owned()),
                }
            }
            _ => Err(Error::Refused(Errno::INVAL)),
        }
    }

    /// Changes metadata; gives those after it.
    pub(super) fn set_attr(&self, node: NodeId, changes: &Changes) -> Result<Attr> {
        let kind = self.table.see(node)?.found.kind;
        match (changes.size, kind) {
            (None, _) | (Some(_), Kind::Regular) => {}
            (Some(_), Kind::Directory) => return Err(Error::Refused(Errno::ISDIR)),
            (Some(_), _) => return Err(Error::Refused(Errno::INVAL)),
        }
        if *changes == Changes::default() {
            return self.attr(node);
        }
        self.protected.may_set(node, changes)?;
        let made = match changes.size {
            Some(size) => self.copies.copy_up(node, CopyStage::Upper, Some(size))?,
            None => self.copies.copy_up(node, CopyStage::Meta, None)?,
        };
        if changes.size.is_some() {
            self.settle_copy(node)?;
        }
        let _claim = self.locks.claim(&[node]);
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        let fd =
            made.map_or_else(|| self.inodes.open(&seen), |file| Ok(OpenInode::Own(file.into())))?;
        if let Some(size) = changes.size {
            self.truncate(&seen, &fd, size)?;
        }
        self.restate(&seen, &fd, changes)?;
        if changes.atime.is_some() || changes.mtime.is_some() {
            times(&fd, changes.atime, changes.mtime)?;
        }
        self.inodes.upper_attr(&seen.found, &fd, &stat(&fd)?)
    }

    /// Waits until the content of a node is on disk, if it was copied up just now.
    fn settle_copy(&self, node: NodeId) -> Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let inode = {
            let _steady = self.locks.steady();
            let seen = self.table.see(node)?;
            match seen.found.stage {
                CopyStage::Upper => self.inodes.open(&seen)?,
                CopyStage::Lower | CopyStage::Meta => return Ok(()),
            }
        };
        self.unsynced.settle(inode)
    }

    fn truncate(&self, seen: &SeenNode, fd: &OpenInode, size: u64) -> Result<()> {
        if let Some(file) = self.table.open_content(seen.found.id).and_then(|c| c.upper_file())
            && rustix::fs::ftruncate(&*file, size).is_ok()
        {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(by_descriptor(fd.as_fd()), flags, Mode::empty())?;
        Ok(rustix::fs::ftruncate(file, size)?)
    }

    /// Changes owner and bits.
    fn restate(&self, seen: &SeenNode, fd: &OpenInode, changes: &Changes) -> Result<()> {
        if self.marks.is_apart() {
            if changes.uid.is_none() && changes.gid.is_none() && changes.perm.is_none() {
                return Ok(());
            }
            let now = self.inodes.upper_attr(&seen.found, fd, &stat(fd)?)?.stat;
            if let Some(perm) = changes.perm
                && let Some(acl) = self.marks.value(fd, ACCESS)?
            {
                self.marks.put(fd, ACCESS, &with_bits(&acl, perm), SetMode::Either)?;
            }
            let stated = Override {
                uid: changes.uid.unwrap_or(now.uid),
                gid: changes.gid.unwrap_or(now.gid),
                perm: changes.perm.unwrap_or(now.perm),
                kind: Some(seen.found.kind),
            };
            return state(fd, stated);
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            chown(fd, changes.uid, changes.gid)?;
        }
        if let Some(perm) = changes.perm {
            chmod(fd, perm)?;
        }
        Ok(())
    }

    /// The file system below the upper.
    pub(super) fn space(&self) -> Result<StatFs> {
        let stat =
            rustix::fs::fstatvfs(self.upper.root()).doing(|| "ask for free space".to_owned())?;
        Ok(StatFs {
            block_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            name_max: u32::try_from(stat.f_namemax).unwrap_or(255),
        })
    }
}
