//! What every command says when it cannot do what it was asked, word for word.
//!
//! As in `golden.rs`, transcripts are compared with `tests/snapshots`.
//!
//! Invariant: a refused command leaves the store as it was.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use strata_testkit::fixture;
use strata_testkit::sandbox::Sandbox;
use strata_testkit::talk::Talk;
use strata_testkit::tars::Tar;

/// A copy of the layout `cases.oci` to be damaged.
fn layout(sandbox: &Sandbox) -> PathBuf {
    let copy = sandbox.path().join("layout");
    let done = Command::new("cp").arg("-r").arg(fixture("cases.oci")).arg(&copy).status().unwrap();
    assert!(done.success());
    copy
}

/// The digests that one field of a JSON text names, in their order.
fn digests(text: &str) -> Vec<String> {
    let parts = text.split("\"sha256:").skip(1);
    parts.map(|part| part.split('"').next().unwrap().to_owned()).collect()
}

fn blob(layout: &Path, hex: &str) -> PathBuf {
    layout.join("blobs/sha256").join(hex)
}

/// Manifest, config, and the layers of the layout, as blobs' names.
fn documents(layout: &Path) -> (String, Vec<String>) {
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    let manifest = digests(&index).remove(0);
    let named = digests(&fs::read_to_string(blob(layout, &manifest)).unwrap());
    (manifest, named)
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Nothing but what an empty store has.
fn assert_empty(sandbox: &Sandbox) {
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    let layers = fs::read_dir(sandbox.path().join("store/layers")).unwrap();
    assert_eq!(layers.count(), 0);
    let staged = fs::read_dir(sandbox.path().join("store/staging")).unwrap();
    assert_eq!(staged.count(), 0);
    assert!(sandbox.ok(&["-q", "gc"]).starts_with("Nothing to delete"));
}

#[test]
fn what_is_no_image() {
    let mut talk = Talk::new();
    let dir = talk.sandbox.path().to_owned();
    fs::write(dir.join("text"), "hello\n".repeat(1000)).unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("xz"), b"\xfd7zXZ\0 and so on").unwrap();
    fs::create_dir(dir.join("plain")).unwrap();
    let archive = fs::read(fixture("busybox-gzip.oci.tar")).unwrap();
    fs::write(dir.join("short.tar"), &archive[..100_000]).unwrap();
    let gzip = fs::read(fixture("cases-docker24.docker.tar.gz")).unwrap();
    fs::write(dir.join("short.tar.gz"), &gzip[..gzip.len() - 100]).unwrap();
    fs::write(dir.join("short.tar.zst"), &fs::read(fixture("rootfs.tar.zst")).unwrap()[..1000])
        .unwrap();
    talk.say("load -i absent.tar")
        .say("load -i text")
        .say("load -i empty")
        .say("load")
        .say("load -i xz")
        .say("load -i plain")
        .say("load -i FIX/rootfs.tar")
        .say("load -i short.tar")
        .say("load -i short.tar.gz")
        .say("import absent.tar x:1")
        .say("import text x:1")
        .say("import plain x:1")
        .say("import short.tar.zst x:1")
        .say("import FIX/rootfs.tar UPPER")
        .say("load -i oci:FIX/cases.oci:7")
        .say("load -i FIX/cases.oci --platform linux/s390x")
        .say("load -i FIX/cases.oci --platform linux")
        .say("load -i FIX/cases-podman-multi.docker.tar --tag one:1");
    insta::assert_snapshot!(talk.transcript());
    assert_empty(&talk.sandbox);
}

#[test]
fn what_is_not_what_its_digest_says() {
    let mut talk = Talk::new();
    for which in ["manifest", "config", "layer", "absent layer", "longer layer"] {
        let layout = layout(&talk.sandbox);
        let (manifest, named) = documents(&layout);
        // The first digest in a manifest is the config's; then the layers, base first.
        match which {
            "manifest" => flip_last_byte(&blob(&layout, &manifest)),
            "config" => flip_last_byte(&blob(&layout, &named[0])),
            "layer" => flip_last_byte(&blob(&layout, &named[2])),
            "absent layer" => fs::remove_file(blob(&layout, &named[2])).unwrap(),
            _ => {
                let mut bytes = fs::read(blob(&layout, &named[2])).unwrap();
                bytes.push(0);
                fs::write(blob(&layout, &named[2]), bytes).unwrap();
            }
        }
        talk.said.push_str(&format!("--- {which}\n"));
        talk.say("-q load --jobs 1 -i layout");
        assert_empty(&talk.sandbox);
        fs::remove_dir_all(layout).unwrap();
    }
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn limits() {
    let mut talk = Talk::new();
    for option in [
        "--max-manifest-bytes 100",
        "--max-members 3",
        "--max-images 1",
        "--max-archive-bytes 1000",
        "--max-entries 10",
        "--max-depth 1",
        "--max-path 20",
        "--max-xattr-bytes 10",
        "--max-layer-bytes 5000",
    ] {
        talk.say(&format!("-q load --jobs 1 -i FIX/cases-docker24.docker.tar.gz {option}"));
    }
    insta::assert_snapshot!(talk.transcript());
    assert_empty(&talk.sandbox);
}

#[test]
fn what_lint_does_not_read_is_no_clean_image() {
    let sandbox = Sandbox::new();
    let value = vec![b'x'; 600_000];
    // Those of all members and those of the file count together. The body is more than a pipe has.
    let tar = Tar::default()
        .extended(b'g', &[("SCHILY.xattr.user.one", &value)])
        .pax(&[("SCHILY.xattr.user.two", &value)])
        .file(b"f", &[0; 1 << 20])
        .end();
    fs::write(sandbox.path().join("t.tar"), tar).unwrap();
    sandbox.ok(&["import", "--max-xattr-bytes", "4000000", "t.tar", "x:1"]);
    for more in [&[][..], &["--verify"]] {
        let lint = [&["lint", "--fail-on", "security", "x:1"], more].concat();
        let error = sandbox.fails(&lint);
        assert!(error.contains("--max-xattr-bytes"), "{error}");
        sandbox.ok(&[&lint[..], &["--max-xattr-bytes", "4000000"]].concat());
    }
}

#[test]
fn images_and_paths_that_are_not_there() {
    let mut talk = Talk::new();
    talk.say("-q load -i FIX/cases.oci");
    fs::create_dir(talk.sandbox.path().join("full")).unwrap();
    fs::write(talk.sandbox.path().join("full/file"), "").unwrap();
    let before = talk.sandbox.ok(&["images", "--no-trunc"]);
    talk.say("ls nothing")
        .say("ls cases.oci:2")
        .say("ls Bad:Name:")
        .say("ls cases.oci:1:/nothing/at/all")
        .say("ls :/etc")
        .say("cat cases.oci:1")
        .say("cat cases.oci:1:/same")
        .say("cat cases.oci:1:/same/third/x")
        .say("stat cases.oci:1:/nothing")
        .say("layers nothing")
        .say("cp cases.oci:1:/same no/such/directory")
        .say("cp cases.oci:1:/same full/file")
        .say("cp cases.oci:1:/nothing here")
        .say("unpack nothing new")
        .say("unpack cases.oci:1 full")
        .say("unpack cases.oci:1 full/file")
        .say("unpack cases.oci:1 no/such")
        .say("export nothing -o x.tar")
        .say("export cases.oci:1 -o full")
        .say("export cases.oci:1 -o no/such.tar")
        .say("tag nothing x:1")
        .say("tag cases.oci:1 x@sha256:00")
        .say("tag cases.oci:1 Bad")
        .say("rmi nothing")
        .say("rmi nothing neither")
        .say("nonsense")
        .say("rmi");
    assert!(!talk.sandbox.path().join("x.tar").exists());
    insta::assert_snapshot!(talk.transcript());
    assert_eq!(before, talk.sandbox.ok(&["images", "--no-trunc"]));
    talk.sandbox.ok(&["-q", "fsck"]);
}

#[test]
fn stores_that_are_none() {
    let mut talk = Talk::new();
    fs::write(talk.sandbox.path().join("store"), "").unwrap();
    talk.say("images").say("load -i FIX/cases.oci").say("fsck").say("mounts");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn mounts_that_cannot_be() {
    let mut talk = Talk::new();
    talk.say("-q load -i FIX/cases.oci");
    fs::write(talk.sandbox.path().join("file"), "").unwrap();
    fs::create_dir(talk.sandbox.path().join("mnt")).unwrap();
    talk.say("mount --pull=never nothing mnt")
        .say("mount cases.oci:1 absent")
        .say("mount cases.oci:1 file")
        .say("mount cases.oci:1 store")
        .say("mount cases.oci:1 store/layers")
        .say("mount cases.oci:1 .")
        .say("umount mnt")
        .say("umount absent")
        .say("umount file")
        .say("mounts");
    insta::assert_snapshot!(talk.transcript());
}
