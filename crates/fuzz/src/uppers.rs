//! An upper that another program has written: its marks, in either class of attributes.
//!
//! Invariant: whatever the marks say, reading returns, and shows nothing that is neither in the
//! upper nor in the lower.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::XattrFlags;
use strata_content::{FileTree, Memory};
use strata_tree::{MemTree, Spec, TreePath, list};
use strata_union::writable::{Ownership, UnionOptions, UpperView};

use crate::kit::place;

/// What carries marks: the root, directories, files, and a name that the lower has not.
const PLACES: [&str; 8] = ["", "d", "d/e", "d/f", "f", "w", "d/new", "d/e/deep"];

/// The marks, and what looks like one.
const MARKS: [&str; 10] = [
    "opaque",
    "redirect",
    "metacopy",
    "whiteout",
    "strata.origin",
    "strata.device",
    "origin",
    "overlay.opaque",
    "strata.x.trusted.a",
    "impure",
];

#[allow(clippy::unwrap_used)]
fn lower() -> &'static FileTree {
    static LOWER: OnceLock<FileTree> = OnceLock::new();
    LOWER.get_or_init(|| {
        let spec = Spec::new()
            .dir("d")
            .dir("d/e")
            .file("d/f", "lower")
            .link("d/again", &TreePath::clamped(b"d/f").unwrap())
            .file("f", "lower")
            .symlink("to", "d/e")
            .file("w", "lower")
            .dir("other")
            .file("other/f", "elsewhere");
        let bytes = Memory::of(std::slice::from_ref(&spec)).unwrap();
        FileTree::new(Arc::new(MemTree::new(&spec).unwrap()), Arc::new(bytes))
    })
}

/// Sets the marks that the input says: a place, a name, a length, and a value.
#[allow(clippy::unwrap_used)]
fn mark(upper: &Path, data: &[u8], prefix: &str) {
    let mut rest = data;
    while let [place, name, length, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let (value, after) = tail.split_at(length);
        rest = after;
        let path = upper.join(PLACES[usize::from(*place) % PLACES.len()]);
        let name = match usize::from(*name) % (MARKS.len() + 1) {
            at if at < MARKS.len() => format!("{prefix}overlay.{}", MARKS[at]),
            _ => "user.containers.override_stat".to_owned(),
        };
        // A file system may refuse a value, and then there is no such mark.
        let _ = rustix::fs::setxattr(&path, name, value, XattrFlags::empty());
    }
}

/// Any bytes as marks of an upper; the first one says in which class they are.
#[allow(clippy::unwrap_used)]
pub(crate) fn marks(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let dir = place();
    let upper = dir.path();
    fs::create_dir_all(upper.join("d/e/deep")).unwrap();
    for file in ["d/f", "f", "d/new"] {
        fs::write(upper.join(file), "upper").unwrap();
    }
    fs::write(upper.join("w"), "").unwrap();
    let user_marks = how & 1 == 1;
    mark(upper, rest, if user_marks { "user." } else { "trusted." });
    let ownership = if how & 2 == 2 { Ownership::Override } else { Ownership::Inode };
    let options = UnionOptions { user_marks, ownership, ..UnionOptions::default() };
    let Ok(view) = UpperView::open(lower().clone(), upper, options) else { return };
    let Ok(layer) = view.changes() else { return };
    let tree = FileTree::new(Arc::new(layer), lower().contents().clone());
    let mut todo = vec![(tree.root(), 0)];
    while let Some((id, depth)) = todo.pop() {
        assert!(depth < 16, "deeper than both");
        let _ = (tree.node(id), tree.xattrs(id), tree.read_link(id), tree.content(id));
        if let Ok(all) = list(&**tree.names(), id) {
            let below = all.iter().filter_map(|(_, entry)| entry.node());
            todo.extend(below.map(|node| (node.id, depth + 1)));
        }
    }
}
