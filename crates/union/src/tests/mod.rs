//! Tests of the stack: the rules one by one (`rules`), random stacks against a merge that is
//! written the other way round (`random`, `reference`), plain directories (`overlay_dirs`), and
//! those against the kernel's own mount of them (`kernel`).

mod kernel;
mod mounted;
mod overlay_dirs;
mod random;
mod reference;
mod rules;

pub(crate) use mounted::Mounted;

use std::sync::Arc;

use strata_content::{FileTree, Files, LayerDir, Memory};
use strata_tree::{Follow, Lower, MemTree, Node, OverlayDir, Spec, TreePath, resolve};

use crate::Stack;

/// A stack of layers written as specs, base first.
fn stack<'a>(layers: impl IntoIterator<Item = &'a Spec>) -> FileTree {
    let layers: Vec<Spec> = layers.into_iter().cloned().collect();
    let lowers = layers.iter().map(|spec| Arc::new(MemTree::new(spec).unwrap()) as Arc<dyn Lower>);
    let names = Stack::new(lowers.collect());
    FileTree::new(Arc::new(names), Arc::new(Memory::of(&layers).unwrap()))
}

/// Plain directories and the files in them.
pub(crate) fn files_of<'a>(dirs: impl IntoIterator<Item = &'a Arc<OverlayDir>>) -> Arc<Files> {
    let dirs = dirs.into_iter().map(|dir| LayerDir::new(dir.directory(), dir.label()));
    Arc::new(Files::new(dirs.map(LayerDir::quiet).collect()))
}

fn path(text: &str) -> TreePath {
    TreePath::clamped(text.as_bytes()).unwrap()
}

/// The node at a path, links not followed.
fn find(tree: &FileTree, path: &str) -> Option<Node> {
    resolve(&**tree, path.as_bytes(), Follow::NotLast).unwrap()
}

/// The content of a regular file; `None` if nothing is there.
fn content(tree: &FileTree, path: &str) -> Option<String> {
    let node = find(tree, path)?;
    Some(String::from_utf8(tree.read(node.id).unwrap()).unwrap())
}

/// The names of a directory, joined by spaces.
fn names(tree: &FileTree, path: &str) -> String {
    let dir = find(tree, path).unwrap();
    let all = strata_tree::list(&**tree, dir.id).unwrap();
    let names = all.iter().map(|(name, _)| String::from_utf8_lossy(name.as_bytes()).into_owned());
    names.collect::<Vec<_>>().join(" ")
}
