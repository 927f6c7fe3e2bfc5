//! Open regular files.
//!
//! All openers of a node share one [`Content`], which knows whether the bytes are the lower's or
//! the upper's. A copy-up changes that for all of them at once, so a descriptor that was opened
//! before sees what is written after (where overlayfs.rst documents that it does not).
//!
//! Invariants: a lower's file is open for reading only, is never written and never handed out;
//! the way goes from the lower to the upper and never back.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use strata_tree::NodeId;

use super::attrs::{CAPABILITY, keep_capability};
use super::error::{Doing, Error, Result};
use super::marks::raw_value;
use super::table::Table;
use super::unsynced::Unsynced;
use super::upper::by_descriptor;

/// Where the bytes of an open node are.
pub(super) struct Content {
    files: RwLock<Files>,
}

#[derive(Clone)]
struct Files {
    read: Arc<File>,
    /// The upper's file, open for writing.
    write: Option<Arc<File>>,
    upper: bool,
}

impl Content {
    /// The lower's bytes.
    pub(super) fn lower(file: File) -> Self {
        let files = Files { read: Arc::new(file), write: None, upper: false };
        Self { files: RwLock::new(files) }
    }

    /// The upper's bytes.
    pub(super) fn upper(file: Arc<File>, writable: bool) -> Self {
        let write = writable.then(|| Arc::clone(&file));
        Self { files: RwLock::new(Files { read: file, write, upper: true }) }
    }

    fn files(&self) -> Files {
        self.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the bytes are the upper's.
    pub(super) fn is_upper(&self) -> bool {
        self.files().upper
    }

    /// Whether it can be written.
    pub(super) fn is_writable(&self) -> bool {
        self.files().write.is_some()
    }

    /// From now on the bytes are the upper's.
    pub(super) fn rise(&self, file: Arc<File>, writable: bool) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if !files.upper {
            files.read = Arc::clone(&file);
            files.upper = true;
        }
        if writable && files.write.is_none() {
            files.write = Some(file);
        }
    }

    /// Some descriptor of the upper's file.
    pub(super) fn upper_file(&self) -> Option<Arc<File>> {
        let files = self.files();
        files.write.or(files.upper.then_some(files.read))
    }
}

/// An open regular file. Dropped, it is closed.
pub struct OpenFile {
    node: NodeId,
    table: Arc<Table>,
    content: Arc<Content>,
    unsynced: Arc<Unsynced>,
    volatile: bool,
    moved_access_time: AtomicBool,
}

impl OpenFile {
    /// `node` has to be pinned in `table` once more for it.
    pub(super) fn new(
        node: NodeId,
        table: Arc<Table>,
        content: Arc<Content>,
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
        let file = self.content.files().read;
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
        self.content.files().write.ok_or(Error::Refused(Errno::BADF))
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

    /// The same of what was changed through a mapping: that takes no capability away, on no file
    /// system, and writing the pages back later must not either.
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
        let file = self.content.files().read;
        // It moves the position of the descriptor, which nothing else here uses.
        let to = if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) };
        Ok(rustix::fs::seek(&*file, to)?)
    }

    /// Copies between two open files inside the kernel; says how much.
    ///
    /// # Errors
    /// `EBADF`, `EXDEV` (then the caller copies by itself), `ENOSPC`.
    pub fn copy_range(&self, at: u64, to: &OpenFile, to_at: u64, len: u64) -> Result<u64> {
        let (from, into) = (self.content.files().read, to.writable()?);
        let (mut at, mut to_at) = (at, to_at);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let done =
            rustix::fs::copy_file_range(&*from, Some(&mut at), &*into, Some(&mut to_at), len)?;
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

    /// The content, opened once more for reading: nobody else moves its position.
    pub(super) fn fresh(&self) -> Result<File> {
        let file = self.content.files().read;
        let path = by_descriptor(file.as_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let again = rustix::fs::open(path, flags, Mode::empty());
        Ok(again.doing(|| "open a file once more".to_owned())?.into())
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
