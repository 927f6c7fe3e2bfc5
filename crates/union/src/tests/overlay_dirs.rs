//! Stacks of plain directories: many of them, large ones, and what their numbers keep.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use strata_tree::{Dialect, DirOptions, Lower, NodeId, Numbers, OverlayDir, dialect::XattrClass};

use super::{content, find, names};
use crate::Stack;

fn open(dirs: impl IntoIterator<Item = impl AsRef<Path>>) -> Stack {
    let options = DirOptions { dialect: Dialect::kernel(XattrClass::User), ..Default::default() };
    let numbers = Arc::new(Numbers::new());
    let open = |dir: &Path| OverlayDir::open(dir, options, Arc::clone(&numbers)).unwrap();
    let lowers = dirs.into_iter().map(|dir| Arc::new(open(dir.as_ref())) as Arc<dyn Lower>);
    Stack::numbered(lowers.collect())
}

#[test]
fn five_hundred_lowers_hold_one_descriptor_each() {
    let dir = tempfile::tempdir().unwrap();
    let lower = |n: u32| dir.path().join(n.to_string());
    for n in 0..500 {
        fs::create_dir_all(lower(n).join("d/e")).unwrap();
        fs::write(lower(n).join("d/e").join(n.to_string()), n.to_string()).unwrap();
        fs::write(lower(n).join("d/same"), n.to_string()).unwrap();
    }
    let stack = open((0..500).map(lower));
    let mut want: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    want.sort();
    assert_eq!(names(&stack, "d/e"), want.join(" "));
    assert_eq!(content(&stack, "d/same").as_deref(), Some("499"));
    assert_eq!(content(&stack, "d/e/0").as_deref(), Some("0"));
    let ours = |fd: std::io::Result<fs::DirEntry>| {
        fs::read_link(fd.unwrap().path()).is_ok_and(|target| target.starts_with(dir.path()))
    };
    assert_eq!(
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| ours(fd).then_some(())).count(),
        500
    );
}

#[test]
fn numbers_repeat_and_stay_under_one_more_layer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for path in ["base/d/e", "mid/d", "top/d/e"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::write(at("base/d/f"), "f").unwrap();
    fs::write(at("mid/d/g"), "g").unwrap();
    let ids = |stack: &Stack, order: &[&str]| -> Vec<NodeId> {
        let mut ids: Vec<_> =
            order.iter().map(|path| (*path, find(stack, path).unwrap().id)).collect();
        ids.sort_by_key(|(path, _)| *path);
        ids.into_iter().map(|(_, id)| id).collect()
    };
    let two = ids(&open([at("base"), at("mid")]), &["", "d", "d/e", "d/f", "d/g"]);
    let again = ids(&open([at("base"), at("mid")]), &["d/g", "d/f", "d/e", "d", ""]);
    let three = ids(&open([at("base"), at("mid"), at("top")]), &["", "d", "d/e", "d/f", "d/g"]);
    assert_eq!(two, again);
    assert_eq!(two, three);
    assert_eq!(two[0], NodeId::ROOT);
}

#[test]
fn lowers_inside_one_another_share_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/x/y")).unwrap();
    fs::write(dir.path().join("sub/x/file"), "file").unwrap();
    let stack = open([dir.path().to_owned(), dir.path().join("sub")]);
    let [inner, outer] = ["x", "sub/x"].map(|path| find(&stack, path).unwrap().id);
    assert_ne!(inner, outer);
    let sub = find(&stack, "sub").unwrap().id;
    assert_eq!(stack.parent(outer).unwrap(), Some(sub));
    assert_eq!(stack.parent(inner).unwrap(), Some(NodeId::ROOT));
    assert_ne!(find(&stack, "x/y").unwrap().id, find(&stack, "sub/x/y").unwrap().id);
    assert_eq!(find(&stack, "x/file"), find(&stack, "sub/x/file"));
}
