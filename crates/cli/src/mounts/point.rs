//! Mountpoints: which directories will do, and what the mount table says of them.
//!
//! Invariants: a mountpoint is a directory outside the store, and the store is not below it; a
//! path is resolved as far as its parent even where a dead mount no longer answers for itself.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use strata_fuse::{Manner, SUBTYPE};

/// The type of what is mounted at `path` (resolved), the topmost mount; `None` if nothing is.
pub(crate) fn type_mounted_at(path: &Path) -> Option<OsString> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    type_in_table(&table, path)
}

fn type_in_table(table: &[u8], path: &Path) -> Option<OsString> {
    table
        .split(|byte| *byte == b'\n')
        .rev()
        .find(|line| {
            let point = line.split(|byte| *byte == b' ').nth(4);
            point.is_some_and(|point| unescape(point) == path.as_os_str().as_bytes())
        })
        .and_then(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
            fields.nth(1).map(|name| OsString::from_vec(name.to_vec()))
        })
}

/// Undoes the table's octal escapes: `\040` is a blank.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|d| d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match digits {
            Some(&[a, b, c]) if *first == b'\\' => {
                let value =
                    u32::from(a - b'0') * 64 + u32::from(b - b'0') * 8 + u32::from(c - b'0');
                out.push(value as u8);
                rest = &after[3..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Whether one of our mounts is at `path` (resolved).
pub(crate) fn is_ours(path: &Path) -> bool {
    type_mounted_at(path).is_some_and(|name| name == format!("fuse.{SUBTYPE}").as_str())
}

/// Whether one of our mounts is at `path` whose daemon is gone.
pub(crate) fn is_stale(path: &Path) -> bool {
    is_ours(path) && fs::symlink_metadata(path).is_err_and(|error| is_disconnected(&error))
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

/// Whether a mount on the directory would hide something.
pub(crate) fn holds_names(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut names| names.next().is_some())
}

/// A path for messages and tables: control characters would spoil the lines.
pub(crate) fn shown(path: &Path) -> String {
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
            41 40 0:51 / /a\\040b ro master:3 - fuse.strata x ro\n";
        assert_eq!(type_in_table(table, Path::new("/a b")).unwrap(), "fuse.strata");
        assert_eq!(type_in_table(table, Path::new("/")).unwrap(), "ext4");
        assert_eq!(type_in_table(table, Path::new("/a")), None);
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
