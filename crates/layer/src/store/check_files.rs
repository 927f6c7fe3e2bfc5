//! `fsck`: the files of one layer's directory against its rows, both ways.
//!
//! Names of a directory and rows of it are walked side by side, both sorted.
//!
//! Invariants: everything is opened beneath the layer's own directory, no link is followed; every
//! inode is read once, whatever the number of its names.

use std::ffi::OsStr;
use std::io::Read;
use std::iter::Peekable;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, statat};
use sha2::{Digest, Sha256};
use strata_tree::{ContentDigest, DiffId};

use super::checker::{Checker, ReadInode};
use super::fsck_report::{FsckReport, Problem};
use super::layer_rows::{Expected, LayerRows};
use super::leases::LeasedLayer;
use crate::error::{IoContext, Result};
use crate::stage::{DIR_MODE, FILE_MODE, open_beneath};

/// A directory of a layer, with the names in it that were not looked at yet, sorted.
struct ListedDir {
    path: PathBuf,
    fd: OwnedFd,
    names: Peekable<IntoIter<Box<[u8]>>>,
}

impl Checker<'_> {
    /// Compares the layer's directory with the rows and hashes what was not hashed yet.
    pub(super) fn check_files(&mut self, leased: &LeasedLayer, rows: &LayerRows<'_>) -> Result<()> {
        let diff_id = *leased.diff_id();
        let root = rustix::fs::fstat(leased.dir()).doing(|| "cannot stat its directory".into())?;
        check_mode(&diff_id, Path::new(""), &root, DIR_MODE, &mut self.report);
        let mut todo = Vec::new();
        let mut dir = list(leased, PathBuf::new())?;
        for (name, expected) in
            [("diff", Expected::Directory(0)), ("headers.zst", Expected::Headers)]
        {
            todo.extend(self.check_name(leased, &mut dir, name.as_bytes(), &expected)?);
        }
        self.strangers(&diff_id, &mut dir, None);
        while let Some((path, row)) = todo.pop() {
            let mut dir = list(leased, path)?;
            for named in rows.below(row)? {
                let (name, expected) = named?;
                todo.extend(self.check_name(leased, &mut dir, &name, &expected)?);
            }
            self.strangers(&diff_id, &mut dir, None);
        }
        Ok(())
    }

    /// Reports names before `end` that no row asks for.
    fn strangers(&mut self, diff_id: &DiffId, dir: &mut ListedDir, end: Option<&[u8]>) {
        while let Some(name) = dir.names.next_if(|name| end.is_none_or(|end| &**name < end)) {
            let path = dir.path.join(OsStr::from_bytes(&name));
            self.report.layer_problem(diff_id, format!("{} belongs to no entry", shown(&path)));
        }
    }

    /// Checks one name, the next in the order of names; gives the path of a directory to go into,
    /// and its row.
    fn check_name(
        &mut self,
        leased: &LeasedLayer,
        dir: &mut ListedDir,
        name: &[u8],
        expected: &Expected,
    ) -> Result<Option<(PathBuf, u64)>> {
        let diff_id = leased.diff_id();
        self.strangers(diff_id, dir, Some(name));
        let path = dir.path.join(OsStr::from_bytes(name));
        if dir.names.next_if(|found| **found == *name).is_none() {
            self.report.layer_problem(diff_id, format!("{} is missing", shown(&path)));
            return Ok(None);
        }
        let stat = statat(dir.fd.as_fd(), OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.doing(|| format!("cannot stat {}", shown(&path)))?;
        match (expected, FileType::from_raw_mode(stat.st_mode)) {
            (Expected::Directory(row), FileType::Directory) => {
                check_mode(diff_id, &path, &stat, DIR_MODE, &mut self.report);
                return Ok(Some((path, *row)));
            }
            (Expected::Headers, FileType::RegularFile) => {
                check_mode(diff_id, &path, &stat, FILE_MODE, &mut self.report);
            }
            (Expected::File(digest, size), FileType::RegularFile) => {
                self.report.files += 1;
                check_mode(diff_id, &path, &stat, FILE_MODE, &mut self.report);
                let actual = self.hash(leased, &path, &stat)?;
                if actual != *digest || stat.st_size as u64 != *size {
                    let what = format!("{} is {actual}, should be {digest}", shown(&path));
                    self.report.layer_problem(diff_id, what);
                }
            }
            _ => {
                let what = format!("{} is of the wrong type", shown(&path));
                self.report.layer_problem(diff_id, what);
            }
        }
        Ok(None)
    }

    /// The digest of an inode, read if it was not met before.
    fn hash(&mut self, leased: &LeasedLayer, path: &Path, stat: &Stat) -> Result<ContentDigest> {
        let (device, inode) = (stat.st_dev, stat.st_ino);
        let is = |known: &ReadInode| (known.device, known.inode) == (device, inode);
        if let Some(known) = self.read.find((device, inode), is)? {
            return Ok(ContentDigest::from_bytes(known.digest));
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
        let digest = hasher.finalize().into();
        self.read.find_or_put((device, inode), is, ReadInode { device, inode, digest })?;
        Ok(ContentDigest::from_bytes(digest))
    }
}

/// As people know it: the image's path, or the name of a file beside `diff/`.
fn shown(path: &Path) -> String {
    match path.strip_prefix("diff") {
        Ok(inside) => format!("/{}", inside.display()),
        Err(_) => path.display().to_string(),
    }
}

/// Lists a directory of the layer.
fn list(leased: &LeasedLayer, path: PathBuf) -> Result<ListedDir> {
    let doing = || format!("cannot list {}", shown(&path));
    let at = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
    let fd = open_beneath(leased.dir(), at, OFlags::RDONLY | OFlags::DIRECTORY).doing(doing)?;
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd).doing(doing)? {
        let entry = entry.doing(doing)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(ListedDir { path, fd, names: names.into_iter().peekable() })
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
