//! fuser's requests to our answers, and back.
//!
//! Every method translates and decides nothing: the decisions are in `readonly`, `reads` and
//! `passthrough`, the numbers of refusals in `errno`.
//!
//! Invariants: every reply is sent exactly once; no method can panic, for a panic ends its
//! thread; whatever would write is refused, with EROFS but for what a live top has heard.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use strata_tree::{Node, NodeId};

use crate::attr::{AttrView, absent, type_of};
use crate::connection::{MountConnection, id, left_to_the_kernel};
use crate::errno::{RequestError, errno};
use crate::ioctls;
use crate::live_top::{Heard, LiveTop};
use crate::options::{FOR_EVER, MountOptions, Profile};
use crate::passthrough::Passthrough;
use crate::readonly::ReadOnly;
use crate::replies::{self, Reply, send_bytes};

/// Inode numbers are never used again, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// A tree, and how it is shown.
struct Served {
    tree: ReadOnly,
    view: AttrView,
    /// Where names come while it is mounted.
    top: Option<Arc<dyn LiveTop>>,
}

impl Served {
    fn grows(&self, dir: NodeId) -> bool {
        self.top.as_ref().is_some_and(|top| top.grows(dir))
    }

    /// How long the kernel may remember what a directory says of its names.
    fn lasting(&self, dir: NodeId) -> Duration {
        if self.grows(dir) { Duration::ZERO } else { FOR_EVER }
    }
}

/// What was found in a directory, and for how long that is so.
struct Found(Option<Node>, Duration);

/// One mounted tree.
pub(crate) struct Adapter {
    served: Arc<Served>,
    passthrough: Option<Passthrough>,
    connection: MountConnection,
    /// The kernel checks modes; so it must also check ACLs.
    checks_acls: bool,
    /// The kernel can do without OPEN and OPENDIR.
    no_open: bool,
    no_opendir: bool,
}

impl Adapter {
    pub(crate) fn new(
        tree: ReadOnly,
        top: Option<Arc<dyn LiveTop>>,
        options: &MountOptions,
        connection: MountConnection,
    ) -> Self {
        Self {
            served: Arc::new(Served { tree, view: AttrView::of(options), top }),
            passthrough: (options.profile == Profile::Passthrough).then(Passthrough::default),
            connection,
            checks_acls: options.default_permissions && options.acl,
            no_open: false,
            no_opendir: false,
        }
    }

    /// Answers on this thread.
    fn answer<T>(
        &self,
        req: &Request,
        reply: impl Reply<T, Served>,
        work: impl FnOnce(&Served) -> Result<T, RequestError>,
    ) {
        self.connection.answer(req, &*self.served, reply, work);
    }

    /// Refuses a call that would change the tree; where there is a live top, it hears of it.
    fn refuse(
        &self,
        hear: impl FnOnce(&dyn LiveTop) -> strata_tree::Result<Heard>,
    ) -> RequestError {
        match self.served.top.as_deref().map(hear) {
            Some(Ok(Heard::Yes)) => RequestError::NoEntry,
            Some(Ok(Heard::No)) | None => RequestError::ReadOnly,
            Some(Err(error)) => error.into(),
        }
    }
}

/// `None`: the kernel remembers that there is no such name.
impl Reply<Found, Served> for ReplyEntry {
    fn send(self, Found(node, lasting): Found, served: &Served) {
        match node {
            Some(node) => self.entry(&lasting, &served.view.node(&node), GENERATION),
            None => self.entry(&lasting, &absent(), GENERATION),
        }
    }
}

impl Reply<Node, Served> for ReplyAttr {
    fn send(self, node: Node, served: &Served) {
        self.attr(&FOR_EVER, &served.view.node(&node));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        self.no_open = offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir =
            offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT) && self.served.top.is_none();
        let mut wanted = InitFlags::empty();
        wanted.set(InitFlags::FUSE_POSIX_ACL, self.checks_acls);
        if let Some(passthrough) = &self.passthrough {
            match offered.contains(InitFlags::FUSE_PASSTHROUGH) {
                true => wanted |= InitFlags::FUSE_PASSTHROUGH,
                false => passthrough.refuse("this kernel does not offer it"),
            }
        }
        self.connection.shake_hands(config, wanted);
        Ok(())
    }

    fn destroy(&mut self) {
        self.connection.end();
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = id(parent);
        let look = move |served: &Served, name: &[u8]| {
            Ok(Found(served.tree.lookup(parent, name)?, served.lasting(parent)))
        };
        let top = self.served.top.as_ref();
        if top.is_none_or(|top| !top.takes_long(parent, name.as_bytes())) {
            return self.answer(req, reply, |served| look(served, name.as_bytes()));
        }
        let (served, name) = (Arc::clone(&self.served), name.as_bytes().to_vec());
        let work = move || replies::answer(&*served, reply, |served| look(served, &name));
        // A thread that cannot be had drops the reply, which then says EIO.
        if let Err(error) = std::thread::Builder::new().name("lookup".to_owned()).spawn(work) {
            tracing::error!("no thread for a look-up: {error}");
        }
    }

    // batch_forget calls this, a no-op, for each node.
    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {}

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(req, reply, |served| served.tree.node(id(ino)));
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer(req, reply, |served| served.tree.read_link(id(ino)));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match &self.passthrough {
            _ if flags.acc_mode() != OpenAccMode::O_RDONLY => {
                reply.error(errno(&RequestError::ReadOnly));
            }
            Some(passthrough) => passthrough.open(self.served.tree.tree(), id(ino), reply),
            // ENOSYS turns OPEN off for the whole mount: the kernel opens by itself from now on.
            None if self.no_open => reply.error(Errno::ENOSYS),
            None => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
        }
        self.connection.polling().answered(req.pid());
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
        self.connection.transfer(req, size, || {
            self.served.tree.read(id(ino), offset, size, |found| send_bytes(found, reply));
        });
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

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            reply.error(Errno::ENOSYS);
        } else if self.served.grows(id(ino)) {
            reply.opened(FileHandle(0), FopenFlags::empty());
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
        reply: ReplyDirectory,
    ) {
        self.connection.fill(req, reply, |reply| {
            self.served.tree.list(id(ino), offset, &mut |item| {
                let node = item.node;
                let name = OsStr::from_bytes(item.name);
                reply.add(INodeNo(node.id.0), item.next, type_of(node.stat.kind), name)
            })
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let lasting = self.served.lasting(id(ino));
        self.connection.fill(req, reply, |reply| {
            self.served.tree.list(id(ino), offset, &mut |item| {
                let attr = self.served.view.node(&item.node);
                let name = OsStr::from_bytes(item.name);
                reply.add(attr.ino, item.next, name, &lasting, &attr, GENERATION)
            })
        });
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.answer(req, reply, |served| Ok(served.tree.space()));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.served.tree.facts().has_xattrs {
            return reply.error(Errno::ENOSYS);
        }
        self.answer(req, reply, |served| served.tree.xattr(id(ino), name.as_bytes(), size));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        // Never ENOSYS here: callers rely on an empty list, where EOPNOTSUPP stops them.
        self.answer(req, reply, |served| served.tree.xattr_names(id(ino), size));
    }

    // What the kernel does by itself once it has heard ENOSYS.

    left_to_the_kernel!();

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
        self.answer(req, reply, |served| {
            ioctls::run(&served.tree, id(ino), ioctls::parse(cmd, in_data, out_size)?)
        });
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
        reply.error(errno(&RequestError::ReadOnly));
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
        reply.error(errno(&RequestError::ReadOnly));
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
        reply.error(errno(&RequestError::ReadOnly));
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(&RequestError::ReadOnly));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let why = self.refuse(|top| top.dir_removed(id(parent), name.as_bytes()));
        reply.error(errno(&why));
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(errno(&RequestError::ReadOnly));
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
        reply.error(errno(&RequestError::ReadOnly));
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(errno(&RequestError::ReadOnly));
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
        reply.error(errno(&RequestError::ReadOnly));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let why = self.refuse(|top| top.file_made(id(parent), name.as_bytes()));
        reply.error(errno(&why));
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
        reply.error(errno(&RequestError::ReadOnly));
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(&RequestError::ReadOnly));
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
        reply.error(errno(&RequestError::ReadOnly));
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
        reply.error(errno(&RequestError::ReadOnly));
    }
}
