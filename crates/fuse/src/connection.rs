//! What every kind of mount has in common: the handshake with the kernel, the thread that polls
//! for the next request, and the end.
//!
//! Invariant: a request that was answered at once is reported to the poller exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{INodeNo, InitFlags, KernelConfig, Request};
use strata_tree::NodeId;

use crate::busy_poll::BusyPoll;
use crate::errno::RequestError;
use crate::replies::{self, Reply};

type Result<T> = std::result::Result<T, RequestError>;

/// The largest READ, in bytes, and so the buffer that a thread grows to.
pub(crate) const LARGEST_REQUEST: u32 = 1024 * 1024;
/// How many requests the kernel may send ahead of being waited for.
const BACKGROUND: u16 = 64;

/// What every mount asks the kernel for.
const WANTED: InitFlags = InitFlags::FUSE_DO_READDIRPLUS
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA)
    .union(InitFlags::FUSE_ASYNC_DIO);

/// The connection of one mount.
#[derive(Debug, Clone)]
pub(crate) struct MountConnection {
    polling: Arc<BusyPoll>,
    /// Set when the session ends.
    over: Arc<AtomicBool>,
}

impl MountConnection {
    /// For a mount that this many threads answer.
    pub(crate) fn new(threads: usize) -> Self {
        Self { polling: Arc::new(BusyPoll::new(threads.max(1))), over: Arc::default() }
    }

    /// What polls for requests.
    pub(crate) fn polling(&self) -> &BusyPoll {
        &self.polling
    }

    /// What says that the session has ended.
    pub(crate) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// Asks the kernel for what every mount wants, and for `more`.
    pub(crate) fn shake_hands(&self, config: &mut KernelConfig, more: InitFlags) {
        let wanted = WANTED | more;
        if wanted.contains(InitFlags::FUSE_PASSTHROUGH) {
            // One level: contents on a plain file system, and overlayfs may go on top of us.
            let _ = config.set_max_stack_depth(1);
        }
        // What this kernel does not know is a lost speed-up, not an error.
        let _ = config.add_capabilities(wanted & config.capabilities());
        let _ = config.set_max_write(LARGEST_REQUEST);
        let _ = config.set_max_background(BACKGROUND);
    }

    /// The session has ended.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Answers on this thread.
    pub(crate) fn answer<T, M>(
        &self,
        req: &Request,
        mount: &M,
        reply: impl Reply<T, M>,
        work: impl FnOnce(&M) -> Result<T>,
    ) {
        replies::answer(mount, reply, work);
        self.polling.answered(req.pid());
    }

    /// Answers on this thread with what `work` fills the reply with.
    pub(crate) fn fill<R: Reply<(), ()>>(
        &self,
        req: &Request,
        reply: R,
        work: impl FnOnce(&mut R) -> Result<()>,
    ) {
        replies::fill(reply, work);
        self.polling.answered(req.pid());
    }

    /// Runs what sends `size` bytes by itself, or takes them.
    pub(crate) fn transfer(&self, req: &Request, size: u32, work: impl FnOnce()) {
        self.polling.asked_for(size);
        replies::guarded(work);
        self.polling.answered(req.pid());
    }
}

/// The node that the kernel means.
pub(crate) fn id(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

/// Requests that the kernel answers by itself once it has heard ENOSYS, as methods of an adapter.
macro_rules! left_to_the_kernel {
    () => {
        fn access(
            &self,
            _req: &fuser::Request,
            _ino: fuser::INodeNo,
            _mask: fuser::AccessFlags,
            reply: fuser::ReplyEmpty,
        ) {
            reply.error(fuser::Errno::ENOSYS);
        }

        fn flush(
            &self,
            _req: &fuser::Request,
            _ino: fuser::INodeNo,
            _fh: fuser::FileHandle,
            _lock_owner: fuser::LockOwner,
            reply: fuser::ReplyEmpty,
        ) {
            reply.error(fuser::Errno::ENOSYS);
        }
    };
}
pub(crate) use left_to_the_kernel;
