//! Uppers on file systems that cannot do everything: other forms of whiteouts, fewer ways to move.
//!
//! Invariant: the tree is the model's whatever the file system can; the kernel, given an upper of
//! marked files as a lower, shows the same.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use strata_testkit::needs;
use strata_tree::{NodeId, Spec};

use super::kernel::{as_a_lower, lower_again};
use super::lowers::{layers, lower, lower_without_zero};
use super::operations::{Op, operation, run};
use super::world::{World, options};
use crate::writable::can::{Can, WhiteoutForm};
use crate::writable::{OpenHow, RenameMode};

/// What overlayfs can.
const NESTED: Can = Can { form: WhiteoutForm::Attribute, leave_whiteout: false, ..Can::ALL };

/// File systems by what they cannot.
const PLACES: [Can; 6] = [
    NESTED,
    Can { leave_whiteout: false, ..Can::ALL },
    Can { leave_whiteout: false, exchange: false, ..Can::ALL },
    Can { leave_whiteout: false, link: false, ..NESTED },
    Can { leave_whiteout: false, exchange: false, no_replace: false, ..NESTED },
    Can { leave_whiteout: false, exchange: false, no_replace: false, link: false, ..Can::ALL },
];

/// rename(2): a file system without `RENAME_EXCHANGE` says so.
fn fits(op: &Op, can: Can) -> bool {
    match op {
        Op::Rename(.., mode) | Op::RenameExisting(.., mode) => can.exchange || mode % 4 != 0,
        // The model's names of an inode are those of a file system that has links.
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_union_is_its_model_on_every_file_system(
        ops in proptest::collection::vec(operation(), 1..40),
        place in 0..PLACES.len(),
    ) {
        let can = PLACES[place];
        let ops: Vec<_> = ops.into_iter().filter(|op| fits(op, can)).collect();
        let mut world = World::layered(layers(), lower(), options());
        world.limit(can);
        run(&ops, &mut world).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_changes_on_every_file_system_are_the_merged_tree(
        ops in proptest::collection::vec(operation(), 1..30),
        place in 0..PLACES.len(),
    ) {
        let can = PLACES[place];
        let ops: Vec<_> = ops.into_iter().filter(|op| fits(op, can)).collect();
        let mut world = World::new(lower(), options());
        world.limit(can);
        run(&ops, &mut world).map_err(TestCaseError::fail)?;
        world.check_changes().map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_kernel_reads_whiteouts_that_are_files(
        ops in proptest::collection::vec(operation(), 1..30)
    ) {
        if !needs::root() {
            return Ok(());
        }
        let mut world = World::new(lower_without_zero(), options());
        world.limit(NESTED);
        run(&ops, &mut world).map_err(TestCaseError::fail)?;
        as_a_lower(&mut world).map_err(TestCaseError::fail)?;
    }
}

fn many(count: usize) -> Spec {
    (0..count).fold(Spec::new().dir("d"), |spec, n| spec.file(format!("d/f{n}"), "x"))
}

/// The inodes of the names in a directory.
fn inodes(dir: &Path) -> BTreeSet<u64> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().ino()).collect()
}

fn remove_all(world: &World, names: impl Iterator<Item = usize>) {
    let dir = world.id("d");
    names.for_each(|n| world.union().unlink(dir, format!("f{n}").as_bytes()).unwrap());
}

#[test]
fn whiteouts_are_links_of_one_inode() {
    for can in [Can::ALL, NESTED] {
        let mut world = World::new(many(20), options());
        world.limit(can);
        // One that has come up before it goes, and one that moves away, among them.
        let dir = world.id("d");
        let write = OpenHow { write: true, ..OpenHow::default() };
        drop(world.union().open_file(world.id("d/f3"), write).unwrap());
        remove_all(&world, 0..20);
        assert_eq!(world.union().list(dir).unwrap(), []);
        let upper = world.upper().join("d");
        assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 20);
        assert_eq!(inodes(&upper).len(), 1, "{can:?}");
        let is_device = |path: &Path| path.metadata().unwrap().file_type().is_char_device();
        assert_eq!(is_device(&upper.join("f3")), can.form == WhiteoutForm::Device);
        world.union().finish().unwrap();
        let left = std::fs::read_dir(world.work().join("work")).unwrap().count();
        assert_eq!(left, 0, "nothing stays in the work directory");
        world.mount();
        assert!(world.attr("d/f0").is_none());
    }
}

#[test]
fn a_whiteout_that_has_all_its_links_is_followed_by_another() {
    let world = World::new(many(4), options());
    remove_all(&world, 0..1);
    let (first, aside) = (world.upper().join("d/f0"), world.dir.path().join("aside"));
    std::fs::create_dir(&aside).unwrap();
    // Some file systems have no such bound.
    let full = (0..70_000).any(|n| {
        let linked = std::fs::hard_link(&first, aside.join(n.to_string()));
        linked.is_err_and(|error| error.raw_os_error() == Some(31 /* EMLINK */))
    });
    remove_all(&world, 1..4);
    let expected = if full { 2 } else { 1 };
    assert_eq!(inodes(&world.upper().join("d")).len(), expected);
    assert_eq!(world.union().list(world.id("d")).unwrap(), []);
}

#[test]
fn a_directory_replaces_one_without_rename_whiteout() {
    for can in PLACES {
        let spec = Spec::new().dir("a").file("a/f", "1").dir("b").dir("c").file("c/g", "2");
        let mut world = World::new(spec, options());
        world.limit(can);
        let to = |world: &World, from: &str, to: &str| {
            let (from, to) = ((NodeId::ROOT, from.as_bytes()), (NodeId::ROOT, to.as_bytes()));
            let _ = world.id("a");
            world.union().rename(from, to, RenameMode::Replace, false)
        };
        to(&world, "a", "b").unwrap_or_else(|error| panic!("{can:?}: {error}"));
        let read = |world: &World, path: &str| world.read(world.id(path));
        assert!(world.union().lookup(NodeId::ROOT, b"a").unwrap().is_none());
        assert_eq!(read(&world, "b/f"), b"1");
        world.mount();
        assert!(world.union().lookup(NodeId::ROOT, b"a").unwrap().is_none(), "{can:?}");
        assert_eq!(read(&world, "b/f"), b"1");
        // Onto the whiteout that the first has left.
        world
            .union()
            .rename((NodeId::ROOT, b"c"), (NodeId::ROOT, b"a"), RenameMode::Replace, false)
            .unwrap();
        world.mount();
        assert_eq!(read(&world, "a/g"), b"2");
        assert!(world.attr("a/f").is_none() && world.attr("c").is_none());
    }
}

#[test]
fn an_upper_is_read_wherever_it_was_written() {
    // Written where whiteouts are files, then moved to where they are devices, and back.
    let mut world = World::new(many(4), options());
    for (n, can) in [NESTED, Can::ALL, NESTED].into_iter().enumerate() {
        world.limit(can);
        remove_all(&world, n..n + 1);
        let dir = world.id("d");
        assert_eq!(world.union().list(dir).unwrap().len(), 3 - n);
        assert!(world.union().lookup(dir, format!("f{n}").as_bytes()).unwrap().is_none());
    }
    if needs::root() {
        lower_again(&mut world, &["d/f3"], &["d/f0", "d/f1", "d/f2"]).unwrap();
    }
}
