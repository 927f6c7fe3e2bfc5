//! `strata mount --verify`: bytes that were changed on the disk are not read through a mount.
//!
//! Invariant: each change keeps the length and the time of the file: nothing but the digest tells.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use strata_testkit::needs;
use strata_testkit::sandbox::Sandbox;

const IMAGE: &str = "stratafs.test/busybox:1";
const CHANGED: &str = "etc/passwd";

/// Where the store has a file of the image.
fn stored(sandbox: &Sandbox, path: &str) -> PathBuf {
    let layers = fs::read_dir(sandbox.path().join("store/layers")).unwrap();
    let mut all = layers.map(|layer| layer.unwrap().path().join("diff").join(path));
    all.find(|path| path.is_file()).unwrap()
}

/// Changes the first byte.
fn change(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes[0] ^= 1;
    let meta = file.metadata().unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    fs::write(file, bytes).unwrap();
    let times = FileTimes::new().set_modified(meta.modified().unwrap());
    File::options().write(true).open(file).unwrap().set_times(times).unwrap();
    fs::set_permissions(file, meta.permissions()).unwrap();
}

fn log(sandbox: &Sandbox) -> String {
    let mounts = fs::read_dir(sandbox.path().join("store/mounts")).unwrap();
    let paths = mounts.map(|one| one.unwrap().path());
    let logs = paths.filter(|path| path.extension().is_some_and(|end| end == "log"));
    logs.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_changed_content_cannot_be_read_and_the_log_names_it() {
    if !needs::fuse() {
        return;
    }
    for profile in ["no-open", "passthrough"] {
        let sandbox = Sandbox::with("busybox-gzip.oci.tar");
        let file = stored(&sandbox, CHANGED);
        let right = fs::read(&file).unwrap();
        change(&file);
        let point = sandbox.dir("mnt");
        sandbox.ok(&["mount", "--verify", "--profile", profile, IMAGE, "mnt"]);
        for _ in 0..2 {
            let refused = fs::read(point.join(CHANGED)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::IO.raw_os_error()), "{profile}");
        }
        // All others are as ever.
        assert!(!fs::read(point.join("etc/group")).unwrap().is_empty());
        let said = log(&sandbox);
        assert!(said.contains("verifying /etc/passwd of layer sha256:"), "{said}");
        assert!(said.contains("its digest is sha256:"), "{said}");
        let mounts = sandbox.json(&["mounts"]);
        assert_eq!(mounts[0]["options"].as_array().unwrap().last().unwrap(), "verify");

        // What is mended can be read again.
        change(&file);
        assert_eq!(fs::read(point.join(CHANGED)).unwrap(), right, "{profile}");
        sandbox.ok(&["umount", "mnt"]);
    }
}

#[test]
fn a_changed_content_is_not_copied_up() {
    if !needs::fuse() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    change(&stored(&sandbox, CHANGED));
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--verify", "--rw", IMAGE, "mnt"]);
    let refused = File::options().append(true).open(point.join(CHANGED)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::IO.raw_os_error()));
    // What the writable layer has is not the image's.
    fs::write(point.join("etc/new"), "new").unwrap();
    assert_eq!(fs::read(point.join("etc/new")).unwrap(), b"new");
    fs::remove_file(point.join(CHANGED)).unwrap();
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn without_a_daemon_nothing_is_verified_so_it_is_refused() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    sandbox.dir("mnt");
    for backend in ["kernel", "userns"] {
        let said = sandbox.fails(&["mount", "--verify", "--backend", backend, IMAGE, "mnt"]);
        assert!(said.contains("verif"), "{said}");
    }
}
