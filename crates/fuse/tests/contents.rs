//! Directory listings and file contents of a mounted tree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::{Mount, flat_tree, noise, with_each};
use rustix::fs::RawDir;
use strata_fuse::{MountOptions, Profile, TreeFacts};
use strata_testkit::needs;
use strata_tree::Spec;

/// Names, inode numbers and positions, from where the descriptor stands.
fn raw_list(dir: &File) -> Vec<(Vec<u8>, u64, u64)> {
    let mut room = [const { MaybeUninit::uninit() }; 8192];
    let mut raw = RawDir::new(dir, &mut room);
    let mut all = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry.unwrap();
        all.push((entry.file_name().to_bytes().to_vec(), entry.ino(), entry.next_entry_cookie()));
    }
    all
}

#[test]
fn a_listing_goes_on_from_every_position() {
    let mut spec = Spec::new().dir("wide");
    for index in 0..10_000 {
        spec = spec.symlink(format!("wide/a-name-of-some-length-{index:05}"), "x");
    }
    with_each(&spec, |mount| {
        let mut dir = File::open(mount.path("wide")).unwrap();
        let all = raw_list(&dir);
        assert_eq!(all.len(), 10_002);
        let mut names: Vec<_> = all.iter().map(|(name, ..)| name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 10_002);
        for at in [0, 1, 2, 3, 77, 4_999, 9_998, 10_000, 10_001] {
            dir.seek(SeekFrom::Start(all[at].2)).unwrap();
            assert_eq!(raw_list(&dir), all[at + 1..], "after entry {at}");
        }
        dir.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(raw_list(&dir), all);
    });
}

#[test]
fn listings_and_stat_agree_on_inode_numbers() {
    let spec = Spec::new().dir("a").dir("a/b").file("a/b/f", "").symlink("a/b/l", "f");
    with_each(&spec, |mount| {
        let listed = raw_list(&File::open(mount.path("a/b")).unwrap());
        let number = |name: &[u8]| listed.iter().find(|(n, ..)| n == name).unwrap().1;
        assert_eq!(number(b"."), fs::metadata(mount.path("a/b")).unwrap().ino());
        assert_eq!(number(b".."), fs::metadata(mount.path("a")).unwrap().ino());
        let root = raw_list(&File::open(&mount.root).unwrap());
        assert!(root.iter().filter(|(name, ..)| name.starts_with(b".")).all(|e| e.1 == 1));
        for entry in fs::read_dir(mount.path("a/b")).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
        }
    });
}

#[test]
fn contents_are_exact_at_every_offset() {
    let sizes = [0, 1, 4_095, 4_096, 4_097, 131_072, 131_073, 1_000_003];
    let bytes = noise(1_000_003);
    let mut spec = Spec::new();
    for size in sizes {
        spec = spec.file(size.to_string(), &bytes[..size]);
    }
    with_each(&spec, |mount| {
        for size in sizes {
            let path = mount.path(size.to_string());
            assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);
            let file = File::open(&path).unwrap();
            for offset in [0, 1, 4_095, 65_536, 131_071, 131_072, 999_999, 1_000_002] {
                let mut room = [0; 5_000];
                let read = file.read_at(&mut room, offset as u64).unwrap();
                let want = bytes[..size].get(offset..).unwrap_or_default();
                let want = &want[..want.len().min(room.len())];
                // A short read is allowed, a wrong or needlessly empty one is not.
                assert_eq!(&room[..read], &want[..read], "{size} at {offset}");
                assert_eq!(read == 0, want.is_empty(), "{size} at {offset}");
            }
            assert_eq!(fs::read(&path).unwrap(), &bytes[..size]);
        }
    });
}

#[test]
fn many_threads_read_many_files() {
    let bytes = noise(600_000);
    let mut spec = Spec::new();
    for index in 0..80_usize {
        let size = if index % 4 == 0 { 300_000 } else { 3_000 };
        spec = spec.file(index.to_string(), &bytes[index * 1_000..index * 1_000 + size]);
    }
    with_each(&spec, |mount| {
        std::thread::scope(|scope| {
            for thread in 0..8_usize {
                let bytes = &bytes;
                scope.spawn(move || {
                    for step in 0..80 {
                        let index = (step * 7 + thread * 11) % 80;
                        let read = fs::read(mount.path(index.to_string())).unwrap();
                        let at = index * 1_000;
                        assert!(read == bytes[at..at + read.len()], "file {index}");
                        assert_eq!(read.len(), if index % 4 == 0 { 300_000 } else { 3_000 });
                    }
                });
            }
        });
    });
}

#[test]
fn a_big_file_is_read_in_order() {
    if !needs::fuse() {
        return;
    }
    let bytes = noise(48 << 20);
    let spec = Spec::new().file("big", &bytes);
    for profile in [Profile::NoOpen, Profile::Passthrough] {
        let mount = Mount::flat(&spec, &MountOptions { profile, ..MountOptions::for_caller() });
        let mut file = File::open(mount.path("big")).unwrap();
        let mut room = vec![0; 1 << 20];
        for part in bytes.chunks(1 << 20) {
            file.read_exact(&mut room).unwrap();
            assert!(room == part);
        }
        assert_eq!(file.read(&mut room).unwrap(), 0);
    }
}

#[test]
fn programs_run_and_are_mapped() {
    let program = Path::new("/bin/true");
    if !needs::path(program) {
        return;
    }
    let bytes = fs::read(program).unwrap();
    with_each(&Spec::new().file("true", bytes).perm(0o755), |mount| {
        assert!(Command::new(mount.path("true")).status().unwrap().success());
    });
    if needs::fuse() {
        let spec = Spec::new().file("true", fs::read(program).unwrap()).perm(0o755);
        let mount = Mount::flat(&spec, &MountOptions { exec: false, ..MountOptions::for_caller() });
        assert!(Command::new(mount.path("true")).status().is_err(), "noexec");
    }
}

#[test]
fn nothing_can_be_written() {
    let spec = Spec::new().file("f", "content").perm(0o666).dir("d").perm(0o777);
    with_each(&spec, |mount| {
        let at = |name: &str| mount.path(name);
        let refused = |what: &str, result: std::io::Result<()>| {
            let error = result.expect_err(what);
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{what}");
        };
        refused("write", File::options().write(true).open(at("f")).map(drop));
        refused("append", File::options().append(true).open(at("f")).map(drop));
        refused("create", File::create(at("new")).map(drop));
        refused("mkdir", fs::create_dir(at("d/new")));
        refused("unlink", fs::remove_file(at("f")));
        refused("rmdir", fs::remove_dir(at("d")));
        refused("rename", fs::rename(at("f"), at("g")));
        refused("link", fs::hard_link(at("f"), at("g")));
        refused("symlink", std::os::unix::fs::symlink("x", at("l")));
        refused("chmod", fs::set_permissions(at("f"), fs::Permissions::from_mode(0o600)));
        refused("chown", std::os::unix::fs::lchown(at("f"), Some(1), None));
        let set = rustix::fs::lsetxattr(at("f"), "user.x", b"1", rustix::fs::XattrFlags::empty());
        refused("setxattr", set.map_err(Into::into));
        let removed = rustix::fs::lremovexattr(at("f"), "user.x");
        refused("removexattr", removed.map_err(Into::into));
        assert_eq!(fs::read(at("f")).unwrap(), b"content");
    });
}

#[test]
fn a_content_that_is_too_short_or_gone_is_an_error() {
    if !needs::fuse() {
        return;
    }
    let spec = Spec::new().file("cut", vec![7; 9_000]).file("gone", "x").file("whole", "x");
    let (tree, files, contents) = flat_tree(&spec);
    File::options()
        .write(true)
        .open(contents.path().join("0/cut"))
        .and_then(|file| file.set_len(5_000))
        .unwrap();
    fs::remove_file(contents.path().join("0/gone")).unwrap();
    let facts = TreeFacts::from(&*tree);
    let options = MountOptions { facts, ..MountOptions::for_caller() };
    let mount = Mount::of(files, &options);
    for name in ["cut", "gone"] {
        let error = fs::read(mount.path(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{name}: EIO");
    }
    assert_eq!(fs::read(mount.path("whole")).unwrap(), b"x");
}
