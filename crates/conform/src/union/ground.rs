//! The directories of one sequence, and the trees that are laid into them.
//!
//! ```text
//! RUN/lower0 ... lowerN    the lowers, the base first
//! RUN/merged               the lowers merged, for unions that take an image
//! RUN/upper RUN/work       the upper, and what the union keeps
//! RUN/mnt                  the mount
//! RUN/plain                the reference: the merged lowers, in a plain directory
//! ```
//!
//! Invariants: whiteouts in a lower are devices 0:0, and opaque directories have
//! `trusted.overlay.opaque` "y", as overlayfs.rst has them; nothing that is still mounted is
//! removed with the directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use super::operation::set_times;
use crate::removal::RunDirectory;
use crate::{Result, TreeEntry, at};

/// The attribute of a directory that hides what is below it.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The directories of one sequence.
#[derive(Debug)]
pub struct UnionGround {
    dir: RunDirectory,
    lowers: usize,
}

impl UnionGround {
    /// Makes the directories in `dir` (or where temporary files go), with these lowers.
    ///
    /// # Errors
    /// If one of them cannot be made.
    pub fn new(dir: Option<&Path>, lowers: &[Vec<TreeEntry>]) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("strata-union-");
        let made = match dir {
            Some(dir) => builder.tempdir_in(dir),
            None => builder.tempdir(),
        };
        let dir = RunDirectory::new("the directory of a sequence", made)?;
        let ground = Self { dir, lowers: lowers.len() };
        for name in ["upper", "work", "mnt", "merged", "plain"] {
            let path = ground.path(name);
            at(path.display(), fs::create_dir(&path))?;
        }
        for (number, tree) in lowers.iter().enumerate() {
            let path = ground.path(&format!("lower{number}"));
            at(path.display(), fs::create_dir(&path))?;
            at(path.display(), lay(&path, tree))?;
        }
        Ok(ground)
    }

    /// A directory of the sequence.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The mount as the kernel's table has it.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.dir.real("mnt")
    }

    /// Detaches what is mounted in the directories, and removes them.
    ///
    /// # Errors
    /// If something stays mounted; the directories stay then.
    pub fn remove(self) -> Result<()> {
        self.dir.remove()
    }

    /// A message without the name of this sequence's directory, which is another each time.
    #[must_use]
    pub fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }

    /// The lowers, the base first.
    pub fn lowers(&self) -> impl DoubleEndedIterator<Item = PathBuf> {
        (0..self.lowers).map(|number| self.path(&format!("lower{number}")))
    }

    /// The lowers as mount options have them: the uppermost first, with colons.
    #[must_use]
    pub fn lowerdir(&self) -> String {
        let all: Vec<String> = self.lowers().rev().map(|dir| dir.display().to_string()).collect();
        all.join(":")
    }
}

/// Makes a tree in an empty directory. A directory without a time has the time 0.
///
/// # Errors
/// If a node or a fact of it cannot be made.
pub fn lay(dir: &Path, tree: &[TreeEntry]) -> io::Result<()> {
    for entry in tree {
        let path = dir.join(OsStr::from_bytes(&entry.path));
        if entry.inode != entry.path {
            fs::hard_link(dir.join(OsStr::from_bytes(&entry.inode)), &path)?;
            continue;
        }
        make(&path, entry)?;
        if let (Some(uid), Some(gid)) = (entry.uid, entry.gid)
            && (uid, gid) != (0, 0)
        {
            lchown(&path, Some(uid), Some(gid))?;
        }
        if let (Some(mode), false) = (entry.mode, entry.kind == "symlink") {
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        for (name, value) in entry.xattrs.iter().flatten() {
            lsetxattr(&path, OsStr::from_bytes(name), value, XattrFlags::empty())?;
        }
    }
    // What is made in a directory changes its time.
    for entry in tree.iter().rev() {
        let path = dir.join(OsStr::from_bytes(&entry.path));
        set_times(&path, entry.mtime.unwrap_or((0, 0)))?;
    }
    Ok(())
}

fn make(path: &Path, entry: &TreeEntry) -> io::Result<()> {
    let device = |kind| -> io::Result<()> {
        let text = String::from_utf8_lossy(&entry.body);
        let numbers =
            text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (major, minor) = numbers.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(major, minor))?)
    };
    match entry.kind.as_str() {
        "dir" if path.is_dir() => Ok(()),
        "dir" => fs::create_dir(path),
        "symlink" => symlink(OsStr::from_bytes(&entry.body), path),
        "fifo" => Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?),
        "char" => device(FileType::CharacterDevice),
        "block" => device(FileType::BlockDevice),
        _ => fs::write(path, &entry.body),
    }
}

/// What a union of these lowers shows, the base first.
#[must_use]
pub fn merge(lowers: &[Vec<TreeEntry>]) -> Vec<TreeEntry> {
    let mut all: BTreeMap<Vec<u8>, TreeEntry> = BTreeMap::new();
    for entry in lowers.iter().flatten() {
        let is_whiteout = entry.kind == "char" && entry.body == b"0:0";
        let xattrs = entry.xattrs.as_ref();
        let is_opaque = xattrs.is_some_and(|all| all.contains_key(OPAQUE));
        let is_merged = entry.kind == "dir" && !is_opaque;
        if !is_merged || all.get(&entry.path).is_none_or(|old| old.kind != "dir") {
            let prefix = [&entry.path[..], b"/"].concat();
            all.retain(|path, _| *path != entry.path && !path.starts_with(&prefix));
        }
        if !is_whiteout {
            let mut entry = entry.clone();
            if let Some(all) = &mut entry.xattrs {
                all.remove(OPAQUE);
            }
            all.insert(entry.path.clone(), entry);
        }
    }
    let mut all: Vec<TreeEntry> = all.into_values().collect();
    // A name whose inode was first named by a path that is gone is the first one now.
    let mut first: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for entry in &mut all {
        entry.inode = first.entry(entry.inode.clone()).or_insert(entry.path.clone()).clone();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{seen, text, tree};

    fn lower(lines: &[&str]) -> Vec<TreeEntry> {
        let lines: Vec<_> = lines.iter().map(|line| text::parse(1, line).unwrap()).collect();
        tree::of_lines(&lines).unwrap()
    }

    #[test]
    fn lowers_merge_as_overlayfs_rst_says() {
        let base = lower(&[
            "dir d",
            "file d/a \"1\"",
            "file d/b \"2\"",
            "dir e",
            "file e/f \"3\"",
            "file g \"4\"",
        ]);
        let top = lower(&[
            "dir d",
            "char d/a 0:0",
            "dir e trusted.overlay.opaque=\"y\"",
            "file e/n \"5\"",
            "dir g",
        ]);
        let merged = merge(&[base, top]);
        let paths: Vec<&[u8]> = merged.iter().map(|entry| entry.path.as_slice()).collect();
        assert_eq!(paths, [&b"d"[..], b"d/b", b"e", b"e/n", b"g"]);
        assert_eq!(merged[4].kind, "dir");
        assert_eq!(merged[2].xattrs.as_ref().map(BTreeMap::len), Some(0));
    }

    #[test]
    fn what_is_laid_is_what_is_seen() {
        let tree = lower(&[
            "dir d",
            "file d/a \"1\" mode=0600 mtime=7",
            "link d/b d/a",
            "symlink s d",
            "fifo p",
        ]);
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &tree).unwrap();
        let mut seen = seen::tree(dir.path(), None).unwrap();
        seen.retain(|entry| entry.path != b".");
        let powers = crate::powers::Powers::tried(dir.path()).unwrap();
        assert_eq!(crate::judge::differences(&tree, &seen, powers), Vec::<String>::new());
    }
}
