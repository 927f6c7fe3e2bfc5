//! fuser's requests to our answers, and back.
//!
//! Every method translates and decides nothing: the decisions are in `readonly`, `reads` and
//! `passthrough`, the numbers of refusals in `errno`.
//!
//! Invariants: every reply is sent exactly once; no method can panic, for a panic ends its
//! thread; whatever would write is refused with EROFS.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags,
    PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use strata_tree::{NAME_MAX, NodeId};

use crate::attr::{View, absent, type_of};
use crate::busy_poll::BusyPoll;
use crate::errno::{Refusal, errno};
use crate::ioctls::{self, Ioctl};
use crate::options::{FOR_EVER, MountOptions, Profile};
use crate::passthrough::Passthrough;
use crate::readonly::{ReadOnly, XattrAnswer};

/// Inode numbers are never used again, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// The largest READ, in bytes, and so the buffer that a thread grows to.
pub(crate) const LARGEST_REQUEST: u32 = 1024 * 1024;
/// How many requests the kernel may send ahead of being waited for.
pub(crate) const BACKGROUND: u16 = 64;

/// One mounted tree.
pub(crate) struct Adapter {
    tree: ReadOnly,
    view: View,
    passthrough: Option<Passthrough>,
    polling: Arc<BusyPoll>,
    /// The kernel checks modes; so it must also check ACLs.
    checks_acls: bool,
    /// The kernel can do without OPEN and OPENDIR.
    no_open: bool,
    no_opendir: bool,
    /// Set when the session ends.
    over: Arc<AtomicBool>,
}

impl Adapter {
    pub(crate) fn new(
        tree: ReadOnly,
        options: &MountOptions,
        polling: Arc<BusyPoll>,
        over: Arc<AtomicBool>,
    ) -> Self {
        let passthrough = (options.profile == Profile::Passthrough).then(Passthrough::default);
        let (view, checks_acls) = (View::of(options), options.default_permissions && options.acl);
        Self {
            tree,
            view,
            passthrough,
            polling,
            checks_acls,
            no_open: false,
            no_opendir: false,
            over,
        }
    }
}

pub(crate) fn id(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        self.no_open = offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_ASYNC_DIO;
        if self.checks_acls {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        if let Some(passthrough) = &self.passthrough {
            if offered.contains(InitFlags::FUSE_PASSTHROUGH) {
                wanted |= InitFlags::FUSE_PASSTHROUGH;
                // One level: contents on a plain file system, and overlayfs may go on top of us.
                let _ = config.set_max_stack_depth(1);
            } else {
                passthrough.refuse("this kernel does not offer it");
            }
        }
        // What this kernel does not know is a lost speed-up, not an error.
        let _ = config.add_capabilities(wanted & offered);
        let _ = config.set_max_write(LARGEST_REQUEST);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn destroy(&mut self) {
        self.over.store(true, Ordering::Release);
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.lookup(id(parent), name.as_bytes()) {
            Ok(Some(node)) => reply.entry(&FOR_EVER, &self.view.node(&node), GENERATION),
            Ok(None) => reply.entry(&FOR_EVER, &absent(), GENERATION),
            Err(refusal) => reply.error(errno(&refusal)),
        }
        self.polling.answered(req.pid());
    }

    // batch_forget calls this, a no-op, for each node.
    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {}

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.node(id(ino)) {
            Ok(node) => reply.attr(&FOR_EVER, &self.view.node(&node)),
            Err(refusal) => reply.error(errno(&refusal)),
        }
        self.polling.answered(req.pid());
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.read_link(id(ino)) {
            Ok(target) => reply.data(&target),
            Err(refusal) => reply.error(errno(&refusal)),
        }
        self.polling.answered(req.pid());
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match &self.passthrough {
            _ if flags.acc_mode() != OpenAccMode::O_RDONLY => {
                reply.error(errno(&Refusal::ReadOnly));
            }
            Some(passthrough) => passthrough.open(self.tree.tree(), id(ino), reply),
            // ENOSYS turns OPEN off for the whole mount: the kernel opens by itself from now on.
            None if self.no_open => reply.error(Errno::ENOSYS),
            None => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
        }
        self.polling.answered(req.pid());
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.polling.asked_for(size);
        self.tree.read(id(ino), offset, size, |answer| match answer {
            Ok(bytes) => reply.data(bytes),
            Err(refusal) => reply.error(errno(&refusal)),
        });
        self.polling.answered(req.pid());
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(passthrough) = &self.passthrough {
            passthrough.release(id(ino));
        }
        reply.ok();
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            reply.error(Errno::ENOSYS);
        } else {
            let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
            reply.opened(FileHandle(0), flags);
        }
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.tree.list(id(ino), offset, &mut |item| {
            let node = item.node;
            let name = OsStr::from_bytes(item.name);
            reply.add(INodeNo(node.id.0), item.next, type_of(node.stat.kind), name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(errno(&refusal)),
        }
        self.polling.answered(req.pid());
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.tree.list(id(ino), offset, &mut |item| {
            let attr = self.view.node(&item.node);
            let name = OsStr::from_bytes(item.name);
            reply.add(attr.ino, item.next, name, &FOR_EVER, &attr, GENERATION)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(errno(&refusal)),
        }
        self.polling.answered(req.pid());
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const UNIT: u32 = 4096;
        let facts = self.tree.facts();
        let blocks = facts.content_bytes.div_ceil(u64::from(UNIT));
        reply.statfs(blocks, 0, 0, facts.nodes, 0, UNIT, NAME_MAX as u32, UNIT);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.tree.facts().has_xattrs {
            return reply.error(Errno::ENOSYS);
        }
        send_xattr(self.tree.xattr(id(ino), name.as_bytes(), size), reply);
        self.polling.answered(req.pid());
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        // Never ENOSYS here: callers rely on an empty list, where EOPNOTSUPP stops them.
        send_xattr(self.tree.xattr_names(id(ino), size), reply);
        self.polling.answered(req.pid());
    }

    // What the kernel does by itself once it has heard ENOSYS.

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _req: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        let answer = ioctls::parse(cmd, in_data, out_size).and_then(|asked| match asked {
            Ioctl::Get(form) => Ok(self.tree.inode_flags(id(ino), form)?.to_bytes()),
            Ioctl::Version => Ok(self.tree.inode_version(id(ino))?.to_ne_bytes().to_vec()),
            Ioctl::Set(_) => Err(Refusal::ReadOnly),
        });
        match answer {
            Ok(bytes) => reply.ioctl(0, &bytes),
            Err(refusal) => reply.error(errno(&refusal)),
        }
        self.polling.answered(req.pid());
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    // What would write. The mount is read-only, so the kernel rarely asks.

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(errno(&Refusal::ReadOnly));
    }
}

/// Sends a size, bytes or a refusal.
pub(crate) fn send_xattr(answer: Result<XattrAnswer, Refusal>, reply: ReplyXattr) {
    match answer {
        Ok(XattrAnswer::Size(size)) => reply.size(size),
        Ok(XattrAnswer::Bytes(bytes)) => reply.data(&bytes),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}
