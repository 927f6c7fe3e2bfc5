//! A stored layer answers as every other [`Lower`] does: the suite of `strata_tree`, through a
//! tar and a store.
//!
//! [`Lower`]: strata_tree::Lower

use std::sync::Arc;

use strata_content::FileTree;
use strata_content::conformance::check;
use strata_layer::image_tree::TreeAt;
use strata_layer::{HeldLayer, ImageRecord};
use strata_tree::conformance::{layer_specs, merged_specs};
use strata_tree::{ImageId, Inode, Item, Kind, Presence, Spec, TreePath};

use crate::common::{Place, unpack};
use strata_testkit::tars::{Head, Tar};

/// The tar that says what the spec says.
fn tar_of(spec: &Spec) -> Vec<u8> {
    let mut tar = Tar::default();
    for (path, item) in spec.items() {
        tar = match item {
            Item::Whiteout => {
                let path = TreePath::clamped(path).unwrap();
                let (parent, name) = path.split_last().unwrap();
                let name = [b".wh.", name.as_bytes()].concat();
                let parent = parent.as_bytes();
                let slash: &[u8] = if parent.is_empty() { b"" } else { b"/" };
                tar.pax(&[("path", &[parent, slash, &name].concat())]).file(b"x", b"")
            }
            Item::Link(target) | Item::LowerLink(target) => {
                let records: [(&str, &[u8]); 2] = [("path", path), ("linkpath", target.as_bytes())];
                tar.pax(&records).add(Head::new(b'1', b"x").link(b"y"), b"")
            }
            Item::Inode(inode) => member(tar, path, inode),
        };
    }
    tar.end()
}

fn member(tar: Tar, path: &[u8], inode: &Inode) -> Tar {
    let mut tar = tar;
    if inode.marks.opaque {
        let path = [path, b"/.wh..wh..opq"].concat();
        tar = tar.pax(&[("path", &path)]).file(b"x", b"");
    }
    if inode.marks.presence != Presence::Explicit {
        return tar;
    }
    let (flag, major, minor) = match inode.kind {
        Kind::Regular => (b'0', 0, 0),
        Kind::Directory => (b'5', 0, 0),
        Kind::Symlink => (b'2', 0, 0),
        Kind::CharDevice(device) => (b'3', device.major, device.minor),
        Kind::BlockDevice(device) => (b'4', device.major, device.minor),
        Kind::Fifo => (b'6', 0, 0),
        Kind::Socket => panic!("a tar has no sockets"),
    };
    let path = if path.is_empty() { b"./" } else { path };
    let time = inode.mtime;
    // PAX times are decimal: -1.000000001 is one nanosecond before -1.
    let mtime = match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanos) => format!("{seconds}.{nanos:09}"),
        (seconds, nanos) => {
            let whole = -(seconds + 1);
            format!("-{whole}.{:09}", 1_000_000_000 - nanos)
        }
    };
    let mut records: Vec<(String, Vec<u8>)> = vec![
        ("path".into(), path.to_vec()),
        ("uid".into(), inode.uid.to_string().into_bytes()),
        ("gid".into(), inode.gid.to_string().into_bytes()),
        ("mtime".into(), mtime.into_bytes()),
    ];
    let body = match inode.kind {
        Kind::Symlink => {
            records.push(("linkpath".into(), inode.body.clone()));
            &[][..]
        }
        _ => &inode.body[..],
    };
    for (name, value) in &inode.xattrs {
        let name = String::from_utf8(name.clone()).unwrap();
        records.push((format!("SCHILY.xattr.{name}"), value.clone()));
    }
    let records: Vec<(&str, &[u8])> =
        records.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let octal = |n: u32| format!("{n:07o}\0").into_bytes();
    let head = Head::new(flag, b"x")
        .put(100, &octal(u32::from(inode.perm)))
        .put(329, &octal(major))
        .put(337, &octal(minor));
    tar.pax(&records).add(head, body)
}

#[test]
fn a_stored_layer_conforms() {
    let specs = merged_specs().into_iter().chain(layer_specs());
    let mut checked = 0;
    // A tar cannot say what a socket is.
    for (name, spec) in specs.filter(|(name, _)| *name != "sockets") {
        let place = Place::in_memory();
        let store = place.open();
        let unpacked = unpack(&store, &tar_of(&spec)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tree = Arc::new(store.lower(&unpacked.layer).unwrap());
        let files = HeldLayer::files(std::slice::from_ref(&unpacked.layer)).unwrap();
        let tree = FileTree::new(tree, Arc::new(files));
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        checked += 1;
    }
    assert_eq!(checked, 5);
}

#[test]
fn an_image_of_one_layer_conforms() {
    let mut checked = 0;
    for (name, spec) in merged_specs().into_iter().filter(|(name, _)| *name != "sockets") {
        let place = Place::in_memory();
        let store = place.open();
        let unpacked = unpack(&store, &tar_of(&spec)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let layers = vec![*unpacked.layer.diff_id()];
        let image = ImageRecord { id: ImageId::from_bytes([7; 32]), manifest: None, layers };
        let mut read = Vec::new();
        let tree = store.image_tree(&image, &[unpacked.layer], &mut |count| read.push(count));
        let tree = Arc::new(tree.unwrap());
        let contents = tree.contents();
        let tree = FileTree::new(Arc::new(TreeAt::new(tree, 1)), contents);
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        assert_eq!(read, [1]);
        checked += 1;
    }
    assert_eq!(checked, 4);
}
