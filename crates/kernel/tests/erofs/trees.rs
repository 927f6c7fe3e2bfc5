//! Random trees, as specs: what any file system on Linux can hold.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use strata_tree::{Device, DirMarks, InodeSpec, Item, Kind, Spec, Timestamp, TreePath};

/// Lengths around what changes the layout: nothing, a tail, blocks, a tail that fits no block.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0_usize),
        1..200_usize,
        3900..4200_usize,
        8000..8300_usize,
        Just(4096_usize),
        Just(12_288_usize),
    ]
}

/// Few fillings, so that contents are often equal, or equal but for their length.
fn body() -> impl Strategy<Value = Vec<u8>> {
    (length(), prop_oneof![Just(0_u8), Just(b'a'), Just(b'b')]).prop_map(|(n, with)| vec![with; n])
}

fn kind() -> impl Strategy<Value = Kind> {
    let device = (0..4096_u32, 0..1_u32 << 20).prop_map(|(major, minor)| Device { major, minor });
    prop_oneof![
        4 => Just(Kind::Directory),
        6 => Just(Kind::Regular),
        2 => Just(Kind::Symlink),
        1 => device.clone().prop_map(Kind::CharDevice),
        1 => device.prop_map(Kind::BlockDevice),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ]
}

fn attributes() -> impl Strategy<Value = std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let name = prop_oneof![
        Just(b"trusted.overlay.redirect".to_vec()),
        Just(b"trusted.t".to_vec()),
        Just(b"security.other".to_vec()),
        vec(1_u8..=255, 1..240).prop_map(|rest| [b"trusted.".as_slice(), &rest].concat()),
    ];
    let value = prop_oneof![vec(any::<u8>(), 0..40), Just(vec![7; 5000])];
    prop_oneof![3 => Just(std::collections::BTreeMap::new()), 1 => btree_map(name, value, 0..4)]
}

fn inode() -> impl Strategy<Value = InodeSpec> {
    let owner = prop_oneof![Just(0_u32), 0..70_000_u32, Just(u32::MAX - 1)];
    let mtime = prop_oneof![
        Just(Timestamp::default()),
        Just(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        (-5_000_000_000_i64..9_000_000_000, 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
    ];
    (kind(), 0..0o10000_u16, owner.clone(), owner, mtime, attributes(), body()).prop_map(
        |(kind, perm, uid, gid, mtime, xattrs, body)| {
            let body = match kind {
                Kind::Regular => body,
                Kind::Symlink => vec![b'x'; body.len().clamp(1, 4095)],
                _ => Vec::new(),
            };
            let perm = if kind == Kind::Symlink { 0o777 } else { perm };
            InodeSpec { kind, perm, uid, gid, mtime, xattrs, body, marks: DirMarks::default() }
        },
    )
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if matches!(byte, 0 | b'/') { b'-' } else { byte });
    prop_oneof![3 => vec(byte.clone(), 1..12), 1 => vec(byte, 250..=255)]
        .prop_filter("no dots", |name| name != b"." && name != b"..")
}

/// A tree of up to 60 inodes and links.
pub(crate) fn tree() -> impl Strategy<Value = Spec> {
    let item = (any::<proptest::sample::Index>(), name(), inode(), 0..10_u8);
    vec(item, 0..60).prop_map(|items| {
        let mut spec = Spec::new();
        let mut dirs = vec![TreePath::root()];
        let mut files: Vec<TreePath> = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        for (at, name, inode, link) in items {
            let dir = dirs[at.index(dirs.len())].clone();
            let path = dir.join(strata_tree::Name::new(&name).unwrap());
            if !taken.insert(path.clone()) {
                continue;
            }
            if link == 0 && !files.is_empty() {
                spec = spec.link(path.as_bytes(), &files[at.index(files.len())]);
                continue;
            }
            if inode.kind.is_dir() { &mut dirs } else { &mut files }.push(path.clone());
            spec = spec.item(path.as_bytes(), Item::Inode(inode));
        }
        spec
    })
}
