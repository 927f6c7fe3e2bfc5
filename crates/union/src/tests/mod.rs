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

use std::io::Read;
use std::sync::Arc;

use strata_tree::{Follow, Lower, MemTree, Node, Spec, TreePath, resolve};

use crate::Stack;

/// A stack of layers written as specs, base first.
fn stack<'a>(layers: impl IntoIterator<Item = &'a Spec>) -> Stack {
    let lowers = layers
        .into_iter()
        .map(|spec| Arc::new(MemTree::new(spec).unwrap()) as Arc<dyn Lower>)
        .collect();
    Stack::new(lowers)
}

fn path(text: &str) -> TreePath {
    TreePath::clamped(text.as_bytes()).unwrap()
}

/// The node at a path, links not followed.
fn find(tree: &dyn Lower, path: &str) -> Option<Node> {
    resolve(tree, path.as_bytes(), Follow::NotLast).unwrap()
}

/// The content of a regular file; `None` if nothing is there.
fn content(tree: &dyn Lower, path: &str) -> Option<String> {
    let node = find(tree, path)?;
    let mut text = String::new();
    tree.open(node.id).unwrap().read_to_string(&mut text).unwrap();
    Some(text)
}

/// The names of a directory, joined by spaces.
fn names(tree: &dyn Lower, path: &str) -> String {
    let dir = find(tree, path).unwrap();
    let all = strata_tree::list(tree, dir.id).unwrap();
    let names = all.iter().map(|(name, _)| String::from_utf8_lossy(name.as_bytes()).into_owned());
    names.collect::<Vec<_>>().join(" ")
}
