//! EROFS images: a reader of our own, `fsck.erofs` and the kernel have to see the tree in each.
//!
//! Invariant: the kernel's part needs root, and `fsck.erofs` its package.

// Helpers are not #[test] functions.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod kernel;
mod names;
mod reader;
mod trees;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use strata_content::FileTree;
use strata_content::conformance::{check, in_memory};
use strata_kernel::{Error, WrittenImage, write_erofs};
use strata_testkit::needs;
use strata_tree::Spec;
use strata_tree::conformance::{layer_specs, merged_specs};

/// The image of a tree, in a file that is removed with it.
struct Written {
    file: tempfile::NamedTempFile,
    said: WrittenImage,
}

fn write(tree: &FileTree) -> Written {
    let file = tempfile::NamedTempFile::new().unwrap();
    let said = write_erofs(tree, file.as_file()).unwrap();
    Written { file, said }
}

/// What an image says, and its bytes.
fn image(bytes: Vec<u8>) -> FileTree {
    let image = Arc::new(reader::Image::new(bytes));
    FileTree::new(Arc::clone(&image) as _, image)
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()
    }

    /// Whether erofs-utils accept the image; `true` where they are missing.
    fn accepted(&self) -> bool {
        if !needs::program("fsck.erofs") {
            return true;
        }
        let done = Command::new("fsck.erofs").arg(self.file.path()).output().unwrap();
        if !done.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&done.stderr));
        }
        done.status.success()
    }
}

#[test]
fn passes_the_suite() {
    for (name, spec) in merged_specs() {
        let written = write(&in_memory(&spec).unwrap());
        assert_eq!(written.said.dropped, [], "{name}");
        assert!(written.accepted(), "{name}");
        let image = image(written.bytes());
        // Asking the reader for each of ten thousand names takes it as many readings.
        if name != "big" {
            check(&spec, &image).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        }
    }
}

#[test]
fn the_kernel_shows_the_trees_of_the_suite() {
    for (name, spec) in merged_specs() {
        let written = write(&in_memory(&spec).unwrap());
        kernel::compare(&spec, written.file.path()).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_read_again(spec in trees::tree()) {
        let written = write(&in_memory(&spec).unwrap());
        prop_assert_eq!(&written.said.dropped, &[]);
        prop_assert!(written.accepted());
        let image = image(written.bytes());
        prop_assert_eq!(check(&spec, &image), Ok(()));
        prop_assert_eq!(kernel::compare(&spec, written.file.path()), Ok(()));
        // What was written can be written again from itself: the same bytes.
        prop_assert!(write(&image).bytes() == written.bytes());
    }
}

#[test]
fn equal_contents_stand_once_and_zeros_take_no_room() {
    let noise: Vec<u8> =
        (0..40_960_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let once = Spec::new().file("a", &noise);
    let twice = once.clone().file("b", &noise).file("c", [noise.as_slice(), b"tail"].concat());
    let size = |spec: &Spec| write(&in_memory(spec).unwrap()).said.bytes;
    assert_eq!(size(&twice) - size(&once), 40_960, "b shares, c of another size does not");
    let zeros = Spec::new().file("zeros", vec![0; 1 << 20]).file("end", "x");
    let written = write(&in_memory(&zeros).unwrap());
    assert!(written.said.bytes > 1 << 20);
    assert!(written.file.as_file().metadata().unwrap().blocks() * 512 < 64 << 10);
}

#[test]
fn what_the_format_cannot_hold_is_said() {
    let spec = Spec::new()
        .file("f", "x")
        .xattr("system.nfs4_acl", "x")
        .xattr("user.kept", "y")
        .xattr("user.long", vec![1; 65_536])
        .char_device("odd", 1 << 12, 0);
    let written = write(&in_memory(&spec).unwrap());
    let said: Vec<String> =
        written.said.dropped.iter().map(|one| format!("{}: {}", one.path, one.what)).collect();
    assert_eq!(
        said,
        [
            "/f: the xattr \"system.nfs4_acl\": EROFS has no number for its prefix",
            "/f: the xattr \"user.long\": it is longer than EROFS holds",
            "/odd: a device 4096:0: Linux has no such number",
        ]
    );
    let kept = Spec::new().file("f", "x").xattr("user.kept", "y");
    assert_eq!(check(&kept, &image(written.bytes())), Ok(()));
}

#[test]
fn a_layer_is_refused() {
    for (_, spec) in layer_specs() {
        let file = tempfile::tempfile().unwrap();
        let refused = write_erofs(&in_memory(&spec).unwrap(), &file);
        assert!(matches!(refused, Err(Error::NotMerged(_))), "{refused:?}");
    }
}

#[test]
fn what_was_in_the_file_is_gone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0xff; 1 << 20]).unwrap();
    let spec = Spec::new().file("zeros", vec![0; 9000]).file("f", "x");
    let out = File::options().read(true).write(true).open(file.path()).unwrap();
    write_erofs(&in_memory(&spec).unwrap(), &out).unwrap();
    let image = image(std::fs::read(file.path()).unwrap());
    assert_eq!(check(&spec, &image), Ok(()));
}
