//! A directory as it is on the disk, read name by name.
//!
//! Invariants: no link is followed, and nothing but regular files is opened; a mount below the
//! directory is read like the rest of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::tree::{TreeEntry, first_names};
use crate::{Result, at};

/// Contents of more bytes are cut off: no case has one.
const MAX_CONTENT: u64 = 16 << 20;

/// All that is in `top`, and `top` itself as `.`; what is in `but` is left out.
///
/// # Errors
/// If something cannot be read.
pub fn tree(top: &Path, but: Option<&Path>) -> Result<Vec<TreeEntry>> {
    let mut found = Vec::new();
    let mut open = vec![top.to_owned()];
    found.push(at(top.display(), entry(top, b".".to_vec()))?);
    while let Some(dir) = open.pop() {
        // Readable alone is not enough: without search permission nothing in it can be looked at.
        let names = match fs::read_dir(&dir) {
            Ok(names) if fs::symlink_metadata(dir.join(".")).is_ok() => names,
            Ok(_) => {
                close(&mut found, top, &dir);
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                close(&mut found, top, &dir);
                continue;
            }
            other => at(dir.display(), other)?,
        };
        for name in names {
            let path = at(dir.display(), name)?.path();
            if Some(path.as_path()) == but {
                continue;
            }
            let inside = path.strip_prefix(top).unwrap_or(&path).as_os_str().as_bytes().to_vec();
            let entry = match entry(&path, inside.clone()) {
                // The kernel lists it and has no node: a mark of overlayfs where none may be.
                Err(error) if error.kind() == io::ErrorKind::NotFound => listed_alone(inside),
                other => at(path.display(), other)?,
            };
            if entry.kind == "dir" {
                open.push(path);
            }
            found.push(entry);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    first_names(&mut found);
    Ok(found)
}

/// Notes that the running user cannot look into a directory.
fn close(found: &mut [TreeEntry], top: &Path, dir: &Path) {
    let inside = dir.strip_prefix(top).unwrap_or(dir).as_os_str().as_bytes();
    let inside: &[u8] = if inside.is_empty() { b"." } else { inside };
    for entry in found.iter_mut().filter(|entry| entry.path == inside) {
        entry.closed = true;
    }
}

/// A name that a directory lists, and that cannot be looked up.
fn listed_alone(path: Vec<u8>) -> TreeEntry {
    TreeEntry {
        kind: "name without a node".to_owned(),
        body: Vec::new(),
        mode: Some(0),
        uid: Some(0),
        gid: Some(0),
        mtime: Some((0, 0)),
        xattrs: Some(BTreeMap::new()),
        inode: path.clone(),
        path,
        closed: false,
    }
}

fn entry(path: &Path, inside: Vec<u8>) -> io::Result<TreeEntry> {
    let facts = fs::symlink_metadata(path)?;
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let (mut closed, mut all) = (false, BTreeMap::new());
    let (kind, body) = match kind_and_body(path, &facts) {
        Err(error) if denied(&error) => {
            closed = true;
            ("file", Vec::new())
        }
        other => other?,
    };
    match xattrs(path) {
        Err(error) if denied(&error) => closed = true,
        other => all = other?,
    }
    let nanos = u32::try_from(facts.mtime_nsec()).unwrap_or(0);
    Ok(TreeEntry {
        // The inode by its number, until the tree is whole.
        inode: if kind == "dir" {
            inside.clone()
        } else {
            format!("/{}:{}", facts.dev(), facts.ino()).into_bytes()
        },
        path: inside,
        kind: kind.to_owned(),
        body,
        mode: Some(facts.mode() & 0o7777),
        uid: Some(facts.uid()),
        gid: Some(facts.gid()),
        mtime: Some((facts.mtime(), nanos)),
        xattrs: Some(all),
        closed,
    })
}

fn kind_and_body(path: &Path, facts: &Metadata) -> io::Result<(&'static str, Vec<u8>)> {
    let kind = facts.file_type();
    let device = || {
        let (major, minor) = (rustix::fs::major(facts.rdev()), rustix::fs::minor(facts.rdev()));
        format!("{major}:{minor}").into_bytes()
    };
    Ok(match () {
        () if kind.is_dir() => ("dir", Vec::new()),
        () if kind.is_symlink() => {
            ("symlink", fs::read_link(path)?.as_os_str().as_bytes().to_vec())
        }
        () if kind.is_fifo() => ("fifo", Vec::new()),
        () if kind.is_socket() => ("socket", Vec::new()),
        () if kind.is_char_device() => ("char", device()),
        () if kind.is_block_device() => ("block", device()),
        () => ("file", content(path)?),
    })
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_CONTENT), &mut bytes)?;
    Ok(bytes)
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    // As many as the kernel gives.
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value) {
            Ok(length) => length,
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => continue,
            Err(error) => return Err(error.into()),
        };
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}
