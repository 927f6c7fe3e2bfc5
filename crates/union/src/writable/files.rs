//! Open regular files.
//!
//! All openers of a node share one [`OpenBytes`], which knows whether the bytes are the lower's or
//! the upper's. A copy-up changes that for all of them at once, so a descriptor that was opened
//! before sees what is written after (where overlayfs.rst documents that it does not).
//!
//! Invariants: a lower's content is only read, and its file, if it has one, is never handed out;
//! the way goes from the lower to the upper and never back.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use strata_tree::NodeId;

use super::error::{Error, Result};
use super::inode_attrs::{CAPABILITY, keep_capability};
use super::marks::raw_value;
use super::open_bytes::{OpenBytes, ReadFrom};
use super::table::NodeTable;
use super::unsynced::Unsynced;

/// An open regular file. Dropped, it is closed.
pub struct OpenFile {
    node: NodeId,
    table: Arc<NodeTable>,
    content: Arc<OpenBytes>,
    unsynced: Arc<Unsynced>,
    volatile: bool,
    moved_access_time: AtomicBool,
}

impl OpenFile {
    /// `node` has to be pinned in `table` once more for it.
    pub(super) fn new(
        node: NodeId,
        table: Arc<NodeTable>,
        content: Arc<OpenBytes>,
        unsynced: Arc<Unsynced>,
        volatile: bool,
    ) -> Self {
        let moved_access_time = AtomicBool::new(false);
        Self { node, table, content, unsynced, volatile, moved_access_time }
    }

    /// Whether somebody has the node open for writing.
    pub fn is_writable(&self) -> bool {
        self.content.is_writable()
    }

    pub(super) fn has_moved_access_time(&self) {
        self.moved_access_time.store(true, Ordering::Relaxed);
    }

    /// Whether opening it has moved the node's access time.
    pub fn moved_access_time(&self) -> bool {
        self.moved_access_time.load(Ordering::Relaxed)
    }

    /// Which node it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Reads at `offset`; fewer bytes than the buffer holds only at the end.
    ///
    /// # Errors
    /// What the file system says, `EIO` first.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = match self.content.now().read {
            ReadFrom::Upper(file) => file,
            ReadFrom::Lower(content) => {
                let done = content.read_at(buffer, offset);
                return done.map_err(|error| {
                    Error::Refused(Errno::from_io_error(&error).unwrap_or(Errno::IO))
                });
            }
        };
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&*file, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Refused(errno)),
            }
        }
        Ok(done)
    }

    fn writable(&self) -> Result<Arc<File>> {
        self.content.now().write.ok_or(Error::Refused(Errno::BADF))
    }

    /// Writes all of `bytes` at `offset`, or as many as fit before the first error.
    ///
    /// # Errors
    /// `EBADF` if it is not open for writing; `ENOSPC`, `EDQUOT`, `EFBIG`, `EIO`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        let file = self.writable()?;
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&*file, &bytes[done..], offset + done as u64) {
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(errno) => return Err(Error::Refused(errno)),
            }
        }
        Ok(done)
    }

    /// The same for what was changed through a mapping: such a change takes no capability away on
    /// any file system, so writing the pages back later must not either.
    ///
    /// # Errors
    /// As [`OpenFile::write`].
    pub fn write_back(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        let file = self.writable()?;
        let capability = raw_value(&*file, CAPABILITY)?;
        let done = self.write(offset, bytes)?;
        if let Some(value) = capability {
            keep_capability(&file, &value)?;
        }
        Ok(done)
    }

    /// `fallocate` with its mode bits.
    ///
    /// # Errors
    /// `EBADF`, `EOPNOTSUPP` for bits that the upper's file system does not know, `ENOSPC`.
    pub fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let (mode, file) = (FallocateFlags::from_bits_retain(mode), self.writable()?);
        // It may make holes.
        self.unsynced.settle(&*file)?;
        Ok(rustix::fs::fallocate(&*file, mode, offset, len)?)
    }

    /// The next hole (or else data) at or after `offset`.
    ///
    /// # Errors
    /// `ENXIO` past the end.
    pub fn seek(&self, offset: u64, hole: bool) -> Result<u64> {
        let from = self.content.now().read;
        let file = match (&from, from.file()) {
            (_, Some(file)) => file,
            (ReadFrom::Lower(content), None) if offset < content.len() => {
                // Bytes without a file have no holes but the one at their end.
                return Ok(if hole { content.len() } else { offset });
            }
            (_, None) => return Err(Error::Refused(Errno::NXIO)),
        };
        // It moves the position of the descriptor, which nothing else here uses.
        let to = if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) };
        Ok(rustix::fs::seek(file, to)?)
    }

    /// Copies between two open files inside the kernel; says how much.
    ///
    /// # Errors
    /// `EBADF`, `EXDEV` (then the caller copies by itself), `ENOSPC`.
    pub fn copy_range(&self, at: u64, to: &OpenFile, to_at: u64, len: u64) -> Result<u64> {
        let (from, into) = (self.content.now().read, to.writable()?);
        let from = from.file().ok_or(Error::Refused(Errno::XDEV))?;
        // It may make holes.
        to.unsynced.settle(&*into)?;
        let (mut at, mut to_at) = (at, to_at);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let done = rustix::fs::copy_file_range(from, Some(&mut at), &*into, Some(&mut to_at), len)?;
        Ok(done as u64)
    }

    /// Puts what was written on disk. Does nothing for a lower's file and on a volatile union.
    ///
    /// # Errors
    /// `EIO`.
    pub fn sync(&self, data_only: bool) -> Result<()> {
        let Some(file) = self.upper_file().filter(|_| !self.volatile) else { return Ok(()) };
        self.unsynced.settle(&*file)?;
        match data_only {
            true => Ok(rustix::fs::fdatasync(&*file)?),
            false => Ok(rustix::fs::fsync(&*file)?),
        }
    }

    /// The upper's file, for passthrough; `None` while the content is a lower's.
    pub fn upper_file(&self) -> Option<Arc<File>> {
        self.content.upper_file()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.table.unpin(self.node);
    }
}
