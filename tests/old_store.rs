//! Stores that earlier programs wrote: this one opens, checks, lists, shows and mounts them.
//!
//! The model: `tests/fixtures/store-vN.tar.zst` is a store as the last program with schema N left
//! it, written by `tests/fixtures/make-store` from the archives beside it. The same archives are
//! loaded into a new store, and both must show the same.
//!
//! Invariant: every such file is tried.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use strata_layer::{Event, Problem, Progress, Store, StoreOptions};
use strata_testkit::sandbox::Sandbox;
use strata_testkit::{fixture, needs};

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// The archives that `make-store` loads.
const ARCHIVES: [&str; 4] =
    ["cases-gzip.oci.tar", "lowerlink.oci.tar", "sparse.oci.tar", "cases-podman-multi.docker.tar"];

fn stores() -> Vec<PathBuf> {
    let here = fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path());
    let stores = here.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("store-v") && name.ends_with(".tar.zst")
    });
    let mut stores: Vec<PathBuf> = stores.collect();
    stores.sort();
    assert!(!stores.is_empty());
    stores
}

fn unpack(archive: &Path, root: &Path) {
    let mut tar = tar::Archive::new(zstd::Decoder::new(File::open(archive).unwrap()).unwrap());
    tar.set_preserve_permissions(true);
    tar.set_overwrite(false);
    fs::create_dir(root).unwrap();
    tar.unpack(root).unwrap();
}

/// Whether it is only another file system that packs the same files otherwise.
fn is_of_the_file_system(problem: &Problem) -> bool {
    let Problem::Index(what) = problem else { return false };
    let of_content = what.starts_with("content ") && what.contains(" blocks, should be ");
    let of_layer = ["blocks of headers.zst", "bytes of directories", "blocks of directories"];
    of_content || of_layer.iter().any(|number| what.contains(number))
}

fn check(root: &Path, repair: bool) -> Vec<Problem> {
    Store::fsck(root, repair, StoreOptions::default(), &Silent).unwrap().problems
}

fn names(sandbox: &Sandbox, root: &Path) -> BTreeSet<String> {
    let listed = sandbox.command_on(root, &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let listed = String::from_utf8({ listed }.output().unwrap().stdout).unwrap();
    listed.lines().map(str::to_owned).collect()
}

fn said(sandbox: &Sandbox, root: &Path, args: &[&str]) -> String {
    let output = sandbox.command_on(root, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn stores_of_earlier_programs() {
    let sandbox = Sandbox::new();
    let new = sandbox.path().join("new");
    for archive in ARCHIVES {
        said(&sandbox, &new, &["load", "-i", fixture(archive).to_str().unwrap()]);
    }
    let rootfs = fixture("rootfs.tar.gz");
    said(&sandbox, &new, &["import", rootfs.to_str().unwrap(), "imported:1"]);
    said(&sandbox, &new, &["tag", "stratafs.test/cases:2", "kept:old"]);
    let expected = names(&sandbox, &new);
    assert_eq!(expected.len(), 8);
    for (at, archive) in stores().iter().enumerate() {
        let root = sandbox.path().join(format!("old-{at}"));
        unpack(archive, &root);
        assert_eq!(names(&sandbox, &root), expected, "{}", archive.display());
        let found = check(&root, false);
        let wrong: Vec<_> = found.iter().filter(|one| !is_of_the_file_system(one)).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", archive.display());
        if !found.is_empty() {
            assert_eq!(check(&root, true), []);
        }
        for name in &expected {
            let tree = |root| said(&sandbox, root, &["ls", "-lR", name]);
            assert_eq!(tree(&root), tree(&new), "{name}");
        }
        if needs::fuse() {
            mount(&sandbox, &root, &expected);
        }
        assert_eq!(check(&root, false), []);
    }
}

/// Every image can be mounted, and shows names.
fn mount(sandbox: &Sandbox, root: &Path, images: &BTreeSet<String>) {
    let point = root.with_extension("mount");
    fs::create_dir(&point).unwrap();
    let point = point.to_str().unwrap();
    for image in images {
        said(sandbox, root, &["mount", image, point]);
        assert!(fs::read_dir(point).unwrap().count() > 0, "{image}");
        said(sandbox, root, &["umount", point]);
    }
}
