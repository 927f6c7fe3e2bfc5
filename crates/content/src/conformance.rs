//! The suite that every [`Contents`] runs, below every tree that it serves.
//!
//! [`check`] runs the suite of [`strata_tree::conformance`] on the names and then reads every
//! regular file in every way; [`lay_out`] writes a tree's contents where its references say, for
//! contents that are files.
//!
//! Invariants: a check asks through the traits alone; the first difference is reported as text
//! that names the path.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use strata_tree::conformance::{self, Difference};
use strata_tree::{
    ContentRef, Entry, Error, Item, Kind, MemTree, Node, Result, Spec, TreePath, list,
};

use crate::contents::{Content, Reader};
use crate::file_tree::FileTree;
use crate::files::{Files, LayerDir};
use crate::memory::Memory;

type Checked<T = ()> = std::result::Result<T, Difference>;

/// Compares every fact and every byte of `tree` with `spec`.
///
/// # Errors
/// The first difference.
pub fn check(spec: &Spec, tree: &FileTree) -> Checked {
    conformance::check(spec, &**tree)?;
    check_contents(spec, tree)
}

/// The same for a part of another tree, as [`strata_tree::conformance::check_part`].
///
/// # Errors
/// The first difference.
pub fn check_part(spec: &Spec, tree: &FileTree) -> Checked {
    conformance::check_part(spec, &**tree)?;
    check_contents(spec, tree)
}

fn check_contents(spec: &Spec, tree: &FileTree) -> Checked {
    for (raw, item) in spec.items() {
        let Item::Inode(inode) = item else { continue };
        if inode.kind != Kind::Regular {
            continue;
        }
        let path = TreePath::clamped(raw).map_err(|why| why.to_string())?;
        let node = find(tree, &path)?;
        check_content(tree, &path, &node, &inode.body)?;
    }
    check_strangers(tree)
}

/// A written-down tree, both its names and its bytes in memory.
///
/// # Errors
/// The spec is not a tree.
pub fn in_memory(spec: &Spec) -> Checked<FileTree> {
    let names = MemTree::new(spec).map_err(|error| error.to_string())?;
    let bytes = Memory::of(std::slice::from_ref(spec)).map_err(|error| error.to_string())?;
    Ok(FileTree::new(Arc::new(names), Arc::new(bytes)))
}

/// Only the names are used: a layer's tree need not merge.
fn find(tree: &FileTree, path: &TreePath) -> Checked<Node> {
    let mut at = tree.root();
    let mut found = None;
    for name in path.names() {
        match tree.lookup(at, name) {
            Ok(Some(Entry::Node(node))) => (at, found) = (node.id, Some(node)),
            other => return Err(format!("{path}: {other:?}")),
        }
    }
    found.ok_or_else(|| format!("{path} is the root"))
}

fn check_content(tree: &FileTree, path: &TreePath, node: &Node, body: &[u8]) -> Checked {
    let failed = |error: Error| format!("{path}: {error}");
    let which = tree.content(node.id).map_err(failed)?;
    let size = body.len() as u64;
    same(path, "the size referred to", &which.size, &size)?;
    tree.contents().prefetch(&[which.clone(), which.clone()]);
    let content = tree.open(node.id).map_err(failed)?;
    same(path, "the length", &content.len(), &size)?;
    same(path, "whether it is empty", &content.is_empty(), &body.is_empty())?;
    let mut whole = Vec::new();
    Reader::new(&*content).read_to_end(&mut whole).map_err(|error| format!("{path}: {error}"))?;
    same(path, "the content", &whole, &body.to_vec())?;
    same(path, "the content, read at once", &tree.read(node.id).map_err(failed)?, &whole)?;
    for offset in [0, 1, size / 2, size.saturating_sub(1), size, size + 1, u64::MAX >> 1] {
        check_read(path, &*content, body, offset)?;
    }
    if let Some(file) = content.as_file() {
        let mut by_file = vec![0; body.len()];
        file.read_exact_at(&mut by_file, 0).map_err(|error| format!("{path}: {error}"))?;
        same(path, "the file", &by_file, &body.to_vec())?;
        if file.write_at(b"x", 0).is_ok() {
            return Err(format!("{path}: its file can be written"));
        }
    }
    // A second one is independent of the first, which is still open.
    let again = tree.contents().open(&which).map_err(failed)?;
    same(path, "the length, opened again", &again.len(), &size)
}

fn check_read(path: &TreePath, content: &dyn Content, body: &[u8], offset: u64) -> Checked {
    for room in [0, 1, 3, body.len() + 1] {
        let mut buffer = vec![0xee; room];
        let done = content.read_at(&mut buffer, offset);
        let done = done.map_err(|error| format!("{path} at {offset}: {error}"))?;
        let from = usize::try_from(offset).map_or(body.len(), |at| at.min(body.len()));
        let want = &body[from..][..room.min(body.len() - from)];
        same(path, &format!("{room} bytes at {offset}"), &buffer[..done], want)?;
    }
    Ok(())
}

/// What no tree refers to is not there, and asking for it harms nothing.
fn check_strangers(tree: &FileTree) -> Checked {
    let absent = TreePath::clamped(b"no/such/content").map_err(|why| why.to_string())?;
    for layer in [0, u32::MAX] {
        let which = ContentRef { layer, path: absent.clone(), digest: None, size: 1 };
        tree.contents().prefetch(std::slice::from_ref(&which));
        match tree.contents().open(&which).map(drop) {
            Err(Error::Io { .. } | Error::Corrupt { .. }) => {}
            other => return Err(format!("an absent content of layer {layer}: {other:?}")),
        }
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(
    path: &TreePath,
    what: &str,
    got: &T,
    want: &T,
) -> Checked {
    if got == want { Ok(()) } else { Err(format!("{what} of {path}: {got:?}, expected {want:?}")) }
}

/// Writes the content of each regular file of a merged tree to `under`/LAYER/PATH, as its
/// reference says, and gives the layers' directories open, base first.
///
/// # Errors
/// What the tree, the contents or the operating system answer.
pub fn lay_out(tree: &FileTree, under: &Path) -> Result<Files> {
    let failed = |source| Error::io(format!("laying out {}", under.display()), source);
    let mut count = 0;
    let mut dirs = vec![tree.root()];
    while let Some(dir) = dirs.pop() {
        for (_, entry) in list(&**tree, dir)? {
            let Entry::Node(node) = entry else { continue };
            if node.stat.kind.is_dir() {
                dirs.push(node.id);
            }
            if node.stat.kind != Kind::Regular {
                continue;
            }
            let which = tree.content(node.id)?;
            count = count.max(which.layer + 1);
            let at = under.join(which.layer.to_string()).join(which.path.as_os_str());
            std::fs::create_dir_all(at.parent().unwrap_or(under)).map_err(failed)?;
            std::fs::write(at, tree.read(node.id)?).map_err(failed)?;
        }
    }
    let open = |layer: u32| {
        let at = under.join(layer.to_string());
        std::fs::create_dir_all(&at).and_then(|()| File::open(at)).map(OwnedFd::from)
    };
    let dirs = (0..count).map(|layer| open(layer).map(|dir| LayerDir::new(dir, "a layer")));
    dirs.collect::<std::io::Result<_>>().map(Files::new).map_err(failed)
}
