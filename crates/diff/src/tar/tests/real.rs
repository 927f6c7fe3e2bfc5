//! Tars that GNU tar makes, where one is installed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use strata_testkit::needs;

use crate::tar::testkit::{expand, read_all};
use crate::tar::{Member, MemberKind};

fn tar(dir: &Path, options: &[&str]) -> Option<Vec<u8>> {
    if !needs::gnu_tar() {
        return None;
    }
    let out = Command::new("tar").args(options).args(["-cf", "-", "-C"]).arg(dir).arg(".").output();
    let out = out.unwrap();
    assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
    Some(out.stdout)
}

fn find<'a>(members: &'a [(Member, Vec<u8>)], path: &str) -> &'a (Member, Vec<u8>) {
    let found = members.iter().find(|(member, _)| member.path == path.as_bytes());
    found.unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn every_format_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("file"), b"content").unwrap();
    fs::hard_link(root.join("file"), root.join("hard")).unwrap();
    symlink("file", root.join("soft")).unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    let deep = format!("{0}/{0}", "p".repeat(60));
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        if format == "gnu" {
            // The first formats cannot hold these.
            fs::write(root.join("n".repeat(200)), b"long").unwrap();
            symlink("t".repeat(200), root.join("longlink")).unwrap();
        }
        if format == "ustar" {
            fs::remove_file(root.join("longlink")).unwrap();
            fs::remove_file(root.join("n".repeat(200))).unwrap();
            fs::create_dir_all(root.join(&deep)).unwrap();
            fs::write(root.join(&deep).join("x"), b"prefix").unwrap();
        }
        let options = [&format!("--format={format}"), "--sort=name", "--mtime=@-5"];
        let options = if matches!(format, "v7" | "ustar") { &options[..2] } else { &options[..] };
        let Some(bytes) = tar(root, options) else { return };
        let members = read_all(&bytes).unwrap_or_else(|error| panic!("{format}: {error}"));
        assert_eq!(find(&members, "./").0.kind, MemberKind::Directory, "{format}");
        assert_eq!(find(&members, "./dir/").0.kind, MemberKind::Directory, "{format}");
        let (file, body) = find(&members, "./file");
        assert_eq!((file.size, body.as_slice()), (7, &b"content"[..]), "{format}");
        if options.len() == 3 {
            assert_eq!((file.mtime.seconds, file.mtime.nanos), (-5, 0), "{format}");
        }
        let target = b"./file".to_vec();
        assert_eq!(find(&members, "./hard").0.kind, MemberKind::HardLink { target }, "{format}");
        let target = b"file".to_vec();
        assert_eq!(find(&members, "./soft").0.kind, MemberKind::Symlink { target }, "{format}");
        if format == "gnu" {
            let target = vec![b't'; 200];
            assert_eq!(find(&members, "./longlink").0.kind, MemberKind::Symlink { target });
            assert_eq!(find(&members, &format!("./{}", "n".repeat(200))).1, b"long");
        }
        if matches!(format, "ustar" | "posix") {
            assert_eq!(find(&members, &format!("./{deep}/x")).1, b"prefix");
        }
    }
}

#[test]
fn every_sparse_format_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"start").unwrap();
    // Enough pieces for GNU's blocks of 21, and a hole at the end.
    for i in 1..60_u64 {
        file.write_all_at(&[i as u8; 4096], i * 64 * 1024).unwrap();
    }
    file.set_len(5_000_000).unwrap();
    let content = fs::read(&path).unwrap();
    for options in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        // The map is taken from the bytes, so that it is the same on every file system.
        let options = [options, &["--sparse", "--hole-detection=raw"]].concat();
        let Some(bytes) = tar(dir.path(), &options) else { return };
        assert!(bytes.len() < content.len() / 2, "{options:?} is not sparse");
        let members = read_all(&bytes).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let (member, stored) = find(&members, "./sparse");
        assert!(member.sparse.as_ref().unwrap().len() > 25, "{options:?}");
        assert!(expand(member, stored) == content, "{options:?}");
    }
}

#[test]
fn xattrs_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"").unwrap();
    let value = b"a\0b\n=c\xff";
    let flags = rustix::fs::XattrFlags::empty();
    let set = rustix::fs::setxattr(&path, "user.strata", value, flags);
    if !needs::that(set.is_ok(), "a file system with extended attributes") {
        return;
    }
    let Some(bytes) = tar(dir.path(), &["--format=posix", "--xattrs"]) else { return };
    let members = read_all(&bytes).unwrap();
    let xattrs = &find(&members, "./f").0.xattrs;
    assert!(xattrs.contains(&(b"user.strata".to_vec(), value.to_vec())), "{xattrs:?}");
}
