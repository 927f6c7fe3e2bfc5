//! Copies that are synced after they have their names: what a killed process and a crashed machine
//! leave of them.
//!
//! Invariant: what a crash leaves is made by hand, because the machine cannot be crashed here; with
//! a real one of the upper's file system `scripts/conformance-rw` does the same.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use strata_content::{FileContent, FileTree};
use strata_tree::{Lower, Name, NodeId, Spec};

use super::world::{READ, WRITE, World, options};
use crate::writable::marks::{Mark, Marks};
use crate::writable::origin_mark::Origin;
use crate::writable::types::{Changes, OpenHow, Ownership, RenameMode};
use crate::writable::unsynced::{ANNOUNCED, Unsynced, is_whole};
use crate::writable::{Error, Union, UpperView};

/// Bytes of the lower's file; more than one block, less than `World::read` reads.
const SIZE: usize = 5 * 4096 + 7;

fn old() -> Vec<u8> {
    (0..SIZE).map(|n| (n % 251) as u8 + 1).collect()
}

/// What a writer has made of it.
fn new() -> Vec<u8> {
    let mut bytes = old();
    bytes[..3].copy_from_slice(b"new");
    bytes.extend(b"end");
    bytes
}

fn lower() -> Spec {
    Spec::new().dir("d").file("d/f", old()).mtime(1_000_000, 0).file("g", "other")
}

fn marks() -> Marks {
    let apart = options().ownership == Ownership::Override;
    Marks::new(apart, apart)
}

fn origin(path: &Path) -> Origin {
    let text = marks().get(File::open(path).unwrap(), Mark::StrataOrigin).unwrap();
    Origin::parse(&text.unwrap()).unwrap()
}

/// An upper in which `d/f` was copied up, written to and renamed to `moved`, and whose last user
/// did not say that it is on disk.
fn cut_off(cut: impl FnOnce(&File)) -> (World, PathBuf) {
    let mut world = World::new(lower(), options());
    let (dir, file) = (world.id("d"), world.id("d/f"));
    let open = world.union().open_file(file, WRITE).unwrap();
    open.write(0, b"new").unwrap();
    open.write(SIZE as u64, b"end").unwrap();
    let to = (NodeId::ROOT, &b"moved"[..]);
    world.union().rename((dir, b"f"), to, RenameMode::Replace, false).unwrap();
    drop(open);
    world.union = None;
    let path = world.upper().join("moved");
    let copy = File::options().read(true).write(true).open(&path).unwrap();
    let origin = origin(&path);
    assert!(!origin.unsynced, "the end of the union waits");
    cut(&copy);
    let unsynced = Origin { unsynced: true, ..origin };
    marks().set(&copy, Mark::StrataOrigin, &unsynced.format()).unwrap();
    File::create(world.work().join("work").join(format!("{ANNOUNCED}1"))).unwrap();
    (world, path)
}

fn punch(file: &File, from: u64, len: u64) {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, mode, from, len).unwrap();
}

/// Mounts what was cut off, and looks at it.
fn mended(mut world: World, path: &Path, expected: &[u8]) {
    let view = UpperView::open(world.lower(), &world.upper(), world.options).unwrap();
    let changes = view.changes().unwrap();
    let found = changes.lookup(NodeId::ROOT, Name::new(b"moved").unwrap()).unwrap().unwrap();
    let viewed = *found.node().unwrap();
    assert_eq!(viewed.stat.size, expected.len() as u64, "a view before anybody mends");
    let contents = changes.contents();
    let content = FileTree::new(Arc::new(changes), contents).read(viewed.id).unwrap();
    assert!(content == expected, "a view shows something else");
    world.mount();
    let attr = world.attr("moved").unwrap();
    assert_eq!(attr.stat.size, expected.len() as u64);
    assert_eq!(world.read(attr.id), expected);
    assert!(world.attr("d/f").is_none());
    let origin = origin(path);
    assert_eq!((origin.lower, origin.unsynced), (attr.id, false));
    assert!(path.metadata().unwrap().blocks() * 512 >= SIZE as u64);
    let left = std::fs::read_dir(world.work().join("work")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn what_a_killed_process_leaves_is_what_was_written() {
    let (world, path) = cut_off(|_| {});
    mended(world, &path, &new());
}

#[test]
fn what_a_crash_leaves_of_a_copy_is_the_lowers_file() {
    let cuts: [fn(&File); 7] = [
        |copy| copy.set_len(0).unwrap(),
        |copy| copy.set_len(4096).unwrap(),
        |copy| copy.set_len(SIZE as u64 - 1).unwrap(),
        |copy| punch(copy, 0, 4096),
        |copy| punch(copy, 2 * 4096, 4096),
        |copy| punch(copy, 5 * 4096, 4096),
        |copy| punch(copy, 0, SIZE as u64 + 3),
    ];
    for cut in cuts {
        let (world, path) = cut_off(cut);
        mended(world, &path, &old());
    }
}

#[test]
fn a_copy_without_its_lower_is_told() {
    let (mut world, path) = cut_off(|copy| copy.set_len(0).unwrap());
    let copy = File::open(&path).unwrap();
    let lost = Origin { lower: NodeId(1 << 40), inode: None, handle: None, unsynced: true };
    marks().set(&copy, Mark::StrataOrigin, &lost.format()).unwrap();
    let opened = Union::open(world.lower(), &world.upper(), &world.work(), options());
    let Err(error) = opened else { panic!("it was opened") };
    assert!(matches!(&error, Error::Unusable { path, .. } if path.ends_with("moved")), "{error}");
    world.union = None;
}

#[test]
fn whoever_syncs_or_cuts_a_file_waits_for_its_copy() {
    let calls: [fn(&World, NodeId); 6] = [
        |world, id| world.union().open_file(id, WRITE).unwrap().sync(true).unwrap(),
        |world, id| world.union().open_file(id, READ).unwrap().sync(false).unwrap(),
        |world, id| {
            let how = OpenHow { synced: true, ..WRITE };
            world.union().open_file(id, how).unwrap();
        },
        |world, id| {
            let file = world.union().open_file(id, WRITE).unwrap();
            file.allocate(0, 0, 4096).unwrap();
        },
        |world, id| {
            let from = world.union().open_file(world.id("g"), READ).unwrap();
            let file = world.union().open_file(id, WRITE).unwrap();
            assert_eq!(from.copy_range(0, &file, 0, 5).unwrap(), 5);
        },
        |world, id| {
            let changes = Changes { size: Some(3), ..Changes::default() };
            world.union().set_attr(id, &changes).unwrap();
        },
    ];
    for call in calls {
        let world = World::new(lower(), options());
        let id = world.id("d/f");
        world.union().open_file(id, WRITE).unwrap();
        call(&world, id);
        let origin = origin(&world.upper().join("d/f"));
        assert_eq!((origin.lower, origin.unsynced), (id, false));
    }
}

#[test]
fn nothing_is_left_of_many_copies_at_the_end() {
    let spec = (0..600).fold(Spec::new(), |spec, n| spec.file(format!("f{n}"), old()));
    let mut world = World::new(spec, options());
    for n in 0..600 {
        let file = world.union().open_file(world.id(&format!("f{n}")), WRITE).unwrap();
        file.write(0, b"new").unwrap();
        if n % 7 == 0 {
            world.union().unlink(NodeId::ROOT, format!("f{n}").as_bytes()).unwrap();
        }
    }
    world.union().finish().unwrap();
    for n in (0..600).filter(|n| n % 7 != 0) {
        assert!(!origin(&world.upper().join(format!("f{n}"))).unsynced);
    }
    assert_eq!(std::fs::read_dir(world.work().join("work")).unwrap().count(), 0);
    world.union = None;
}

#[test]
fn a_failure_is_told_as_often_as_somebody_asks() {
    let unsynced = Arc::new(Unsynced::new(marks()));
    let (_reader, pipe) = rustix::pipe::pipe().unwrap();
    let pipe = File::from(pipe);
    // A pipe cannot be synced.
    let origin = Origin { lower: NodeId(7), inode: None, handle: None, unsynced: true };
    unsynced.add(&pipe, origin).unwrap();
    for _ in 0..2 {
        let told = unsynced.settle(&pipe);
        assert!(matches!(told, Err(Error::Upper { errno: Errno::INVAL, .. })), "{told:?}");
        assert!(unsynced.end().is_err());
    }
}

#[test]
fn a_copy_is_whole_if_it_has_data_wherever_the_original_has() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = |name: &str, parts: &[u64], size: u64| {
        let mut how = File::options();
        let file = how.read(true).write(true).create_new(true).open(dir.path().join(name)).unwrap();
        file.set_len(size).unwrap();
        parts.iter().for_each(|at| file.write_all_at(&[1; 4096], at * 4096).unwrap());
        file
    };
    let original = FileContent::new(file("original", &[0, 1, 5], 8 * 4096)).unwrap();
    for (copy, whole) in [
        (file("same", &[0, 1, 5], 8 * 4096), true),
        (file("more", &[0, 1, 2, 5, 9], 10 * 4096), true),
        (file("less", &[0, 5], 8 * 4096), false),
        (file("end", &[0, 1], 8 * 4096), false),
        (file("short", &[0, 1, 5], 8 * 4096 - 1), false),
    ] {
        assert_eq!(is_whole(&copy, &original).unwrap(), whole, "{copy:?}");
    }
}
