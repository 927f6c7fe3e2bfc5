//! Named cases.
//!
//! Invariant: each states one rule of docs/SEMANTICS.md or one failure that was found.

use strata_testkit::needs;
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
    if !needs::root() {
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

/// `a/b`, `a/c` and `b/a` are names of one file; all of them stay so wherever they have gone.
#[test]
fn all_names_are_copied_up_after_a_directory_moved_before_a_remount() {
    let mut world = World::new(lower(), options());
    let (from, to) = ((NodeId::ROOT, &b"b"[..]), (world.id("a"), &b"moved"[..]));
    world.union().rename(from, to, crate::writable::RenameMode::Replace, false).unwrap();
    world.mount();
    let file = world.union().open_file(world.id("a/c"), WRITE).unwrap();
    file.write(0, b"changed").unwrap();
    drop(file);
    world.mount();
    for path in ["a/b", "a/c", "a/moved/a"] {
        let attr = world.attr(path).unwrap();
        assert_eq!((attr.id, attr.stat.nlink), (world.id("a/b"), 3), "{path}");
        assert_eq!(world.read(attr.id)[..7], *b"changed", "{path}");
    }
}

#[test]
fn all_names_are_copied_up_while_a_directory_moves() {
    use crate::writable::RenameMode;
    for _ in 0..100 {
        let world = World::new(lower(), options());
        let (union, a, id) = (world.union(), world.id("a"), world.id("a/c"));
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                for _ in 0..10 {
                    let (here, there) = ((NodeId::ROOT, &b"b"[..]), (a, &b"moved"[..]));
                    union.rename(here, there, RenameMode::Replace, false).unwrap();
                    union.rename(there, here, RenameMode::Replace, false).unwrap();
                }
            });
            union.open_file(id, WRITE).unwrap();
            mover.join().unwrap();
        });
        assert_eq!(union.attr(id).unwrap().stat.nlink, 3);
    }
}

#[test]
fn metadata_of_a_removed_node_that_was_only_in_the_lower_can_change() {
    if !needs::root() {
        return;
    }
    let world = World::new(lower().dir("empty"), options());
    let union = world.union();
    let (dir, link, fifo) = (world.id("empty"), world.id("b/b"), world.id("c"));
    union.rmdir(NodeId::ROOT, b"empty").unwrap();
    union.unlink(world.id("b"), b"b").unwrap();
    union.unlink(NodeId::ROOT, b"c").unwrap();
    for id in [dir, link, fifo] {
        let changes = crate::writable::Changes { uid: Some(9), ..Default::default() };
        union.set_attr(id, &changes).unwrap();
        union.set_xattr(id, b"trusted.a", b"b", crate::writable::SetMode::Either).unwrap();
        let attr = union.attr(id).unwrap();
        assert_eq!((attr.stat.uid, attr.stat.nlink), (9, 0));
        assert!(union.xattrs(id).unwrap().contains(&(b"trusted.a".to_vec(), b"b".to_vec())));
    }
}

#[test]
fn an_upper_can_be_read_while_it_changes() {
    use crate::writable::{Caller, New, RenameMode, UpperView};
    use std::sync::atomic::{AtomicBool, Ordering};
    use strata_tree::Kind;
    let world = World::new(lower(), options());
    let union = world.union();
    let done = AtomicBool::new(false);
    let churn = || {
        let who = Caller { uid: 0, gid: 0, umask: 0 };
        while !done.load(Ordering::Relaxed) {
            let dir = New::Plain(Kind::Directory, 0o755);
            let dir = union.make(&who, NodeId::ROOT, b"new", dir).unwrap().id;
            for name in [b"1", b"2", b"3"] {
                let (_, file) = union.create(&who, dir, name, 0o644).unwrap();
                file.write(0, b"content").unwrap();
            }
            for name in [b"1", b"2", b"3"] {
                union.unlink(dir, name).unwrap();
            }
            let (from, to) = ((NodeId::ROOT, &b"new"[..]), (NodeId::ROOT, &b"old"[..]));
            union.rename(from, to, RenameMode::Replace, false).unwrap();
            union.rmdir(NodeId::ROOT, b"old").unwrap();
            let (from, to) = ((NodeId::ROOT, &b"a"[..]), (NodeId::ROOT, &b"moved"[..]));
            union.rename(from, to, RenameMode::Replace, false).unwrap();
            union.rename(to, from, RenameMode::Replace, false).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(churn);
        let view = || UpperView::open(world.lower(), &world.upper(), world.options);
        // What has moved each time is told.
        let other = |error: &crate::writable::Error| !error.to_string().contains("try again");
        let failed = (0..300).find_map(|_| view().unwrap().changes().err().filter(other));
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(failed.is_none(), "{failed:?}");
    });
}

#[test]
fn a_file_that_changes_before_its_bytes_are_read_is_told() {
    use crate::writable::UpperView;
    use std::sync::Arc;
    use strata_content::FileTree;
    use strata_tree::{Lower, Name};
    let world = World::new(lower(), options());
    let file = world.union().open_file(world.id("x"), WRITE).unwrap();
    file.write(0, b"EXECUTABLE").unwrap();
    let view = UpperView::open(world.lower(), &world.upper(), world.options).unwrap();
    let layer = view.changes().unwrap();
    let id = layer.lookup(NodeId::ROOT, Name::new(b"x").unwrap()).unwrap().unwrap();
    let (id, contents) = (id.node().unwrap().id, layer.contents());
    let tree = FileTree::new(Arc::new(layer), contents);
    file.write(10, b" and more").unwrap();
    assert_eq!(tree.read(id).unwrap(), b"EXECUTABLE");
    let cut = crate::writable::Changes { size: Some(3), ..Default::default() };
    world.union().set_attr(world.id("x"), &cut).unwrap();
    let error = format!("{:?}", tree.read(id).unwrap_err());
    assert!(error.contains("became shorter while it was read"), "{error}");
    world.union().unlink(NodeId::ROOT, b"x").unwrap();
    let error = format!("{:?}", tree.read(id).unwrap_err());
    assert!(error.contains("was removed while it was read"), "{error}");
}

/// removexattr(2) of an ACL that is not there succeeds on every file system that has ACLs.
#[test]
fn an_acl_that_is_absent_can_be_removed() {
    use rustix::io::Errno;
    let world = World::new(lower(), options());
    let union = world.union();
    for name in [super::rights::ACCESS, super::rights::DEFAULT] {
        for path in ["a", "a/a"] {
            union.remove_xattr(world.id(path), name).unwrap();
        }
    }
    let other = union.remove_xattr(world.id("a"), b"user.absent");
    assert_eq!(super::refused(other), Some(Errno::NODATA));
    assert_eq!(std::fs::read_dir(world.upper()).unwrap().count(), 0, "nothing was copied up");
}

/// What a program changes through a mapping reaches the file later, and not by a write(2).
#[test]
fn a_mapped_write_leaves_capabilities_and_a_write_does_not() {
    use super::rights::{CAPABILITY, RAW};
    if !needs::root() {
        return;
    }
    let world = World::new(lower(), options());
    let (union, id) = (world.union(), world.id("a/a"));
    union.set_xattr(id, CAPABILITY, &RAW, crate::writable::SetMode::Either).unwrap();
    let file = union.open_file(id, WRITE).unwrap();
    assert_eq!(file.write_back(1, b"mapped").unwrap(), 6);
    assert_eq!(union.xattr(id, CAPABILITY).unwrap(), Some(RAW.to_vec()));
    assert_eq!(&world.read(id)[1..7], b"mapped");
    file.write(1, b"written").unwrap();
    assert_eq!(union.xattr(id, CAPABILITY).unwrap(), None);
}

/// As overlayfs does, which asks of both before it copies one up.
#[test]
fn an_exchange_that_is_refused_copies_nothing_up() {
    use crate::writable::{Error, RenameMode, UnionOptions};
    use rustix::io::Errno;
    let world = World::new(
        Spec::new().file("file", b"one").dir("dir").file("dir/in", b"two"),
        UnionOptions { no_redirect: true, ..options() },
    );
    let (file, dir) = ((NodeId::ROOT, &b"file"[..]), (NodeId::ROOT, &b"dir"[..]));
    for (from, to) in [(file, dir), (dir, file)] {
        let refused = world.union().rename(from, to, RenameMode::Exchange, false);
        assert!(matches!(refused, Err(Error::Refused(Errno::XDEV))), "{refused:?}");
        assert_eq!(std::fs::read_dir(world.upper()).unwrap().count(), 0);
    }
}

/// A user who may set user attributes would make a program of his root's.
#[test]
fn an_attribute_that_states_owners_states_none_when_a_program_sets_it() {
    use crate::writable::{Changes, Ownership, SetMode, UnionOptions};
    const NAME: &[u8] = b"user.containers.override_stat";
    let of_image = Spec::new().file("own", b"").file("image", b"").xattr(NAME, b"7:7:4711:file");
    let mut owners = vec![Ownership::Override];
    if needs::root() {
        owners.push(Ownership::Inode);
    }
    for ownership in owners {
        let options = UnionOptions { ownership, ..options() };
        let mut world = World::new(of_image.clone(), options);
        let (own, image) = (world.id("own"), world.id("image"));
        let before = world.union().attr(own).unwrap().stat;
        let set = |mode| world.union().set_xattr(own, NAME, b"0:0:4755:char-1-3", mode);
        set(SetMode::Create).unwrap();
        set(SetMode::Replace).unwrap();
        let changes = Changes { perm: Some(0o600), ..Changes::default() };
        world.union().set_attr(image, &changes).unwrap();
        for _ in 0..2 {
            let (own, image) = (world.attr("own").unwrap(), world.attr("image").unwrap());
            assert_eq!(own.stat, before);
            assert_eq!((image.stat.uid, image.stat.perm), (before.uid, 0o600));
            for (id, value) in [(own.id, &b"0:0:4755:char-1-3"[..]), (image.id, b"7:7:4711:file")] {
                assert_eq!(world.union().xattr(id, NAME).unwrap().as_deref(), Some(value));
                assert_eq!(world.union().xattrs(id).unwrap(), [(NAME.to_vec(), value.to_vec())]);
            }
            world.mount();
        }
        world.union().remove_xattr(world.id("own"), NAME).unwrap();
        assert_eq!(world.union().attr(world.id("own")).unwrap().stat, before);
        assert_eq!(world.union().xattrs(world.id("own")).unwrap(), []);
    }
}

/// Who may not write an inode sets no user attribute of it (xattr(7)), and moves no directory into
/// another one (rename(2)). Its owner does both here all the same.
#[test]
fn what_its_owner_may_not_write_is_moved_linked_and_removed() {
    use crate::writable::{Caller, New, Ownership, RenameMode, UnionOptions};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use strata_tree::Kind;
    if !needs::root() {
        return;
    }
    let lower = Spec::new().file("f", b"text").perm(0o444).dir("d").perm(0o555);
    let lower = lower.file("d/in", b"in").dir("gone").dir("hidden").perm(0o555);
    for no_metacopy in [false, true] {
        let ownership = Ownership::Inode;
        let options = UnionOptions { user_marks: true, ownership, no_metacopy, ..options() };
        let mut world = World::new(lower.clone(), options);
        let (union, f) = (world.union(), world.id("f"));
        let change = || {
            let mut own = capabilities(None).unwrap();
            own.effective.remove(CapabilitySet::DAC_OVERRIDE);
            set_capabilities(None, own).unwrap();
            let root = Caller { uid: 0, gid: 0, umask: 0 };
            let make = |name: &[u8]| {
                let new = New::Plain(Kind::Directory, 0o555);
                union.make(&root, NodeId::ROOT, name, new).unwrap();
            };
            let rename = |from: &[u8], to: &[u8]| {
                let (from, to) = ((NodeId::ROOT, from), (NodeId::ROOT, to));
                union.rename(from, to, RenameMode::Replace, false).unwrap();
            };
            let remove = |name: &[u8]| union.rmdir(NodeId::ROOT, name).unwrap();
            rename(b"f", b"g");
            union.link(f, NodeId::ROOT, b"h").unwrap();
            rename(b"d", b"e");
            remove(b"gone");
            make(b"gone");
            remove(b"gone");
            remove(b"hidden");
            make(b"new");
            rename(b"new", b"newer");
            remove(b"newer");
            make(b"gone");
        };
        std::thread::scope(|scope| scope.spawn(change).join().unwrap());
        for _ in 0..2 {
            for (path, perm) in [("g", 0o444), ("h", 0o444), ("e", 0o555), ("gone", 0o555)] {
                assert_eq!(world.attr(path).unwrap().stat.perm, perm, "{path}");
            }
            assert_eq!(world.read(world.id("h")), b"text");
            assert_eq!(world.read(world.id("e/in")), b"in");
            assert_eq!(world.union().list(NodeId::ROOT).unwrap().len(), 4);
            world.mount();
        }
        assert_eq!(std::fs::read_dir(world.work().join("work")).unwrap().count(), 0);
    }
}
