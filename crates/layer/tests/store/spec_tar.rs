//! The tar of a tree that the suite of `strata_tree` specifies.

use strata_testkit::tars::{Head, Tar};
use strata_tree::{InodeSpec, Item, Kind, Presence, Spec, TreePath};

/// The tar that says what the spec says.
pub fn tar_of(spec: &Spec) -> Vec<u8> {
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

fn member(tar: Tar, path: &[u8], inode: &InodeSpec) -> Tar {
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
