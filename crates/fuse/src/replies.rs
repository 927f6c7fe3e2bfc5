//! How requests are answered, on every kind of mount.
//!
//! [`answer`] runs a handler and sends what it returns. A handler that panics costs its request
//! an EIO and nothing more: the reply, dropped while unwinding, sends it; the thread goes on.
//!
//! Invariants: every reply is sent exactly once; what is unwound through leaves nothing half done
//! that others would meet: the locks of a mount guard single steps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use strata_union::writable::StatFs;

use crate::errno::{RequestError, errno};
use crate::readonly::XattrAnswer;

type Result<T> = std::result::Result<T, RequestError>;

/// A reply that can carry a `T` of a mount `M`.
pub(crate) trait Reply<T, M>: Refuse {
    fn send(self, found: T, mount: &M);
}

/// A reply.
pub(crate) trait Refuse {
    fn refuse(self, errno: Errno);
}

/// Runs a handler and sends its answer.
pub(crate) fn answer<T, M>(mount: &M, reply: impl Reply<T, M>, work: impl FnOnce(&M) -> Result<T>) {
    guarded(|| match work(mount) {
        Ok(found) => reply.send(found, mount),
        Err(error) => reply.refuse(errno(&error)),
    });
}

/// Runs a handler that fills the reply as it goes, and sends it.
pub(crate) fn fill<R: Reply<(), ()>>(mut reply: R, work: impl FnOnce(&mut R) -> Result<()>) {
    guarded(|| match work(&mut reply) {
        Ok(()) => reply.send((), &()),
        Err(error) => reply.refuse(errno(&error)),
    });
}

/// Sends bytes that nobody keeps, or a refusal.
pub(crate) fn send_bytes(found: Result<&[u8]>, reply: ReplyData) {
    match found {
        Ok(bytes) => reply.data(bytes),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Runs something that must not take its thread along.
pub(crate) fn guarded(work: impl FnOnce()) {
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

refuse_by_error!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyDirectory);
refuse_by_error!(ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr);
refuse_by_error!(ReplyDirectoryPlus);

macro_rules! done_by_ok {
    ($($reply:ty),*) => {$(
        impl<M> Reply<(), M> for $reply {
            fn send(self, (): (), _mount: &M) {
                self.ok();
            }
        }
    )*};
}

done_by_ok!(ReplyEmpty, ReplyDirectory, ReplyDirectoryPlus);

impl<M> Reply<Vec<u8>, M> for ReplyData {
    fn send(self, bytes: Vec<u8>, _mount: &M) {
        self.data(&bytes);
    }
}

impl<M> Reply<XattrAnswer, M> for ReplyXattr {
    fn send(self, found: XattrAnswer, _mount: &M) {
        match found {
            XattrAnswer::Size(size) => self.size(size),
            XattrAnswer::Bytes(bytes) => self.data(&bytes),
        }
    }
}

impl<M> Reply<Vec<u8>, M> for ReplyIoctl {
    fn send(self, bytes: Vec<u8>, _mount: &M) {
        self.ioctl(0, &bytes);
    }
}

impl<M> Reply<StatFs, M> for ReplyStatfs {
    fn send(self, space: StatFs, _mount: &M) {
        let StatFs { block_size, blocks, free, available, files, files_free, name_max } = space;
        self.statfs(blocks, free, available, files, files_free, block_size, name_max, block_size);
    }
}
