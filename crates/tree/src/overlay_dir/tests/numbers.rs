//! Numbers of nodes on disk: links, remounts, several devices, the number 1.

use std::fs;
use std::os::unix::fs::MetadataExt;

use strata_testkit::needs;

use super::*;
use crate::{NodeId, list};

#[test]
fn numbers_are_the_inodes_own_and_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), b"").unwrap();
    let inode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().ino();
    for _ in 0..2 {
        let tree = open(dir.path(), DirOptions::default());
        assert_eq!(tree.node(NodeId::ROOT).unwrap().id, NodeId::ROOT);
        assert_eq!(node(&tree, "d").id, NodeId(inode("d")));
        assert_eq!(node(&tree, "d/f").id, NodeId(inode("d/f")));
    }
}

#[test]
fn a_link_is_found_under_each_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("z"), b"content").unwrap();
    fs::hard_link(dir.path().join("z"), dir.path().join("d/a")).unwrap();
    for order in [["z", "d/a"], ["d/a", "z"]] {
        let tree = open(dir.path(), DirOptions::default());
        let [first, second] = order.map(|name| node(&tree, name));
        assert_eq!(first, second);
        assert_eq!(first.stat.nlink, 2);
        assert_eq!(tree.node(first.id).unwrap(), first);
        assert_eq!(tree.content(first.id).unwrap().path.as_bytes(), order[0].as_bytes());
        let listed = list(&tree, node(&tree, "d").id).unwrap();
        assert_eq!(listed[0].1.node(), Some(&first));
    }
}

#[test]
fn directories_of_several_devices_share_no_number() {
    // /dev/shm is a tmpfs of its own nearly everywhere; where it is not there is one device.
    let here = tempfile::tempdir().unwrap();
    if !needs::path("/dev/shm") {
        return;
    }
    let there = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |dir: &TempDir| fs::metadata(dir.path()).unwrap().dev();
    let numbers = Arc::new(Numbers::new());
    let mut seen = std::collections::HashSet::new();
    for (index, dir) in [&here, &there].into_iter().enumerate() {
        for n in 0..100 {
            fs::write(dir.path().join(n.to_string()), b"").unwrap();
        }
        let shared = Arc::clone(&numbers);
        let tree = OverlayDir::open(dir.path(), DirOptions::default(), shared).unwrap();
        for (name, entry) in list(&tree, NodeId::ROOT).unwrap() {
            let id = entry.node().unwrap().id;
            assert!(seen.insert(id));
            let path = dir.path().join(String::from_utf8(name.as_bytes().to_vec()).unwrap());
            let inode = fs::metadata(path).unwrap().ino();
            let high = if device(&here) == device(&there) { 0 } else { index as u64 };
            assert_eq!(id, NodeId(high << 54 | inode));
            assert_eq!(tree.node(id).unwrap().id, id);
        }
    }
}
