//! Mountpoints: which directories will do, and what the mount table says of them.
//!
//! Invariants: a mountpoint is a directory outside the store, and the store is not below it; a
//! path is resolved as far as its parent even where a dead mount no longer answers for itself.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::table::MountLine;
use crate::error::{ErrorContext, Result, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use strata_fuse::{Manner, SUBTYPE};

/// How the source of a mount that the kernel serves begins in the mount table.
const SOURCE: &str = "strata:";

/// The device of what is mounted at `path` (resolved), such as `0:50`; `None` if nothing is.
pub(crate) fn device_mounted_at(path: &Path) -> Option<String> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    String::from_utf8(line_of(&table, path)?.device()?.to_vec()).ok()
}

/// The user who made the FUSE mount at `path` (resolved).
pub(crate) fn owner_of(path: &Path) -> Option<u32> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    line_of(&table, path)?.owner()
}

fn line_of<'a>(table: &'a [u8], path: &Path) -> Option<MountLine<'a>> {
    let wanted = path.as_os_str().as_bytes();
    MountLine::all(table).rev().find(|line| line.path().is_some_and(|path| path == wanted))
}

/// Whether one of our mounts is at `path` (resolved).
pub(crate) fn is_ours(path: &Path) -> bool {
    let Ok(table) = fs::read("/proc/self/mountinfo") else { return false };
    line_of(&table, path).is_some_and(|line| {
        let kind = line.kind().unwrap_or_default();
        let of_kernel = || line.source().is_some_and(|from| from.starts_with(SOURCE.as_bytes()));
        kind == format!("fuse.{SUBTYPE}").as_str() || kind == "overlay" && of_kernel()
    })
}

/// Whether one of our mounts is at `path` whose daemon is gone.
pub(crate) fn is_stale(path: &Path) -> bool {
    // The kernel may remember the answer of a daemon that is dead; so it has to ask.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    is_ours(path)
        && rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS)
            .is_err_and(|errno| is_disconnected(&errno.into()))
}

fn is_disconnected(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTCONN | Errno::CONNABORTED))
}

/// The absolute path without links; of a dead mount, which cannot be asked, its parent's.
pub(crate) fn resolve(directory: &Path) -> Result<PathBuf> {
    let fail = || format!("cannot resolve {}", directory.display());
    match directory.canonicalize() {
        Err(error) if is_disconnected(&error) => {
            let absolute = std::path::absolute(directory).with_context(fail)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => {
                    Ok(parent.canonicalize().with_context(fail)?.join(name))
                }
                _ => Err(error).with_context(fail),
            }
        }
        other => other.with_context(fail),
    }
}

/// The resolved mountpoint for a new mount; takes away a dead mount that is in its place.
///
/// # Errors
/// Says what is wrong with the directory.
pub(crate) fn prepare(directory: &Path, root: &Path) -> Result<PathBuf> {
    let shown = directory.display();
    if fs::symlink_metadata(directory).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        bail!("cannot mount on {shown}: there is no such directory; make it first");
    }
    let point = resolve(directory)?;
    if is_stale(&point) {
        tracing::info!("unmounting {shown}: its daemon is dead");
        strata_fuse::unmount(&point, Manner::Lazy)?;
    }
    if is_ours(&point) {
        bail!("an image is already mounted on {shown}; strata umount {shown} takes it away");
    }
    let kind = fs::symlink_metadata(&point).with_context(|| format!("cannot mount on {shown}"))?;
    if !kind.is_dir() {
        bail!("cannot mount on {shown}: it is not a directory");
    }
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if point.starts_with(&root) {
        bail!("cannot mount on {shown}: it is inside the store {}", root.display());
    }
    if root.starts_with(&point) {
        bail!("cannot mount on {shown}: it would hide the store {}", root.display());
    }
    Ok(point)
}

/// A directory to mount on or from, held open.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Whether a mount on the directory would hide something.
pub fn holds_names(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut names| names.next().is_some())
}

/// A path for messages and tables: control characters would spoil the lines.
pub fn shown(path: &Path) -> String {
    let name: &OsStr = path.as_os_str();
    match name.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => name.as_bytes().escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_counts_and_blanks_are_escaped() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 21 0:50 / /a\\040b rw,nosuid shared:1 - tmpfs none rw\n\
            41 40 0:51 / /a\\040b ro master:3 - fuse.strata x ro,user_id=7,group_id=8\n";
        let kind = |path: &str| line_of(table, Path::new(path))?.kind();
        assert_eq!(kind("/a b").unwrap(), "fuse.strata");
        assert_eq!(kind("/").unwrap(), "ext4");
        assert_eq!(kind("/a"), None);
        assert_eq!(line_of(table, Path::new("/a b")).unwrap().device(), Some(&b"0:51"[..]));
        assert_eq!(line_of(table, Path::new("/a b")).unwrap().owner(), Some(7));
        assert_eq!(line_of(table, Path::new("/")).unwrap().owner(), None);
    }

    #[test]
    fn the_store_and_what_is_above_it_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        fs::create_dir_all(root.join("layers")).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let refused = |name: &str| prepare(&dir.path().join(name), &root).unwrap_err().to_string();
        assert!(refused("store").contains("inside the store"));
        assert!(refused("store/layers").contains("inside the store"));
        assert!(refused("").contains("would hide the store"));
        assert!(refused("file").contains("not a directory"));
        assert!(refused("absent").contains("no such directory; make it first"));
        let good = prepare(&dir.path().join("mnt/../mnt/"), &root).unwrap();
        assert_eq!(good, dir.path().canonicalize().unwrap().join("mnt"));
    }
}
