//! Named cases.
//!
//! Invariant: each states one rule of docs/SEMANTICS.md or one failure that was found.

use strata_tree::{NodeId, Spec};

use super::lowers::lower;
use super::world::{READ, WRITE, World, options, read_all};

#[test]
fn an_old_descriptor_reads_what_is_written_after_copy_up() {
    let world = World::new(lower(), options());
    let id = world.id("a/a");
    let old = world.union().open_file(id, READ).unwrap();
    assert!(old.upper_file().is_none());
    let new = world.union().open_file(id, WRITE).unwrap();
    new.write(0, b"FIRST").unwrap();
    assert_eq!(read_all(&old), b"FIRST");
    assert!(old.upper_file().is_some());
}

#[test]
fn what_the_kernel_forgets_is_not_kept() {
    let world = World::new(lower(), options());
    let before = world.union().known_nodes();
    let dir = world.union().lookup(NodeId::ROOT, b"a").unwrap().unwrap().id;
    let file = world.union().lookup(dir, b"a").unwrap().unwrap().id;
    assert_eq!(world.union().known_nodes(), before + 2);
    world.union().forget(dir, 1);
    assert_eq!(world.union().known_nodes(), before + 2, "a known node lies in it");
    world.union().forget(file, 1);
    assert_eq!(world.union().known_nodes(), before);
}

#[test]
fn changing_metadata_copies_no_content() {
    use std::os::unix::fs::MetadataExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let big = vec![7; 1 << 20];
    let world = World::new(Spec::new().file("big", &big), options());
    let changes = crate::writable::Changes { uid: Some(5), ..Default::default() };
    world.union().set_attr(world.id("big"), &changes).unwrap();
    let stat = std::fs::metadata(world.upper().join("big")).unwrap();
    assert_eq!((stat.uid(), stat.size()), (5, 1 << 20));
    assert!(stat.blocks() < 100, "{} blocks", stat.blocks());
    assert_eq!(world.read(world.id("big")), big[..1 << 16]);
}

/// A moved metacopy loses two marks when its content comes up, one after the other.
#[test]
fn a_metacopy_that_is_being_filled_is_never_without_its_lower() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for _ in 0..100 {
        let world = World::new(lower(), options());
        let (union, id) = (world.union(), world.id("a/a"));
        let changes = crate::writable::Changes { perm: Some(0o600), ..Default::default() };
        union.set_attr(id, &changes).unwrap();
        let (from, to) = ((world.id("a"), &b"a"[..]), (NodeId::ROOT, &b"moved"[..]));
        union.rename(from, to, crate::writable::RenameMode::Replace, false).unwrap();
        let filled = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !filled.load(Ordering::Relaxed) {
                    assert_eq!(union.lookup(NodeId::ROOT, b"moved").unwrap().unwrap().id, id);
                }
            });
            let file = union.open_file(id, WRITE);
            filled.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            file.unwrap();
        });
    }
}

/// The kernel fails every call on a node with EIO once its number is another's.
#[test]
fn a_removed_directory_that_is_in_use_keeps_its_number() {
    use crate::writable::{Caller, New, RenameMode};
    use strata_tree::Kind;
    let world = World::new(lower(), options());
    let union = world.union();
    let who = Caller { uid: 0, gid: 0, umask: 0 };
    let make = |name: &[u8], kind| {
        union.make(&who, NodeId::ROOT, name, New::Plain(kind, 0o755)).unwrap().id
    };
    let mut gone = Vec::new();
    for round in 0..20 {
        let dir = make(b"gone", Kind::Directory);
        if round % 2 == 0 {
            union.rmdir(NodeId::ROOT, b"gone").unwrap();
        } else {
            gone.push(make(b"other", Kind::Directory));
            let (from, to) = ((NodeId::ROOT, &b"other"[..]), (NodeId::ROOT, &b"gone"[..]));
            union.rename(from, to, RenameMode::Replace, false).unwrap();
            union.rmdir(NodeId::ROOT, b"gone").unwrap();
        }
        gone.push(dir);
        let file = make(b"file", Kind::Regular);
        assert!(!gone.contains(&file), "round {round}: {file:?} is in use");
        union.unlink(NodeId::ROOT, b"file").unwrap();
        union.forget(file, 1);
        for dir in &gone {
            assert_eq!(union.attr(*dir).unwrap().stat.nlink, 0);
            assert!(union.list(*dir).unwrap().is_empty());
        }
    }
}
