//! Removing gives everything back, and what the store says it holds is what lies there.

use std::path::Path;
use std::process::Command;

use strata_layer::Error;

use crate::common::{Place, assert_clean, files, load, members, unpack, walk};

/// What `du` counts of regular files and directories, each inode once, in bytes.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["--apparent-size", "-s", "-B1"]).arg(path).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_usage_is_what_du_counts(place: &Place) {
    let store = place.open();
    let usage = store.disk_usage().unwrap();
    let layers = place.root().join("layers");
    assert_eq!(usage.stored + usage.headers + usage.directories, du(&layers));
    let indexed: u64 = usage.layers.iter().map(|layer| layer.stored - layer.shared).sum();
    assert_eq!(indexed + usage.shared, usage.stored);
    let records = store.layers().unwrap();
    assert_eq!(usage.headers, records.iter().map(|record| record.headers_size).sum::<u64>());
    assert_eq!(usage.entries, records.iter().map(|record| record.entries).sum::<u64>());
}

#[test]
fn usage_is_what_du_counts() {
    let place = Place::new();
    assert_usage_is_what_du_counts(&place);
    let big = vec![3; 3 << 20];
    let base = files(&[("a/one", b"one"), ("a/two", b"two"), ("big", &big), ("empty", b"")]);
    let lines = ["f b/one one", "h b/link => b/one", "f own own", "f .wh.big", "s l -> x"];
    let over = members(&lines);
    load(&place.open(), "one", &[&base]);
    assert_usage_is_what_du_counts(&place);
    load(&place.open(), "two", &[&base, &over]);
    assert_usage_is_what_du_counts(&place);
    // Bodies that only headers.zst has.
    load(&place.open(), "three", &[&members(&["f a lost", "f a one", "f .wh.x fat"])]);
    assert_usage_is_what_du_counts(&place);
    assert_eq!(place.open().disk_usage().unwrap().stored, 3 + 3 + big.len() as u64 + 3);
}

#[test]
fn removing_all_images_frees_every_byte() {
    let place = Place::new();
    let empty = {
        place.open();
        (du(&place.root().join("layers")), walk(&place.root()).into_keys().collect::<Vec<_>>())
    };
    let base = files(&[("a/one", b"one"), ("big", &[1; 2 << 20])]);
    let over = files(&[("b/one", b"one"), ("own", b"own")]);
    let store = place.open();
    let one = load(&store, "one", &[&base]);
    let two = load(&store, "two", &[&base, &over, &over]);
    store.tag("also", &one).unwrap();
    assert_eq!(store.remove_image(&one).unwrap(), []);
    assert_eq!(store.tags().unwrap(), [("two".to_owned(), two)]);
    let top_first = [&over, &base].map(|tar| crate::common::diff_id(tar));
    assert_eq!(store.remove_image(&two).unwrap(), top_first);
    assert!(matches!(store.remove_image(&two), Err(Error::NoImage(id)) if id == two));
    assert_eq!(store.disk_usage().unwrap().stored, 0);
    drop(store);
    let listing = Path::new("images.json").to_owned();
    let left = walk(&place.root()).into_keys().filter(|path| *path != listing).collect();
    assert_eq!((du(&place.root().join("layers")), left), empty);
    assert_clean(&place.root());
}

#[test]
fn shared_contents_stay_for_who_is_left() {
    let place = Place::new();
    let store = place.open();
    let one = load(&store, "one", &[&files(&[("a", b"same"), ("b", b"mine")])]);
    load(&store, "two", &[&files(&[("x", b"same")])]);
    store.remove_image(&one).unwrap();
    assert_eq!(store.disk_usage().unwrap().stored, 4);
    // The content is known under the name that is left, and linked from there.
    load(&store, "three", &[&files(&[("y", b"same")])]);
    assert_eq!(crate::common::assert_one_inode_each(&place.root()), 1);
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn what_is_held_stays() {
    let place = Place::new();
    let store = place.open();
    let base = files(&[("a", b"one")]);
    let image = load(&store, "one", &[&base]);
    let before = walk(&place.root().join("layers"));
    let (guard, held) = store.hold_image(&image).unwrap();
    assert!(matches!(store.remove_image(&image), Err(Error::InUse { .. })));
    drop(guard);
    assert!(matches!(store.remove_image(&image), Err(Error::InUse { .. })));
    assert_eq!(walk(&place.root().join("layers")), before);
    assert_eq!(store.images().unwrap().len(), 1);
    drop(held);
    assert_eq!(store.remove_image(&image).unwrap().len(), 1);
}

#[test]
fn gc_takes_what_no_image_has_and_leaves_what_is_held() {
    let place = Place::new();
    let store = place.open();
    load(&store, "kept", &[&files(&[("k", b"kept")])]);
    let (loose, held) = (files(&[("l", b"loose")]), files(&[("h", b"held")]));
    drop(unpack(&store, &loose).unwrap());
    let holding = unpack(&store, &held).unwrap();
    let blob = store.put_blob(b"nobody's").unwrap();
    let layers = place.root().join("layers");
    std::fs::create_dir(layers.join("0".repeat(64))).unwrap();
    std::fs::create_dir(layers.join("no digest")).unwrap();
    std::fs::write(layers.join("a file"), "junk").unwrap();
    std::os::unix::fs::symlink("/etc", layers.join("a link")).unwrap();
    std::fs::write(place.root().join("blobs/sha256/junk"), "junk").unwrap();
    std::fs::write(place.root().join("trees/junk"), "junk").unwrap();
    std::fs::write(place.root().join("staging/1-1"), "of process 1, which lives").unwrap();
    let report = store.gc().unwrap();
    assert_eq!(report.layers, [crate::common::diff_id(&loose)]);
    assert_eq!(report.blobs, [blob]);
    assert_eq!(report.orphans.len(), 6);
    assert!(Path::new("/etc/passwd").exists());
    assert_eq!(store.layers().unwrap().len(), 2);
    assert_eq!(walk(&place.root().join("staging")).len(), 0);
    drop(holding);
    assert_eq!(store.gc().unwrap().layers, [crate::common::diff_id(&held)]);
    drop(store);
    assert_clean(&place.root());
}
