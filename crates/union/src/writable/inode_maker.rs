//! New inodes of the upper: made, and given the owner, bits and attributes that they are to have.
//!
//! Invariants: a device 0:0 is kept as a marked file, for the device itself would be a whiteout;
//! where owners are kept apart, everything but a directory is a regular file that states its type,
//! and for a symbolic link that file holds the target.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use strata_tree::{Device, Kind, Xattr};

use super::acl::Inherited;
use super::error::{Doing, Error, Result};
use super::inode_attrs::chown;
use super::inode_bits::chmod;
use super::marks::{Mark, Marks, Override, format_kind, state};
use super::stats::stat;
use super::types::SetMode;

/// What an inode of the upper is given.
pub(super) struct Dress<'a> {
    pub(super) kind: Kind,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) perm: u16,
    pub(super) xattrs: &'a [Xattr],
}

impl Inherited {
    pub(super) fn dress(&self, kind: Kind) -> Dress<'_> {
        let Self { uid, gid, perm, xattrs } = self;
        Dress { kind, uid: *uid, gid: *gid, perm: *perm, xattrs }
    }
}

/// Makes inodes of the upper.
#[derive(Debug, Clone, Copy)]
pub(super) struct InodeMaker {
    marks: Marks,
}

impl InodeMaker {
    pub(super) fn new(marks: Marks) -> Self {
        Self { marks }
    }

    /// The permission bits that a new inode in the work directory has from the start. It stays
    /// writable until it has its marks, where these are user attributes (xattr(7)).
    pub(super) fn bits_of_new(&self, kind: Kind, perm: u16) -> u16 {
        match kind {
            _ if !self.marks.is_user() && !self.marks.is_apart() => perm & 0o777,
            Kind::Directory => 0o700,
            _ => 0o600,
        }
    }

    /// An inode without anything but its type and bits (less our umask) and, for a regular file,
    /// open.
    pub(super) fn make_inode(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
        target: &[u8],
        bits: u16,
    ) -> Result<File> {
        let doing = || format!("make {}", name.display());
        let apart = self.marks.is_apart();
        let mode = Mode::from_raw_mode(u32::from(bits));
        let node = |kind, device: u64| rustix::fs::mknodat(dir, name, kind, mode, device);
        let file = |content| self.make_file(dir, name, kind, content, mode);
        let whole = |device: Device| rustix::fs::makedev(device.major, device.minor);
        match kind {
            Kind::Directory => rustix::fs::mkdirat(dir, name, mode).doing(doing)?,
            Kind::Symlink if !apart => rustix::fs::symlinkat(target, dir, name).doing(doing)?,
            Kind::CharDevice(Device { major: 0, minor: 0 }) | Kind::Regular => return file(b""),
            // xattr(7): a symbolic link could not say whose it is.
            Kind::Symlink => return file(target),
            _ if apart => return file(b""),
            Kind::CharDevice(device) => {
                node(FileType::CharacterDevice, whole(device)).doing(doing)?;
            }
            Kind::BlockDevice(device) => {
                node(FileType::BlockDevice, whole(device)).doing(doing)?;
            }
            Kind::Fifo => node(FileType::Fifo, 0).doing(doing)?,
            Kind::Socket => node(FileType::Socket, 0).doing(doing)?,
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).doing(doing)?;
        Ok(fd.into())
    }

    /// A regular file, or one that stands for what cannot be kept as itself.
    fn make_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
        content: &[u8],
        mode: Mode,
    ) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(dir, name, flags, mode)
            .doing(|| format!("make {}", name.display()))?
            .into();
        if kind == (Kind::CharDevice(Device { major: 0, minor: 0 })) {
            self.marks.set(&file, Mark::StrataDevice, format_kind(kind).as_bytes())?;
        }
        if !content.is_empty() {
            file.write_all_at(content, 0).doing(|| "write a target".to_owned())?;
        }
        Ok(file)
    }

    /// Gives a new inode of the upper the owner, attributes and bits that it has not got yet.
    pub(super) fn dress(&self, fd: impl AsFd, dress: &Dress<'_>) -> Result<()> {
        let fd = fd.as_fd();
        let apart = self.marks.is_apart();
        let now = stat(fd)?;
        if apart {
            let (uid, gid, perm) = (dress.uid, dress.gid, dress.perm);
            state(fd, Override { uid, gid, perm, kind: Some(dress.kind) })?;
        } else if (now.stx_uid, now.stx_gid) != (dress.uid, dress.gid) {
            chown(fd, Some(dress.uid), Some(dress.gid)).doing(|| "set an owner".to_owned())?;
        }
        for (name, value) in dress.xattrs {
            let plain = matches!(dress.kind, Kind::Regular | Kind::Directory);
            // xattr(7): a link, a device or a fifo has no user attributes, whatever an image says.
            let for_users = plain || !name.starts_with(b"user.");
            match self.marks.put(fd, name, value, SetMode::Either) {
                Ok(()) => {}
                // What this file system or this user cannot keep is lost, not fatal, as with cp -a.
                Err(Error::Refused(Errno::OPNOTSUPP)) => {}
                Err(Error::Refused(Errno::PERM)) if apart || !for_users => {}
                Err(Error::Refused(errno)) => {
                    let name = self.marks.escape(name);
                    return Err(Error::attribute(&name, value.len(), errno));
                }
                Err(error) => return Err(error),
            }
        }
        // An ACL among the attributes has changed the bits, an owner has taken set-user-id away.
        let differs = now.stx_mode & 0o7777 != dress.perm
            || dress.perm & 0o6000 != 0
            || !dress.xattrs.is_empty();
        if !apart && dress.kind != Kind::Symlink && differs {
            chmod(fd, dress.perm).doing(|| "set a mode".to_owned())?;
        }
        Ok(())
    }
}
