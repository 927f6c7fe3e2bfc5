//! Views of uppers whose directories go while they are taken: all were listed, none was read.
//!
//! Invariant: a view says what is there before or after, or that it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use strata_tree::{Entry, Kind, Lower, Name, NodeId, Spec};

use super::copies::Watched;
use super::world::{WRITE, World, options};
use crate::writable::{Caller, Layer, New, PathChange, RenameMode, Result, Union, UpperView};

const DIRS: [&[u8]; 3] = [b"d0", b"d1", b"d2"];

fn find(union: &Union, dir: NodeId, name: &[u8]) -> NodeId {
    union.lookup(dir, name).unwrap().unwrap().id
}

fn move_away(union: &Union, from: &[u8], to: &[u8]) {
    let (from, to) = ((NodeId::ROOT, from), (NodeId::ROOT, to));
    union.rename(from, to, RenameMode::Replace, false).unwrap();
}

fn remove(union: &Union, name: &[u8]) {
    let dir = find(union, NodeId::ROOT, name);
    for listed in union.list(dir).unwrap() {
        union.unlink(dir, listed.name.as_bytes()).unwrap();
    }
    union.rmdir(NodeId::ROOT, name).unwrap();
}

fn make_dir(union: &Union, name: &[u8]) {
    let who = Caller { uid: 0, gid: 0, umask: 0 };
    union.make(&who, NodeId::ROOT, name, New::Plain(Kind::Directory, 0o755)).unwrap();
}

/// Directories of the lower, of whose two files one was changed and one removed; `new` is only in
/// the upper.
fn changed() -> (World, Arc<Union>) {
    let mut spec = Spec::new();
    for name in DIRS.map(|name| str::from_utf8(name).unwrap()) {
        spec = spec.dir(name);
        spec = spec.file(format!("{name}/1"), "content").file(format!("{name}/2"), "content");
    }
    let mut world = World::new(spec, options());
    let union = Arc::new(world.union.take().unwrap());
    for name in DIRS {
        let dir = find(&union, NodeId::ROOT, name);
        let file = union.open_file(find(&union, dir, b"1"), WRITE).unwrap();
        file.write(0, b"CONTENT").unwrap();
        union.unlink(dir, b"2").unwrap();
    }
    make_dir(&union, b"new");
    (world, union)
}

fn view(world: &World, meanwhile: impl FnMut() + Send + 'static) -> Result<Layer> {
    let lower = Watched::over(&world.lower());
    *lower.before_read.lock().unwrap() = Some(Box::new(meanwhile));
    let tree = world.lower().with_names(lower as _);
    UpperView::open(tree, &world.upper(), world.options).unwrap().changes()
}

/// All that it says of names, and how often it was taken.
type Said = (Vec<(String, PathChange)>, Vec<Option<bool>>, usize);

/// What a view says if this comes once, while it is taken for the first time.
fn said(world: &World, mut meanwhile: impl FnMut() + Send + 'static) -> Said {
    let tries = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&tries);
    let layer = view(world, move || {
        if taken.fetch_add(1, Ordering::Relaxed) == 0 {
            meanwhile();
        }
    });
    let layer = layer.unwrap();
    let list = layer.list().map(|(path, change)| (path.to_string(), change)).collect();
    let is_whiteout = |name| {
        let entry = layer.lookup(NodeId::ROOT, Name::new(name).unwrap()).unwrap();
        entry.map(|entry| matches!(entry, Entry::Whiteout))
    };
    let names = [DIRS[0], DIRS[1], DIRS[2], b"new", b"moved"].map(is_whiteout);
    (list, names.to_vec(), tries.load(Ordering::Relaxed))
}

#[test]
fn directories_that_are_removed_while_an_upper_is_read_are_removed_in_the_view() {
    let (world, union) = changed();
    let (list, names, tries) = said(&world, move || {
        DIRS.into_iter().for_each(|name| remove(&union, name));
        union.rmdir(NodeId::ROOT, b"new").unwrap();
    });
    let (now, names_now, _) = said(&world, || {});
    assert_eq!((&list, &names), (&now, &names_now));
    assert_eq!(names, [Some(true), Some(true), Some(true), None, None]);
    assert_eq!((list.len(), tries), (3, 1), "{list:?}");
}

#[test]
fn a_directory_that_is_replaced_while_an_upper_is_read_does_not_show_the_old() {
    let (world, union) = changed();
    let (list, names, _) = said(&world, move || {
        remove(&union, DIRS[0]);
        make_dir(&union, DIRS[0]);
    });
    assert_eq!(names, [Some(true), Some(false), Some(false), Some(false), None]);
    assert!(!list.iter().any(|(path, _)| path.starts_with("/d0/")), "{list:?}");
}

#[test]
fn directories_that_move_while_an_upper_is_read_are_in_the_view() {
    for name in [DIRS[0], b"new"] {
        let (world, union) = changed();
        let (list, names, tries) = said(&world, move || move_away(&union, name, b"moved"));
        let (now, names_now, _) = said(&world, || {});
        assert_eq!((list, &names, tries), (now, &names_now, 2));
        assert_eq!(names[4], Some(false));
    }
}

#[test]
fn a_directory_that_does_not_stop_to_move_is_told() {
    let (world, union) = changed();
    let mut ends: [&[u8]; 2] = [b"new", b"moved"];
    let refused = view(&world, move || {
        move_away(&union, ends[0], ends[1]);
        ends.reverse();
    });
    let Err(error) = refused else { panic!("what was not there at any moment") };
    assert!(error.to_string().contains("try again"), "{error}");
}
