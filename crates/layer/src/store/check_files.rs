//! `fsck`: the files of one layer's directory against its rows, both ways.
//!
//! Invariants: everything is opened beneath the layer's own directory, no link is followed; every
//! inode is read once, whatever the number of its names.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, statat};
use sha2::{Digest, Sha256};
use strata_tree::{ContentDigest, DiffId};

use super::checker::Checker;
use super::fsck_report::{FsckReport, Problem};
use super::leases::LeasedLayer;
use crate::error::{IoContext, Result};
use crate::index::rows::{EntryRow, RowKind, with_paths};
use crate::layout::diff_path;
use crate::stage::{DIR_MODE, FILE_MODE, open_beneath};

/// What a path of a layer directory must be.
enum Expected {
    Directory,
    File(ContentDigest, u64),
    /// Checked elsewhere.
    Headers,
}

impl Checker<'_> {
    /// Compares the layer's directory with the rows and hashes what was not hashed yet.
    pub(super) fn check_files(&mut self, leased: &LeasedLayer, rows: &[EntryRow]) -> Result<()> {
        let diff_id = *leased.diff_id();
        let mut expected = expected(rows);
        expected.insert("diff".into(), Expected::Directory);
        expected.insert("headers.zst".into(), Expected::Headers);
        let root = rustix::fs::fstat(leased.dir()).doing(|| "cannot stat its directory".into())?;
        check_mode(&diff_id, Path::new(""), &root, DIR_MODE, &mut self.report);
        let mut found = HashSet::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            for (path, stat) in list(leased, &dir)? {
                let kind = FileType::from_raw_mode(stat.st_mode);
                match expected.get(&path) {
                    None => {
                        let what = format!("{} belongs to no entry", shown(&path));
                        self.report.layer_problem(&diff_id, what);
                    }
                    Some(Expected::Directory) if kind == FileType::Directory => {
                        check_mode(&diff_id, &path, &stat, DIR_MODE, &mut self.report);
                        todo.push(path.clone());
                    }
                    Some(Expected::Headers) if kind == FileType::RegularFile => {
                        check_mode(&diff_id, &path, &stat, FILE_MODE, &mut self.report);
                    }
                    Some(Expected::File(digest, size)) if kind == FileType::RegularFile => {
                        self.report.files += 1;
                        check_mode(&diff_id, &path, &stat, FILE_MODE, &mut self.report);
                        let actual = self.hash(leased, &path, &stat)?;
                        if actual != *digest || stat.st_size as u64 != *size {
                            let what = format!("{} is {actual}, should be {digest}", shown(&path));
                            self.report.layer_problem(&diff_id, what);
                        }
                    }
                    Some(_) => {
                        let what = format!("{} is of the wrong type", shown(&path));
                        self.report.layer_problem(&diff_id, what);
                    }
                }
                found.insert(path);
            }
        }
        let mut missing: Vec<_> = expected.keys().filter(|path| !found.contains(*path)).collect();
        missing.sort();
        for path in missing {
            self.report.layer_problem(&diff_id, format!("{} is missing", shown(path)));
        }
        Ok(())
    }

    /// The digest of an inode, read if it was not met before.
    fn hash(&mut self, leased: &LeasedLayer, path: &Path, stat: &Stat) -> Result<ContentDigest> {
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(known) = self.digests.get(&inode) {
            return Ok(*known);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = open_beneath(leased.dir(), path, flags);
        let mut file = std::fs::File::from(file.doing(|| format!("cannot open {}", shown(path)))?);
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; 256 << 10];
        loop {
            match file.read(&mut chunk).doing(|| format!("cannot read {}", shown(path)))? {
                0 => break,
                n => {
                    hasher.update(&chunk[..n]);
                    self.report.bytes += n as u64;
                }
            }
        }
        let digest = ContentDigest::from_bytes(hasher.finalize().into());
        self.digests.insert(inode, digest);
        Ok(digest)
    }
}

/// Every path that the rows ask for, below the layer's directory.
fn expected(rows: &[EntryRow]) -> HashMap<PathBuf, Expected> {
    let content = |row: &EntryRow| match &row.kind {
        RowKind::Regular(digest) => {
            Some(Expected::File(*digest, row.meta.as_ref().map_or(0, |meta| meta.size)))
        }
        _ => None,
    };
    let mut expected = HashMap::new();
    for (path, _, row) in with_paths(rows) {
        let wanted = match &row.kind {
            RowKind::Directory { marks, .. } => {
                let real = marks.presence != strata_tree::Presence::Phantom;
                real.then_some(Expected::Directory)
            }
            RowKind::HardLink(target) => {
                rows.get((target.0 as usize).wrapping_sub(1)).and_then(content)
            }
            _ => content(row),
        };
        if let Some(wanted) = wanted {
            expected.insert(diff_path(&path), wanted);
        }
    }
    expected
}

/// As people know it: the image's path, or the name of a file beside `diff/`.
fn shown(path: &Path) -> String {
    match path.strip_prefix("diff") {
        Ok(inside) => format!("/{}", inside.display()),
        Err(_) => path.display().to_string(),
    }
}

/// The names in a directory of the layer, with their paths below the layer's.
fn list(leased: &LeasedLayer, dir: &Path) -> Result<Vec<(PathBuf, Stat)>> {
    let doing = || format!("cannot list {}", shown(dir));
    let at = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let fd = open_beneath(leased.dir(), at, OFlags::RDONLY | OFlags::DIRECTORY).doing(doing)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd).doing(doing)? {
        let entry = entry.doing(doing)?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let stat = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
        names.push((dir.join(name), stat));
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

fn check_mode(diff_id: &DiffId, path: &Path, stat: &Stat, mode: RawMode, report: &mut FsckReport) {
    if stat.st_mode & 0o7777 != mode {
        report.problems.push(Problem::Mode {
            diff_id: *diff_id,
            path: path.to_owned(),
            found: stat.st_mode & 0o7777,
            mode,
        });
    }
}

/// Gives a file or directory of a layer the mode that it must have.
pub(super) fn mend_mode(leased: &LeasedLayer, path: &Path, mode: RawMode) -> Result<()> {
    let doing = || format!("cannot chmod {}", shown(path));
    let at = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // A mode that forbids reading must not stand in the way.
    let fd = open_beneath(leased.dir(), at, OFlags::PATH).doing(doing)?;
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    rustix::fs::chmod(through, Mode::from_raw_mode(mode)).doing(doing)
}
