//! How answers are sent.
//!
//! [`answer`] runs a handler and sends what it returns. A handler that panics costs its request
//! an EIO and nothing more: the reply, dropped while unwinding, sends it; the thread goes on.
//!
//! Invariant: what is unwound through leaves nothing half done that others would meet: the
//! union's and this module's locks guard single steps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuser::{
    BackingId, Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use std::sync::Arc;
use strata_union::writable::{Attr, OpenFile, Space};

use super::io_modes::Mode;
use super::set_id::without_fsetid;
use super::{Mount, Result};
use crate::attr::absent;
use crate::errno::errno;
use crate::readonly::XattrAnswer;

/// A reply that can carry a `T`.
pub(super) trait Answer<T>: Refuse {
    fn send(self, answer: T, mount: &Mount);
}

/// A reply.
pub(super) trait Refuse {
    fn refuse(self, errno: Errno);
}

/// Runs a handler and sends its answer.
pub(super) fn answer<T>(
    mount: &Mount,
    reply: impl Answer<T>,
    work: impl FnOnce(&Mount) -> Result<T>,
) {
    guarded(|| match work(mount) {
        Ok(found) => reply.send(found, mount),
        Err(refusal) => reply.refuse(errno(&refusal)),
    });
}

/// Runs something that must not take its thread along.
pub(super) fn guarded(work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!("a request met a fault of this program: {}", text.unwrap_or("a panic"));
    }
}

macro_rules! refuse_by_error {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

refuse_by_error!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry);
refuse_by_error!(ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr);

impl Answer<Attr> for ReplyEntry {
    fn send(self, attr: Attr, mount: &Mount) {
        let shown = mount.view.attr(&attr);
        self.entry(&mount.lasting(&shown), &shown, Generation(attr.generation));
    }
}

/// `None`: the kernel remembers that there is no such name.
impl Answer<Option<Attr>> for ReplyEntry {
    fn send(self, found: Option<Attr>, mount: &Mount) {
        match found {
            Some(attr) => self.send(attr, mount),
            None => self.entry(&mount.timeout, &absent(), Generation(0)),
        }
    }
}

impl Answer<Attr> for ReplyAttr {
    fn send(self, attr: Attr, mount: &Mount) {
        let shown = mount.view.attr(&attr);
        self.attr(&mount.lasting(&shown), &shown);
    }
}

impl Answer<()> for ReplyEmpty {
    fn send(self, (): (), _mount: &Mount) {
        self.ok();
    }
}

impl Answer<Vec<u8>> for ReplyData {
    fn send(self, bytes: Vec<u8>, _mount: &Mount) {
        self.data(&bytes);
    }
}

impl Answer<usize> for ReplyWrite {
    fn send(self, bytes: usize, _mount: &Mount) {
        // No request is larger.
        self.written(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

impl Answer<u64> for ReplyLseek {
    fn send(self, offset: u64, _mount: &Mount) {
        match i64::try_from(offset) {
            Ok(offset) => self.offset(offset),
            Err(_) => self.error(Errno::EOVERFLOW),
        }
    }
}

impl Answer<XattrAnswer> for ReplyXattr {
    fn send(self, found: XattrAnswer, _mount: &Mount) {
        match found {
            XattrAnswer::Size(size) => self.size(size),
            XattrAnswer::Bytes(bytes) => self.data(&bytes),
        }
    }
}

impl Answer<Vec<u8>> for ReplyIoctl {
    fn send(self, bytes: Vec<u8>, _mount: &Mount) {
        self.ioctl(0, &bytes);
    }
}

impl Answer<Space> for ReplyStatfs {
    fn send(self, space: Space, _mount: &Mount) {
        let Space { block_size, blocks, free, available, files, files_free, name_max } = space;
        self.statfs(blocks, free, available, files, files_free, block_size, name_max, block_size);
    }
}

/// What the kernel is told of a file that it reads through us. Locks and closing are its own
/// business: there is nothing to write back at a close.
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
) -> (FileHandle, Mode) {
    let register = |file: &std::fs::File| without_fsetid(|| register(file));
    let mode = mount.modes.enter(file.node(), file.upper_file(), register);
    if matches!(mode, Mode::Passthrough(_)) && file.is_writable() {
        mount.written_behind(file.node());
    }
    (FileHandle(mount.files.insert(file)), mode)
}

impl Answer<Arc<OpenFile>> for ReplyOpen {
    fn send(self, file: Arc<OpenFile>, mount: &Mount) {
        let (handle, mode) = enter(mount, file, |file| self.open_backing(file));
        match mode {
            Mode::Cached { keep } => self.opened(handle, cached(keep)),
            Mode::Passthrough(id) => {
                self.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, &id);
            }
        }
    }
}

impl Answer<(Attr, Arc<OpenFile>)> for ReplyCreate {
    fn send(self, (attr, file): (Attr, Arc<OpenFile>), mount: &Mount) {
        let (handle, mode) = enter(mount, file, |file| self.open_backing(file));
        let generation = Generation(attr.generation);
        let attr = mount.view.attr(&attr);
        let time = mount.lasting(&attr);
        match mode {
            Mode::Cached { keep } => self.created(&time, &attr, generation, handle, cached(keep)),
            Mode::Passthrough(id) => {
                let flags = FopenFlags::FOPEN_NOFLUSH;
                self.created_passthrough(&time, &attr, generation, handle, flags, &id);
            }
        }
    }
}
