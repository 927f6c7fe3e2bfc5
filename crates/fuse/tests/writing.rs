//! A writable mount: what programs do to names and metadata, and what the kernel makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::{
    DirEntryExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::union::{Rw, can_write, each_mode};
use rustix::fs::{CWD, FileType, Mode, RawDir, RenameFlags, XattrFlags, mknodat, renameat_with};
use rustix::io::Errno;
use strata_content::conformance::in_memory;
use strata_fuse::{Ids, MountOptions, WritableOptions};
use strata_testkit::needs;
use strata_tree::Spec;
use strata_union::writable::UnionOptions;

fn code(result: io::Result<()>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn set(path: &Path, name: &str, value: &[u8], flags: XattrFlags) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, flags)?)
}

fn get(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut room = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut room)?;
    room.truncate(length);
    Ok(room)
}

/// Runs a shell as somebody.
fn shell(user: u32, script: &str) -> bool {
    Command::new("sh").args(["-c", script]).uid(user).gid(user).status().unwrap().success()
}

/// Does something on a thread of somebody.
fn as_user(user: u32, work: impl FnOnce() + Send) {
    let id = rustix::process::Uid::from_raw(user);
    let work = || {
        rustix::thread::set_thread_res_uid(id, id, id).unwrap();
        work();
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap();
}

#[test]
fn files_are_made_read_changed_and_removed() {
    if !can_write() {
        return;
    }
    let spec = Spec::new().dir("low").file("low/f", "below").file("low/g", "stays");
    for options in each_mode() {
        let rw = Rw::new(&spec, &options);
        fs::create_dir(rw.path("new")).unwrap();
        fs::write(rw.path("new/f"), "content").unwrap();
        assert_eq!(fs::read(rw.path("new/f")).unwrap(), b"content");
        let number = fs::metadata(rw.path("low/f")).unwrap().ino();
        let mut appended = File::options().append(true).open(rw.path("low/f")).unwrap();
        appended.write_all(b" and above").unwrap();
        assert_eq!(fs::read(rw.path("low/f")).unwrap(), b"below and above");
        assert_eq!(fs::read(rw.upper("low/f")).unwrap(), b"below and above");
        assert_eq!(fs::metadata(rw.path("low/f")).unwrap().ino(), number);
        fs::rename(rw.path("low/f"), rw.path("new/g")).unwrap();
        assert_eq!(fs::metadata(rw.path("low/f")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::hard_link(rw.path("new/g"), rw.path("new/h")).unwrap();
        assert_eq!(fs::metadata(rw.path("new/g")).unwrap().nlink(), 2);
        symlink("../low/g", rw.path("new/l")).unwrap();
        assert_eq!(fs::read(rw.path("new/l")).unwrap(), b"stays");
        assert_eq!(fs::read_link(rw.path("new/l")).unwrap(), Path::new("../low/g"));
        assert_eq!(
            fs::remove_dir(rw.path("new")).unwrap_err().kind(),
            ErrorKind::DirectoryNotEmpty
        );
        fs::remove_dir_all(rw.path("new")).unwrap();
        fs::remove_dir_all(rw.path("low")).unwrap();
        assert_eq!(fs::read_dir(&rw.root).unwrap().count(), 0);
        assert_eq!(
            code(fs::write(rw.path("x".repeat(256)), "")),
            Errno::NAMETOOLONG.raw_os_error()
        );
    }
}

#[test]
fn nodes_of_every_type_are_made_with_the_callers_umask() {
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new(), &WritableOptions::default());
    let script = format!(
        "cd {} && umask 027 && mkdir d && : > f && mkfifo p && mknod c c 1 3 && mknod b b 7 65537 \
         && mknod zero c 0 0 && umask 0 && mkdir wide",
        rw.root.display()
    );
    assert!(shell(0, &script));
    let mode = |name: &str| fs::symlink_metadata(rw.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("d"), 0o750);
    assert_eq!(mode("f"), 0o640);
    assert_eq!(mode("p"), 0o640);
    assert_eq!(mode("wide"), 0o777);
    let of = |name: &str| fs::symlink_metadata(rw.path(name)).unwrap();
    assert!(of("p").file_type().is_fifo());
    assert!(of("c").file_type().is_char_device());
    assert_eq!(of("c").rdev(), rustix::fs::makedev(1, 3));
    assert!(of("b").file_type().is_block_device());
    assert_eq!(of("b").rdev(), rustix::fs::makedev(7, 65_537));
    assert!(of("zero").file_type().is_char_device(), "a device 0:0 is not a whiteout");
    assert_eq!(of("zero").rdev(), 0);
    mknodat(CWD, rw.path("socket"), FileType::Socket, Mode::RUSR, 0).unwrap();
    assert!(of("socket").file_type().is_socket());
}

#[test]
fn renames_heed_their_flags() {
    if !can_write() {
        return;
    }
    let spec = Spec::new().file("a", "a").file("b", "b").dir("d").file("d/x", "x");
    let rw = Rw::new(&spec, &WritableOptions::default());
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, rw.path(from), CWD, rw.path(to), flags).map_err(io::Error::from)
    };
    let refused = |from: &str, to: &str, flags| code(rename(from, to, flags));
    assert_eq!(refused("a", "b", RenameFlags::NOREPLACE), Errno::EXIST.raw_os_error());
    assert_eq!(refused("a", "none", RenameFlags::EXCHANGE), Errno::NOENT.raw_os_error());
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    assert_eq!(refused("a", "b", both), Errno::INVAL.raw_os_error());
    rename("a", "d", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(rw.path("a/x")).unwrap(), b"x");
    assert_eq!(fs::read(rw.path("d")).unwrap(), b"a");
    rename("b", "c", RenameFlags::WHITEOUT).unwrap();
    assert_eq!(fs::read(rw.path("c")).unwrap(), b"b");
    let left = fs::symlink_metadata(rw.path("b")).map(|stat| (stat.rdev(), stat.mode() >> 12));
    assert!(left.as_ref().map_or(true, |stat| *stat == (0, 2)), "{left:?}");
}

#[test]
fn attributes_heed_their_flags_and_links_are_not_followed() {
    if !can_write() {
        return;
    }
    let spec = Spec::new().file("f", "x").xattr("user.low", "1").symlink("l", "f");
    let rw = Rw::new(&spec, &WritableOptions::default());
    let file = rw.path("f");
    assert_eq!(get(&file, "user.low").unwrap(), b"1");
    let create = set(&file, "user.low", b"2", XattrFlags::CREATE);
    assert_eq!(code(create), Errno::EXIST.raw_os_error());
    let replace = set(&file, "user.none", b"2", XattrFlags::REPLACE);
    assert_eq!(code(replace), Errno::NODATA.raw_os_error());
    set(&file, "user.low", b"2", XattrFlags::empty()).unwrap();
    assert_eq!(get(&file, "user.low").unwrap(), b"2");
    rustix::fs::lremovexattr(&file, "user.low").unwrap();
    assert_eq!(code(get(&file, "user.low").map(drop)), Errno::NODATA.raw_os_error());
    set(&rw.path("l"), "trusted.link", b"1", XattrFlags::empty()).unwrap();
    assert!(get(&file, "trusted.link").is_err());
    let mut names = [0; 256];
    let length = rustix::fs::llistxattr(rw.path("l"), &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"trusted.link\0");
    let list = format!("test -z \"$(getfattr -hd -m - {})\"", rw.path("l").display());
    assert!(shell(1000, &list), "trusted attributes are root's");
}

#[test]
fn set_id_bits_and_capabilities_go_with_a_write_or_a_new_owner() {
    if !can_write() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for options in each_mode() {
        let spec =
            Spec::new().file("low", "low").perm(0o6777).xattr("security.capability", capability);
        let rw = Rw::new(&spec, &options);
        fs::write(rw.path("new"), "new").unwrap();
        fs::write(rw.path("cut"), "new").unwrap();
        fs::write(rw.path("owned"), "new").unwrap();
        let set_up = |name: &str| {
            fs::set_permissions(rw.path(name), Permissions::from_mode(0o6777)).unwrap();
            set(&rw.path(name), "security.capability", &capability, XattrFlags::empty()).unwrap();
        };
        let perm = |name: &str| fs::metadata(rw.path(name)).unwrap().mode() & 0o7777;
        for name in ["new", "cut", "owned"] {
            set_up(name);
            assert_eq!(perm(name), 0o6777);
        }
        for (name, how) in [("low", ">>"), ("new", ">>"), ("cut", ">")] {
            let script = format!("echo more {how} {}", rw.path(name).display());
            assert!(shell(1000, &script));
            assert_eq!(perm(name), 0o777, "{name}");
            assert!(get(&rw.path(name), "security.capability").is_err(), "{name}");
        }
        lchown(rw.path("owned"), Some(7), None).unwrap();
        assert_eq!(perm("owned"), 0o777);
        assert!(get(&rw.path("owned"), "security.capability").is_err());
    }
}

#[test]
fn set_id_bits_go_with_every_change_of_content_and_stay_for_root() {
    if !can_write() {
        return;
    }
    let changes = [
        "echo more >> f",
        "echo less > f",
        "truncate -s 3 f",
        "truncate -s 9000 f",
        "fallocate -l 9000 f",
        "dd if=big of=f conv=notrunc status=none",
        "dd if=big of=f conv=notrunc bs=4096 oflag=direct status=none",
    ];
    let copy_range = |inside: &Path| {
        let big = File::open(inside.join("big")).unwrap();
        let file = File::options().write(true).open(inside.join("f")).unwrap();
        rustix::fs::copy_file_range(big, None, file, None, 8192).unwrap();
    };
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("big", vec![b'x'; 8192]), &options);
        let file = rw.path("f");
        let (inside, perm) = (rw.root.display(), || fs::metadata(&file).unwrap().mode() & 0o7777);
        for change in changes {
            for (user, wanted) in [(1000, 0o777), (0, 0o6777)] {
                fs::write(&file, "content").unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o6777)).unwrap();
                assert!(shell(user, &format!("cd {inside} && {change}")), "{change}");
                assert_eq!(perm(), wanted, "{change} as {user}");
                assert_eq!(fs::metadata(rw.upper("f")).unwrap().mode() & 0o7777, wanted);
            }
        }
        fs::set_permissions(&file, Permissions::from_mode(0o6777)).unwrap();
        copy_range(&rw.root);
        assert_eq!(perm(), 0o6777);
        as_user(1000, || copy_range(&rw.root));
        assert_eq!(perm(), 0o777);
    }
}

#[test]
fn a_file_that_gets_set_id_bits_while_it_is_open_loses_them_by_the_next_write() {
    if !can_write() {
        return;
    }
    for options in each_mode() {
        let rw = Rw::new(&Spec::new(), &options);
        let (file, inside) = (rw.path("f"), rw.root.display());
        fs::write(&file, "content").unwrap();
        lchown(&file, Some(1000), Some(1000)).unwrap();
        let script = format!(
            "cd {inside} && exec 3>>f && echo one >&3 && chmod 6777 f && \
             test $(stat -c %a f) = 6777 && echo two >&3 && test $(stat -c %a f) = 777"
        );
        assert!(shell(1000, &script));
        assert_eq!(fs::read(&file).unwrap(), b"contentone\ntwo\n");
    }
}

#[test]
fn directories_hand_down_groups_and_access_lists() {
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new().dir("d").perm(0o2775).owner(0, 50), &WritableOptions::default());
    let dir = rw.path("d");
    let acl = format!("setfacl -d -m u:1001:rwx,g::rx,o::- {}", dir.display());
    assert!(shell(0, &acl));
    assert!(shell(0, &format!("umask 077; mkdir {0}/sub; : > {0}/f", dir.display())));
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().gid(), 50);
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().mode() & 0o7777, 0o2770);
    assert_eq!(fs::metadata(dir.join("f")).unwrap().mode() & 0o7777, 0o660);
    assert!(shell(1001, &format!("echo x >> {}/f", dir.display())));
    assert!(!shell(1002, &format!("cat {}/f 2>/dev/null", dir.display())));
    let without = MountOptions { acl: false, ..WritableOptions::default().mount };
    let rw = Rw::new(
        &Spec::new().dir("d"),
        &WritableOptions { mount: without, ..WritableOptions::default() },
    );
    let refused = set(&rw.path("d"), "system.posix_acl_access", b"\x02\0\0\0", XattrFlags::empty());
    assert_eq!(code(refused), Errno::OPNOTSUPP.raw_os_error());
}

#[test]
fn owners_are_shown_and_kept_through_the_maps() {
    if !can_write() {
        return;
    }
    let ids = Ids { users: "0:1000:10".parse().unwrap(), groups: "0:2000:10".parse().unwrap() };
    let mount = MountOptions { ids, static_nlink: true, ..WritableOptions::default().mount };
    let spec = Spec::new().file("f", "").owner(3, 4).file("g", "").owner(99, 99);
    let rw = Rw::new(&spec, &WritableOptions { mount, ..WritableOptions::default() });
    let owner = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap();
        (stat.uid(), stat.gid())
    };
    assert_eq!(owner(&rw.path("f")), (1003, 2004));
    assert_eq!(owner(&rw.path("g")), (65_534, 65_534));
    lchown(rw.path("f"), Some(1005), Some(2006)).unwrap();
    assert_eq!(owner(&rw.upper("f")), (5, 6));
    assert_eq!(code(lchown(rw.path("f"), Some(5), None)), Errno::INVAL.raw_os_error());
    fs::set_permissions(&rw.root, Permissions::from_mode(0o777)).unwrap();
    let made = Command::new("mkdir").arg(rw.path("d")).uid(1007).gid(2008).status().unwrap();
    assert!(made.success());
    assert_eq!(owner(&rw.upper("d")), (7, 8));
    assert_eq!(fs::metadata(rw.path("d")).unwrap().nlink(), 1);
    let unmapped = fs::create_dir(rw.path("e"));
    assert_eq!(code(unmapped), Errno::OVERFLOW.raw_os_error(), "root has no number in the map");
}

/// Names from where the descriptor stands, at most about `room` bytes of them.
fn some_names(dir: &File, room: usize) -> Vec<String> {
    let mut buffer = vec![MaybeUninit::uninit(); room];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if raw.is_buffer_empty() {
            break;
        }
    }
    names
}

#[test]
fn a_listing_of_100_000_names_is_stable_under_removal() {
    if !can_write() {
        return;
    }
    let mut spec = Spec::new().dir("d");
    for index in 0..100_000 {
        spec = spec.symlink(format!("d/{index:06}"), "x");
    }
    let tree = in_memory(&spec).unwrap();
    let rw = Rw::over(tree, &WritableOptions::default(), UnionOptions::default());
    let dir = File::open(rw.path("d")).unwrap();
    let mut seen = Vec::new();
    let mut removed = BTreeSet::new();
    for round in 0.. {
        let more = some_names(&dir, 32 * 1024);
        if more.is_empty() {
            break;
        }
        seen.extend(more);
        // What was seen and what is to come, all over the directory.
        for index in (round..100_000).step_by(9_973) {
            let name = format!("{index:06}");
            if removed.insert(name.clone()) {
                fs::remove_file(rw.path("d").join(&name)).unwrap();
            }
        }
    }
    let unique: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "no name twice");
    for index in 0..100_000 {
        let name = format!("{index:06}");
        assert!(removed.contains(&name) || unique.contains(&name), "{name} was left out");
    }
    // From the start again: what is there now, with the numbers that stat tells.
    let left = fs::read_dir(rw.path("d")).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(left.len(), 100_000 - removed.len());
    for entry in left.iter().step_by(1_001) {
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
    }
}

/// As under the kernel's overlayfs, which does not look a name up to list it.
#[test]
fn a_name_that_cannot_be_looked_up_is_listed() {
    if !can_write() {
        return;
    }
    let spec = Spec::new().file("a", "a").file("b", "b").file("z", "z");
    let rw = Rw::new(&spec, &WritableOptions::default());
    // Where its content is, is said by what is no path.
    fs::write(rw.upper("m"), "").unwrap();
    set(&rw.upper("m"), "trusted.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
    set(&rw.upper("m"), "trusted.overlay.redirect", b"a/b", XattrFlags::empty()).unwrap();
    for _ in 0..2 {
        let names: BTreeSet<_> = fs::read_dir(&rw.root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "m", "z"].map(String::from).into());
        assert_eq!(fs::read(rw.path("b")).unwrap(), b"b");
        let error = fs::symlink_metadata(rw.path("m")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
    fs::remove_file(rw.upper("m")).unwrap();
    assert_eq!(fs::symlink_metadata(rw.path("m")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_directory_that_is_read_again_shows_what_is_new() {
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new().file("a", "").file("b", ""), &WritableOptions::default());
    let mut dir = File::open(&rw.root).unwrap();
    let read = |dir: &File| some_names(dir, 4096).into_iter().collect::<BTreeSet<_>>();
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(read(&dir), names(&[".", "..", "a", "b"]));
    fs::write(rw.path("c"), "").unwrap();
    fs::remove_file(rw.path("a")).unwrap();
    io::Seek::rewind(&mut dir).unwrap();
    assert_eq!(read(&dir), names(&[".", "..", "b", "c"]));
}

#[test]
fn what_is_gone_and_what_comes_is_seen_at_once() {
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new().dir("d").file("d/f", "1"), &WritableOptions::default());
    assert!(!rw.path("d/new").exists(), "the kernel remembers that there is none");
    fs::write(rw.path("d/new"), "x").unwrap();
    assert!(rw.path("d/new").exists());
    fs::rename(rw.path("d"), rw.path("e")).unwrap();
    assert!(!rw.path("d").exists());
    assert_eq!(fs::read(rw.path("e/f")).unwrap(), b"1");
    let before = fs::metadata(rw.path("e")).unwrap().mtime_nsec();
    fs::remove_file(rw.path("e/f")).unwrap();
    assert_ne!(fs::metadata(rw.path("e")).unwrap().mtime_nsec(), before);
    assert_eq!(fs::metadata(&rw.root).unwrap().nlink(), 3);
}

#[test]
fn times_are_set_before_and_after_1970() {
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new().file("f", ""), &WritableOptions::default());
    for (seconds, nanos) in [(-2, 250_000_000), (-1, 0), (0, 1), (1_700_000_000, 123_456_789)] {
        let at = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, rw.path("f"), &times, flags).unwrap();
        for path in [rw.path("f"), rw.upper("f")] {
            let stat = fs::metadata(path).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec()), (seconds, nanos));
            assert_eq!((stat.atime(), stat.atime_nsec()), (seconds, nanos));
        }
    }
}

#[test]
fn space_and_unnamed_files_and_ioctls() {
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new(), &WritableOptions::default());
    let (here, there) =
        (rustix::fs::statvfs(&rw.root).unwrap(), rustix::fs::statvfs(rw.upper("")).unwrap());
    assert_eq!((here.f_blocks, here.f_namemax), (there.f_blocks, there.f_namemax));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(rw.path("f"))
        .unwrap();
    fs::remove_file(rw.path("f")).unwrap();
    file.write_all(b"unnamed").unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "unnamed");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.sync_all().unwrap();
    File::open(&rw.root).unwrap().sync_all().unwrap();
    let (here, there) = (rw.path("d"), rw.upper("d"));
    fs::create_dir(&here).unwrap();
    let flags = |path| rustix::fs::ioctl_getflags(File::open(path).unwrap());
    assert_eq!(flags(&here).ok(), flags(&there).ok());
}

#[test]
fn flags_of_the_file_system_stay_when_others_are_set() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    use strata_tree::inode_version;
    if !can_write() {
        return;
    }
    let rw = Rw::new(&Spec::new().file("f", "text").dir("d"), &WritableOptions::default());
    fs::write(rw.upper("new"), "text").unwrap();
    fs::create_dir(rw.upper("newdir")).unwrap();
    for (name, like) in [("f", "new"), ("d", "newdir")] {
        let usual = ioctl_getflags(File::open(rw.upper(like)).unwrap());
        if !needs::that(usual.is_ok(), "a file system whose files have flags") {
            return;
        }
        let usual = usual.unwrap();
        let file = File::open(rw.path(name)).unwrap();
        assert_eq!(ioctl_getflags(&file), Ok(IFlags::empty()), "{name} is the image's");
        assert_eq!(inode_version(&file), Ok(0));
        ioctl_setflags(&file, IFlags::NOATIME | IFlags::IMMUTABLE).unwrap();
        let all = usual | IFlags::NOATIME | IFlags::IMMUTABLE;
        assert_eq!(ioctl_getflags(&file), Ok(all), "{name}");
        let upper = File::open(rw.upper(name)).unwrap();
        assert_eq!(inode_version(&file), inode_version(&upper), "{name}");
        let upper = ioctl_getflags(&upper);
        assert_eq!(upper, Ok(usual | IFlags::NOATIME), "{name}");
    }
    assert_eq!(fs::write(rw.path("f"), "x").unwrap_err().raw_os_error(), Some(1));
    assert_eq!(fs::write(rw.path("d/x"), "x").unwrap_err().raw_os_error(), Some(1));
    assert_eq!(fs::read(rw.path("f")).unwrap(), b"text");
}
