//! What the store holds, in bytes: asked of the index, comparable with `du`.
//!
//! Invariants: `stored` in total counts every inode of contents once, so it is what `du` counts
//! of the regular files below `layers/*/diff`; with `headers` and `directories` it is what
//! `du --apparent-size` counts of `layers/` as a whole.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, fstat, statat};
use rustix::io::Errno;
use strata_tree::DiffId;

use super::Store;
use crate::error::{IoContext, Result};
use crate::index::holders::{self, Sum};
use crate::stage::open_beneath;

/// One layer's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Which layer.
    pub diff_id: DiffId,
    /// Names in it, whiteouts included.
    pub entries: u64,
    /// Bytes of its regular files as the image has them, each inode once.
    pub apparent: u64,
    /// Bytes of distinct contents in it.
    pub stored: u64,
    /// The part of `stored` that other layers hold too.
    pub shared: u64,
    /// Bytes of its `headers.zst`.
    pub headers: u64,
}

/// The whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Layer by layer, in the order in which they came.
    pub layers: Vec<LayerUsage>,
    /// Names in all of them.
    pub entries: u64,
    /// Bytes of all regular files as the images have them.
    pub apparent: u64,
    /// Bytes of all distinct contents: what is on disk.
    pub stored: u64,
    /// The part of `stored` that two layers or more hold.
    pub shared: u64,
    /// Bytes of all `headers.zst`.
    pub headers: u64,
    /// Bytes that the directories below `layers/` take, that one included.
    pub directories: u64,
    /// Bytes of `index.db` with its log.
    pub index: u64,
}

impl Store {
    /// Counts.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let index = self.index();
        let held = held(&index.db)?;
        let layers: Vec<LayerUsage> = crate::index::layers(&index.db)?
            .into_iter()
            .map(|record| {
                let of_layer = held.by_layer.get(&record.id).copied().unwrap_or_default();
                LayerUsage {
                    diff_id: record.diff_id,
                    entries: record.entries,
                    apparent: record.apparent,
                    stored: of_layer.stored,
                    shared: of_layer.shared,
                    headers: record.headers_size,
                }
            })
            .collect();
        drop(index);
        let sum = |part: fn(&LayerUsage) -> u64| layers.iter().map(part).sum();
        Ok(DiskUsage {
            entries: sum(|layer| layer.entries),
            apparent: sum(|layer| layer.apparent),
            headers: sum(|layer| layer.headers),
            stored: held.total.stored,
            shared: held.total.shared,
            directories: walk(self.root_fd.as_fd(), "layers", false)?.directories,
            index: ["index.db", "index.db-wal", "index.db-shm"]
                .iter()
                .filter_map(|name| self.root.join(name).metadata().ok())
                .map(|meta| meta.len())
                .sum(),
            layers,
        })
    }

    /// Bytes of regular files below the layers, blobs, trees, staging and trash.
    pub(super) fn bytes_on_disk(&self) -> Result<u64> {
        let mut bytes = 0;
        for dir in ["layers", "blobs", "trees", "staging", "trash"] {
            bytes += walk(self.root_fd.as_fd(), dir, true)?.files;
        }
        Ok(bytes)
    }
}

/// Bytes of contents.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    stored: u64,
    shared: u64,
}

#[derive(Debug, Default)]
struct AllHeld {
    total: Held,
    by_layer: HashMap<i64, Held>,
}

/// Adds up the contents of all layers.
fn held(db: &rusqlite::Connection) -> Result<AllHeld> {
    let mut all = AllHeld::default();
    for (layers, Sum { bytes, .. }) in holders::all(db)? {
        let shared = if layers.len() > 1 { bytes } else { 0 };
        all.total.stored += bytes;
        all.total.shared += shared;
        for layer in layers {
            let of_layer = all.by_layer.entry(layer).or_default();
            of_layer.stored += bytes;
            of_layer.shared += shared;
        }
    }
    Ok(all)
}

#[derive(Default)]
struct Walked {
    files: u64,
    directories: u64,
}

/// Adds up apparent sizes below `root`, each inode once; what vanishes meanwhile is not counted.
/// Without `files` only those of the directories: then most names need no look at their inodes.
/// Paths below `root` may be as long as the system takes, so none is made absolute.
fn walk(root: BorrowedFd<'_>, dir: &str, files: bool) -> Result<Walked> {
    let mut total = Walked::default();
    let mut seen = HashSet::new();
    let mut todo = vec![PathBuf::from(dir)];
    while let Some(dir) = todo.pop() {
        let doing = || format!("cannot list {}", dir.display());
        let fd = match open_beneath(root, &dir, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).doing(doing),
        };
        total.directories += fstat(&fd).doing(doing)?.st_size as u64;
        for entry in Dir::read_from(&fd).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if !files && matches!(entry.file_type(), FileType::RegularFile | FileType::Symlink) {
                continue;
            }
            let stat = match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).doing(doing),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                todo.push(dir.join(OsStr::from_bytes(name.to_bytes())));
            } else if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                total.files += stat.st_size as u64;
            }
        }
    }
    Ok(total)
}
