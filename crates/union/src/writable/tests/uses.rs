//! Who uses an upper: one union at a time, and the next one waits for the last one's end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::XattrFlags;
use strata_tree::Spec;

use super::world::{WRITE, World, options};
use crate::writable::types::UnionOptions;
use crate::writable::{Error, Union};

fn world() -> World {
    World::new(Spec::new().file("f", "lower").perm(0o640), options())
}

fn open(world: &World, upper: &Path, work: &Path, shared: bool) -> Result<Union, Error> {
    Union::open(world.lower(), upper, work, UnionOptions { shared, ..options() })
}

#[test]
fn a_second_union_is_refused_and_told_what_is_in_use() {
    let world = world();
    let (upper, work) = (world.upper(), world.work());
    let other = |name: &str| -> PathBuf {
        let path = world.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let in_use = |opened: Result<Union, Error>| match opened {
        Err(Error::InUse { path, role }) => (PathBuf::from(path), role),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was opened"),
    };
    assert_eq!(in_use(open(&world, &upper, &work, false)), (upper.clone(), "upper"));
    assert_eq!(in_use(open(&world, &upper, &other("w"), false)), (upper.clone(), "upper"));
    let found = in_use(open(&world, &other("u"), &work, false));
    assert_eq!(found, (work.clone(), "work directory"));
    // What the other one is making stays.
    std::fs::write(work.join("work/#1"), "").unwrap();
    let shared = open(&world, &upper, &work, true).unwrap();
    assert!(shared.is_shared() && work.join("work/#1").exists());
    drop(shared);
    assert!(!world.union().is_shared());
}

#[test]
fn the_next_one_waits_for_the_end_of_the_last() {
    let mut world = world();
    let (upper, work) = (world.upper(), world.work());
    let last = world.union.take().unwrap();
    let ended = AtomicBool::new(false);
    let lower = world.lower();
    std::thread::scope(|scope| {
        let next = scope.spawn(|| {
            let next = Union::open(lower, &upper, &work, options()).unwrap();
            (ended.load(Ordering::SeqCst), next.is_shared())
        });
        last.finish().unwrap();
        // The lock of WORK/work is what it waits for from now on.
        while !next.is_finished() && !waits() {
            std::thread::yield_now();
        }
        assert!(!next.is_finished(), "it did not wait");
        ended.store(true, Ordering::SeqCst);
        drop(last);
        assert_eq!(next.join().unwrap(), (true, false));
    });
}

/// Whether a thread of this process waits for a lock (proc(5), /proc/locks).
fn waits() -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let me = std::process::id().to_string();
    locks.lines().any(|line| line.contains("->") && line.split_whitespace().any(|word| word == me))
}

#[test]
fn what_is_made_in_the_work_directory_inherits_nothing_from_it() {
    const NAME: &str = "system.posix_acl_default";
    let mut world = world();
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let acl = [
        vec![2, 0, 0, 0],
        entry(1, 7, u32::MAX),
        entry(2, 7, 77),
        entry(4, 7, u32::MAX),
        entry(0x10, 7, u32::MAX),
        entry(0x20, 5, u32::MAX),
    ]
    .concat();
    world.union = None;
    for dir in [world.work(), world.work().join("work")] {
        match rustix::fs::setxattr(&dir, NAME, &acl, XattrFlags::empty()) {
            Ok(()) => {}
            Err(errno) => return assert_eq!(errno, rustix::io::Errno::OPNOTSUPP),
        }
    }
    world.mount();
    let id = world.attr("f").unwrap().id;
    drop(world.union().open_file(id, WRITE).unwrap());
    let mut names = [0; 4096];
    let length = rustix::fs::listxattr(world.upper().join("f"), &mut names[..]).unwrap();
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    assert!(!names.contains("posix_acl"), "{names}");
    assert_eq!(world.attr("f").unwrap().stat.perm, 0o640);
}
