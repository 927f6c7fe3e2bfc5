//! Copy-ups that fail.
//!
//! Invariant: what fails leaves the tree as it was, and can be done again.

use std::path::Path;
use std::sync::Arc;

use strata_content::conformance::in_memory;
use strata_content::{FailingAfter, FileTree};
use strata_tree::{NodeId, Spec};

use super::world::options;
use crate::writable::{Changes, Union};

const PERM: Changes = Changes {
    perm: Some(0o600),
    uid: None,
    gid: None,
    size: None,
    atime: None,
    mtime: None,
    held: false,
    forced: false,
};

/// A union over `lower` in a directory of its own.
fn union(dir: &Path, lower: FileTree) -> Union {
    let [upper, work] = ["upper", "work"].map(|name| dir.join(name));
    for part in [&upper, &work] {
        std::fs::create_dir(part).unwrap();
    }
    Union::open(lower, &upper, &work, options()).unwrap()
}

fn find(union: &Union, name: &str) -> NodeId {
    union.lookup(NodeId::ROOT, name.as_bytes()).unwrap().unwrap().id
}

#[test]
fn a_metacopy_that_cannot_be_filled_keeps_its_size() {
    const SIZE: u64 = 1 << 20;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = in_memory(&Spec::new().file("f", vec![7; SIZE as usize])).unwrap();
    // Opened, and read once.
    let failing = FailingAfter::new(Arc::clone(tree.contents()), 2);
    let lower = FileTree::new(Arc::clone(tree.names()), Arc::new(failing));
    let union = union(dir.path(), lower);
    let id = find(&union, "f");
    let before = union.set_attr(id, &PERM).unwrap().stat;
    let cut = Changes { size: Some(SIZE - 1), ..Changes::default() };
    assert!(union.set_attr(id, &cut).is_err());
    assert_eq!(union.attr(id).unwrap().stat, before);
    assert_eq!(dir.path().join("upper/f").metadata().unwrap().len(), SIZE);
}
