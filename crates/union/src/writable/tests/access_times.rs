//! What reading does to the access times of what is in the upper.
//!
//! Invariant: a copy starts with one time for both, so that each way of counting says for sure
//! whether reading moves it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use strata_testkit::needs;
use strata_tree::Spec;

use super::world::{READ, WRITE, World, options};
use crate::writable::descriptor::by_descriptor;
use crate::writable::{AccessTimes, Changes, OpenFile, OpenHow, UnionOptions};

/// Each way that root's mounts have, and whether reading moves the time.
const WAYS: [(AccessTimes, bool); 3] =
    [(AccessTimes::Never, false), (AccessTimes::Relative, true), (AccessTimes::Always, true)];

fn world(access_times: AccessTimes) -> Option<World> {
    let spec = Spec::new().file("f", "content").mtime(1_000_000, 0).file("empty", "");
    let options = UnionOptions { access_times, ..options() };
    needs::root().then(|| World::new(spec, options))
}

/// Whether the access time of the upper's file is another one than its lower's.
fn moved(world: &World, path: &str) -> bool {
    let stat = world.upper().join(path).metadata().unwrap();
    stat.atime() != stat.mtime()
}

/// Reads as the kernel does once it has been given the file (passthrough): it opens the file again,
/// by way of the same mount and with the flags of the reader.
fn read_behind(file: &OpenFile) {
    let file = file.upper_file().unwrap();
    File::open(by_descriptor(file.as_fd())).unwrap().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_file_that_is_open_for_writing_is_read_as_is_asked_for() {
    for (way, moves) in WAYS {
        for behind in [false, true] {
            let Some(world) = world(way) else { return };
            let id = world.id("f");
            let file = world.union().open_file(id, WRITE).unwrap();
            assert!(!moved(&world, "f"), "a copy has its lower's time");
            match behind {
                true => read_behind(&file),
                false => assert_eq!(file.read(0, &mut [0; 9]).unwrap(), 7),
            }
            assert_eq!(moved(&world, "f"), moves, "{way:?}, in passthrough: {behind}");
        }
    }
}

#[test]
fn so_is_a_file_whose_content_came_up_while_it_was_open() {
    for (way, moves) in WAYS {
        let Some(world) = world(way) else { return };
        let id = world.id("f");
        let reader = world.union().open_file(id, READ).unwrap();
        world.union().open_file(id, WRITE).unwrap();
        read_behind(&reader);
        assert_eq!(moved(&world, "f"), moves, "{way:?}");
    }
}

#[test]
fn so_is_a_metacopy_which_has_nothing_to_read_of_its_own() {
    for (way, moves) in WAYS {
        for path in ["f", "empty"] {
            let Some(world) = world(way) else { return };
            let id = world.id(path);
            let changes = Changes { perm: Some(0o600), ..Changes::default() };
            world.union().set_attr(id, &changes).unwrap();
            world.union().open_file(id, OpenHow { unseen: true, ..READ }).unwrap();
            assert!(!moved(&world, path), "{way:?}: O_NOATIME");
            let file = world.union().open_file(id, READ).unwrap();
            assert_eq!(moved(&world, path), moves, "{way:?}: {path}");
            assert_eq!(file.moved_access_time(), moves, "the kernel has to be told");
        }
    }
}
