//! What stat, readlink, listxattr and statfs show of a mounted tree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use common::{Mount, with_each};
use rustix::fs::{lgetxattr, lgetxattr_query, llistxattr};
use rustix::io::Errno;
use strata_fuse::MountOptions;
use strata_testkit::needs;
use strata_tree::{Spec, TreePath};

/// A version 2 capability set: cap_net_raw, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A POSIX ACL as the kernel keeps it: version 2, then (tag, permissions, id) of user::rw-,
/// user:1234:r--, group::r--, mask::r--, other::---.
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, perm, id) in
        [(1_u16, 6_u16, none), (2, 4, 1234), (4, 4, none), (0x10, 4, none), (0x20, 0, none)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn types_modes_owners_and_devices() {
    let spec = Spec::new()
        .perm(0o755)
        .file("su", "x")
        .perm(0o4755)
        .owner(0, 0)
        .file("sg", "x")
        .perm(0o2711)
        .owner(70_000, 4_000_000_000)
        .dir("tmp")
        .perm(0o1777)
        .char_device("null", 1, 3)
        .perm(0o666)
        .block_device("disk", 259, 0x1_2345)
        .fifo("pipe")
        .socket("sock")
        .symlink("link", "/tmp/../su");
    with_each(&spec, |mount| {
        let stat = |name: &str| fs::symlink_metadata(mount.path(name)).unwrap();
        assert_eq!(stat("su").mode(), 0o104_755);
        assert_eq!(stat("sg").mode(), 0o102_711);
        assert_eq!((stat("sg").uid(), stat("sg").gid()), (70_000, 4_000_000_000));
        assert_eq!(stat("tmp").mode(), 0o041_777);
        let device = |name: &str| {
            let number = stat(name).rdev();
            (rustix::fs::major(number), rustix::fs::minor(number))
        };
        assert!(stat("null").file_type().is_char_device());
        assert_eq!(device("null"), (1, 3));
        assert!(stat("disk").file_type().is_block_device());
        assert_eq!(device("disk"), (259, 0x1_2345));
        assert!(stat("pipe").file_type().is_fifo());
        assert!(stat("sock").file_type().is_socket());
        assert_eq!(fs::read_link(mount.path("link")).unwrap(), Path::new("/tmp/../su"));
        assert_eq!(stat("link").size(), 10);
        assert_eq!(stat("link").mode(), 0o120_777);
        // nodev: the device shows, but does not open.
        let opened = fs::File::open(mount.path("null")).unwrap_err();
        assert_eq!(opened.kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn hard_links_are_one_inode_from_the_first_stat() {
    let target = TreePath::clamped(b"a/one").unwrap();
    let spec = Spec::new()
        .dir("a")
        .file("a/one", "body")
        .link("a/two", &target)
        .dir("b")
        .link("b/three", &target)
        .symlink("b/sym", "x")
        .link("b/sym2", &TreePath::clamped(b"b/sym").unwrap());
    with_each(&spec, |mount| {
        let first = fs::symlink_metadata(mount.path("b/three")).unwrap();
        assert_eq!(first.nlink(), 3);
        for name in ["a/one", "a/two"] {
            let other = fs::symlink_metadata(mount.path(name)).unwrap();
            assert_eq!((other.ino(), other.nlink()), (first.ino(), 3));
        }
        let link = fs::symlink_metadata(mount.path("b/sym2")).unwrap();
        assert_eq!(link.nlink(), 2);
        assert_eq!(fs::metadata(&mount.root).unwrap().nlink(), 4);
        assert_eq!(fs::metadata(&mount.root).unwrap().ino(), 1);
    });
}

#[test]
fn times_keep_nanoseconds_before_and_after_1970() {
    let times = [(0, 0), (1_700_000_000, 123_456_789), (-1, 999_999_999), (-86_400, 1)];
    let mut spec = Spec::new();
    for (index, (seconds, nanos)) in times.iter().enumerate() {
        spec = spec.file(format!("{index}"), "").mtime(*seconds, *nanos);
    }
    with_each(&spec, |mount| {
        for (index, (seconds, nanos)) in times.iter().enumerate() {
            let stat = fs::metadata(mount.path(index.to_string())).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec()), (*seconds, i64::from(*nanos)));
        }
    });
}

#[test]
fn xattrs_are_what_the_image_says() {
    let spec = Spec::new()
        .file("plain", "")
        .file("cap", "")
        .xattr("security.capability", CAPABILITY)
        .xattr("user.empty", "")
        .xattr("user.binary", [0, 255, 10])
        .dir("dir")
        .xattr("user.note", "on a directory");
    with_each(&spec, |mount| {
        let get = |name: &str, key: &str| {
            let mut room = [0; 64];
            let length = lgetxattr(mount.path(name), key, &mut room)?;
            Ok::<_, Errno>(room[..length].to_vec())
        };
        assert_eq!(get("cap", "security.capability").unwrap(), CAPABILITY);
        assert_eq!(get("cap", "user.empty").unwrap(), b"");
        assert_eq!(get("cap", "user.binary").unwrap(), [0, 255, 10]);
        assert_eq!(get("dir", "user.note").unwrap(), b"on a directory");
        assert_eq!(get("cap", "user.absent"), Err(Errno::NODATA));
        assert_eq!(get("plain", "user.empty"), Err(Errno::NODATA));

        assert_eq!(lgetxattr_query(mount.path("cap"), "user.binary"), Ok(3));
        assert_eq!(lgetxattr(mount.path("cap"), "user.binary", &mut [0; 2]), Err(Errno::RANGE));
        let mut room = [0; 128];
        let length = llistxattr(mount.path("cap"), &mut room).unwrap();
        assert_eq!(&room[..length], b"security.capability\0user.binary\0user.empty\0");
        let tight: &mut [u8] = &mut [0; 4];
        assert_eq!(llistxattr(mount.path("cap"), tight), Err(Errno::RANGE));
        assert_eq!(llistxattr(mount.path("plain"), &mut room), Ok(0));
    });
}

#[test]
fn a_tree_without_xattrs_answers_none() {
    if !needs::fuse() {
        return;
    }
    let mount = Mount::flat(&Spec::new().file("f", ""), &MountOptions::for_caller());
    let mut room = [0; 16];
    for _ in 0..2 {
        let get = lgetxattr(mount.path("f"), "user.x", &mut room);
        assert!(matches!(get, Err(Errno::OPNOTSUPP | Errno::NODATA)), "{get:?}");
    }
}

#[test]
fn acls_are_seen_by_getfacl_and_enforced_for_root_mounts() {
    let spec = Spec::new()
        .file("shared", "text")
        .perm(0o640)
        .owner(1, 1)
        .xattr("system.posix_acl_access", acl());
    with_each(&spec, |mount| {
        let mut room = [0; 128];
        let path = mount.path("shared");
        let length = lgetxattr(&path, "system.posix_acl_access", &mut room).unwrap();
        assert_eq!(&room[..length], acl());
        if needs::program("getfacl") {
            let listed = Command::new("getfacl").args(["-n", "-p"]).arg(&path).output().unwrap();
            let text = String::from_utf8(listed.stdout).unwrap();
            assert!(text.contains("user:1234:r--"), "{text}");
        }
        if needs::root() && needs::program("setpriv") {
            for (uid, allowed) in [("1234", true), ("1235", false)] {
                let output = Command::new("setpriv")
                    .args(["--reuid", uid, "--regid", uid, "--clear-groups", "cat"])
                    .arg(&path)
                    .output();
                assert_eq!(output.unwrap().status.success(), allowed, "uid {uid}");
            }
        }
    });
}

#[test]
fn names_are_bytes() {
    let odd: &[&[u8]] = &[b"\xff\xfe", b"new\nline", b" ", b"...", &[b'n'; 255]];
    let mut spec = Spec::new();
    for name in odd {
        spec = spec.file(name, name);
    }
    with_each(&spec, |mount| {
        for name in odd {
            let read = fs::read(mount.path(OsStr::from_bytes(name))).unwrap();
            assert_eq!(read, *name);
        }
        assert_eq!(fs::read_dir(&mount.root).unwrap().count(), odd.len());
    });
}

#[test]
fn names_that_are_not_there_or_too_long() {
    with_each(&Spec::new().file("here", ""), |mount| {
        for _ in 0..2 {
            let absent = fs::metadata(mount.path("absent")).unwrap_err();
            assert_eq!(absent.kind(), ErrorKind::NotFound);
        }
        let below_a_file = fs::metadata(mount.path("here/x")).unwrap_err();
        assert_eq!(below_a_file.kind(), ErrorKind::NotADirectory);
        for length in [256, 1000, 1025] {
            let long = fs::metadata(mount.path("n".repeat(length))).unwrap_err();
            assert_eq!(Errno::from_io_error(&long), Some(Errno::NAMETOOLONG));
        }
    });
}

#[test]
fn statfs_counts_the_image() {
    if !needs::fuse() {
        return;
    }
    let spec = Spec::new().dir("d").file("d/f", vec![1; 10_000]).file("g", "");
    let mount = Mount::flat(&spec, &MountOptions::for_caller());
    let stat = rustix::fs::statvfs(&mount.root).unwrap();
    assert_eq!((stat.f_blocks, stat.f_frsize), (3, 4096));
    assert_eq!((stat.f_files, stat.f_bfree, stat.f_ffree), (4, 0, 0));
    assert_eq!(stat.f_namemax, 255);
}

#[test]
fn the_mount_table_shows_what_it_is() {
    if !needs::fuse() {
        return;
    }
    let options = MountOptions { fsname: "strata:app,1".to_owned(), ..MountOptions::for_caller() };
    let mount = Mount::flat(&Spec::new(), &options);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mount.root.to_str().unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(root)).unwrap();
    assert!(line.contains(" - fuse.strata strata:app"), "{line}");
    let flags = line.split(' ').nth(5).unwrap();
    for flag in ["ro", "nosuid", "nodev"] {
        assert!(flags.split(',').any(|set| set == flag), "{line}");
    }
}
