//! Metadata: what `stat` shows, and changing it.
//!
//! Invariants: a change of metadata copies no content (but for `metacopy` off, and for a size);
//! an inode's bits are set last, for a change of owner takes set-user-id away.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use strata_tree::{Kind, NodeId, Timestamp, Xattr};

use super::Union;
use super::acl::{ACCESS, with_bits};
use super::error::{Doing, Error, Result};
use super::marks::{Override, raw_value, state};
use super::names::{Inode, inode, lower_attr, stat};
use super::table::{Seen, Stage};
use super::types::{Attr, Changes, SetMode, SetTime, Space};
use super::upper::by_descriptor;

/// The attribute that is a program's file capabilities, on disk as in the image.
pub(super) const CAPABILITY: &str = "security.capability";

/// What an inode of the upper is given.
pub(super) struct Dress<'a> {
    pub(super) kind: Kind,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) perm: u16,
    pub(super) xattrs: &'a [Xattr],
}

impl SetTime {
    /// What `stat` said.
    pub(super) fn stat(time: rustix::fs::StatxTimestamp) -> Self {
        Self::To(Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec })
    }

    fn spec(time: Option<Self>) -> Timespec {
        match time {
            Some(Self::To(time)) => {
                Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) as _ }
            }
            Some(Self::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        }
    }
}

/// Sets both times of an open inode.
pub(super) fn set_times(fd: impl AsFd, atime: SetTime, mtime: SetTime) -> Result<()> {
    times(fd.as_fd(), Some(atime), Some(mtime)).doing(|| "set times".to_owned())
}

fn times(fd: impl AsFd, atime: Option<SetTime>, mtime: Option<SetTime>) -> rustix::io::Result<()> {
    let times =
        Timestamps { last_access: SetTime::spec(atime), last_modification: SetTime::spec(mtime) };
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)
}

fn chmod(fd: impl AsFd, perm: u16) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(u32::from(perm));
    rustix::fs::chmodat(rustix::fs::CWD, by_descriptor(fd.as_fd()), mode, AtFlags::empty())
}

fn chown(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

impl Union {
    /// Metadata of a node.
    ///
    /// # Errors
    /// `ESTALE`; `Upper`, `Lower`.
    pub fn attr(&self, node: NodeId) -> Result<Attr> {
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        self.attr_of(&seen)
    }

    pub(super) fn attr_of(&self, seen: &Seen) -> Result<Attr> {
        let generation = self.table.generation(seen.found.id);
        if seen.found.stage > Stage::Lower {
            let inode = inode(self, seen)?;
            let attr = self.upper_attr(&seen.found, &inode, &stat(&inode)?)?;
            return Ok(Attr { generation, ..attr });
        }
        let Some(lower) = seen.found.lower else { return Err(Error::Refused(Errno::STALE)) };
        let mut attr = lower_attr(&seen.found, &self.lower.node(lower)?);
        if seen.path.is_none() {
            attr.stat.nlink = 0;
        }
        Ok(Attr { generation, ..attr })
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// `EINVAL` for other nodes than symlinks, `ESTALE`; `Upper`, `Lower`.
    pub fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        match (seen.found.kind, seen.found.stage, seen.found.lower) {
            (Kind::Symlink, Stage::Lower, Some(lower)) => Ok(self.lower.read_link(lower)?),
            (Kind::Symlink, ..) => {
                let inode = match &seen.path {
                    Some(path) => Inode::Own(self.upper.node_to_read(path)?),
                    None => inode(self, &seen)?,
                };
                match rustix::fs::readlinkat(inode.as_fd(), "", Vec::new()) {
                    Ok(target) => Ok(target.into_bytes()),
                    // A file that stands for one (see `make`).
                    Err(Errno::INVAL | Errno::NOENT) => std::fs::read(by_descriptor(inode.as_fd()))
                        .doing(|| "read the target of a link".to_owned()),
                    Err(errno) => Err(errno).doing(|| "read a link".to_owned()),
                }
            }
            _ => Err(Error::Refused(Errno::INVAL)),
        }
    }

    /// Changes metadata; gives those after it.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` for the size of what is no regular file; `EPERM`; `Upper`, `Lower`.
    pub fn set_attr(&self, node: NodeId, changes: &Changes) -> Result<Attr> {
        let kind = self.table.see(node)?.found.kind;
        match (changes.size, kind) {
            (None, _) | (Some(_), Kind::Regular) => {}
            (Some(_), Kind::Directory) => return Err(Error::Refused(Errno::ISDIR)),
            (Some(_), _) => return Err(Error::Refused(Errno::INVAL)),
        }
        if *changes == Changes::default() {
            return self.attr(node);
        }
        self.may_set(node, changes)?;
        let made = match changes.size {
            Some(size) => self.copy_up(node, Stage::Upper, Some(size))?,
            None => self.copy_up(node, Stage::Meta, None)?,
        };
        if changes.size.is_some() {
            self.settle_copy(node)?;
        }
        let _claim = self.claims.claim(&[node]);
        let _steady = self.steady();
        let seen = self.table.see(node)?;
        let fd = made.map_or_else(|| inode(self, &seen), |file| Ok(Inode::Own(file.into())))?;
        if let Some(size) = changes.size {
            self.truncate(&seen, &fd, size)?;
        }
        self.restate(&seen, &fd, changes)?;
        if changes.atime.is_some() || changes.mtime.is_some() {
            times(&fd, changes.atime, changes.mtime)?;
        }
        self.upper_attr(&seen.found, &fd, &stat(&fd)?)
    }

    /// Waits until the content of a node is on disk, if it was copied up just now.
    fn settle_copy(&self, node: NodeId) -> Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let inode = {
            let _steady = self.steady();
            let seen = self.table.see(node)?;
            match seen.found.stage {
                Stage::Upper => inode(self, &seen)?,
                Stage::Lower | Stage::Meta => return Ok(()),
            }
        };
        self.unsynced.settle(inode)
    }

    fn truncate(&self, seen: &Seen, fd: &Inode, size: u64) -> Result<()> {
        if let Some(file) = self.table.open_content(seen.found.id).and_then(|c| c.upper_file())
            && rustix::fs::ftruncate(&*file, size).is_ok()
        {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(by_descriptor(fd.as_fd()), flags, Mode::empty())?;
        Ok(rustix::fs::ftruncate(file, size)?)
    }

    /// Changes owner and bits.
    fn restate(&self, seen: &Seen, fd: &Inode, changes: &Changes) -> Result<()> {
        if self.apart() {
            if changes.uid.is_none() && changes.gid.is_none() && changes.perm.is_none() {
                return Ok(());
            }
            let now = self.upper_attr(&seen.found, fd, &stat(fd)?)?.stat;
            if let Some(perm) = changes.perm
                && let Some(acl) = self.marks.value(fd, ACCESS)?
            {
                self.marks.put(fd, ACCESS, &with_bits(&acl, perm), SetMode::Either)?;
            }
            let stated = Override {
                uid: changes.uid.unwrap_or(now.uid),
                gid: changes.gid.unwrap_or(now.gid),
                perm: changes.perm.unwrap_or(now.perm),
                kind: Some(seen.found.kind),
            };
            return state(fd, stated);
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            chown(fd, changes.uid, changes.gid)?;
        }
        if let Some(perm) = changes.perm {
            chmod(fd, perm)?;
        }
        Ok(())
    }

    /// Gives a new inode of the upper the owner, attributes and bits that it has not got yet.
    pub(super) fn dress(&self, fd: impl AsFd, dress: &Dress<'_>) -> Result<()> {
        let fd = fd.as_fd();
        let apart = self.apart();
        let now = stat(fd)?;
        if apart {
            let (uid, gid, perm) = (dress.uid, dress.gid, dress.perm);
            state(fd, Override { uid, gid, perm, kind: Some(dress.kind) })?;
        } else if (now.stx_uid, now.stx_gid) != (dress.uid, dress.gid) {
            chown(fd, Some(dress.uid), Some(dress.gid)).doing(|| "set an owner".to_owned())?;
        }
        for (name, value) in dress.xattrs {
            let plain = matches!(dress.kind, Kind::Regular | Kind::Directory);
            // xattr(7): a link, a device or a fifo has none of users, whatever an image says.
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

    /// Gives a file of the upper its content, later than its attributes: a write takes capability
    /// and set-id bits away from whoever may have them, as it should not here.
    pub(super) fn refill(&self, file: &File, fill: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = stat(file)?;
        let capability = raw_value(file, CAPABILITY)?;
        fill()?;
        if let Some(value) = capability {
            keep_capability(file, &value)?;
        }
        let perm = before.stx_mode & 0o7777;
        if perm & 0o6000 != 0 && stat(file)?.stx_mode & 0o7777 != perm {
            chmod(file, perm).doing(|| "keep a mode".to_owned())?;
        }
        set_times(file, SetTime::stat(before.stx_atime), SetTime::stat(before.stx_mtime))
    }

    /// The file system below the upper.
    ///
    /// # Errors
    /// `Upper`.
    pub fn space(&self) -> Result<Space> {
        let stat =
            rustix::fs::fstatvfs(self.upper.root()).doing(|| "ask for free space".to_owned())?;
        Ok(Space {
            block_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            name_max: u32::try_from(stat.f_namemax).unwrap_or(255),
        })
    }
}

/// Gives a file back the capability that writing to it has taken away.
pub(super) fn keep_capability(file: &File, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(file, CAPABILITY, value, XattrFlags::empty())
        .doing(|| format!("keep {CAPABILITY}"))
}
