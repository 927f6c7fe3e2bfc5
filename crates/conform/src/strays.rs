//! Members that left the root file system for another place in the directory of the run.
//!
//! An unpacker with storage of its own makes the root file system where only it knows. A path that
//! leaves that directory by `..` lands beside it, where no canary can be put before the run. But
//! where a name lies below the root is known of the trees that a case allows, and what that root
//! holds: a file with the name and the content of a member, in a directory that is no such root,
//! has escaped.
//!
//! Invariant: what cannot be read is passed over, for daemons of an unpacker may still be at work.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::TreeEntry;
use crate::catalogue::{Case, ESCAPED};

/// The files in `top`, but not in `but`, that have left their root, with their paths from `top`.
pub(crate) fn find(case: &Case, top: &Path, but: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let escapes: Vec<(&[TreeEntry], &Path)> = case
        .trees
        .iter()
        .flat_map(|tree| {
            let aimed = tree.iter().filter(|one| one.kind == "file" && one.body == ESCAPED);
            aimed.map(|one| (tree.as_slice(), Path::new(OsStr::from_bytes(&one.path))))
        })
        .collect();
    let mut open = if escapes.is_empty() { Vec::new() } else { vec![top.to_owned()] };
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        for (path, kind) in entries.filter_map(|one| Some((one.path(), one.file_type().ok()?))) {
            if kind.is_dir() && path != but {
                open.push(path);
            } else if kind.is_file() {
                let mut roots = escapes.iter().filter_map(|(tree, name)| {
                    let root = path.ancestors().nth(name.components().count())?;
                    path.ends_with(name).then_some((tree, root))
                });
                let is_named = roots.clone().next().is_some();
                if is_named && !roots.any(|(tree, root)| is_root(root, tree)) && has_body(&path) {
                    found.push(path.strip_prefix(top).unwrap_or(&path).to_owned());
                }
            }
        }
    }
    found.sort();
    found
}

/// Whether a directory can be the root of a tree: it has no name that the tree lacks, but such as
/// programs keep to themselves.
fn is_root(dir: &Path, tree: &[TreeEntry]) -> bool {
    let mut names = fs::read_dir(dir).into_iter().flatten().flatten().map(|one| one.file_name());
    names.all(|name| {
        let name = name.as_bytes();
        name.starts_with(b".") || tree.iter().any(|one| one.path == name)
    })
}

fn has_body(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return false };
    let mut bytes = Vec::new();
    let read = File::from(file).take(ESCAPED.len() as u64 + 1).read_to_end(&mut bytes);
    read.is_ok() && bytes == ESCAPED
}
