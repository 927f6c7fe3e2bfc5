//! Images of names: the second reader, `fsck.erofs`, and overlayfs above the image and a directory
//! of contents have to see the tree in each.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use strata_content::FileTree;
use strata_content::conformance::{check, in_memory};
use strata_kernel::{NamesForm, OverlayParts, WrittenImage};
use strata_testkit::needs;
use strata_tree::conformance::merged_specs;
use strata_tree::dialect::XattrClass;
use strata_tree::{ContentRef, Device, Item, Kind, Spec, VerityDigest};

use super::{kernel, reader, trees};

/// An image of names and the contents that it refers to.
struct Names {
    written: super::Written,
    elsewhere: HashMap<Vec<u8>, Vec<u8>>,
}

/// Writes the names of a spec; contents of up to `inside` bytes stand in the image.
fn write(spec: &Spec, inside: u64) -> Names {
    write_with(spec, inside, None)
}

fn write_with(spec: &Spec, inside: u64, verity: Option<VerityDigest>) -> Names {
    let tree = in_memory(spec).unwrap();
    let elsewhere = RefCell::new(HashMap::new());
    let place = |which: &ContentRef| {
        let place =
            [b"/", which.layer.to_string().as_bytes(), b"/", which.path.as_bytes()].concat();
        let content = tree.contents().open(which).unwrap();
        let mut bytes = vec![0; which.size as usize];
        let mut read = 0;
        while read < bytes.len() {
            read += content.read_at(&mut bytes[read..], read as u64).unwrap();
        }
        elsewhere.borrow_mut().insert(place.clone(), bytes);
        place
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let digest = |_: &ContentRef| verity;
    let form = NamesForm { place: &place, inside, verity: Some(&digest), identity: [7; 32] };
    let said = strata_kernel::write_names(&tree, &form, file.as_file()).unwrap();
    let written = super::Written { file, said };
    Names { written, elsewhere: elsewhere.into_inner() }
}

impl Names {
    fn said(&self) -> &WrittenImage {
        &self.written.said
    }

    /// What the second reader sees.
    fn read_again(&self) -> FileTree {
        let image = reader::Image::of_names(self.written.bytes(), self.elsewhere.clone());
        let image = Arc::new(image);
        FileTree::new(Arc::clone(&image) as _, image)
    }

    /// Mounts the names with their contents and compares them with `spec`.
    fn mounted(&self, spec: &Spec) -> Result<(), String> {
        if !needs::root() {
            return Ok(());
        }
        self.mounted_with(false, |point| kernel::compare_tree(spec, point))
    }

    fn mounted_with<T>(
        &self,
        verity: bool,
        look: impl FnOnce(&Path) -> Result<T, String>,
    ) -> Result<T, String> {
        let dir = tempfile::tempdir().unwrap();
        let (data, point) = (dir.path().join("data"), dir.path().join("point"));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir(&point).unwrap();
        for (place, bytes) in &self.elsewhere {
            let at = data.join(OsStr::from_bytes(&place[1..]));
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, bytes).unwrap();
        }
        self.mount(&data, &point, verity).map_err(|error| error.to_string())?;
        let mounted = kernel::Mounted(&point);
        look(mounted.0)
    }

    fn mount(&self, data: &Path, point: &Path, verity: bool) -> strata_kernel::Result<()> {
        let names = strata_kernel::detached_erofs(&self.written.file.reopen().unwrap())?;
        let data = File::open(data).unwrap();
        let parts = OverlayParts {
            class: XattrClass::Trusted,
            names: names.as_fd(),
            data: &[data.as_fd()],
            upper: None,
            verity,
            source: "test",
            suid: true,
            dev: true,
            exec: true,
        };
        let overlay = strata_kernel::detached_overlay(&parts)?;
        strata_kernel::attach(&overlay, &File::open(point).unwrap())
    }
}

/// Whether overlayfs would take something of it for a whiteout.
fn has_whiteout_device(spec: &Spec) -> bool {
    let zero = Kind::CharDevice(Device { major: 0, minor: 0 });
    spec.items().any(|(_, item)| matches!(item, Item::Inode(inode) if inode.kind == zero))
}

#[test]
fn passes_the_suite_with_contents_inside_and_elsewhere() {
    for (name, spec) in merged_specs() {
        for inside in [0, 1024] {
            let names = write(&spec, inside);
            assert_eq!(names.said().dropped.is_empty(), !has_whiteout_device(&spec), "{name}");
            if has_whiteout_device(&spec) {
                continue;
            }
            assert!(names.written.accepted(), "{name}");
            // Asking the reader for each of ten thousand names takes it as many readings.
            if name != "big" {
                check(&spec, &names.read_again()).unwrap_or_else(|why| panic!("{name}: {why}"));
            }
            names.mounted(&spec).unwrap_or_else(|why| panic!("{name}, {inside} inside: {why}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_of_any_tree_are_read_again(spec in trees::tree(), inside in 0..5000_u64) {
        prop_assume!(!has_whiteout_device(&spec));
        let names = write(&spec, inside);
        prop_assert_eq!(&names.said().dropped, &[]);
        prop_assert!(names.written.accepted());
        prop_assert_eq!(check(&spec, &names.read_again()), Ok(()));
        prop_assert_eq!(names.mounted(&spec), Ok(()));
        prop_assert!(write(&spec, inside).written.bytes() == names.written.bytes());
    }
}

#[test]
fn the_kernel_compares_contents_where_it_is_asked_to() {
    if !needs::root() {
        return;
    }
    let spec = Spec::new().file("elsewhere", "not sealed").file("empty", "").dir("d");
    let read = |point: &Path| {
        let errno = |error: std::io::Error| error.raw_os_error();
        let read = |name| fs::read_to_string(point.join(name)).map_err(errno);
        Ok((read("elsewhere"), read("empty")))
    };
    let refused = Some(rustix::io::Errno::IO.raw_os_error());
    let digest = VerityDigest::from_bytes([7; 32]);
    let (with, without) = (write_with(&spec, 0, Some(digest)), write(&spec, 0));
    for names in [&with, &without] {
        // A file that is not sealed has no digest, and neither has a name without one.
        assert_eq!(names.mounted_with(true, read).unwrap(), (Err(refused), Ok(String::new())));
        names.mounted(&spec).unwrap();
    }
    assert!(with.written.accepted());
    let image = with.written.bytes();
    let mark = [&[0, 36, 0, 1][..], &[7; 32]].concat();
    assert_eq!(image.windows(mark.len()).filter(|part| *part == mark).count(), 1);
}

#[test]
fn what_overlayfs_would_hide_is_said() {
    let spec = Spec::new().char_device("zero", 0, 0).char_device("null", 1, 3);
    let names = write(&spec, 0);
    let said: Vec<String> =
        names.said().dropped.iter().map(|one| format!("{}: {}", one.path, one.what)).collect();
    assert_eq!(said, ["/zero: a character device 0:0: overlayfs takes it for a whiteout"]);
}

#[test]
fn what_the_tree_has_of_marks_is_no_mark() {
    let spec = Spec::new()
        .file("f", vec![b'x'; 3000])
        .xattr("trusted.overlay.redirect", "/elsewhere")
        .xattr("trusted.overlay.metacopy", "")
        .dir("d")
        .xattr("trusted.overlay.opaque", "y")
        .file("d/below", "y");
    let names = write(&spec, 0);
    assert_eq!(check(&spec, &names.read_again()), Ok(()));
    assert_eq!(names.mounted(&spec), Ok(()));
}

#[test]
fn a_content_that_no_path_reaches_stands_in_the_image() {
    let deep = vec!["d".repeat(250); 17].join("/");
    let mut spec = Spec::new();
    for (end, _) in deep.match_indices('/').chain([(deep.len(), "")]) {
        spec = spec.dir(&deep[..end]);
    }
    let spec = spec.file(format!("{deep}/f"), vec![7; 3000]);
    let names = write(&spec, 0);
    assert_eq!(names.elsewhere.len(), 1, "it was asked for");
    let attributes: BTreeMap<_, _> = names.elsewhere.iter().collect();
    assert!(attributes.keys().all(|place| place.len() > 4095));
    // Read from the image: the reader finds no mark on it.
    let image = reader::Image::of_names(names.written.bytes(), HashMap::new());
    let image = Arc::new(image);
    assert_eq!(check(&spec, &FileTree::new(Arc::clone(&image) as _, image)), Ok(()));
}
