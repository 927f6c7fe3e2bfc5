//! A writable mount: set-id bits and capabilities, as the kernel's overlayfs leaves them.
//!
//! Invariant: each case runs where bits are in the upper's inodes and where they are kept apart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use common::mapping::Mapping;
use common::union::{Rw, can_write, each_mode};
use rustix::fs::XattrFlags;
use strata_content::conformance::in_memory;
use strata_tree::Spec;
use strata_union::writable::{Ownership, UnionOptions};

const ACL: &str = "system.posix_acl_access";
const CAPABILITY: &str = "security.capability";

/// Revision 2 (linux/capability.h), cap_net_raw: permitted and effective.
const RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Something that is done to a file.
type FileChange = fn(&Path);

/// A mount of each kind, with and without passthrough.
fn mounts() -> Vec<Rw> {
    let mut all = Vec::new();
    for options in each_mode() {
        for (ownership, user_marks) in [(Ownership::Inode, false), (Ownership::Override, true)] {
            let kept = UnionOptions { ownership, user_marks, ..UnionOptions::default() };
            let lower = in_memory(&Spec::new().file("f", vec![b'x'; 9000])).unwrap();
            all.push(Rw::over(lower, &options, kept));
        }
    }
    all
}

/// Does something on a thread of a user who is in one group.
fn as_user(uid: u32, gid: u32, work: impl FnOnce() + Send) {
    let work = || {
        let (user, group) =
            (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        work();
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap();
}

fn perm(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn write(path: &Path) {
    fs::write(path, "short").unwrap();
}

fn append(path: &Path) {
    std::io::Write::write_all(&mut File::options().append(true).open(path).unwrap(), b"x").unwrap();
}

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(3).unwrap();
}

fn owner(path: &Path) {
    let uid = fs::metadata(path).unwrap().uid();
    lchown(path, Some(uid), None).unwrap();
}

/// The ACL may be absent: then this changes nothing else.
fn no_acl(path: &Path) {
    rustix::fs::removexattr(path, ACL).unwrap();
}

/// Set-group-id without execution by the group is no more than a mark, which a member may keep.
#[test]
fn set_group_id_goes_with_what_an_outsider_changes_and_stays_for_members_and_root() {
    if !can_write() {
        return;
    }
    let changes: [FileChange; 5] = [write, append, cut, owner, no_acl];
    for rw in mounts() {
        let file = rw.path("f");
        for (n, change) in changes.into_iter().enumerate() {
            for (uid, gid, wanted) in [(1000, 1000, 0o666), (1000, 50, 0o2666), (0, 0, 0o2666)] {
                lchown(&file, Some(1000), Some(50)).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o2666)).unwrap();
                as_user(uid, gid, || change(&file));
                assert_eq!(perm(&file), wanted, "change {n} by {uid}:{gid}");
            }
        }
    }
}

#[test]
fn set_user_id_goes_with_what_anybody_but_root_writes_and_with_every_owner() {
    if !can_write() {
        return;
    }
    let changes: [(FileChange, u32); 4] =
        [(write, 0o6777), (append, 0o6777), (cut, 0o6777), (owner, 0o777)];
    for rw in mounts() {
        let file = rw.path("f");
        for (n, (change, by_root)) in changes.into_iter().enumerate() {
            for (uid, gid, wanted) in [(1000, 50, 0o777), (0, 0, by_root)] {
                lchown(&file, Some(1000), Some(50)).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o6777)).unwrap();
                as_user(uid, gid, || change(&file));
                assert_eq!(perm(&file), wanted, "change {n} by {uid}:{gid}");
            }
        }
    }
}

#[test]
fn bits_that_come_while_a_file_is_open_go_with_the_next_write() {
    if !can_write() {
        return;
    }
    for rw in mounts() {
        let file = rw.path("f");
        lchown(&file, Some(1000), Some(50)).unwrap();
        let open = File::options().append(true).open(&file).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o6777)).unwrap();
        as_user(1000, 1000, || std::io::Write::write_all(&mut &open, b"x").unwrap());
        assert_eq!(perm(&file), 0o777);
    }
}

/// No file system takes capabilities away for what is written through a mapping.
#[test]
fn a_mapped_write_leaves_capabilities_also_on_files_with_set_id_bits() {
    if !can_write() {
        return;
    }
    for rw in mounts() {
        let file = rw.path("f");
        for mode in [0o755, 0o6755] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            rustix::fs::setxattr(&file, CAPABILITY, &RAW, XattrFlags::empty()).unwrap();
            let open = File::options().read(true).write(true).open(&file).unwrap();
            let mapping = Mapping::new(&open, 100, true);
            mapping.write(1, b"mapped");
            mapping.sync();
            drop((mapping, open));
            let mut value = [0; 64];
            assert_eq!(rustix::fs::getxattr(&file, CAPABILITY, &mut value[..]), Ok(20), "{mode:o}");
            assert_eq!(perm(&file), mode);
            assert_eq!(&fs::read(&file).unwrap()[..7], b"xmapped");
        }
    }
}
