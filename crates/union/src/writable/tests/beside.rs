//! The same operations done to a mount of the kernel's overlayfs, beside the union and the model.
//!
//! Invariant: the mount is asked for the path of a node before the model changes, and gives the
//! errno.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;
use strata_tree::{Device, Kind};

use super::operations::{NAMES, Op, kind_of, split, xattr};
use super::rights::gives;
use super::world::World;

type Done = Result<(), Errno>;

fn io<T>(result: std::io::Result<T>) -> Done {
    result.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Whether the kernel's overlayfs can do this at all: it makes no devices 0:0.
pub(super) fn fits(op: &Op) -> bool {
    let zero = Kind::CharDevice(Device { major: 0, minor: 0 });
    match op {
        Op::Make(_, _, kind) => kind_of(*kind) != zero,
        // An upper is left alone while the kernel has it mounted.
        Op::RenameWhiteout(..) | Op::CopyInUpper(..) => false,
        _ => true,
    }
}

/// Does it under `root`; `None`: it does nothing to a tree.
pub(super) fn apply(op: &Op, world: &World, root: &Path) -> Option<Done> {
    let at = |path: &str| root.join(path);
    let new = |dir: u8, n: u8| at(&world.dir_at(dir).0).join(NAMES[usize::from(n) % NAMES.len()]);
    let file = |n: u8| world.file_at(n).map(|(path, _)| at(&path));
    let write = |path: &Path, from: u64, bytes: &[u8]| {
        io(File::options().write(true).open(path).and_then(|f| f.write_all_at(bytes, from)))
    };
    let resize = |path: &Path, size: u64| {
        io(File::options().write(true).open(path).and_then(|file| file.set_len(size)))
    };
    let allocate = |path: &Path, mode, at: u64, len: u64| {
        let file = File::options().write(true).open(path).unwrap();
        rustix::fs::fallocate(file, mode, at, len)
    };
    let chmod = |path: &Path, perm: u16| {
        io(std::fs::set_permissions(path, std::fs::Permissions::from_mode(u32::from(perm))))
    };
    let set = |path: &Path, which: u8, value: &[u8], flags| {
        rustix::fs::lsetxattr(path, xattr(which), value, flags)
    };
    // A node that is held may have any of its names, or none.
    let held = |n: u8| -> Option<PathBuf> {
        let (node, _) = world.held_at(n)?;
        world.model.paths().into_iter().find(|(_, there)| *there == node).map(|(path, _)| at(&path))
    };
    Some(match op {
        Op::Make(dir, n, kind) => make(&new(*dir, *n), kind_of(*kind)),
        Op::Symlink(dir, n) => io(std::os::unix::fs::symlink("../to", new(*dir, *n))),
        Op::Create(dir, n) => {
            let path = new(*dir, *n);
            let made = File::options().write(true).create_new(true).mode(0o640).open(&path);
            io(made.and_then(|file| file.write_all_at(b"new", 0)))
        }
        Op::Write(n, from, byte) => write(&file(*n)?, u64::from(*from), &[*byte; 5]),
        Op::Truncate(n, size) => resize(&file(*n)?, u64::from(*size)),
        Op::OpenTruncate(n) => resize(&file(*n)?, 0),
        Op::Chmod(n, perm) => {
            let (path, node) = world.node_at(*n);
            match world.model.inodes[node].kind {
                Kind::Symlink => return None,
                _ => chmod(&at(&path), *perm),
            }
        }
        Op::Chown(n, uid, gid) => {
            let path = at(&world.node_at(*n).0);
            let owner = (Some(u32::from(*uid)), Some(u32::from(*gid)));
            let kind = path.symlink_metadata().unwrap();
            io(std::os::unix::fs::lchown(&path, owner.0, owner.1)).and_then(|()| {
                // The model is told the bits that the kernel leaves; here they are made the same.
                let keep = kind.is_dir() || kind.is_symlink();
                if keep { Ok(()) } else { chmod(&path, kind.permissions().mode() as u16 & 0o1777) }
            })
        }
        Op::Times(n, time) => {
            let path = at(&world.node_at(*n).0);
            let time = |nsec| rustix::fs::Timespec { tv_sec: i64::from(*time), tv_nsec: nsec };
            let times = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
                last_modification: time(7),
            };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
        Op::SetXattr(n, which, value) => {
            let (path, node) = world.node_at(*n);
            match world.model.inodes[node].kind {
                Kind::Regular | Kind::Directory => {
                    set(&at(&path), *which, &[*value], XattrFlags::empty())
                }
                _ => return None,
            }
        }
        Op::CreateXattr(n, which) => set(&file(*n)?, *which, b"once", XattrFlags::CREATE),
        Op::ReplaceXattr(n, which) => set(&file(*n)?, *which, b"once", XattrFlags::REPLACE),
        Op::RemoveXattr(n, which) => {
            let (path, node) = world.node_at(*n);
            match world.model.inodes[node].kind {
                Kind::Regular | Kind::Directory => {
                    rustix::fs::lremovexattr(at(&path), xattr(*which))
                }
                // The kernel refuses user attributes there before it looks for one.
                _ => return None,
            }
        }
        Op::Link(n, dir, to) => {
            let (from, to) = (at(&world.node_at(*n).0), new(*dir, *to));
            rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())
        }
        Op::Unlink(dir, n) => rustix::fs::unlinkat(CWD, new(*dir, *n), AtFlags::empty()),
        Op::Rmdir(dir, n) => rustix::fs::unlinkat(CWD, new(*dir, *n), AtFlags::REMOVEDIR),
        Op::Rename(a, x, c, y, mode) => rename(&new(*a, *x), &new(*c, *y), *mode),
        Op::RenameExisting(a, c, mode) => {
            let (from, to) = (world.node_at(*a).0, world.node_at(*c).0);
            split(&from)?;
            split(&to)?;
            rename(&at(&from), &at(&to), *mode)
        }
        Op::WriteHeld(n, byte) => write(&held(*n)?, 3, &[*byte; 5]),
        Op::TruncateHeld(n, size) => resize(&held(*n)?, u64::from(*size)),
        Op::ChmodHeld(n, perm) => chmod(&held(*n)?, *perm),
        Op::Allocate(n, size) => {
            allocate(&file(*n)?, FallocateFlags::empty(), 0, u64::from(*size).max(1))
        }
        Op::Punch(n, from) => {
            let mode = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
            allocate(&file(*n)?, mode, u64::from(*from), 100)
        }
        Op::CopyRange(n, m) => {
            let (from, to) = (world.file_at(*n)?, world.file_at(*m)?);
            if from.1 == to.1 {
                return None;
            }
            write(&at(&to.0), 0, &std::fs::read(at(&from.0)).unwrap())
        }
        Op::Acl(..) | Op::DefaultAcl(..) | Op::Capability(_) => {
            let (path, _, name, value) = gives(op, world)?;
            rustix::fs::lsetxattr(at(&path), name, &value, XattrFlags::empty())
        }
        Op::HoldRead(_)
        | Op::HoldWrite(_)
        | Op::Close(_)
        | Op::Remount
        | Op::SeekPastEnd(_)
        | Op::RenameWhiteout(..)
        | Op::Sync(_)
        | Op::Forget
        | Op::LongName(_)
        | Op::CopyInUpper(..)
        | Op::MoveAway => return None,
    })
}

fn make(path: &Path, kind: Kind) -> Done {
    let node = |kind, device: Device| {
        let device = rustix::fs::makedev(device.major, device.minor);
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o755), device)
    };
    let none = Device { major: 0, minor: 0 };
    match kind {
        Kind::Directory => rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)),
        Kind::Regular => node(FileType::RegularFile, none),
        Kind::Fifo => node(FileType::Fifo, none),
        Kind::Socket => node(FileType::Socket, none),
        Kind::CharDevice(device) => node(FileType::CharacterDevice, device),
        Kind::BlockDevice(device) => node(FileType::BlockDevice, device),
        Kind::Symlink => Err(Errno::INVAL),
    }
}

fn rename(from: &Path, to: &Path, mode: u8) -> Done {
    let flags = match mode % 4 {
        0 => RenameFlags::EXCHANGE,
        1 => RenameFlags::NOREPLACE,
        _ => RenameFlags::empty(),
    };
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}
