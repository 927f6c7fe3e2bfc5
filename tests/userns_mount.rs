//! Mounts in a user namespace whose contents the kernel reads: what they show, who may not remove
//! what they show, and what is left of them.
//!
//! Invariant: each script runs as root of a new user namespace with a new mount namespace; its
//! mounts end with it.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::process::{Command, Output};

use strata_testkit::needs;
use strata_testkit::sandbox::{Sandbox, program};
use strata_testkit::tars::{Head, Tar};

/// Before each script: `strata`, and `pid`, the newest daemon.
const WORDS: &str = "strata() { \"$STRATA\" --root store \"$@\"; }\n\
    pid() { strata mounts --format json |\n\
        sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' | tail -n 1; }\n\
    image=$(strata images -q | head -n 1)\n\
    mkdir -p mnt other\n";

fn unshared(sandbox: &Sandbox, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command
        .args(["-Urm", "--propagation", "private", "sh", "-euc"])
        .arg(format!("{WORDS}{script}"));
    command.current_dir(sandbox.path()).env("STRATA", program("strata"));
    command.env_remove("STRATA_BACKEND").output().unwrap()
}

/// What a script that must succeed prints.
fn ok(sandbox: &Sandbox, script: &str) -> String {
    let output = unshared(sandbox, script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// User namespaces in which overlayfs takes data-only lowers (Linux 6.16).
fn possible() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|word| word.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let unshare = Command::new("unshare").args(["-Urm", "true"]).status();
    needs::fuse()
        && needs::that(unshare.is_ok_and(|status| status.success()), "user namespaces")
        && needs::that(version >= (6, 16), "Linux 6.16")
}

#[test]
fn it_shows_what_the_daemon_shows() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let said = ok(
        &sandbox,
        "tree() { (cd $1; find . ! -type d -printf '%p %M %U %G %s %T@ %n %l\\n' | sort; \
             find . -type d -printf '%p %M %U %G %T@\\n' | sort; \
             find . -type f -exec sha256sum {} + | sort); }\n\
         strata mount -v --backend userns $image mnt 2>&1\n\
         strata mount --backend fuse $image other\n\
         tree mnt > a; tree other > b; cmp a b; [ $(wc -l < a) -gt 20 ]\n\
         awk '$5 ~ /mnt$/' /proc/self/mountinfo\n\
         strata umount mnt; strata umount other; strata mounts | wc -l",
    );
    assert!(said.contains("the kernel reads the contents"), "{said}");
    assert!(said.contains("- overlay strata:") && said.contains("userxattr"), "{said}");
    assert!(said.contains(" ro,nosuid,nodev"), "{said}");
    assert!(said.ends_with("\n1\n"), "{said}");
}

#[test]
fn contents_are_read_after_the_daemon_has_stopped_answering() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    // A stopped daemon answers nothing: what is read then, the kernel reads by itself.
    let said = ok(
        &sandbox,
        "strata mount --backend userns $image mnt\n\
         strata cat $image:/bin/busybox > want\n\
         exec 5< mnt/bin/busybox\n\
         kill -STOP $(pid); sleep 0.1\n\
         timeout 10 cmp - want <&5 && echo same\n\
         kill -CONT $(pid); exec 5<&-\n\
         strata umount mnt",
    );
    assert_eq!(said, "same\n");
}

#[test]
fn it_is_listed_and_keeps_its_image_until_it_goes() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let said = ok(
        &sandbox,
        "strata mount --backend userns $image mnt\n\
         strata mounts --format json | grep -c '\"backend\": \"userns\"'\n\
         strata mounts | awk 'NR == 2 {print $NF}'\n\
         if strata rmi -f $image 2> error; then exit 1; fi; grep -c 'it is mounted on' error\n\
         exec 5< mnt/bin/busybox\n\
         if strata umount mnt 2> error; then exit 1; fi; grep -c 'mnt is busy' error\n\
         strata umount --lazy mnt 2> error; grep -c 'serves them to the last' error\n\
         head -c 4 <&5 | tail -c 3; echo; exec 5<&-\n\
         i=0; while [ $(strata mounts | wc -l) -gt 1 ] && [ $i -lt 100 ]; do i=$((i+1)); \
             sleep 0.05; done\n\
         strata rmi -f $image > removed; strata images -q | wc -l; ls store/mounts",
    );
    assert_eq!(said, "1\nalive\n1\n1\n1\nELF\n0\n");
}

#[test]
fn a_mount_at_the_same_place_in_another_namespace_stays() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let said = ok(
        &sandbox,
        "unshare -m --propagation private \\\n\
             \"$STRATA\" --root store mount --backend userns $image mnt\n\
         first=$(pid)\n\
         strata mount --backend userns $image mnt; timeout 10 \"$STRATA\" --root store umount mnt\n\
         mountpoint -q mnt || echo gone; [ $(pid) = $first ] && echo stays; kill $first",
    );
    assert_eq!(said, "gone\nstays\n");
}

#[test]
fn what_a_kill_left_is_cleaned_up() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let killed = "strata mount --backend userns $image mnt; kill -9 $(pid); \
         while strata mounts | grep -q alive; do sleep 0.02; done; strata mounts | grep -c dead\n";
    for next in [
        "strata mount --backend userns $image mnt; ls mnt/bin > /dev/null; strata umount mnt",
        "strata umount mnt",
        "strata gc > /dev/null",
    ] {
        let script = format!("{killed}{next}\nmountpoint -q mnt || strata mounts | wc -l");
        assert_eq!(ok(&sandbox, &script), "1\n1\n", "{next}");
    }
}

#[test]
fn a_store_that_cannot_be_written_has_its_cache_at_home() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let said = ok(
        &sandbox,
        "mount --bind store store; mount -o remount,bind,ro store\n\
         unset XDG_CACHE_HOME; export HOME=$PWD\n\
         strata mount --backend fuse $image mnt; strata mounts | wc -l; ls .cache/stratafs\n\
         strata umount mnt",
    );
    assert_eq!(said, "2\nmounts\ntrees\n");
}

#[test]
fn what_it_cannot_is_refused_with_the_way_out() {
    if !possible() {
        return;
    }
    let sandbox = Sandbox::new();
    // A character device 0:0: a header of type 3, whose device numbers are zero.
    let archive = Tar::default().add(Head::new(b'3', b"zero"), b"").file(b"f", b"text").end();
    std::fs::write(sandbox.path().join("zero.tar"), archive).unwrap();
    sandbox.ok(&["import", "zero.tar", "zero:1"]);
    let refused = |how: &str| {
        let output = unshared(&sandbox, &format!("strata mount {how} $image mnt"));
        assert_eq!(output.status.code(), Some(1), "{how}");
        String::from_utf8(output.stderr).unwrap()
    };
    let zero = refused("--backend userns");
    assert!(zero.contains("/zero: a character device 0:0"), "{zero}");
    assert!(zero.contains("try --backend fuse"), "{zero}");
    assert!(refused("--backend userns --rw").contains("try --backend fuse"));
    assert!(refused("--backend kernel").contains("root of the initial user namespace"));
    let auto = ok(&sandbox, "strata mount -v $image mnt 2>&1; strata umount mnt");
    assert!(auto.contains("a daemon serves it through FUSE"), "{auto}");
    if needs::is_root() {
        let outside = sandbox.fails(&["mount", "--backend", "userns", "zero:1", "mnt"]);
        assert!(outside.contains("podman unshare"), "{outside}");
    }
}
