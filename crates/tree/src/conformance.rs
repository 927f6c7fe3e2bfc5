//! The suite that every implementation of [`Lower`] runs: a tree made from a [`Spec`] must
//! answer every question as the spec says.
//!
//! [`check`] compares one tree with one spec; [`merged_specs`] and [`layer_specs`] are the specs
//! to run it on, each with a name. What the contents hold is compared by the suite of the crate
//! `content`.
//!
//! Invariants: a check asks through the trait alone and relies on nothing that the trait leaves
//! open: numbers of nodes, order of names, values of positions; the first difference is reported
//! as text that names the path and both sides.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::ops::ControlFlow;

use crate::lower::{Error, Lower};
use crate::name::{Name, NameBuf, TreePath};
use crate::node::{DirMarks, Entry, Kind, Node, NodeId, Presence, Stat};
use crate::spec::{InodeSpec, Item, Spec};

/// The first difference between a tree and its spec.
pub type Difference = String;
type Checked<T = ()> = Result<T, Difference>;

/// A default ACL that file systems accept: rwxr-xr-x.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\
    \x04\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";

/// Trees that any implementation can hold: no whiteouts, no marks, no links to lower layers.
/// The one named `sockets` is beyond what a tar can say.
pub fn merged_specs() -> Vec<(&'static str, Spec)> {
    let path = |text: &[u8]| TreePath::clamped(text).unwrap_or_default();
    let binary: Vec<u8> = (0..=255).collect();
    let mut long = vec![0xff; 255];
    long[0] = b'L';
    let tour = Spec::new()
        .perm(0o1777)
        .owner(7, 8)
        .mtime(1_700_000_000, 123_456_789)
        .dir("etc")
        .mtime(-1, 999_999_999)
        .file("etc/hosts", "127.0.0.1 localhost\n")
        .perm(0o4755)
        .owner(u32::MAX - 1, 65_534)
        .mtime(-2_000_000_000, 1)
        .link("etc/zz-same", &path(b"etc/hosts"))
        .link("aa-same", &path(b"etc/hosts"))
        .file("etc/empty", "")
        .mtime(0, 0)
        .symlink("etc/link", b"../nowhere/\xff at all")
        .owner(3, 4)
        .link("etc/link-again", &path(b"etc/link"))
        .symlink("etc/longlink", vec![b'x'; 4095])
        .dir("dev")
        .char_device("dev/null", 1, 3)
        .perm(0o666)
        .block_device("dev/sda", 8, 0)
        .char_device("dev/zero-zero", 0, 0)
        .char_device("dev/big", 4095, 1_048_575)
        .link("dev/null-too", &path(b"dev/null"))
        .fifo("dev/pipe")
        .mtime(i64::from(u32::MAX) + 5, 0)
        .dir("names")
        .file(b"names/\xff\xfe not utf-8", "a")
        .file("names/new\nline", "b")
        .file("names/...", "c")
        .file("names/.wh", "d")
        .file([b"names/", long.as_slice()].concat(), "e")
        .file("names/a", "f")
        .file("names/a.b", "g")
        .dir("names/a0")
        .dir("empty")
        .perm(0)
        .file("binary", &binary)
        .xattr("user.binary", &binary)
        .xattr("user.empty", "")
        .xattr("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .xattr("trusted.overlay.opaque", "y")
        .file("equal-xattrs", "x")
        .xattr("user.binary", &binary)
        .xattr("user.empty", "")
        .xattr("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .xattr("trusted.overlay.opaque", "y")
        .dir("with-acl")
        .xattr("system.posix_acl_default", ACL)
        .symlink("link-with-xattr", "x")
        .xattr("trusted.x", "on a link");

    let mut big = Spec::new().dir("big");
    for n in 0..10_000_u32 {
        // Written neither in the order of names nor of their lengths.
        big = big.file(format!("big/{}", n.wrapping_mul(7919) % 10_000), n.to_string());
    }
    let mut deep = Spec::new();
    let mut below = String::new();
    for n in 0..200 {
        below.push_str(&format!("{}d{n}", if n == 0 { "" } else { "/" }));
        deep = deep.dir(&below);
    }
    deep = deep.file(format!("{below}/leaf"), "at the bottom");
    let sockets = Spec::new().socket("socket").dir("run").socket("run/other").perm(0o777);
    vec![("bare", Spec::new()), ("tour", tour), ("big", big), ("deep", deep), ("sockets", sockets)]
}

/// Trees that only a layer can be: with whiteouts, marks, links to lower layers.
pub fn layer_specs() -> Vec<(&'static str, Spec)> {
    let target = TreePath::clamped(b"usr/lib/libc.so").unwrap_or_default();
    let layer = Spec::new()
        .whiteout("gone")
        .dir("etc")
        .perm(0o700)
        .whiteout("etc/gone")
        .file("etc/here", "here")
        .dir("opaque")
        .opaque()
        .file("opaque/kept", "kept")
        .dir("implied")
        .presence(Presence::Implied)
        .dir("implied/below")
        .presence(Presence::Implied)
        .file("implied/below/file", "file")
        .dir("implied-opaque")
        .presence(Presence::Implied)
        .opaque()
        .file("implied-opaque/file", "file")
        .dir("phantom")
        .presence(Presence::Phantom)
        .whiteout("phantom/gone")
        .dir("phantom/too")
        .presence(Presence::Phantom)
        .whiteout("phantom/too/gone")
        .dir("links")
        .lower_link("links/libc", &target)
        .lower_link("links/libc-again", &target);
    vec![("layer", layer)]
}

fn same<T: PartialEq + Debug>(what: impl FnOnce() -> String, got: &T, want: &T) -> Checked {
    if got == want { Ok(()) } else { Err(format!("{}: {got:?}, expected {want:?}", what())) }
}

fn answered<T>(what: impl FnOnce() -> String, result: crate::Result<T>) -> Checked<T> {
    result.map_err(|error| format!("{}: {error}", what()))
}

/// Compares every fact of `tree` with `spec`.
///
/// # Errors
/// The first difference.
pub fn check(spec: &Spec, tree: &dyn Lower) -> Checked {
    same(|| "the root's number".to_owned(), &tree.root(), &NodeId::ROOT)?;
    let highest = compare(spec, tree)?;
    check_strangers(tree, highest)
}

/// The same for a part of another tree, whose numbers it has: the root may have any number, and
/// what is outside of the part may answer.
///
/// # Errors
/// The first difference.
pub fn check_part(spec: &Spec, tree: &dyn Lower) -> Checked {
    compare(spec, tree).map(drop)
}

/// Compares; gives the highest number that was met.
fn compare(spec: &Spec, tree: &dyn Lower) -> Checked<NodeId> {
    let wanted = Wanted::new(spec)?;
    let root = tree.root();
    let mut found: HashMap<TreePath, NodeId> = HashMap::new();
    let mut first_names: HashMap<NodeId, TreePath> = HashMap::new();
    // In the order of writing, so the parent's number is known.
    for (path, item) in &wanted.order {
        let entry = match path.split_last() {
            None => Entry::Node(answered(|| "the root".to_owned(), tree.node(root))?),
            Some((parent, name)) => {
                let dir = found.get(&parent).copied().unwrap_or(root);
                answered(|| format!("lookup of {path}"), tree.lookup(dir, name))?
                    .ok_or_else(|| format!("lookup of {path}: nothing"))?
            }
        };
        let inode = match item {
            Item::Whiteout => {
                same(|| path.to_string(), &entry, &Entry::Whiteout)?;
                continue;
            }
            Item::LowerLink(target) => {
                same(|| path.to_string(), &entry, &Entry::LowerLink(target.clone()))?;
                continue;
            }
            Item::Inode(inode) => inode,
            Item::Link(target) => wanted.inode(target)?,
        };
        let Entry::Node(node) = entry else { return Err(format!("{path}: {entry:?}")) };
        let first = if let Item::Link(target) = item { target } else { path };
        if let Some(id) = found.get(first) {
            same(|| format!("the number of {path}, linked to {first}"), &node.id, id)?;
        } else if let Some(other) = first_names.insert(node.id, path.clone()) {
            return Err(format!("{path} and {other} have one number"));
        }
        found.insert(path.clone(), node.id);
        check_node(tree, path, &node, inode, wanted.nlink(first))?;
    }
    for (path, names) in &wanted.names {
        if let Some(dir) = found.get(path) {
            check_dir(tree, path, *dir, names)?;
            let parent = path.split_last().and_then(|(parent, _)| found.get(&parent));
            let got = answered(|| format!("the parent of {path}"), tree.parent(*dir))?;
            if got.is_some() {
                same(|| format!("the parent of {path}"), &got.as_ref(), &parent.or(Some(dir)))?;
            }
        }
    }
    Ok(found.values().copied().max().unwrap_or(root))
}

/// The spec, sorted for asking.
struct Wanted<'a> {
    order: Vec<(TreePath, &'a Item)>,
    inodes: HashMap<TreePath, &'a InodeSpec>,
    /// The names in each directory.
    names: BTreeMap<TreePath, BTreeMap<NameBuf, &'a Item>>,
    links: HashMap<TreePath, u32>,
}

impl<'a> Wanted<'a> {
    fn new(spec: &'a Spec) -> Checked<Self> {
        let mut wanted = Wanted {
            order: Vec::new(),
            inodes: HashMap::new(),
            names: BTreeMap::new(),
            links: HashMap::new(),
        };
        for (raw, item) in spec.items() {
            let path = TreePath::clamped(raw).map_err(|error| format!("the spec: {error}"))?;
            let parent = path.split_last();
            let counted = match item {
                Item::Inode(inode) => {
                    wanted.inodes.insert(path.clone(), inode);
                    if inode.kind.is_dir() {
                        wanted.names.insert(path.clone(), BTreeMap::new());
                        wanted.links.insert(path.clone(), 2);
                        parent.as_ref().map(|(parent, _)| parent)
                    } else {
                        Some(&path)
                    }
                }
                Item::Link(target) => Some(target),
                Item::Whiteout | Item::LowerLink(_) => None,
            };
            if let Some(counted) = counted {
                *wanted.links.entry(counted.clone()).or_default() += 1;
            }
            if let Some((parent, name)) = parent {
                wanted.names.entry(parent).or_default().insert(name.to_owned(), item);
            }
            wanted.order.push((path, item));
        }
        Ok(wanted)
    }

    fn inode(&self, path: &TreePath) -> Checked<&'a InodeSpec> {
        self.inodes.get(path).copied().ok_or_else(|| format!("the spec: {path} is no inode"))
    }

    fn nlink(&self, path: &TreePath) -> u32 {
        self.links.get(path).copied().unwrap_or(0)
    }
}

fn check_node(
    tree: &dyn Lower,
    path: &TreePath,
    node: &Node,
    inode: &InodeSpec,
    nlink: u32,
) -> Checked {
    let marks = if inode.kind.is_dir() { inode.marks } else { DirMarks::default() };
    same(|| format!("the marks of {path}"), &node.marks, &marks)?;
    let again = answered(|| format!("the node of {path}"), tree.node(node.id))?;
    same(|| format!("the node of {path}, asked by number"), &again, node)?;
    let kind = inode.kind;
    if marks.presence == Presence::Explicit {
        let stat = Stat {
            kind,
            perm: inode.perm,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size(),
            nlink,
            mtime: inode.mtime,
        };
        same(|| format!("the stat of {path}"), &node.stat, &stat)?;
        let xattrs = answered(|| format!("the xattrs of {path}"), tree.xattrs(node.id))?;
        let want = inode.xattrs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        same(|| format!("the xattrs of {path}"), &xattrs, &want)?;
    } else {
        same(|| format!("the type of {path}"), &node.stat.kind, &kind)?;
    }

    match tree.read_link(node.id) {
        Ok(target) if kind == Kind::Symlink => {
            same(|| format!("the target of {path}"), &target, &inode.body)?;
        }
        Err(Error::NotSymlink(id)) if kind != Kind::Symlink && id == node.id => {}
        other => return Err(format!("read_link of {path}: {other:?}")),
    }
    match tree.content(node.id) {
        Ok(which) if kind == Kind::Regular => {
            same(|| format!("the size of the content of {path}"), &which.size, &inode.size())?;
            let again = answered(|| format!("the content of {path}"), tree.content(node.id))?;
            same(|| format!("the content of {path}, asked again"), &again, &which)?;
        }
        Err(Error::NotRegular { node: id, kind: told })
            if kind != Kind::Regular && id == node.id && told == kind => {}
        other => return Err(format!("content of {path}: {other:?}")),
    }
    if !kind.is_dir() {
        for name in [&b"x"[..], b"hosts"].into_iter().flat_map(Name::new) {
            match tree.lookup(node.id, name) {
                Err(Error::NotDirectory(id)) if id == node.id => {}
                other => return Err(format!("lookup in {path}: {other:?}")),
            }
        }
        match tree.read_dir(node.id, 0, &mut |_| ControlFlow::Continue(())) {
            Err(Error::NotDirectory(id)) if id == node.id => {}
            other => return Err(format!("read_dir of {path}: {other:?}")),
        }
        match tree.parent(node.id) {
            Err(Error::NotDirectory(id)) if id == node.id => {}
            Ok(None) => {}
            other => return Err(format!("parent of {path}: {other:?}")),
        }
    }
    Ok(())
}

/// A name, its entry and the position after it.
type Row = (NameBuf, Entry, u64);

fn rows(tree: &dyn Lower, dir: NodeId, from: u64, at_most: usize) -> crate::Result<Vec<Row>> {
    let mut all = Vec::new();
    let mut broken = false;
    tree.read_dir(dir, from, &mut |item| {
        if broken {
            // Called after the break: an extra row, which no comparison survives.
            all.clear();
        }
        all.push((item.name.to_owned(), item.entry, item.next));
        broken = all.len() == at_most;
        if broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(all)
}

fn check_dir(
    tree: &dyn Lower,
    path: &TreePath,
    dir: NodeId,
    names: &BTreeMap<NameBuf, &Item>,
) -> Checked {
    let read = |from: u64, at_most: usize| {
        answered(|| format!("read_dir of {path} from {from}"), rows(tree, dir, from, at_most))
    };
    let all = read(0, usize::MAX)?;
    same(|| format!("read_dir of {path} again"), &read(0, usize::MAX)?, &all)?;
    let mut sorted: Vec<_> = all.iter().map(|(name, ..)| name).collect();
    sorted.sort_unstable();
    same(|| format!("the names of {path}"), &sorted, &names.keys().collect())?;
    for (name, entry, next) in &all {
        let looked_up =
            answered(|| format!("lookup of {name:?} in {path}"), tree.lookup(dir, name.as_name()))?;
        same(|| format!("{name:?} of {path}, listed"), &Some(entry.clone()), &looked_up)?;
        if *next == 0 {
            return Err(format!("{name:?} of {path} is at position 0"));
        }
    }
    // From every position: all that follows in small directories, some in large ones.
    for (index, (_, _, next)) in all.iter().enumerate() {
        let rest = &all[index + 1..];
        let at_most = if all.len() <= 200 { usize::MAX } else { 3 };
        let want = &rest[..rest.len().min(at_most)];
        same(|| format!("read_dir of {path} from {next}"), &read(*next, at_most)?, &want.to_vec())?;
    }
    same(
        || format!("read_dir of {path}, broken off"),
        &read(0, 1)?,
        &all[..all.len().min(1)].to_vec(),
    )?;

    for absent in absent_names(names) {
        let got = answered(
            || format!("lookup of {absent:?} in {path}"),
            tree.lookup(dir, absent.as_name()),
        )?;
        same(|| format!("lookup of {absent:?} in {path}"), &got, &None)?;
    }
    Ok(())
}

/// Names around those that exist: before and after all, longer and shorter by one byte.
fn absent_names(names: &BTreeMap<NameBuf, &Item>) -> Vec<NameBuf> {
    let mut candidates = vec![b"\x01".to_vec(), vec![0xff; 255], b".wh.x".to_vec()];
    for name in names.keys().take(50) {
        let bytes = name.as_bytes();
        candidates.push([bytes, b"0"].concat());
        candidates.push(bytes[..bytes.len() - 1].to_vec());
        candidates.push([b".wh.", bytes].concat());
        candidates.push(bytes.to_ascii_uppercase());
    }
    let named = candidates.iter().flat_map(|bytes| NameBuf::new(bytes));
    named.filter(|name| !names.contains_key(name)).collect()
}

/// Numbers that the tree never gave out.
fn check_strangers(tree: &dyn Lower, highest: NodeId) -> Checked {
    for stranger in [NodeId(0), NodeId(highest.0 + 1), NodeId(1 << 40), NodeId(u64::MAX)] {
        let name = Name::new(b"x").map_err(|error| error.to_string())?;
        let results = [
            tree.node(stranger).map(drop),
            tree.lookup(stranger, name).map(drop),
            tree.read_dir(stranger, 0, &mut |_| ControlFlow::Continue(())),
            tree.read_link(stranger).map(drop),
            tree.xattrs(stranger).map(drop),
            tree.content(stranger).map(drop),
        ];
        for (call, result) in results.into_iter().enumerate() {
            match result {
                Err(Error::NoNode(id)) if id == stranger => {}
                other => return Err(format!("call {call} of {stranger:?}: {other:?}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemTree;

    /// A suite that passes everything proves nothing: one wrong fact each, and each is found.
    #[test]
    fn each_wrong_fact_is_found() {
        let path = TreePath::clamped(b"d/f").unwrap();
        let start = || Spec::new().dir("d").perm(0o700).file("d/f", "content").xattr("user.a", "1");
        let full =
            |spec: Spec| spec.link("link", &path).symlink("sym", "to").char_device("c", 1, 2);
        let good = full(start());
        let wrong = [
            full(start().perm(0o600)),
            full(start().owner(1, 0)),
            full(start().owner(0, 1)),
            full(start().mtime(0, 1)),
            full(start().mtime(-1, 0)),
            full(start().xattr("user.a", "2")),
            full(start().xattr("user.b", "1")),
            full(Spec::new().dir("d").perm(0o700).file("d/f", "contents").xattr("user.a", "1")),
            full(start()).file("more", ""),
            full(start()).whiteout("more"),
            full(start()).link("more", &path),
            full(start().dir("d/more")),
            full(start().whiteout("other")),
            start().link("link", &path).symlink("sym", "TO").char_device("c", 1, 2),
            start().link("link", &path).symlink("sym", "to").char_device("c", 1, 3),
            start().link("link", &path).symlink("sym", "to").block_device("c", 1, 2),
            start()
                .file("link", "content")
                .xattr("user.a", "1")
                .symlink("sym", "to")
                .char_device("c", 1, 2),
            full(Spec::new().dir("d").perm(0o700).opaque().file("d/f", "content")),
        ];
        let tree = MemTree::new(&good).unwrap();
        check(&good, &tree).unwrap();
        for (number, spec) in wrong.iter().enumerate() {
            assert!(check(spec, &tree).is_err(), "wrong spec {number}");
            let other = MemTree::new(spec).unwrap();
            assert!(check(&good, &other).is_err(), "wrong tree {number}");
            check(spec, &other).unwrap();
        }
    }
}
