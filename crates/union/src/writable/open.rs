//! Opening regular files.
//!
//! Invariant: a file that is open for writing is in the upper, whole.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{Kind, NodeId};

use super::base::Base;
use super::copy_up::CopyUp;
use super::error::{Doing, Error, Result};
use super::files::OpenFile;
use super::inodes::{UpperInodes, without_content};
use super::locks::NodeLocks;
use super::open_bytes::OpenBytes;
use super::protected::ProtectedNodes;
use super::readers::Readers;
use super::table::{CopyStage, NodeTable};
use super::types::OpenHow;
use super::unsynced::Unsynced;
use super::upper::Upper;

/// Opens regular files.
pub(super) struct FileOpener {
    lower: FileTree,
    upper: Arc<Upper>,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    unsynced: Arc<Unsynced>,
    inodes: Arc<UpperInodes>,
    protected: Arc<ProtectedNodes>,
    copies: Arc<CopyUp>,
    volatile: bool,
}

impl FileOpener {
    pub(super) fn new(base: &Base, read: &Readers, copies: &Arc<CopyUp>, volatile: bool) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            unsynced: Arc::clone(&base.unsynced),
            inodes: Arc::clone(&read.inodes),
            protected: Arc::clone(&read.protected),
            copies: Arc::clone(copies),
            volatile,
        }
    }

    /// Opens a regular file; for writing it is copied up first.
    pub(super) fn open_file(&self, node: NodeId, how: OpenHow) -> Result<Arc<OpenFile>> {
        match self.table.see(node)?.found.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::Refused(Errno::ISDIR)),
            _ => return Err(Error::Refused(Errno::NXIO)),
        }
        self.protected.may_open(node, how)?;
        let write = how.write || how.truncate;
        let made = match write {
            true => self.copies.copy_up(node, CopyStage::Upper, how.truncate.then_some(0))?,
            false => None,
        };
        self.table.pin(node);
        let content = match self.content_of(node, write, made) {
            Ok(content) => content,
            Err(error) => {
                self.table.unpin(node);
                return Err(error);
            }
        };
        let file = self.opened(node, content);
        if !write && !how.unseen && self.read_metacopy(node)? {
            file.has_moved_access_time();
        }
        if let (true, Some(upper)) = (how.truncate || how.synced, file.upper_file()) {
            self.unsynced.settle(&*upper)?;
            if how.truncate {
                rustix::fs::ftruncate(&*upper, 0)?;
            }
        }
        Ok(file)
    }

    /// A file of the upper that was just made, and is open for reading and writing.
    pub(super) fn open_made(&self, node: NodeId, made: File) -> Result<Arc<OpenFile>> {
        let made = self.inodes.made_to_read(node, made)?;
        let fresh = Arc::new(OpenBytes::upper(Arc::new(made), true));
        self.table.pin(node);
        let content = self.table.content(node, Arc::clone(&fresh));
        // Another thread was faster and opened it for reading.
        if !content.is_writable()
            && let Some(file) = fresh.upper_file()
        {
            content.rise(file, true);
        }
        Ok(self.opened(node, content))
    }

    /// What is read of a metacopy is the lower's, which has no access time of ours: the metacopy
    /// itself is read as well, once for each opening. Whether it is one, and has been.
    fn read_metacopy(&self, node: NodeId) -> Result<bool> {
        if !self.upper.moves_access_times() {
            return Ok(false);
        }
        let _steady = self.locks.steady();
        let seen = self.table.see(node)?;
        let (CopyStage::Meta, Some(path)) = (seen.found.stage, &seen.path) else {
            return Ok(false);
        };
        let file = self.upper.content(path, OFlags::RDONLY)?;
        rustix::io::pread(&file, &mut [0; 1], 0).doing(|| "read a metacopy".to_owned())?;
        Ok(true)
    }

    /// The caller has pinned `node` for it.
    fn opened(&self, node: NodeId, content: Arc<OpenBytes>) -> Arc<OpenFile> {
        let (table, unsynced) = (Arc::clone(&self.table), Arc::clone(&self.unsynced));
        Arc::new(OpenFile::new(node, table, content, unsynced, self.volatile))
    }

    /// What all openers share. `made`: the file, if it has come up for this.
    fn content_of(&self, node: NodeId, write: bool, made: Option<File>) -> Result<Arc<OpenBytes>> {
        let _steady = self.locks.steady();
        if let Some(content) = self.table.open_content(node)
            && (!write || content.is_writable())
        {
            return Ok(content);
        }
        let seen = self.table.see(node)?;
        let fresh = match (seen.found.stage, seen.found.lower, made) {
            (CopyStage::Lower | CopyStage::Meta, Some(lower), _) => {
                OpenBytes::lower(self.lower.open(lower)?.into())
            }
            (CopyStage::Meta, None, _) => return Err(without_content()),
            (.., Some(made)) => OpenBytes::upper(Arc::new(made), true),
            _ => OpenBytes::upper(self.inodes.open_upper(&seen, write)?, write),
        };
        let content = self.table.content(node, Arc::new(fresh));
        // It may have been copied up since, or others have it open for reading only.
        let seen = self.table.see(node)?;
        let late = seen.found.stage == CopyStage::Upper && !content.is_upper();
        if late || write && !content.is_writable() {
            content.rise(self.inodes.open_upper(&seen, write)?, write);
        }
        Ok(content)
    }

    /// Puts a directory on disk (`fsyncdir`). Does nothing for a lower's and on a volatile union.
    pub(super) fn sync_dir(&self, dir: NodeId) -> Result<()> {
        let _steady = self.locks.steady();
        let seen = self.table.see_dir(dir)?;
        if self.volatile || seen.found.stage == CopyStage::Lower {
            return Ok(());
        }
        let file = self.upper.content(seen.place()?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(file)?)
    }
}
