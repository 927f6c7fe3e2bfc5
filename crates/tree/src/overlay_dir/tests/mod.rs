//! Tests of the plain directory: the suite, the dialects, names and numbers.
//!
//! What needs devices, owners or `trusted.*` needs root.

mod dialects;
mod numbers;

use std::path::Path;
use std::sync::Arc;

use strata_testkit::needs;
use tempfile::TempDir;

use super::lay::lay_overlay;
use super::*;
use crate::conformance::{check, merged_specs};
use crate::dialect::XattrClass;
use crate::{Entry, Lower, Name, Node, Spec};

fn open(at: &Path, options: DirOptions) -> OverlayDir {
    OverlayDir::open(at, options, Arc::new(Numbers::new())).unwrap()
}

fn laid(spec: &Spec, class: XattrClass, whiteout_files: bool) -> (TempDir, OverlayDir) {
    let dir = tempfile::tempdir().unwrap();
    lay_overlay(spec, dir.path(), class, whiteout_files).unwrap();
    let options = DirOptions { dialect: Dialect::kernel(class), ..Default::default() };
    let tree = open(dir.path(), options);
    (dir, tree)
}

fn entry(tree: &dyn Lower, path: &str) -> Option<Entry> {
    let mut found = Entry::Node(tree.node(tree.root()).unwrap());
    for name in path.split('/') {
        let dir = *found.node().unwrap();
        found = tree.lookup(dir.id, Name::new(name.as_bytes()).unwrap()).unwrap()?;
    }
    Some(found)
}

fn node(tree: &dyn Lower, path: &str) -> Node {
    *entry(tree, path).unwrap().node().unwrap()
}

/// A layer with what a layer can have on disk.
fn layer() -> Spec {
    Spec::new()
        .whiteout("gone")
        .dir("etc")
        .perm(0o700)
        .whiteout("etc/gone")
        .file("etc/here", "here")
        .file("etc/empty", "")
        .dir("opaque")
        .opaque()
        .file("opaque/kept", "kept")
        .dir("opaque/empty")
        .dir("whiteouts")
        .whiteout("whiteouts/a")
        .whiteout("whiteouts/b")
}

#[test]
fn passes_the_suite() {
    if !needs::root() {
        return;
    }
    let passes = |name: &str, spec: &Spec, class, whiteout_files| {
        let (_dir, tree) = laid(spec, class, whiteout_files);
        check(spec, &tree)
            .unwrap_or_else(|difference| panic!("{name} {class:?} {whiteout_files}: {difference}"));
    };
    for (name, spec) in merged_specs() {
        passes(name, &spec, XattrClass::Trusted, false);
        // It is about positions, which no class changes, and slow.
        if name != "big" {
            passes(name, &spec, XattrClass::User, false);
        }
    }
    for class in [XattrClass::Trusted, XattrClass::User] {
        passes("layer", &layer(), class, false);
        passes("layer", &layer(), class, true);
    }
}

#[test]
fn a_lower_is_a_directory_and_errors_name_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    for name in ["file", "absent"] {
        let path = dir.path().join(name);
        let numbers = Arc::new(Numbers::new());
        let error = OverlayDir::open(&path, DirOptions::default(), numbers).err().unwrap();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn paths_beyond_one_call_work() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(250);
    let mut at: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
    for _ in 0..20 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = openat(&at, name.as_str(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    openat(&at, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    rustix::fs::symlinkat("target", &at, "link").unwrap();
    let tree = open(dir.path(), DirOptions::default());
    let deep = vec![name.as_str(); 20].join("/");
    let leaf = node(&tree, &format!("{deep}/leaf"));
    assert_eq!(tree.node(leaf.id).unwrap(), leaf);
    assert!(tree.content(leaf.id).unwrap().path.as_bytes().len() > 4096);
    let link = node(&tree, &format!("{deep}/link"));
    assert_eq!(tree.read_link(link.id).unwrap(), b"target");
    assert_eq!(crate::list(&tree, node(&tree, &deep).id).unwrap().len(), 2);
}

#[test]
fn links_of_the_host_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("d/e")).unwrap();
    std::fs::write(dir.path().join("d/e/f"), b"inside").unwrap();
    std::fs::create_dir_all(outside.path().join("e")).unwrap();
    std::fs::write(outside.path().join("e/f"), b"outside").unwrap();
    let tree = open(dir.path(), DirOptions::default());
    let (d, f) = (node(&tree, "d"), node(&tree, "d/e/f"));
    // A directory on the way becomes a link that leads out: everything beneath it fails, or is
    // what it was, as long as its directory stays open.
    std::fs::rename(dir.path().join("d"), dir.path().join("was")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
    let before = std::fs::metadata(dir.path().join("was/e/f")).unwrap().len();
    assert!(tree.node(f.id).is_ok_and(|node| node.stat.size == before));
    // The bytes are looked for by the whole path, which has a link on it.
    let which = tree.content(f.id).unwrap();
    assert!(crate::open_beneath(tree.root.as_fd(), &which.path, true).is_err());
    tree.numbers.open_dirs().close();
    assert!(tree.node(f.id).is_err());
    assert!(tree.content(f.id).is_err());
    assert!(tree.xattrs(f.id).is_err());
    assert!(tree.read_dir(d.id, 0, &mut |_| std::ops::ControlFlow::Continue(())).is_err());
    assert!(tree.lookup(d.id, Name::new(b"e").unwrap()).is_err());
}

#[test]
fn few_descriptors_are_kept_beside_the_root() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..100 {
        std::fs::create_dir(dir.path().join(n.to_string())).unwrap();
        std::fs::write(dir.path().join(n.to_string()).join("f"), b"").unwrap();
    }
    let tree = open(dir.path(), DirOptions::default());
    let ours = || {
        let inside = |fd: std::io::Result<std::fs::DirEntry>| {
            let target = std::fs::read_link(fd.unwrap().path()).unwrap_or_default();
            target.starts_with(dir.path())
        };
        std::fs::read_dir("/proc/self/fd").unwrap().map(inside).filter(|ours| *ours).count()
    };
    assert_eq!(ours(), 1);
    for n in 0..100 {
        let file = node(&tree, &format!("{n}/f"));
        drop(tree.content(file.id).unwrap());
        tree.xattrs(file.id).unwrap();
    }
    assert!(ours() <= 1 + super::open_dirs::MOST);
}
