//! How mounts begin and end, and who may.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Mount, flat_tree, noise};
use strata_content::conformance::in_memory;
use strata_fuse::{Error, Manner, MountOptions, Profile, serve, unmount};
use strata_testkit::needs;
use strata_tree::Spec;

fn mounted() -> Mount {
    Mount::mem(&Spec::new().dir("d").file("d/f", noise(200_000)))
}

fn ends(mount: &mut Mount) {
    let since = Instant::now();
    while !mount.session().is_over() {
        assert!(since.elapsed() < Duration::from_secs(10), "the session goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    mount.session.take().unwrap().wait().unwrap();
}

#[test]
fn unmounting_ends_the_session() {
    if !needs::fuse() {
        return;
    }
    let mut mount = mounted();
    assert!(mount.path("d/f").exists());
    mount.session().unmount().unwrap();
    ends(&mut mount);
    assert_eq!(fs::read_dir(&mount.root).unwrap().count(), 0);
}

#[test]
fn a_busy_mount_stays_until_it_is_free() {
    if !needs::fuse() {
        return;
    }
    let mut mount = mounted();
    let mut open = File::open(mount.path("d/f")).unwrap();
    assert!(matches!(mount.session().unmount(), Err(Error::Busy(_))));
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, noise(200_000));
    drop(open);
    mount.session().unmount().unwrap();
    ends(&mut mount);
}

#[test]
fn a_detached_mount_serves_what_is_open() {
    if !needs::fuse() {
        return;
    }
    let mut mount = mounted();
    let mut open = File::open(mount.path("d/f")).unwrap();
    mount.session().detach().unwrap();
    assert!(!mount.path("d").exists());
    assert!(!mount.session().is_over());
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, noise(200_000));
    drop(open);
    ends(&mut mount);
}

#[test]
fn someone_else_may_unmount_and_nothing_below_is_touched() {
    if !needs::fuse() {
        return;
    }
    let mut mount = mounted();
    unmount(&mount.root, Manner::Clean).unwrap();
    let unmounter = mount.session().unmounter();
    ends(&mut mount);
    // Another mount at the same place is not ours to take away.
    let other = serve(
        in_memory(&Spec::new().file("other", "")).unwrap(),
        &mount.root,
        &MountOptions::for_caller(),
    )
    .unwrap();
    assert!(matches!(unmounter.unmount(Manner::Lazy), Err(Error::NotMounted(_))));
    assert!(mount.path("other").exists());
    other.unmount().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_dropped_session_leaves_no_mount() {
    if !needs::fuse() {
        return;
    }
    let mut mount = mounted();
    mount.session = None;
    assert!(!mount.path("d").exists());
}

#[test]
fn a_mount_through_a_link_is_known_by_its_real_place() {
    if !needs::fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
    let tree = in_memory(&Spec::new().file("f", "")).unwrap();
    let session = serve(tree, &dir.path().join("link"), &MountOptions::for_caller()).unwrap();
    assert_eq!(session.mountpoint(), real.canonicalize().unwrap());
    assert!(real.join("f").exists());
    session.unmount().unwrap();
    session.wait().unwrap();
}

#[test]
fn passthrough_reads_the_same_and_leaves_the_contents_alone() {
    if !needs::fuse() {
        return;
    }
    let bytes = noise(3_000_000);
    let spec = Spec::new().file("small", "text").file("large", &bytes);
    let options = MountOptions { profile: Profile::Passthrough, ..MountOptions::for_caller() };
    let mount = Mount::flat(&spec, &options);
    // Several descriptors of one inode, overlapping, from several threads: one backing.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let first = File::open(mount.path("large")).unwrap();
                    assert_eq!(fs::read(mount.path("small")).unwrap(), b"text");
                    let mut second = File::open(mount.path("large")).unwrap();
                    drop(first);
                    let mut read = Vec::new();
                    second.read_to_end(&mut read).unwrap();
                    assert!(read == bytes);
                }
            });
        }
    });
    let held = File::open(mount.path("large")).unwrap();
    let writing = File::options().read(true).write(true).open(mount.path("large"));
    assert_eq!(writing.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    drop(held);
    assert!(fs::read(mount.contents().join("0/large")).unwrap() == bytes);
}

#[test]
fn passthrough_follows_the_modes_of_the_image() {
    if !needs::root_and_fuse() {
        return;
    }
    let spec = Spec::new().perm(0o755).file("secret", "x").perm(0o600);
    for profile in [Profile::NoOpen, Profile::Passthrough] {
        let mount = Mount::flat(&spec, &MountOptions { profile, ..MountOptions::for_caller() });
        fs::set_permissions(mount.root.parent().unwrap(), fs::Permissions::from_mode(0o755))
            .unwrap();
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "cat"])
            .arg(mount.path("secret"))
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
    }
}

/// Run by the next test as an ordinary user.
#[test]
#[ignore = "run by an_ordinary_user_sees_everything_as_it_is"]
fn as_an_ordinary_user() {
    use std::os::unix::fs::MetadataExt;
    let spec = Spec::new()
        .dir("private")
        .perm(0o700)
        .file("private/shadow", "root only")
        .perm(0o000)
        .owner(0, 42)
        .file("private/su", "x")
        .perm(0o4755)
        .xattr("security.capability", [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .char_device("private/null", 1, 3);
    let (_, files, _contents) = flat_tree(&spec);
    let dir = tempfile::tempdir().unwrap();
    let session = serve(files.clone(), dir.path(), &MountOptions::for_caller()).unwrap();
    let shadow = dir.path().join("private/shadow");
    let stat = fs::metadata(&shadow).unwrap();
    assert_eq!((stat.mode(), stat.uid(), stat.gid()), (0o100_000, 0, 42));
    assert_eq!(fs::read(&shadow).unwrap(), b"root only");
    let su = dir.path().join("private/su");
    assert_eq!(fs::metadata(&su).unwrap().mode(), 0o104_755);
    let mut room = [0; 32];
    assert_eq!(rustix::fs::lgetxattr(&su, "security.capability", &mut room), Ok(20));
    let held = File::open(&shadow).unwrap();
    assert!(matches!(session.unmount(), Err(Error::Busy(_))));
    drop(held);
    session.unmount().unwrap();
    session.wait().unwrap();
    assert!(!shadow.exists());

    let session = serve(files.clone(), dir.path(), &MountOptions::for_caller()).unwrap();
    let held = File::open(&shadow).unwrap();
    session.detach().unwrap();
    assert!(!shadow.exists());
    drop(held);
    session.wait().unwrap();

    let suid = MountOptions { suid: true, ..MountOptions::for_caller() };
    assert!(matches!(serve(files.clone(), dir.path(), &suid), Err(Error::NeedsRoot("--suid"))));
    let foreign = serve(files, std::path::Path::new("/etc"), &MountOptions::for_caller());
    assert!(matches!(foreign, Err(Error::Helper(_))), "{foreign:?}");
}

#[test]
fn an_ordinary_user_sees_everything_as_it_is() {
    if !needs::fuse() {
        return;
    }
    let mut command = if needs::is_root() {
        // What distributions ship; a bare machine may have 0600.
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        command.arg(std::env::current_exe().unwrap());
        command
    } else {
        Command::new(std::env::current_exe().unwrap())
    };
    let output = command
        .args(["--ignored", "--exact", "as_an_ordinary_user", "--nocapture"])
        .env("TMPDIR", "/tmp")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}
