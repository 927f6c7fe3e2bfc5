//! Opening regular files.
//!
//! Invariant: a file that is open for writing is in the upper, whole.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use strata_tree::{Kind, NodeId};

use super::Union;
use super::error::{Doing, Error, Result};
use super::files::{OpenBytes, OpenFile};
use super::names::inode;
use super::table::{Seen, Stage};
use super::types::OpenHow;
use super::upper::by_descriptor;

impl Union {
    /// Opens a regular file; for writing it is copied up first.
    ///
    /// # Errors
    /// `EISDIR`, `ENXIO` for what is no regular file, `ESTALE`; `Upper`, `Lower`.
    pub fn open_file(&self, node: NodeId, how: OpenHow) -> Result<Arc<OpenFile>> {
        match self.table.see(node)?.found.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::Refused(Errno::ISDIR)),
            _ => return Err(Error::Refused(Errno::NXIO)),
        }
        self.may_open(node, how)?;
        let write = how.write || how.truncate;
        let made = match write {
            true => self.copy_up(node, Stage::Upper, how.truncate.then_some(0))?,
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
        let made = self.made_to_read(node, made)?;
        let fresh = Arc::new(OpenBytes::upper(Arc::new(made), true));
        self.table.pin(node);
        let content = self.table.content(node, Arc::clone(&fresh));
        // Somebody was faster and opened it for reading.
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
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        let (Stage::Meta, Some(path)) = (seen.found.stage, &seen.path) else { return Ok(false) };
        let file = self.upper.content(path, OFlags::RDONLY)?;
        rustix::io::pread(&file, &mut [0; 1], 0).doing(|| "read a metacopy".to_owned())?;
        Ok(true)
    }

    /// A node's file that was just made, with the access times that are asked for.
    pub(super) fn made_to_read(&self, node: NodeId, made: File) -> Result<File> {
        self.upper.made_to_read(made, self.table.see(node)?.path.as_ref())
    }

    /// The caller has pinned `node` for it.
    fn opened(&self, node: NodeId, content: Arc<OpenBytes>) -> Arc<OpenFile> {
        let (table, unsynced) = (Arc::clone(&self.table), Arc::clone(&self.unsynced));
        Arc::new(OpenFile::new(node, table, content, unsynced, self.options.volatile))
    }

    /// What all openers share. `made`: the file, if it has come up for this.
    fn content_of(&self, node: NodeId, write: bool, made: Option<File>) -> Result<Arc<OpenBytes>> {
        let _steady = self.steady();
        if let Some(content) = self.table.open_content(node)
            && (!write || content.is_writable())
        {
            return Ok(content);
        }
        let seen = self.table.see(node)?;
        let fresh = match (seen.found.stage, seen.found.lower, made) {
            (Stage::Lower | Stage::Meta, Some(lower), _) => {
                OpenBytes::lower(self.lower.open(lower)?.into())
            }
            (.., Some(made)) => OpenBytes::upper(Arc::new(made), true),
            _ => OpenBytes::upper(self.open_upper(&seen, write)?, write),
        };
        let content = self.table.content(node, Arc::new(fresh));
        // It may have been copied up since, or others have it open for reading only.
        let seen = self.table.see(node)?;
        let late = seen.found.stage == Stage::Upper && !content.is_upper();
        if late || write && !content.is_writable() {
            content.rise(self.open_upper(&seen, write)?, write);
        }
        Ok(content)
    }

    fn open_upper(&self, seen: &Seen, write: bool) -> Result<Arc<File>> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        if let Some(path) = &seen.path {
            return Ok(Arc::new(self.upper.content(path, access)?));
        }
        let inode = inode(self, seen)?;
        let path = by_descriptor(inode.as_fd());
        let file = rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty());
        Ok(Arc::new(File::from(file.doing(|| "open a file of the upper".to_owned())?)))
    }

    /// Puts a directory on disk (`fsyncdir`). Does nothing for a lower's and on a volatile union.
    ///
    /// # Errors
    /// `EIO`.
    pub fn sync_dir(&self, dir: NodeId) -> Result<()> {
        let _steady = self.steady();
        let seen = self.table.see_dir(dir)?;
        if self.options.volatile || seen.found.stage == Stage::Lower {
            return Ok(());
        }
        let file = self.upper.content(seen.place()?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(file)?)
    }
}
