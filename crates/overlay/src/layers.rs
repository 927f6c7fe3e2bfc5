//! The lower directories, opened and merged.
//!
//! They are read as fuse-overlayfs reads them, for engines that have a mount program unpack
//! layers in its dialects: `.wh.` names, marks of either class, stated owners.
//!
//! Invariants: marks that any user may set, and owners, modes and devices that they state, count
//! only where root's are not available, or where root asks for them; no directory lies in another
//! one of the same mount.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use strata_content::{FileTree, Files, LayerDir};
use strata_tree::{Dialect, DirOptions, Lower, Numbers, OverlayDir, OverrideStat, Trust};
use strata_union::{Stack, private_mount};

/// Merges directories, top-most first as overlayfs writes them; those of `data` are for contents
/// alone. `user_marks`: those of the upper are `user.overlay.*`, and so may be those of lowers that
/// were uppers once. `override_stat`: whether a lower may state owners, modes and types.
pub(crate) fn merged(
    directories: &[PathBuf],
    data: &[PathBuf],
    user_marks: bool,
    override_stat: OverrideStat,
) -> Result<FileTree> {
    let trust = if user_marks { Trust::Anyone } else { Trust::Privileged };
    let options = DirOptions {
        dialect: Dialect::FUSE_OVERLAYFS,
        redirects: trust,
        metacopy: trust,
        override_stat,
    };
    let numbers = Arc::new(Numbers::new());
    let mut files = Vec::new();
    let mut open = |directory: &PathBuf, options| -> Result<Arc<dyn Lower>> {
        let numbers = Arc::clone(&numbers);
        let tree = match private_mount::directory(directory) {
            Some(root) => OverlayDir::new(root, directory.display().to_string(), options, numbers)?,
            None => OverlayDir::open(directory, options, numbers)?,
        };
        files.push(LayerDir::new(tree.directory(), tree.label()).quiet());
        Ok(Arc::new(tree))
    };
    let lowers = directories.iter().rev().map(|directory| open(directory, options));
    let lowers = lowers.collect::<Result<Vec<_>>>()?;
    // Files by their paths; names and attributes do not mean what they mean to overlayfs.
    let bare = DirOptions {
        dialect: Dialect::NONE,
        redirects: Trust::Nobody,
        metacopy: Trust::Nobody,
        override_stat: OverrideStat::Ignored,
    };
    let data = data.iter().map(|directory| open(directory, bare)).collect::<Result<Vec<_>>>()?;
    let names = Stack::numbered(lowers).with_data(data);
    Ok(FileTree::new(Arc::new(names), Arc::new(Files::new(files))))
}

/// Refuses directories that lie in one another, as the kernel does: with `ELOOP`, and for a work
/// directory and an upper with `EINVAL`. What is written to one would appear in the other. An upper
/// or a work directory somewhere in a lower is accepted, as by the kernel: `lowerdir=/` has them.
/// Without the right to clone mounts such a lower would show the union itself, which would wait for
/// itself.
///
/// # Errors
/// Naming both; or a directory cannot be opened.
pub(crate) fn refuse_overlaps(
    lowers: &[PathBuf],
    upper: Option<&Path>,
    work: Option<&Path>,
) -> Result<()> {
    let mut all = Vec::new();
    let named = lowers.iter().map(|path| ("lowerdir", path.as_path()));
    let named = named.chain(upper.map(|path| ("upperdir", path)));
    for (role, path) in named.chain(work.map(|path| ("workdir", path))) {
        let chain = ancestors(path).with_context(|| format!("{role} {}", path.display()))?;
        all.push((role, path, chain));
    }
    for (index, (role, path, chain)) in all.iter().enumerate() {
        let Some(own) = chain.first() else { continue };
        for (other, at, above) in all.iter().skip(index + 1) {
            let (inner, outer) = match (above.contains(own), above.first()) {
                (true, _) => ((*other, *at), (*role, *path)),
                (false, Some(base)) if chain.contains(base) => ((*role, *path), (*other, *at)),
                (false, _) => continue,
            };
            let same = above.first() == Some(own);
            let in_lower = !same && outer.0 == "lowerdir" && inner.0 != "lowerdir";
            if in_lower && private_mount::directory(outer.1).is_some() {
                continue;
            }
            let lower = inner.0 == "lowerdir" || outer.0 == "lowerdir";
            let errno = if lower { Errno::LOOP } else { Errno::INVAL };
            let relation = if same { "is" } else { "lies in" };
            bail!(
                "{} {} {relation} {} {}: {errno}; choose directories apart from each other",
                inner.0,
                inner.1.display(),
                outer.0,
                outer.1.display()
            );
        }
    }
    Ok(())
}

/// A directory and those above it on its file system, by device and inode number.
fn ancestors(path: &Path) -> Result<Vec<(u64, u64)>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let identity = |dir: &File| rustix::fs::fstat(dir).map(|stat| (stat.st_dev, stat.st_ino));
    let mut dir = File::from(openat(CWD, path, flags, Mode::empty())?);
    let mut chain = vec![identity(&dir)?];
    loop {
        // Without the right to look above, this is as far as can be known.
        let Ok(above) = openat(&dir, "..", flags, Mode::empty()) else { return Ok(chain) };
        dir = above.into();
        let here = identity(&dir)?;
        // The root, or another file system, in which this one is mounted.
        if chain.last().is_some_and(|last| *last == here || last.0 != here.0) {
            return Ok(chain);
        }
        chain.push(here);
    }
}
