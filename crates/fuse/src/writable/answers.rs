//! How answers of a union are sent.
//!
//! Invariant: a file that is handed to the kernel has its handle and its io mode first.

use std::sync::Arc;

use fuser::{
    BackingId, Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyWrite,
};
use strata_union::writable::{Attr, OpenFile};

use super::Mount;
use super::io_modes::IoMode;
use super::set_id::without_fsetid;
use crate::attr::absent;
use crate::replies::Reply;

impl Reply<Attr, Mount> for ReplyEntry {
    fn send(self, attr: Attr, mount: &Mount) {
        let shown = mount.view.attr(&attr);
        self.entry(&mount.lasting(&shown), &shown, Generation(attr.generation));
    }
}

/// `None`: the kernel remembers that there is no such name.
impl Reply<Option<Attr>, Mount> for ReplyEntry {
    fn send(self, found: Option<Attr>, mount: &Mount) {
        match found {
            Some(attr) => self.send(attr, mount),
            None => self.entry(&mount.timeout, &absent(), Generation(0)),
        }
    }
}

impl Reply<Attr, Mount> for ReplyAttr {
    fn send(self, attr: Attr, mount: &Mount) {
        let shown = mount.view.attr(&attr);
        self.attr(&mount.lasting(&shown), &shown);
    }
}

impl Reply<usize, Mount> for ReplyWrite {
    fn send(self, bytes: usize, _mount: &Mount) {
        // No request is larger.
        self.written(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

impl Reply<u64, Mount> for ReplyLseek {
    fn send(self, offset: u64, _mount: &Mount) {
        match i64::try_from(offset) {
            Ok(offset) => self.offset(offset),
            Err(_) => self.error(Errno::EOVERFLOW),
        }
    }
}

/// The answer to an open of a file that the kernel reads through us. Locks and closing are the
/// kernel's own business: there is nothing to write back at a close.
fn cached(keep: bool) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_NOFLUSH;
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep);
    flags
}

/// Gives the file a handle and its inode an io mode.
fn enter(
    mount: &Mount,
    file: Arc<OpenFile>,
    register: impl FnOnce(&std::fs::File) -> std::io::Result<BackingId>,
) -> (FileHandle, IoMode) {
    let register = |file: &std::fs::File| without_fsetid(|| register(file));
    let mode = mount.modes.enter(file.node(), file.upper_file(), register);
    if matches!(mode, IoMode::Passthrough(_)) && file.is_writable() {
        mount.written_behind(file.node());
    }
    (FileHandle(mount.files.insert(file)), mode)
}

impl Reply<Arc<OpenFile>, Mount> for ReplyOpen {
    fn send(self, file: Arc<OpenFile>, mount: &Mount) {
        let (handle, mode) = enter(mount, file, |file| self.open_backing(file));
        match mode {
            IoMode::Cached { keep } => self.opened(handle, cached(keep)),
            IoMode::Passthrough(id) => {
                self.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, &id);
            }
        }
    }
}

impl Reply<(Attr, Arc<OpenFile>), Mount> for ReplyCreate {
    fn send(self, (attr, file): (Attr, Arc<OpenFile>), mount: &Mount) {
        let (handle, mode) = enter(mount, file, |file| self.open_backing(file));
        let generation = Generation(attr.generation);
        let attr = mount.view.attr(&attr);
        let time = mount.lasting(&attr);
        match mode {
            IoMode::Cached { keep } => self.created(&time, &attr, generation, handle, cached(keep)),
            IoMode::Passthrough(id) => {
                let flags = FopenFlags::FOPEN_NOFLUSH;
                self.created_passthrough(&time, &attr, generation, handle, flags, &id);
            }
        }
    }
}
