//! Plain directories, mounted by the kernel's overlayfs and merged by a stack: equal.
//!
//! Layers come from two sources: random ones laid out by hand, and what the kernel itself wrote
//! as an upper under random calls, with redirects and metacopy. Needs root.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use strata_content::FileTree;
use strata_testkit::needs;
use strata_tree::dialect::XattrClass;
use strata_tree::{
    DirOptions, Entry, Kind, Lower, Name, NameBuf, Node, NodeId, Numbers, OverlayDir, Spec,
    TreePath, lay_overlay, list,
};

use super::{Mounted, files_of};
use crate::Stack;

/// A mount of the kernel's overlayfs: `lowers` base first, at least two without an upper, as the
/// kernel wants it.
fn mount(at: &Path, lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Mounted {
    let top_first: Vec<_> = lowers.iter().rev().map(|dir| dir.display().to_string()).collect();
    let mut options = format!(
        "lowerdir={},redirect_dir={},metacopy=on,index=off,xino=on",
        top_first.join(":"),
        if upper.is_some() { "on" } else { "follow" },
    );
    if let Some((upper, work)) = upper {
        let (upper, work) = (upper.display(), work.display());
        options.push_str(&format!(",upperdir={upper},workdir={work}"));
    }
    fs::create_dir_all(at).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(at);
    let said = mount.output().unwrap();
    assert!(said.status.success(), "mount: {}", String::from_utf8_lossy(&said.stderr));
    Mounted(at.to_owned())
}

fn merged(lowers: &[PathBuf]) -> FileTree {
    let numbers = Arc::new(Numbers::new());
    let open = |path: &PathBuf| {
        Arc::new(OverlayDir::open(path, DirOptions::default(), Arc::clone(&numbers)).unwrap())
    };
    let lowers: Vec<_> = lowers.iter().map(open).collect();
    let files = files_of(&lowers);
    let lowers = lowers.into_iter().map(|dir| dir as Arc<dyn Lower>).collect();
    FileTree::new(Arc::new(Stack::numbered(lowers)), files)
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Compares a mounted directory and all below with a node of the stack.
fn compare(mounted: &Path, stack: &FileTree) {
    let mut numbers: HashMap<u64, NodeId> = HashMap::new();
    let mut todo = vec![(mounted.to_owned(), stack.node(stack.root()).unwrap())];
    while let Some((path, node)) = todo.pop() {
        same(&path, &node, stack);
        if !node.stat.kind.is_dir() {
            let inode = fs::symlink_metadata(&path).unwrap().ino();
            assert_eq!(*numbers.entry(inode).or_insert(node.id), node.id, "links of {path:?}");
            assert_eq!(node.id, NodeId(inode), "the number of {path:?}");
            continue;
        }
        // The kernel lists whiteouts of directories that it need not merge; they are not there.
        let there = |name: &OsString| fs::symlink_metadata(path.join(name)).is_ok();
        let names = fs::read_dir(&path).unwrap().map(|item| item.unwrap().file_name());
        let names: BTreeSet<OsString> = names.filter(there).collect();
        // A directory that was listed may be asked another way.
        let ask = |name: &[u8]| stack.lookup(node.id, Name::new(name).unwrap()).unwrap();
        let before: BTreeMap<_, _> =
            names.iter().map(|name| (name.as_bytes(), ask(name.as_bytes()))).collect();
        let listed = list(&**stack, node.id).unwrap();
        let ours: BTreeSet<_> =
            listed.iter().map(|(name, _)| OsString::from_vec(name.as_bytes().to_vec())).collect();
        assert_eq!(ours, names, "the names of {path:?}");
        for (name, entry) in listed {
            let found = [&ask(name.as_bytes()), &before[name.as_bytes()]];
            assert_eq!(found.map(Option::as_ref), [Some(&entry); 2], "{name:?} of {path:?}");
            let Entry::Node(node) = entry else { panic!("{name:?} of {path:?}") };
            todo.push((path.join(OsStr::from_bytes(name.as_bytes())), node));
        }
    }
}

fn same(path: &Path, node: &Node, stack: &FileTree) {
    assert_eq!(stack.node(node.id).unwrap(), *node, "{path:?}");
    let want = fs::symlink_metadata(path).unwrap();
    let stat = node.stat;
    assert_eq!(stat.mode(), want.mode(), "the mode of {path:?}");
    assert_eq!((stat.uid, stat.gid), (want.uid(), want.gid()), "the owner of {path:?}");
    let mtime = (stat.mtime.seconds, i64::from(stat.mtime.nanos));
    assert_eq!(mtime, (want.mtime(), want.mtime_nsec()), "the mtime of {path:?}");
    let ours: BTreeMap<_, _> = stack.xattrs(node.id).unwrap().into_iter().collect();
    assert_eq!(ours, xattrs(path), "the attributes of {path:?}");
    if stat.kind.is_dir() {
        return;
    }
    assert_eq!(stat.size, want.len(), "the size of {path:?}");
    assert_eq!(u64::from(stat.nlink), want.nlink(), "the links of {path:?}");
    if let Some(device) = stat.kind.device() {
        assert!(want.file_type().is_char_device() || want.file_type().is_block_device());
        let number = rustix::fs::makedev(device.major, device.minor);
        assert_eq!(number, want.rdev(), "the device of {path:?}");
    }
    if stat.kind == Kind::Symlink {
        let target = fs::read_link(path).unwrap();
        assert_eq!(stack.read_link(node.id).unwrap(), target.as_os_str().as_bytes());
    }
    if stat.kind == Kind::Regular {
        let content = stack.read(node.id).unwrap();
        assert_eq!(content, fs::read(path).unwrap(), "the content of {path:?}");
    }
}

/// What a hand-made layer has at a name.
#[derive(Debug, Clone)]
enum Grown {
    File(u8),
    Symlink(u8),
    Device(u8),
    Fifo,
    Whiteout,
    Link(prop::sample::Index),
    Dir(bool, u8, BTreeMap<u8, Grown>),
}

fn entry() -> impl Strategy<Value = Grown> {
    let leaf = prop_oneof![
        3 => any::<u8>().prop_map(Grown::File),
        1 => any::<u8>().prop_map(Grown::Symlink),
        1 => (1..=u8::MAX).prop_map(Grown::Device),
        1 => Just(Grown::Fifo),
        4 => Just(Grown::Whiteout),
        1 => any::<prop::sample::Index>().prop_map(Grown::Link),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        (prop::bool::weighted(0.2), any::<u8>(), prop::collection::btree_map(0..3_u8, inner, 0..4))
            .prop_map(|(opaque, seed, children)| Grown::Dir(opaque, seed, children))
    })
}

fn layer() -> impl Strategy<Value = BTreeMap<u8, Grown>> {
    prop::collection::btree_map(0..3_u8, entry(), 0..4)
}

/// The children of the directory at `path`, with their paths.
fn named<'a>(
    path: &TreePath,
    children: &'a BTreeMap<u8, Grown>,
) -> impl Iterator<Item = (TreePath, &'a Grown)> + use<'a> {
    let path = path.clone();
    children.iter().map(move |(name, grown)| {
        let name = NameBuf::new(&[b'a' + name]).unwrap();
        (path.join(name.as_name()), grown)
    })
}

fn write(children: &BTreeMap<u8, Grown>) -> Spec {
    let mut spec = Spec::new();
    let mut leaves = Vec::new();
    let mut todo: Vec<_> = named(&TreePath::root(), children).collect();
    while let Some((path, grown)) = todo.pop() {
        let at = path.as_bytes();
        spec = match grown {
            Grown::File(seed) => spec
                .file(at, [*seed].repeat(usize::from(*seed % 3)))
                .perm(0o400 | u16::from(*seed))
                .owner(u32::from(*seed), 1)
                .mtime(i64::from(*seed) - 100, u32::from(*seed))
                .xattr("trusted.overlay.redirect", "the image's own"),
            Grown::Symlink(seed) => spec.symlink(at, format!("../{seed}")),
            Grown::Device(seed) => spec.char_device(at, u32::from(*seed), 0),
            Grown::Fifo => spec.fifo(at).perm(0o644),
            Grown::Whiteout => spec.whiteout(at),
            Grown::Link(index) if !leaves.is_empty() => spec.link(at, index.get(&leaves)),
            Grown::Link(_) => spec.file(at, "instead of a link"),
            Grown::Dir(opaque, seed, children) => {
                todo.extend(named(&path, children));
                let dir = spec.dir(at).perm(0o500 | u16::from(*seed)).xattr("user.seed", [*seed]);
                if *opaque { dir.opaque() } else { dir }
            }
        };
        if matches!(grown, Grown::File(_) | Grown::Symlink(_) | Grown::Device(_) | Grown::Fifo) {
            leaves.push(path);
        }
    }
    spec
}

/// One call on a mounted tree; names that are not there make it fail, which is fine.
#[derive(Debug, Clone)]
enum Call {
    Mkdir(PathBuf),
    Write(PathBuf, u8),
    Symlink(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Chmod(PathBuf, u8),
    Remove(PathBuf),
    Xattr(PathBuf, u8),
}

fn place() -> impl Strategy<Value = PathBuf> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.into_iter().collect())
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => place().prop_map(Call::Mkdir),
        4 => (place(), any::<u8>()).prop_map(|(path, seed)| Call::Write(path, seed)),
        1 => place().prop_map(Call::Symlink),
        6 => (place(), place()).prop_map(|(from, to)| Call::Rename(from, to)),
        2 => (place(), place()).prop_map(|(from, to)| Call::Link(from, to)),
        4 => (place(), any::<u8>()).prop_map(|(path, seed)| Call::Chmod(path, seed)),
        2 => place().prop_map(Call::Remove),
        1 => (place(), any::<u8>()).prop_map(|(path, seed)| Call::Xattr(path, seed)),
    ]
}

fn perform(at: &Path, call: &Call) {
    // The kernel decides whether a call is possible; either answer is fine.
    let done = match call {
        Call::Mkdir(path) => fs::create_dir(at.join(path)),
        Call::Write(path, seed) => fs::write(at.join(path), [*seed; 100]),
        Call::Symlink(path) => symlink("nowhere", at.join(path)),
        Call::Rename(from, to) => fs::rename(at.join(from), at.join(to)),
        Call::Link(from, to) => fs::hard_link(at.join(from), at.join(to)),
        Call::Chmod(path, seed) => {
            let mode = PermissionsExt::from_mode(0o700 | u32::from(*seed & 0o77));
            match fs::symlink_metadata(at.join(path)) {
                Ok(found) if !found.is_symlink() => fs::set_permissions(at.join(path), mode),
                _ => Ok(()),
            }
        }
        Call::Remove(path) => match fs::symlink_metadata(at.join(path)) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(at.join(path)),
            _ => fs::remove_file(at.join(path)),
        },
        Call::Xattr(path, seed) => {
            let flags = rustix::fs::XattrFlags::empty();
            let name = "trusted.overlay.opaque";
            rustix::fs::lsetxattr(at.join(path), name, &[*seed], flags).map_err(Into::into)
        }
    };
    drop(done);
}

/// Lets the kernel write one layer after the other, base first.
fn kernel_made(under: &Path, layers: &[Vec<Call>]) -> Vec<PathBuf> {
    let empty = under.join("empty");
    fs::create_dir(&empty).unwrap();
    let mut lowers = vec![empty];
    for (number, calls) in layers.iter().enumerate() {
        let upper = under.join(number.to_string());
        let work = under.join(format!("work{number}"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let mounted = mount(&under.join("rw"), &lowers, Some((&upper, &work)));
        calls.iter().for_each(|call| perform(&mounted.0, call));
        lowers.push(upper);
    }
    lowers
}

fn compare_kernel_made(layers: &[Vec<Call>]) {
    let dir = tempfile::tempdir().unwrap();
    let lowers = kernel_made(dir.path(), layers);
    let mounted = mount(&dir.path().join("ro"), &lowers, None);
    compare(&mounted.0, &merged(&lowers));
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn hand_made_layers_are_as_the_kernel_mounts_them(
        layers in prop::collection::vec((layer(), any::<bool>()), 1..=4),
    ) {
        if !needs::root() {
            return Ok(());
        }
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let mut lowers = vec![empty];
        for (number, (layer, whiteout_files)) in layers.iter().enumerate() {
            let at = dir.path().join(number.to_string());
            fs::create_dir(&at).unwrap();
            lay_overlay(&write(layer), &at, XattrClass::Trusted, *whiteout_files).unwrap();
            lowers.push(at);
        }
        let mounted = mount(&dir.path().join("ro"), &lowers, None);
        compare(&mounted.0, &merged(&lowers));
    }

    #[test]
    fn kernel_made_layers_are_as_the_kernel_mounts_them(
        layers in prop::collection::vec(prop::collection::vec(call(), 1..40), 1..=4),
    ) {
        if !needs::root() {
            return Ok(());
        }
        compare_kernel_made(&layers);
    }
}

/// Counts the layers' marks, by name.
fn marks(lowers: &[PathBuf]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut todo = lowers.to_vec();
    while let Some(path) = todo.pop() {
        for (name, value) in xattrs(&path) {
            let mut text = String::from_utf8_lossy(&name).into_owned();
            if text.ends_with(".redirect") {
                text.push_str(if value.starts_with(b"/") { " /" } else { " sibling" });
            }
            *counts.entry(text).or_default() += 1;
        }
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
    }
    counts
}

/// Renames on top of renames: each layer's redirects go through those of the layers below.
#[test]
fn redirects_go_through_redirects() {
    if !needs::root() {
        return;
    }
    let mkdir = |path: &str| Call::Mkdir(path.into());
    let rename = |from: &str, to: &str| Call::Rename(from.into(), to.into());
    let write = |path: &str| Call::Write(path.into(), 7);
    let chmod = |path: &str| Call::Chmod(path.into(), 0o11);
    let layers = [
        vec![mkdir("a"), mkdir("a/b"), mkdir("a/b/c"), write("a/b/c/f"), write("a/g"), write("h")],
        vec![rename("a", "m"), write("m/b/c/from-1")],
        vec![rename("m/b", "n"), mkdir("m/b"), write("m/b/new"), chmod("n/c/f")],
        vec![rename("n/c", "n/d"), rename("n/d/f", "n/d/e"), Call::Link("h".into(), "i".into())],
        vec![chmod("h"), rename("n", "a"), rename("m/g", "a/d/g"), chmod("a/d/g")],
        vec![chmod("a/d/e"), rename("a/d/e", "e"), rename("a/d", "d"), write("d/last")],
    ];
    for count in 1..=layers.len() {
        compare_kernel_made(&layers[..count]);
    }
    let dir = tempfile::tempdir().unwrap();
    let marks = marks(&kernel_made(dir.path(), &layers));
    for name in ["redirect /", "redirect sibling", "metacopy", "opaque"] {
        assert!(marks.contains_key(&format!("trusted.overlay.{name}")), "{name}: {marks:?}");
    }
}

/// The generator reaches what it is for: else the comparison of random calls proves little.
#[test]
fn random_calls_leave_every_mark() {
    if !needs::root() {
        return;
    }
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let layers = prop::collection::vec(prop::collection::vec(call(), 1..40), 1..=4);
        let layers = layers.new_tree(&mut runner).unwrap().current();
        let dir = tempfile::tempdir().unwrap();
        seen.extend(marks(&kernel_made(dir.path(), &layers)).into_keys());
    }
    for name in ["redirect /", "redirect sibling", "metacopy", "opaque", "overlay.opaque"] {
        assert!(seen.contains(&format!("trusted.overlay.{name}")), "{name}: {seen:?}");
    }
}
