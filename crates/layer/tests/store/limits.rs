//! Each bound: just within works, one more is an error that names the bound and its option, and
//! nothing of the layer stays.

use strata_layer::{Limits, Store, StoreOptions};

use crate::common::{
    TempStore, assert_clean, fsck, load, members, stored_files, try_load, unpack, walk,
};
use strata_testkit::tars::{Head, Tar};

fn open(place: &TempStore, limits: Limits) -> Store {
    let options = StoreOptions { limits, ..StoreOptions::default() };
    Store::open_with(&place.root(), options).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A sparse file of that size that stores two bytes.
fn sparse(size: u64) -> Vec<u8> {
    let octal = |n: u64| format!("{n:011o}\0").into_bytes();
    let head = Head::new(b'S', b"f").gnu().put(386, &octal(0)).put(398, &octal(2));
    Tar::default().add(head.put(483, &octal(size)), b"ab").end()
}

/// The message of the error, all of it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error;
    while let Some(source) = at.source() {
        text = format!("{text}: {source}");
        at = source;
    }
    text
}

#[test]
fn just_within_works_and_one_more_does_not() {
    let normal = Limits::default();
    let free = Limits::EXPANSION_FREE;
    let tar = |lines: &[&str]| members(lines);
    let xattr = |bytes: usize| {
        let name = "SCHILY.xattr.user.x";
        Tar::default().pax(&[(name, &vec![b'v'; bytes - 6])]).file(b"f", b"").end()
    };
    // A header of 1,000 bytes of attributes, and that many members after it.
    let global = |members: usize| {
        let tar = Tar::default().extended(b'g', &[("SCHILY.xattr.user.x", &[b'v'; 994])]);
        (0..members).fold(tar, |tar, n| tar.file(format!("{n}").as_bytes(), b"")).end()
    };
    let zeros = |bytes: u64| Tar::default().file(b"f", &vec![0; bytes as usize]).end();
    let ones = |bytes: u64| Tar::default().file(b"f", &vec![1; bytes as usize]).end();
    let cases: Vec<(&str, Limits, Vec<u8>, Vec<u8>)> = vec![
        (
            "--max-entries",
            Limits { entries: 3, ..normal },
            tar(&["f a", "d b", "f c"]),
            tar(&["f a", "d b", "f c", "f .wh.d"]),
        ),
        (
            "--max-depth",
            Limits { depth: 3, ..normal },
            tar(&["f a/b/c", "s a/b/d -> x"]),
            tar(&["f a/b/c", "f a/b/d/e"]),
        ),
        (
            "--max-path",
            Limits { path_bytes: 10, ..normal },
            tar(&["f a/b/c/d/ef", "h 1234567890 => a/b/c/d/ef"]),
            tar(&["f a/b/c/d/efg"]),
        ),
        ("--max-xattr-bytes", Limits { xattr_bytes: 100, ..normal }, xattr(100), xattr(101)),
        // 64 times as many as a member's, and as many as the tar has bytes.
        ("--max-xattr-bytes", Limits { xattr_bytes: 1000, ..normal }, global(134), global(135)),
        (
            "--max-layer-bytes",
            Limits { layer_bytes: 4096, ..normal },
            zeros(4096 - 1536),
            zeros(4096 - 1535),
        ),
        ("--max-layer-bytes", Limits { layer_bytes: 4096, ..normal }, sparse(4096), sparse(4097)),
        (
            "--max-expansion",
            Limits { expansion: 2, ..normal },
            sparse(2 * 1024 + free - 1024),
            sparse(2 * 1024 + free + 1024),
        ),
        (
            "--max-expansion",
            Limits { expansion: 2, ..normal },
            gzip(&ones(free)),
            gzip(&ones(free + (1 << 20))),
        ),
    ];
    for (option, limits, within, beyond) in cases {
        let place = TempStore::in_memory();
        let store = open(&place, limits);
        let empty = walk(&place.root());
        let unknown = |bytes: &[u8]| {
            let input = strata_layer::LayerInput {
                label: "the layer".to_owned(),
                diff_id: None,
                blob: None,
                reader: Box::new(std::io::Cursor::new(bytes.to_vec())),
            };
            store.unpack(input, &crate::common::Silent)
        };
        let text = chain(&unknown(&beyond).unwrap_err());
        assert!(text.contains(option) && text.contains("the layer"), "{option}: {text}");
        assert_eq!(walk(&place.root()), empty, "{option}: something stayed");
        drop(unknown(&within).unwrap_or_else(|error| panic!("{option}: {}", chain(&error))));
        assert_eq!(store.layers().unwrap().len(), 1);
        drop(store);
        // Who looks later may have other bounds: the layer is in the store and stays right.
        assert_eq!(fsck(&place.root()).problems, []);
    }
}

/// Zeros are no bomb: the store leaves a hole for them, and its accounts say what `du` says.
#[test]
fn a_file_of_zeros_is_a_hole() {
    let place = TempStore::new();
    let store = place.open();
    let size = (Limits::EXPANSION_FREE as usize) + (40 << 20);
    let mut sparse = vec![0; 9 << 20];
    sparse[5 << 20] = 1;
    let small = vec![0; 1 << 20];
    let tar = Tar::default().file(b"disk", &vec![0; size]).file(b"sparse", &sparse);
    let tar = tar.file(b"small", &small).end();
    let blob = zstd::encode_all(&tar[..], 1).unwrap();
    assert!(tar.len() / blob.len() > 4000, "{}", blob.len());
    let input = strata_layer::LayerInput {
        label: "the layer".to_owned(),
        diff_id: Some(crate::common::diff_id(&tar)),
        blob: None,
        reader: Box::new(&blob[..]),
    };
    let layer = store.unpack(input, &crate::common::Silent).unwrap().layer;
    let files = store.layer_files(layer.diff_id());
    for (name, bytes, most) in [("disk", size, 0), ("sparse", 9 << 20, 256), ("small", 1 << 20, 0)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(files.join(name)).unwrap();
        assert_eq!(file.len(), bytes as u64, "{name}");
        assert!(file.blocks() <= most, "{name}: {} blocks", file.blocks());
    }
    assert!(std::fs::read(files.join("sparse")).unwrap() == sparse);
    let mut exact = Vec::new();
    layer.write_diff(&mut exact).unwrap();
    assert!(exact == tar);
    drop((layer, store));
    assert_clean(&place.root());
}

/// What a path may be at most by default works everywhere: on disk, in checks, in counts.
#[test]
fn the_longest_and_deepest_path() {
    let limits = Limits::default();
    let place = TempStore::in_memory();
    let store = place.open();
    let component = "d".repeat(199) + "/";
    let mut long = component.repeat(limits.path_bytes as usize / 200);
    long.truncate(limits.path_bytes as usize - 1);
    long.push('f');
    let deep = "d/".repeat(limits.depth as usize - 1) + "f";
    let tar = |name: &str| Tar::default().long_file(name.as_bytes(), b"same").end();
    load(&store, "long", &[&tar(&long)]);
    load(&store, "deep", &[&tar(&deep)]);
    load(&store, "linked", &[&members(&["f a same"])]);
    for (name, option) in [(format!("{long}g"), "--max-path"), (format!("d/{deep}"), "--max-depth")]
    {
        let error = unpack(&store, &tar(&name)).unwrap_err().to_string();
        assert!(error.contains(option), "{error}");
    }
    let usage = store.accounts().disk_usage().unwrap();
    assert_eq!((usage.stored, usage.shared), (4, 4));
    for image in store.images().all().unwrap() {
        let (_guard, leased) = store.lease_image(&image.id).unwrap();
        let mut out = Vec::new();
        leased[0].write_diff(&mut out).unwrap();
    }
    drop(store);
    assert_clean(&place.root());
    let store = place.open();
    for image in store.images().all().unwrap() {
        store.images().remove(&image.id).unwrap();
    }
    assert_eq!(std::fs::read_dir(place.root().join("layers")).unwrap().count(), 0);
}

/// Near-linear by counting: what a load asks of the disk and of SQLite grows with the entries,
/// so twice as many must not take a table of another order. No time is measured; a quadratic
/// step among 100,000 would not come to an end within the runner's patience.
#[test]
fn a_hundred_thousand_whiteouts_and_as_many_files_in_one_directory() {
    let whiteouts = |n: u64| {
        (0..n).fold(Tar::default(), |tar, i| tar.file(format!("d/.wh.{i}").as_bytes(), b"")).end()
    };
    let names = |n: u64| {
        (0..n)
            .fold(Tar::default(), |tar, i| {
                tar.add(Head::new(b'2', format!("d/{i}").as_bytes()).link(b"t"), b"")
            })
            .end()
    };
    let opaque = |n: u64| {
        (0..n)
            .fold(Tar::default(), |t, i| t.file(format!("{i}/.wh..wh..opq").as_bytes(), b""))
            .end()
    };
    let place = TempStore::in_memory();
    let store = place.open();
    let n = 100_000;
    for (kind, tar, entries, on_disk) in [
        ("whiteouts", whiteouts(n), n + 1, 0),
        ("symlinks", names(n), n + 1, 0),
        ("opaque marks", opaque(n), n, 0),
    ] {
        let unpacked = unpack(&store, &tar).unwrap();
        let record = store.layer(unpacked.layer.diff_id()).unwrap().unwrap();
        assert_eq!(record.entries, entries, "{kind}");
        // Nothing of all that is a file: the directory may be there, the names are not.
        assert_eq!(stored_files(&place.root()).len(), on_disk, "{kind}");
    }
}

#[test]
fn an_image_over_a_bound_leaves_the_store_as_it_was() {
    let place = TempStore::in_memory();
    let store = open(&place, Limits { entries: 2, ..Limits::default() });
    load(&store, "first", &[&members(&["f a one"])]);
    let before = walk(&place.root());
    try_load(&store, "second", &[&members(&["f a", "f b", "f c"])]).unwrap_err();
    let after = walk(&place.root());
    let paths = |walk: &std::collections::BTreeMap<_, _>| walk.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&after), paths(&before));
}
