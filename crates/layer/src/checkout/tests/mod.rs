//! Whole checkouts of a [`MemTree`], compared entry by entry with an independent reading of what
//! is on disk.
//!
//! What only root may do is tested only as root.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, major, minor, setxattr};
use rustix::process::{geteuid, umask};
use strata_content::FileTree;
use strata_content::conformance::in_memory;
use strata_testkit::needs;
use strata_tree::{Entry, Follow, Kind, Name, NodeId, Spec, TreePath, resolve};

use super::*;

mod astray;

/// `cap_net_raw=ep`, version 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`, or the like for a directory.
fn acl(mask: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    let unnamed = u32::MAX;
    for (tag, perm, id) in [
        (1_u8, 6_u8, unnamed),
        (2, 4, 1000),
        (4, 4, unnamed),
        (0x10, mask, unnamed),
        (0x20, 0, unnamed),
    ] {
        bytes.extend([tag, 0, perm, 0]);
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn path(text: &str) -> TreePath {
    TreePath::clamped(text.as_bytes()).unwrap()
}

fn build(spec: &Spec) -> FileTree {
    in_memory(spec).unwrap()
}

/// What a tree says of each path below `from`, as text; links by the first path of their inode.
fn expected(tree: &FileTree, from: NodeId) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![(TreePath::root(), tree.node(from).unwrap())];
    let mut ids: HashMap<NodeId, Vec<Vec<u8>>> = HashMap::new();
    while let Some((path, node)) = todo.pop() {
        let stat = node.stat;
        let mut text = format!(
            "{:o} {}:{} {}.{:09} ",
            stat.mode(),
            stat.uid,
            stat.gid,
            stat.mtime.seconds,
            stat.mtime.nanos
        );
        match stat.kind {
            Kind::Directory => {
                for (name, entry) in strata_tree::list(&**tree, node.id).unwrap() {
                    let Entry::Node(child) = entry else { panic!("{entry:?}") };
                    todo.push((path.join(name.as_name()), child));
                }
            }
            Kind::Regular => {
                let bytes = tree.read(node.id).unwrap();
                text += &format!("{} ", bytes.escape_ascii());
            }
            Kind::Symlink => {
                text += &format!("-> {} ", tree.read_link(node.id).unwrap().escape_ascii());
            }
            kind => text += &format!("{:?} ", kind.device().map(|d| (d.major, d.minor))),
        }
        for (name, value) in tree.xattrs(node.id).unwrap() {
            text += &format!("{}={} ", name.escape_ascii(), value.escape_ascii());
        }
        if !stat.kind.is_dir() {
            ids.entry(node.id).or_default().push(path.as_bytes().to_vec());
        }
        all.insert(path.as_bytes().to_vec(), text);
    }
    name_links(&mut all, ids.into_values());
    all
}

/// The same of a directory on disk, by plain calls that share nothing with the checkout.
fn found(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut ids: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let mut text = format!(
            "{:o} {}:{} {}.{:09} ",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if kind.is_file() {
            text += &format!("{} ", fs::read(&path).unwrap().escape_ascii());
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            text += &format!("-> {} ", target.as_os_str().as_bytes().escape_ascii());
        } else {
            let is_device = kind.is_char_device() || kind.is_block_device();
            let device = is_device.then(|| (major(meta.rdev()), minor(meta.rdev())));
            text += &format!("{device:?} ");
        }
        for (name, value) in xattrs(&path) {
            text += &format!("{}={} ", name.escape_ascii(), value.escape_ascii());
        }
        let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        if !kind.is_dir() {
            let names = ids.entry(meta.ino()).or_default();
            names.push(below.clone());
        }
        all.insert(below, text);
    }
    name_links(&mut all, ids.into_values());
    all
}

fn name_links(all: &mut BTreeMap<Vec<u8>, String>, groups: impl Iterator<Item = Vec<Vec<u8>>>) {
    for mut names in groups {
        names.sort();
        for name in &names {
            let text = all.get_mut(name).unwrap();
            *text += &format!("{} names, first {}", names.len(), names[0].escape_ascii());
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let mut all = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        // A label that a security module gives to every new file is not the tree's.
        if name != b"security.selinux" {
            let mut value = vec![0; 4096];
            let length = lgetxattr(path, name, &mut value[..]).unwrap();
            all.insert(name.to_vec(), value[..length].to_vec());
        }
    }
    all
}

fn assert_same(tree: &FileTree, from: NodeId, root: &Path) {
    let (expected, found) = (expected(tree, from), found(root));
    for (path, text) in &expected {
        assert_eq!(found.get(path), Some(text), "/{}", path.escape_ascii());
    }
    assert_eq!(found.len(), expected.len(), "{:?}", found.keys());
}

fn into(tree: &FileTree, root: &Path) -> Result<Report> {
    let dir = open_empty(root)?;
    let options = Options { label: root.display().to_string(), ..Options::default() };
    checkout(tree, tree.root(), Dest::Into(dir.as_fd()), options)
}

/// Every kind of inode and every metadatum that a file system can hold.
fn everything() -> Spec {
    Spec::new()
        .perm(0o2751)
        .owner(5, 6)
        .mtime(1_000_000_000, 7)
        .dir("etc")
        .perm(0o1777)
        .mtime(-86_400, 500_000_000)
        .xattr("user.note", b"\0\xffbinary")
        .xattr("system.posix_acl_default", acl(4))
        .file("etc/empty", "")
        .mtime(0, 0)
        .file("etc/acl", "listed")
        .perm(0o640)
        .xattr("system.posix_acl_access", acl(4))
        .file("etc/\u{fc}n\\i\n", "name")
        .file(b"etc/\xff\xfe", "not UTF-8")
        .file("large", vec![7; 300_000])
        .dir("bin")
        .perm(0o555)
        .owner(1, 2)
        .mtime(1_700_000_000, 999_999_999)
        .file("bin/ping", "ping")
        .owner(0, 42)
        .perm(0o755)
        .xattr("security.capability", CAPABILITY)
        .xattr("trusted.overlay.opaque", "y")
        .mtime(1_700_000_001, 1)
        .file("bin/su", "su")
        .perm(0o6755)
        .owner(3, 4)
        .link("bin/su.again", &path("bin/su"))
        .symlink("sh", "../../../bin/ping")
        .owner(11, 12)
        .mtime(1_234_567_890, 123_456_789)
        .xattr("trusted.on-link", "1")
        .link("sh2", &path("sh"))
        .dir("dev")
        .perm(0o000)
        .char_device("dev/null", 1, 3)
        .perm(0o666)
        .owner(7, 8)
        .mtime(99, 9)
        .xattr("trusted.on-device", "2")
        .char_device("dev/whiteout-like", 0, 0)
        .block_device("dev/disk", 259, 1_048_575)
        .perm(0o660)
        .fifo("dev/pipe")
        .perm(0o620)
        .mtime(1, 2)
        .link("dev/pipe2", &path("dev/pipe"))
        .link("su.third", &path("bin/su"))
        .dir("a")
        .dir("a/b")
        .mtime(77, 0)
        .dir("a/b/c")
        .perm(0o700)
}

#[test]
fn as_root_every_fact_arrives() {
    if !needs::root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let tree = build(&everything());
    // Nothing of the surroundings may show: neither the mask nor an inherited ACL.
    setxattr(base.path(), "system.posix_acl_default", &acl(7), XattrFlags::empty()).unwrap();
    for (name, mask) in [("open", 0o000), ("usual", 0o022), ("closed", 0o077)] {
        let root = base.path().join(name);
        let before = umask(mask.into());
        let report = into(&tree, &root);
        umask(before);
        let report = report.unwrap();
        assert!(report.is_exact(), "{report}");
        assert_eq!(report.entries, 23);
        assert_eq!(report.bytes, 300_000 + 6 + 4 + 9 + 4 + 2);
        assert_same(&tree, tree.root(), &root);
    }
}

#[test]
fn one_node_of_any_kind_becomes_a_name() {
    if !needs::root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    setxattr(base.path(), "system.posix_acl_default", &acl(7), XattrFlags::empty()).unwrap();
    let parent = File::open(base.path()).unwrap();
    let tree = build(&everything());
    for from in ["etc", "bin", "bin/ping", "sh", "dev/null", "dev/pipe", "a"] {
        let node = resolve(&*tree, from.as_bytes(), Follow::NotLast).unwrap().unwrap();
        let name = from.replace('/', "-");
        let dest = Dest::As(parent.as_fd(), Name::new(name.as_bytes()).unwrap());
        let label = base.path().join(&name).display().to_string();
        let report =
            checkout(&tree, node.id, dest, Options { label, ..Options::default() }).unwrap();
        assert!(report.is_exact(), "{report}");
        assert_same(&tree, node.id, &base.path().join(&name));
    }
}

#[test]
fn sockets_and_devices_that_linux_cannot_name_are_listed() {
    let base = tempfile::tempdir().unwrap();
    let me = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    let tree = build(
        &Spec::new().owner(me.0, me.1).socket("socket").char_device("major", 4096, 0).block_device(
            "minor",
            8,
            1 << 20,
        ),
    );
    let report = into(&tree, &base.path().join("out")).unwrap();
    let listed: Vec<_> = report.skipped().map(|group| (&group.what, group.count)).collect();
    assert_eq!(listed, [(&Skipped::Device, 2), (&Skipped::Socket, 1)]);
    assert_eq!(found(&base.path().join("out")).len(), 1);
    assert_eq!(report.entries, 1);
}

#[test]
fn an_ordinary_user_gets_what_he_may_and_a_list_of_the_rest() {
    const NOBODY: u32 = 65_534;
    if geteuid().is_root() {
        // Once more, as nobody, from a copy that nobody can reach.
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let binary = base.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        let output = std::process::Command::new(&binary)
            .args([name.as_str(), "--exact", "--nocapture", "--test-threads=1"])
            .env("TMPDIR", base.path())
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let (uid, gid) = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    let tree = build(
        &Spec::new()
            .owner(uid, gid)
            .mtime(5, 6)
            .dir("sealed")
            .owner(uid, gid)
            .perm(0o000)
            .mtime(7, 8)
            .file("sealed/first", "linked")
            .owner(uid, gid)
            .perm(0o400)
            .xattr("user.kept", "yes")
            .dir("tail")
            .owner(uid, gid)
            .perm(0o555)
            .mtime(9, 10)
            .file("tail/mine", "setuid of one's own")
            .owner(uid, gid)
            .perm(0o4755)
            .link("tail/second", &path("sealed/first"))
            .file("tail/theirs", "setuid of root")
            .perm(0o6755)
            .mtime(11, 12)
            .file("tail/capable", "raw")
            .owner(uid, gid)
            .xattr("security.capability", CAPABILITY)
            .char_device("tail/null", 1, 3)
            .fifo("tail/pipe")
            .owner(uid, gid)
            .socket("tail/socket"),
    );
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("out");
    let report = into(&tree, &root).unwrap();
    let listed: Vec<_> = report.skipped().map(|g| (g.what.clone(), g.errno, g.count)).collect();
    let denied = Some(Errno::PERM);
    assert_eq!(
        listed,
        [
            (Skipped::Owner, denied, 1),
            (Skipped::SetId, denied, 1),
            (Skipped::Xattr("security.capability".to_owned()), denied, 1),
            (Skipped::Device, denied, 1),
            (Skipped::Socket, None, 1),
        ]
    );
    let sealed = fs::symlink_metadata(root.join("sealed")).unwrap();
    assert_eq!((sealed.mode() & 0o7777, sealed.mtime(), sealed.mtime_nsec()), (0, 7, 8));
    // What cannot be read cannot be compared, nor removed.
    fs::set_permissions(root.join("sealed"), fs::Permissions::from_mode(0o700)).unwrap();
    let (mut wanted, mut found) = (expected(&tree, tree.root()), found(&root));
    for gone in ["tail/null", "tail/socket"] {
        assert!(wanted.remove(gone.as_bytes()).is_some() && !found.contains_key(gone.as_bytes()));
    }
    for changed in ["sealed", "tail/theirs", "tail/capable"] {
        wanted.remove(changed.as_bytes());
        found.remove(changed.as_bytes());
    }
    assert_eq!(found, wanted);
    let theirs = fs::metadata(root.join("tail/theirs")).unwrap();
    assert_eq!((theirs.mode() & 0o7777, theirs.uid(), theirs.mtime()), (0o755, uid, 11));
    fs::set_permissions(root.join("tail"), fs::Permissions::from_mode(0o700)).unwrap();
}
