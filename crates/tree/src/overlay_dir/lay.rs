//! Writes a [`Spec`] down as an overlay directory, for tests. Needs root.

use std::io;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lsetxattr,
    makedev, mknodat, utimensat,
};

use crate::dialect::{Mark, XattrClass, format_kind};
use crate::name::TreePath;
use crate::node::{Device, Kind};
use crate::spec::{InodeSpec, Item, Spec};

/// Lays `spec` out in the empty directory `at` as the kernel would with marks of `class`, with
/// empty files for whiteouts if `whiteout_files`. Presence is not kept: there are only explicit
/// directories.
///
/// # Errors
/// What the operating system says; `InvalidInput` for links to lower layers.
pub fn lay_overlay(
    spec: &Spec,
    at: &Path,
    class: XattrClass,
    whiteout_files: bool,
) -> io::Result<()> {
    let mut dirs = Vec::new();
    for (raw, item) in spec.items() {
        let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let place = |path: &TreePath| at.join(path.as_os_str());
        let path = TreePath::clamped(raw).map_err(bad)?;
        let to = place(&path);
        match item {
            Item::Inode(inode) => {
                create(inode, &to, path.is_root(), class)?;
                if inode.kind.is_dir() {
                    dirs.push((inode, to));
                } else {
                    finish(inode, &to, class)?;
                }
            }
            Item::Link(target) => std::fs::hard_link(place(target), to)?,
            Item::Whiteout if whiteout_files => {
                std::fs::write(&to, b"")?;
                lsetxattr(&to, class.name(Mark::Whiteout), b"y", XattrFlags::empty())?;
                let dir = to.parent().unwrap_or(at);
                // One value: what is opaque and has whiteouts needs the latter no more.
                let mut room = [0; 1];
                let name = class.name(Mark::Opaque);
                if rustix::fs::lgetxattr(dir, name, &mut room[..]).is_err() {
                    lsetxattr(dir, name, b"x", XattrFlags::empty())?;
                }
            }
            Item::Whiteout => {
                mknodat(CWD, &to, FileType::CharacterDevice, Mode::empty(), 0)?;
            }
            Item::LowerLink(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    // Names made in them have changed their times.
    for (inode, to) in dirs {
        finish(inode, &to, class)?;
    }
    Ok(())
}

fn create(inode: &InodeSpec, to: &Path, is_root: bool, class: XattrClass) -> io::Result<()> {
    let node = |kind, device: Device| {
        mknodat(CWD, to, kind, Mode::empty(), makedev(device.major, device.minor))
    };
    let none = Device { major: 0, minor: 0 };
    match inode.kind {
        Kind::Regular => std::fs::write(to, &inode.body)?,
        Kind::Directory if is_root => {}
        Kind::Directory => std::fs::create_dir(to)?,
        Kind::Symlink => {
            let target = std::os::unix::ffi::OsStrExt::from_bytes(inode.body.as_slice());
            let target: &std::ffi::OsStr = target;
            std::os::unix::fs::symlink(target, to)?;
        }
        Kind::CharDevice(device) if device == none => {
            std::fs::write(to, b"")?;
            let text = format_kind(inode.kind);
            let name = class.name(Mark::StrataDevice);
            lsetxattr(to, name, text.as_bytes(), XattrFlags::empty())?;
        }
        Kind::CharDevice(device) => node(FileType::CharacterDevice, device)?,
        Kind::BlockDevice(device) => node(FileType::BlockDevice, device)?,
        Kind::Fifo => node(FileType::Fifo, none)?,
        Kind::Socket => node(FileType::Socket, none)?,
    }
    if inode.marks.opaque {
        lsetxattr(to, class.name(Mark::Opaque), b"y", XattrFlags::empty())?;
    }
    Ok(())
}

/// Owner, mode, attributes, times: in the order in which one does not undo the other.
fn finish(inode: &InodeSpec, to: &Path, class: XattrClass) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
    chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if inode.kind != Kind::Symlink {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(u32::from(inode.perm));
        std::fs::set_permissions(to, mode)?;
    }
    for (name, value) in &inode.xattrs {
        lsetxattr(to, &*class.escape(name), value, XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: inode.mtime.seconds, tv_nsec: i64::from(inode.mtime.nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
