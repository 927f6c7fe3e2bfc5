//! Metadata of one inode that the checkout made, through a descriptor of it.
//!
//! Invariants: nothing here takes a path but `/proc/self/fd/N`, which names the open inode
//! itself, a symlink included; a refusal goes to the report and the rest is still set; after it
//! all the inode is asked what it shows now, and what differs is reported too.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod,
    fremovexattr, fsetxattr, fstat, futimens, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;
use strata_tree::{Kind, Stat, TreePath, Xattr};

use super::report::{Report, Skipped};

/// `S_ISUID`.
const SETUID: u16 = 0o4000;
/// `S_ISGID`.
const SETGID: u16 = 0o2000;

/// An inode to describe.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    /// Open on it: plainly for files and directories, `O_PATH` for the others.
    pub(super) fd: BorrowedFd<'a>,
    /// It may have inherited an ACL from the directory that it was made in.
    pub(super) clear_acl: bool,
}

/// Whether the system will not do it for us, rather than cannot go on.
fn refused(error: Errno) -> bool {
    !matches!(error, Errno::IO | Errno::ROFS | Errno::BADF | Errno::NOMEM | Errno::STALE)
}

/// Notes a refusal; passes on every other error.
fn note(
    result: Result<(), Errno>,
    path: &TreePath,
    what: impl FnOnce() -> Skipped,
    report: &mut Report,
) -> Result<bool, Errno> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if refused(error) => {
            report.skip(path, what(), Some(error));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes away what a default ACL of the directory around gave to what was made in it.
pub(super) fn drop_acl(fd: BorrowedFd<'_>, kind: Kind) {
    // Absent or unsupported is what is wanted; a refusal shows in the mode afterwards.
    match kind {
        Kind::Symlink => {}
        Kind::Directory => {
            let _ = fremovexattr(fd, "system.posix_acl_default");
            let _ = fremovexattr(fd, "system.posix_acl_access");
        }
        Kind::Regular => {
            let _ = fremovexattr(fd, "system.posix_acl_access");
        }
        _ => {
            let _ = removexattr(itself(fd), "system.posix_acl_access");
        }
    }
}

/// A path that leads to the open inode and nowhere else, also for `O_PATH`.
fn itself(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Gives the inode the metadata `stat` and `xattrs`; `path` is for the report.
pub(super) fn describe(
    made: Made<'_>,
    stat: &Stat,
    xattrs: &[Xattr],
    path: &TreePath,
    report: &mut Report,
) -> Result<(), Errno> {
    let plain = matches!(stat.kind, Kind::Regular | Kind::Directory);
    if made.clear_acl {
        drop_acl(made.fd, stat.kind);
    }

    let owned = set_owner(made.fd, stat, path, report)?;
    for (name, value) in xattrs {
        let result = if plain {
            fsetxattr(made.fd, name.as_slice(), value, XattrFlags::empty())
        } else {
            setxattr(itself(made.fd), name.as_slice(), value, XattrFlags::empty())
        };
        note(result, path, || Skipped::xattr(name), report)?;
    }

    let mut perm = stat.perm;
    if perm & owned.forbidden != 0 {
        perm &= !owned.forbidden;
        report.skip(path, Skipped::SetId, Some(owned.errno));
    }
    let mode = Mode::from_raw_mode(perm.into());
    let mode_set = match stat.kind {
        // Linux keeps no mode for symlinks.
        Kind::Symlink => true,
        Kind::Regular | Kind::Directory => {
            note(fchmod(made.fd, mode), path, || Skipped::Mode, report)?
        }
        _ => note(rustix::fs::chmod(itself(made.fd), mode), path, || Skipped::Mode, report)?,
    };

    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: stat.mtime.seconds,
            tv_nsec: stat.mtime.nanos.into(),
        },
    };
    let result = if plain {
        futimens(made.fd, &times)
    } else {
        match utimensat(made.fd, "", &times, AtFlags::EMPTY_PATH) {
            // Before Linux 5.8.
            Err(Errno::INVAL) => utimensat(CWD, itself(made.fd), &times, AtFlags::empty()),
            other => other,
        }
    };
    let time_set = note(result, path, || Skipped::Time, report)?;

    let now = fstat(made.fd)?;
    if owned.set && (now.st_uid, now.st_gid) != (stat.uid, stat.gid) {
        report.skip(path, Skipped::Owner, None);
    }
    if mode_set && stat.kind != Kind::Symlink && now.st_mode & 0o7777 != u32::from(perm) {
        report.skip(path, Skipped::Mode, None);
    }
    let mtime = (now.st_mtime, i64::try_from(now.st_mtime_nsec).unwrap_or(-1));
    if time_set && mtime != (stat.mtime.seconds, stat.mtime.nanos.into()) {
        report.skip(path, Skipped::Time, None);
    }
    Ok(())
}

struct Owned {
    /// Owner and group were accepted.
    set: bool,
    /// The mode bits that would speak for somebody else.
    forbidden: u16,
    /// Why.
    errno: Errno,
}

fn set_owner(
    fd: BorrowedFd<'_>,
    stat: &Stat,
    path: &TreePath,
    report: &mut Report,
) -> Result<Owned, Errno> {
    let before = fstat(fd)?;
    if (before.st_uid, before.st_gid) == (stat.uid, stat.gid) {
        return Ok(Owned { set: true, forbidden: 0, errno: Errno::PERM });
    }
    let chown = |uid: Option<u32>, gid: Option<u32>| {
        // -1 means "leave it" to the kernel: as an owner it cannot be set at all.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
    };
    let errno = match chown(Some(stat.uid), Some(stat.gid)) {
        Ok(()) => return Ok(Owned { set: true, forbidden: 0, errno: Errno::PERM }),
        Err(error) if refused(error) => error,
        Err(error) => return Err(error),
    };
    report.skip(path, Skipped::Owner, Some(errno));
    // An ordinary user may still give the file to a group that he is in.
    let group_set = before.st_gid == stat.gid || chown(None, Some(stat.gid)).is_ok();
    let user_set = before.st_uid == stat.uid;
    let forbidden = if user_set { 0 } else { SETUID } | if group_set { 0 } else { SETGID };
    Ok(Owned { set: false, forbidden, errno })
}
