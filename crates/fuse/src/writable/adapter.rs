//! fuser's requests to the union's calls, and back.
//!
//! Every method translates and decides nothing.
//!
//! Invariants: every reply is sent exactly once; no panic ends a thread of the session.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use strata_tree::Kind;
use strata_union::writable::{New, Ownership, Union};

use super::set_id::Changer;
use super::slow::Slow;
use super::{Mount, QUICK, Result, flags};
use crate::attr::type_of;
use crate::connection::{MountConnection, id, left_to_the_kernel};
use crate::errno::RequestError;
use crate::ioctls::{self, Ioctl};
use crate::options::WritableOptions;
use crate::reads::BUFFER;
use crate::replies::{Reply, answer, guarded, send_bytes};

/// One mounted union.
pub(crate) struct Writable {
    mount: Arc<Mount>,
    slow: Slow,
    connection: MountConnection,
    checks_modes: bool,
}

impl Writable {
    /// Where the session's notifier is wanted.
    pub(crate) fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.mount.notifier)
    }

    pub(crate) fn new(
        union: Arc<Union>,
        options: &WritableOptions,
        connection: MountConnection,
    ) -> Self {
        let checks_modes = options.mount.default_permissions;
        let mount = Arc::new(Mount::new(union, options));
        Self { mount, slow: Slow::default(), connection, checks_modes }
    }

    /// Answers on this thread.
    fn answer<T>(
        &self,
        req: &Request,
        reply: impl Reply<T, Mount>,
        work: impl FnOnce(&Mount) -> Result<T>,
    ) {
        self.connection.answer(req, &*self.mount, reply, work);
    }

    /// Answers on another thread if it is slow and this one is needed.
    fn answer_aside<T>(
        &self,
        req: &Request,
        slow: bool,
        reply: impl Reply<T, Mount> + Send + 'static,
        work: impl FnOnce(&Mount) -> Result<T> + Send + 'static,
    ) {
        if !slow {
            return self.answer(req, reply, work);
        }
        match self.connection.polling().slow_work() {
            Some(_slow) => answer(&*self.mount, reply, work),
            None => {
                let mount = Arc::clone(&self.mount);
                self.slow.submit(move || answer(&*mount, reply, work));
            }
        }
    }
}

impl Filesystem for Writable {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        wanted.set(InitFlags::FUSE_POSIX_ACL, self.checks_modes && self.mount.acl);
        if !config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH) {
            self.mount.modes.refuse("this kernel does not offer it");
        }
        if self.mount.union.ownership() == Ownership::Override {
            self.mount.modes.refuse("bits are kept apart from the inodes");
        }
        wanted.set(InitFlags::FUSE_PASSTHROUGH, self.mount.modes.wants_passthrough());
        self.connection.shake_hands(config, wanted);
        Ok(())
    }

    fn destroy(&mut self) {
        self.connection.end();
    }

    // Names.

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer(req, reply, |mount| Ok(mount.union.lookup(id(parent), name.as_bytes())?));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        guarded(|| self.mount.union.forget(id(ino), nlookup));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.answer(req, reply, |mount| {
            let new = New::Plain(flags::kind(mode, rdev)?, flags::perm(mode));
            let who = mount.caller(req, umask)?;
            Ok(mount.union.make(&who, id(parent), name.as_bytes(), new)?)
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.answer(req, reply, |mount| {
            let new = New::Plain(Kind::Directory, flags::perm(mode));
            let who = mount.caller(req, umask)?;
            Ok(mount.union.make(&who, id(parent), name.as_bytes(), new)?)
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.answer(req, reply, |mount| {
            let new = New::Symlink(target.as_os_str().as_bytes());
            let who = mount.caller(req, 0)?;
            Ok(mount.union.make(&who, id(parent), name.as_bytes(), new)?)
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (node, dir, name) = (id(ino), id(newparent), newname.as_bytes().to_vec());
        self.answer_aside(req, self.mount.is_slow(node), reply, move |mount| {
            Ok(mount.union.link(node, dir, &name)?)
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (id(parent), name.as_bytes().to_vec());
        let waits = self.mount.union.name_waits_for_copy(dir, &name);
        self.answer_aside(req, waits, reply, move |mount| Ok(mount.union.unlink(dir, &name)?));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer(req, reply, |mount| Ok(mount.union.rmdir(id(parent), name.as_bytes())?));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, name) = (id(parent), name.as_bytes().to_vec());
        let (to, newname) = (id(newparent), newname.as_bytes().to_vec());
        let waits = |dir, name| self.mount.union.name_waits_for_copy(dir, name);
        let waits = waits(from, &name) || waits(to, &newname);
        self.answer_aside(req, waits, reply, move |mount| {
            let (mode, whiteout) = flags::rename(flags)?;
            Ok(mount.union.rename((from, &name), (to, &newname), mode, whiteout)?)
        });
    }

    // Inodes.

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(req, reply, |mount| Ok(mount.union.attr(id(ino))?));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = id(ino);
        let slow = match size {
            Some(_) => self.mount.is_slow(node),
            None => self.mount.is_slow_to_mark(node),
        };
        let changes = flags::changes(mode, (uid, gid), (size, fh.is_some()), (atime, mtime));
        let who = Changer::of(req);
        self.answer_aside(req, slow, reply, move |mount| mount.set_attr(node, changes, who));
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer(req, reply, |mount| Ok(mount.union.read_link(id(ino))?));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.mount.xattrs {
            // The kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        self.answer(req, reply, |mount| mount.xattr(id(ino), name.as_bytes(), size));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        // Never ENOSYS here: callers rely on an empty list, where EOPNOTSUPP stops them.
        self.answer(req, reply, |mount| mount.xattr_names(id(ino), size, req.uid() == 0));
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if !self.mount.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let (node, name, value) = (id(ino), name.as_bytes().to_vec(), value.to_vec());
        let who = Changer::of(req);
        self.answer_aside(req, self.mount.is_slow_to_mark(node), reply, move |mount| {
            mount.set_xattr(node, (&name, &value), flags::set_mode(flags)?, who)
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.mount.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let (node, name) = (id(ino), name.as_bytes().to_vec());
        let (slow, who) = (self.mount.is_slow_to_mark(node), Changer::of(req));
        self.answer_aside(req, slow, reply, move |mount| mount.remove_xattr(node, &name, who));
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.answer(req, reply, |mount| Ok(mount.union.space()?));
    }

    // Files.

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.answer(req, reply, |mount| {
            let who = mount.caller(req, umask)?;
            Ok(mount.union.create(&who, id(parent), name.as_bytes(), flags::perm(mode))?)
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (node, how, who) = (id(ino), flags::open_how(flags), Changer::of(req));
        let slow = match (how.write, how.truncate) {
            (_, true) => self.mount.union.waits_for_copy(node),
            (true, false) => self.mount.is_slow(node),
            (false, false) => false,
        };
        self.answer_aside(req, slow, reply, move |mount| mount.open(node, how, who));
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.connection.transfer(req, size, || {
            BUFFER.with_borrow_mut(|buffer| {
                send_bytes(self.mount.read(fh.0, offset, size, buffer), reply);
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.connection.polling().asked_for(u32::try_from(data.len()).unwrap_or(u32::MAX));
        let privileged = !write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let who = Changer::with(req, privileged);
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        self.answer(req, reply, |mount| mount.write(fh.0, (offset, data), who, mapped));
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.answer(req, reply, |mount| {
            let mode = mode.cast_unsigned();
            mount.union.may_allocate(mount.file(fh.0)?.node(), mode)?;
            let file = mount.changing(fh.0, Changer::of(req))?;
            Ok(file.allocate(mode, offset, length)?)
        });
    }

    fn lseek(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.answer(req, reply, |mount| {
            let hole = flags::seeks_hole(whence)?;
            let offset = u64::try_from(offset).map_err(|_| RequestError::BeyondEnd)?;
            Ok(mount.file(fh.0)?.seek(offset, hole)?)
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The answer counts in 32 bits.
        let len = len.min(u64::from(u32::MAX));
        let who = Changer::of(req);
        self.answer_aside(req, len > QUICK, reply, move |mount| {
            let (from, to) = (mount.file(fh_in.0)?, mount.changing(fh_out.0, who)?);
            let copied = from.copy_range(offset_in, &to, offset_out, len)?;
            Ok(usize::try_from(copied).unwrap_or(usize::MAX))
        });
    }

    fn fsync(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        if self.mount.no_sync {
            return reply.ok();
        }
        self.answer_aside(req, true, reply, move |mount| Ok(mount.file(fh.0)?.sync(datasync)?));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        answer(&*self.mount, reply, |mount| {
            let file = mount.files.remove(fh.0).ok_or(RequestError::NoHandle)?;
            mount.modes.leave(file.node());
            Ok(())
        });
        self.connection.polling().answered_nobody();
    }

    // Directories.

    fn opendir(&self, req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.mount.dirs.insert(Arc::default());
        reply.opened(FileHandle(handle), FopenFlags::empty());
        self.connection.polling().answered(req.pid());
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.connection.fill(req, reply, |reply| {
            let listing = self.mount.listing(fh.0)?;
            listing.plain(&self.mount, id(ino), offset, |name, node, kind, next| {
                reply.add(INodeNo(node.0), next, type_of(kind), OsStr::from_bytes(name))
            })
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.connection.fill(req, reply, |reply| {
            let listing = self.mount.listing(fh.0)?;
            listing.plus(&self.mount, id(ino), offset, |name, (attr, time, generation), next| {
                let (name, generation) = (OsStr::from_bytes(name), fuser::Generation(generation));
                reply.add(attr.ino, next, name, &time, &attr, generation)
            })
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.mount.dirs.remove(fh.0));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        if self.mount.no_sync {
            return reply.ok();
        }
        self.answer_aside(req, true, reply, move |mount| Ok(mount.union.sync_dir(id(ino))?));
    }

    // What the kernel does by itself once it has heard ENOSYS.

    left_to_the_kernel!();

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
        let (node, asked) = (id(ino), ioctls::parse(cmd, in_data, out_size));
        let slow = matches!(asked, Ok(Ioctl::Set(_))) && self.mount.is_slow_to_mark(node);
        self.answer_aside(req, slow, reply, move |mount| ioctls::run(mount, node, asked?));
    }
}
