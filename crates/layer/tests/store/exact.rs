//! What goes in comes out: every kind of layer, as its exact tar. (The images of tests/fixtures
//! are in crates/image/tests/exact.rs, the odd header forms in the tests of the diff reader.)

use strata_layer::{Store, StoreOptions};

use crate::common::{
    TempStore, assert_clean, assert_one_inode_each, diff_id, dump, members, stored_files, unpack,
};
use strata_testkit::tars::{Head, Tar};

/// Layers in which bodies end up elsewhere than where the tar has them.
fn layers() -> Vec<(&'static str, Vec<u8>)> {
    let big = vec![b'b'; (1 << 20) + 1];
    let replaced_big = Tar::default()
        .file(b"a", &big)
        .file(b"b", &big)
        .file(b"a", b"small")
        .file(b"b", &[&big[..], b"x"].concat());
    let plain = |tar: &[&str]| members(tar);
    let mut no_end = members(&["f a hello"]);
    no_end.truncate(1024);
    let mut no_padding = no_end.clone();
    no_padding.truncate(512 + 5);
    let after = [members(&["f a hello"]), b"what follows the end".to_vec()].concat();
    let prefix = "f .wh..wh.plnk/1.1 hidden";
    vec![
        ("nothing", Vec::new()),
        ("only end blocks", vec![0; 1024]),
        ("no end blocks", no_end),
        ("no padding either", no_padding),
        ("bytes after the end", after),
        ("replaced", plain(&["f a one", "f a two", "f b one"])),
        ("replaced by itself", plain(&["f a one", "f a one", "f a one"])),
        ("replaced, linked before", plain(&["f a one", "h b => a", "f a two", "f c one"])),
        ("replaced by a link to it", plain(&["f a one", "f b two", "h a => b", "f c one"])),
        ("link to itself", plain(&["f a one", "h a => a"])),
        ("link replaces its directory", plain(&["f a/b one", "h a => a/b"])),
        (
            "link replaces its directory, others have it",
            plain(&["f z one", "f a/b one", "h a => a/b"]),
        ),
        ("directory over file", plain(&["f a one", "f a/b two", "f c one"])),
        ("file over directory", plain(&["f a/b/c one", "f a two", "f a/b/c one"])),
        ("dir made, lost, made", plain(&["f a/x one", "s a -> b", "f a/x one", "f b one"])),
        ("fat whiteouts", plain(&["f .wh.a bytes", "f b/.wh..wh..opq bytes", "f c bytes"])),
        ("hidden bodies", plain(&[prefix, "h a => .wh..wh.plnk/1.1", "f a other"])),
        ("links before targets", plain(&["h c => b", "h b => a", "f a one", "f d one"])),
        ("late link over a file", plain(&["f b one", "h b => a", "f a two", "f c one"])),
        ("links to lower layers", plain(&["h a => usr/x", "h b => a"])),
        ("types", plain(&["c null", "p pipe", "s l -> t", "h m => l", "d d", "f e"])),
        ("large, replaced", replaced_big.end()),
        ("a body with a symlink's header", {
            let head = Head::new(b'2', b"l").link(b"t");
            Tar::default().add(head, b"").file(b"f", b"x").end()
        }),
    ]
}

#[test]
fn every_layer_comes_back_byte_for_byte() {
    let place = TempStore::in_memory();
    let store = place.open();
    for (name, tar) in layers() {
        let unpacked = unpack(&store, &tar).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(*unpacked.layer.diff_id(), diff_id(&tar), "{name}");
        let mut out = Vec::new();
        let n = unpacked.layer.write_diff(&mut out).unwrap();
        assert_eq!(n, tar.len() as u64, "{name}");
        assert!(out == tar, "{name}: another tar came back");
    }
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn each_alone_too() {
    for (name, tar) in layers() {
        let place = TempStore::in_memory();
        let store = place.open();
        let unpacked = unpack(&store, &tar).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut out = Vec::new();
        unpacked.layer.write_diff(&mut out).unwrap();
        assert!(out == tar, "{name}: another tar came back");
        drop((unpacked, store));
        assert_clean(&place.root());
    }
}

/// Several pages of everything that is noted of a layer, and what refers to what is long past.
fn many() -> Vec<u8> {
    let mut tar = Tar::default();
    for n in 0..4000u32 {
        let name = format!("d{}/file-{n:05}", n * 7919 % 13);
        let body = format!("content {}", n % 1500);
        let attributes = format!("value {n}").into_bytes();
        if n % 40 == 0 {
            tar = tar.pax(&[("SCHILY.xattr.user.x", &attributes)]);
        }
        tar = match n % 11 {
            7 => tar.add(Head::new(b'2', name.as_bytes()).link(b"nowhere"), b""),
            8 => tar.add(Head::new(b'1', name.as_bytes()).link(b"d0/file-00000"), b""),
            9 => tar.add(Head::new(b'1', name.as_bytes()).link(b"late"), b""),
            _ => tar.file(name.as_bytes(), body.as_bytes()),
        };
    }
    for n in (0..4000u32).step_by(97) {
        let name = format!("d{}/file-{n:05}", n * 7919 % 13);
        tar = tar.file(name.as_bytes(), b"replaced");
    }
    tar.file(b"late", b"content 3").file(b"d5", b"a file").file(b"d6/.wh.gone", b"").end()
}

/// What is noted of a layer goes to a file and comes back, and nobody can tell.
#[test]
fn a_layer_without_memory_is_the_same_layer() {
    let (tight, roomy) = (TempStore::in_memory(), TempStore::in_memory());
    let options = StoreOptions { memory: Some(0), ..StoreOptions::default() };
    let without = Store::open_with(&tight.root(), options).unwrap();
    let with = roomy.open();
    let mut all = layers();
    all.push(("many", many()));
    for (name, tar) in all {
        let unpacked = unpack(&without, &tar).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut out = Vec::new();
        unpacked.layer.write_diff(&mut out).unwrap();
        assert!(out == tar, "{name}: another tar came back");
        unpack(&with, &tar).unwrap();
    }
    drop((without, with));
    assert_clean(&tight.root());
    assert_eq!(dump(&tight.root()), dump(&roomy.root()));
    assert_eq!(assert_one_inode_each(&tight.root()), assert_one_inode_each(&roomy.root()));
    let bytes = |place: &TempStore| -> Vec<_> {
        stored_files(&place.root()).into_iter().map(|(path, (bytes, _))| (path, bytes)).collect()
    };
    assert!(bytes(&tight) == bytes(&roomy), "files differ");
}
