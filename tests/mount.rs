//! Mounts from their first moment to their last, with the daemon that `strata` starts.
//!
//! Invariant: nothing waits for time to pass: a daemon's end is a pidfd that becomes readable, a
//! change of mounts is the mount table that tells of it.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use strata_testkit::namespace::Namespace;
use strata_testkit::needs;
use strata_testkit::sandbox::Sandbox;

/// Far more than anything takes; a test that gets here has failed.
const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The line of the mount table for `point`, its mount options and its type.
fn mounted(point: &Path) -> Option<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = point.canonicalize().unwrap_or_else(|_| point.to_owned());
    let line = table.lines().rev().find(|line| line.split(' ').nth(4) == point.to_str())?;
    let options = line.split(' ').nth(5)?.to_owned();
    let kind = line.split(' ').skip_while(|field| *field != "-").nth(1)?.to_owned();
    Some((options, kind))
}

/// A daemon, seen from outside: its end can be waited for.
struct Daemon {
    pid: Pid,
    fd: OwnedFd,
}

impl Daemon {
    /// The one that serves `point`.
    fn of(sandbox: &Sandbox, point: &Path) -> Self {
        let mounts = sandbox.json(&["mounts"]);
        let point = point.canonicalize().unwrap();
        let mount = mounts.as_array().unwrap().iter().find(|m| m["mountpoint"] == text(&point));
        let pid = mount.unwrap()["pid"].as_i64().unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        Self { pid, fd: pidfd_open(pid, PidfdFlags::empty()).unwrap() }
    }

    fn kill(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    fn wait(&self) {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&LIMIT)).unwrap(), 1, "the daemon does not end");
    }
}

fn statuses(sandbox: &Sandbox) -> Vec<String> {
    let mounts = sandbox.json(&["mounts"]);
    let all = mounts.as_array().unwrap().iter();
    all.map(|mount| mount["status"].as_str().unwrap().to_owned()).collect()
}

/// Every path below `root` with what any user can see of it; contents are read.
fn read_all(root: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            let kind = meta.file_type();
            let facts = format!("{:o} {} {:?}", meta.mode(), meta.rdev(), meta.modified().unwrap());
            let content = if kind.is_file() {
                fs::read(root.join(&path)).unwrap()
            } else if kind.is_symlink() {
                fs::read_link(root.join(&path)).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                Vec::new()
            };
            if kind.is_dir() {
                open.push(path.clone());
            }
            all.insert(path, (facts, content));
        }
    }
    all
}

#[test]
fn the_whole_tree_is_read_and_the_mount_goes() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    assert_eq!(mounted(&point).unwrap().1, "fuse.strata");
    assert_eq!(statuses(&sandbox), ["alive"]);
    let seen = read_all(&point);

    // The same names, as the image is listed without a mount.
    let listed = sandbox.json(&["ls", "-R", "cases.oci:1"]);
    let mut names = 0;
    for entry in listed.as_array().unwrap() {
        let path = entry["path"].as_str().unwrap().trim_start_matches('/');
        if entry.get("path_hex").is_none() && !path.is_empty() {
            assert!(seen.contains_key(Path::new(path)), "{path}");
            names += 1;
        }
    }
    assert!(names > 70 && names <= seen.len(), "{names} of {}", seen.len());

    // The same contents as those that leave the image as files.
    sandbox.run(&["unpack", "cases.oci:1", "tree"]);
    if needs::is_root() {
        assert_eq!(seen, read_all(&sandbox.path().join("tree")));
    }
    let fifo = fs::symlink_metadata(point.join("kinds/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());

    let daemon = Daemon::of(&sandbox, &point);
    sandbox.ok(&["umount", "mnt"]);
    daemon.wait();
    assert_eq!(mounted(&point), None);
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    assert_eq!(sandbox.json(&["mounts"]).as_array().unwrap().len(), 0);
    assert_eq!(fs::read_dir(sandbox.path().join("store/mounts")).unwrap().count(), 1, "the lock");
}

#[test]
fn nothing_can_be_written() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    for result in [
        fs::write(point.join("new"), ""),
        fs::write(point.join("kinds/file"), ""),
        fs::remove_file(point.join("kinds/file")),
        fs::create_dir(point.join("d")),
        fs::rename(point.join("kinds"), point.join("k")),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn an_image_is_mounted_twice_and_held_until_both_are_gone() {
    let sandbox = Sandbox::with_cases();
    let (one, two) = (sandbox.dir("one"), sandbox.dir("two"));
    sandbox.ok(&["mount", "cases.oci:1", "one"]);
    sandbox.ok(&["mount", "11be", "two"]);
    assert_eq!(statuses(&sandbox), ["alive", "alive"]);
    assert_eq!(read_all(&one), read_all(&two));
    // By its only name and by its id, forced or not.
    let way = "; unmount it first: strata umount ";
    for args in [&["rmi", "cases.oci:1"][..], &["rmi", "11be"], &["rmi", "--force", "11be"]] {
        let error = sandbox.fails(args);
        assert!(error.contains(way), "{error}");
    }
    assert!(sandbox.ok(&["images"]).contains("cases.oci"), "a refused rmi took the name");
    sandbox.ok(&["umount", "one"]);
    let way = format!("mounted on {0}; unmount it first: strata umount {0}", text(&two));
    assert!(sandbox.fails(&["rmi", "cases.oci:1"]).contains(&way));
    assert_eq!(fs::read(two.join("same/third")).unwrap(), b"equal contents\n");
    sandbox.ok(&["umount", "two"]);
    sandbox.ok(&["rmi", "cases.oci:1"]);
    assert_eq!(fs::read_dir(sandbox.path().join("store/layers")).unwrap().count(), 0);
}

#[test]
fn a_mount_that_lives_on_in_another_namespace_is_told_and_ended() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--upper", "work", "cases.oci:1", "mnt"]);
    let daemon = Daemon::of(&sandbox, &point);
    // An ordinary user cannot give the mounts of other tests back.
    let Some(namespace) = needs::root().then(|| Namespace::with(&point)) else {
        sandbox.ok(&["umount", "mnt"]);
        return;
    };
    let pid = namespace.pid();
    let there = format!("pid {pid} (sleep) has it at {}", text(&point));
    let error = sandbox.fails(&["umount", "mnt"]);
    assert!(error.contains("is unmounted here, and lives on in another mount"), "{error}");
    assert!(error.contains(&there) && error.contains("strata umount --abort mnt"), "{error}");
    assert_eq!(mounted(&point), None);
    assert_eq!(statuses(&sandbox), ["elsewhere"]);
    let error = sandbox.fails(&["umount", "mnt"]);
    assert!(error.contains("is not mounted here any more") && error.contains(&there), "{error}");
    assert!(sandbox.fails(&["rm", "work"]).contains("`strata umount --abort "));

    sandbox.ok(&["umount", "--abort", "mnt"]);
    daemon.wait();
    assert!(statuses(&sandbox).is_empty());
    drop(namespace);
    sandbox.ok(&["rm", "work"]);
}

#[test]
fn a_namespace_that_ends_takes_its_mount_along() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let daemon = Daemon::of(&sandbox, &point);
    // An ordinary user cannot give the mounts of other tests back.
    let Some(namespace) = needs::root().then(|| Namespace::with(&point)) else {
        sandbox.ok(&["umount", "--abort", "mnt"]);
        return daemon.wait();
    };
    sandbox.fails(&["umount", "mnt"]);
    drop(namespace);
    daemon.wait();
    sandbox.ok(&["rmi", "cases.oci:1"]);
}

#[test]
fn a_mount_over_a_mount_is_refused_and_leaves_it_alone() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let error = sandbox.fails(&["mount", "cases.oci:1", "mnt"]);
    assert!(error.contains("already mounted on mnt; strata umount mnt"), "{error}");
    assert_eq!(statuses(&sandbox), ["alive"]);
    assert!(point.join("same/third").exists());
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn what_a_mount_hides_is_told() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    fs::write(point.join("mine"), "x").unwrap();
    let output = sandbox.run(&["mount", "cases.oci:1", "mnt"]);
    let note = String::from_utf8(output.stderr).unwrap();
    assert_eq!(note, "note: mnt was not empty; what is in it is hidden until unmounted\n");
    assert!(!point.join("mine").exists());
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(fs::read(point.join("mine")).unwrap(), b"x");
}

#[test]
fn an_open_file_keeps_the_mount_and_lazy_takes_it_away() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let mut file = File::open(point.join("same/third")).unwrap();
    let error = sandbox.fails(&["umount", "mnt"]);
    let me = format!("{} ", std::process::id());
    assert!(error.contains("mnt is busy") && error.contains("(open file)"), "{error}");
    assert!(error.contains(&me) && error.contains("umount --lazy"), "{error}");
    assert_eq!(statuses(&sandbox), ["alive"]);

    let daemon = Daemon::of(&sandbox, &point);
    sandbox.ok(&["umount", "--lazy", "mnt"]);
    assert_eq!(mounted(&point), None);
    assert_eq!(statuses(&sandbox), ["detached"]);
    let error = sandbox.fails(&["rmi", "cases.oci:1"]);
    assert!(error.contains("files of it are open") && error.contains("umount --abort"), "{error}");
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "equal contents\n");
    drop(file);
    daemon.wait();
    assert!(statuses(&sandbox).is_empty());
    sandbox.ok(&["rmi", "cases.oci:1"]);
}

#[test]
fn in_the_foreground_it_ends_with_sigterm() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    let table = File::open("/proc/self/mountinfo").unwrap();
    let mut child = sandbox.spawn(&["mount", "--foreground", "cases.oci:1", "mnt"]);
    while mounted(&point).is_none() {
        // The kernel tells of every change of the table after the last look.
        let mut fds = [PollFd::new(&table, PollFlags::PRI)];
        assert_eq!(poll(&mut fds, Some(&LIMIT)).unwrap(), 1, "it is not mounted");
        assert!(child.try_wait().unwrap().is_none(), "it ended");
    }
    assert_eq!(fs::read(point.join("same/third")).unwrap(), b"equal contents\n");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(mounted(&point), None);
    assert!(statuses(&sandbox).is_empty());
}

#[test]
fn sigterm_ends_a_daemon_and_its_mount() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
        let daemon = Daemon::of(&sandbox, &point);
        daemon.kill(signal);
        daemon.wait();
        assert_eq!(mounted(&point), None);
        assert!(statuses(&sandbox).is_empty());
    }
    // With a file open it ends all the same.
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let file = File::open(point.join("kinds/file")).unwrap();
    let daemon = Daemon::of(&sandbox, &point);
    daemon.kill(Signal::TERM);
    daemon.wait();
    assert_eq!(mounted(&point), None);
    drop(file);
    sandbox.ok(&["rmi", "cases.oci:1"]);
}

/// A mount whose daemon was killed.
fn dead(sandbox: &Sandbox) -> PathBuf {
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let daemon = Daemon::of(sandbox, &point);
    daemon.kill(Signal::KILL);
    daemon.wait();
    assert_eq!(statuses(sandbox), ["dead"]);
    point
}

#[test]
fn after_a_killed_daemon_the_image_can_be_removed() {
    let sandbox = Sandbox::with_cases();
    let point = dead(&sandbox);
    let error = fs::metadata(&point).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTCONN));
    assert!(sandbox.ok(&["mounts"]).contains("dead"));
    sandbox.ok(&["-q", "fsck"]);
    sandbox.ok(&["rmi", "cases.oci:1"]);
    sandbox.ok(&["gc"]);
    assert!(statuses(&sandbox).is_empty());
    assert_eq!(mounted(&point), None);
}

#[test]
fn after_a_killed_daemon_its_place_is_mounted_again() {
    let sandbox = Sandbox::with_cases();
    let point = dead(&sandbox);
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    assert_eq!(statuses(&sandbox), ["alive"]);
    assert_eq!(fs::read(point.join("same/third")).unwrap(), b"equal contents\n");
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(mounted(&point), None);
}

#[test]
fn a_dead_mount_that_the_kernel_remembers_is_replaced() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let before = fs::metadata(&point).unwrap().ino();
    let daemon = Daemon::of(&sandbox, &point);
    daemon.kill(Signal::KILL);
    daemon.wait();
    assert_eq!(fs::metadata(&point).unwrap().ino(), before, "the kernel does not ask");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    assert_eq!(fs::read(point.join("same/third")).unwrap(), b"equal contents\n");
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(mounted(&point), None);
}

#[test]
fn a_dead_mount_is_unmounted() {
    let sandbox = Sandbox::with_cases();
    let point = dead(&sandbox);
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(mounted(&point), None);
    assert!(statuses(&sandbox).is_empty());
}

#[test]
fn a_mount_elsewhere_cleans_up_after_the_dead() {
    let sandbox = Sandbox::with_cases();
    let point = dead(&sandbox);
    sandbox.dir("other");
    sandbox.ok(&["mount", "cases.oci:1", "other"]);
    assert_eq!(mounted(&point), None);
    assert_eq!(statuses(&sandbox), ["alive"]);
    sandbox.ok(&["umount", "other"]);
}

#[test]
fn names_have_255_bytes_at_most() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let there = point.join("names").join("n".repeat(255));
    assert_eq!(fs::metadata(&there).unwrap().len(), 2);
    let errno = |name: String| {
        let error = fs::metadata(point.join("names").join(name)).unwrap_err();
        Errno::from_io_error(&error).unwrap()
    };
    assert_eq!(errno("x".repeat(255)), Errno::NOENT);
    assert_eq!(errno("n".repeat(256)), Errno::NAMETOOLONG);
    sandbox.ok(&["umount", "mnt"]);
}

/// The names of a directory from an offset on, each with the offset behind it.
fn names_from(dir: &File, offset: u64) -> Vec<(Vec<u8>, u64)> {
    use rustix::fs::{RawDir, SeekFrom, seek};
    seek(dir, SeekFrom::Start(offset)).unwrap();
    let mut buffer = Vec::with_capacity(1 << 10);
    let mut names = RawDir::new(dir.as_fd(), buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = names.next() {
        let entry = entry.unwrap();
        found.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    found
}

#[test]
fn a_directory_is_read_on_from_any_offset() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "stratafs.test/busybox:1", "mnt"]);
    // Many more than one buffer holds.
    let dir = File::open(point.join("bin")).unwrap();
    let all = names_from(&dir, 0);
    assert!(all.len() > 200, "{}", all.len());
    let distinct: std::collections::BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
    assert_eq!(distinct.len(), all.len());
    for at in (0..all.len()).step_by(37).chain([all.len() - 1]) {
        let rest: Vec<_> = names_from(&dir, all[at].1);
        assert_eq!(rest, all[at + 1..], "after {}", all[at].0.escape_ascii());
    }
    assert_eq!(names_from(&dir, 0), all);
    drop(dir);
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn the_file_system_tells_its_size() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "stratafs.test/busybox:1", "mnt"]);
    let facts = rustix::fs::statvfs(&point).unwrap();
    assert_eq!(facts.f_namemax, 255);
    assert!(facts.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let entries = u64::try_from(read_all(&point).len()).unwrap();
    // The root counts and further names of one inode do not.
    assert!(facts.f_files > 10 && facts.f_files <= entries + 1, "{}", facts.f_files);
    let busybox = fs::metadata(point.join("bin/busybox")).unwrap().len();
    assert!(facts.f_blocks * facts.f_frsize >= busybox);
    assert_eq!((facts.f_bfree, facts.f_bavail), (0, 0));
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn a_daemon_polls_for_requests_unless_told_not_to() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    // What a daemon polls is one more descriptor of the kernel's device.
    let devices = |options: &[&str]| {
        sandbox.ok(&[&["mount"], options, &["cases.oci:1", "mnt"]].concat());
        assert!(read_all(&point).len() > 70);
        let pid = Daemon::of(&sandbox, &point).pid.as_raw_nonzero();
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let of_device = |fd: &fs::DirEntry| {
            fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("/dev/fuse"))
        };
        let count = open.filter(|fd| of_device(fd.as_ref().unwrap())).count();
        sandbox.ok(&["umount", "mnt"]);
        count
    };
    let (usual, auto) = (devices(&[]), devices(&["--busy-poll=auto"]));
    assert_eq!((auto, devices(&["--busy-poll=off"]) + 1), (usual, usual));
    let refused = sandbox.run(&["mount", "--busy-poll=on", "cases.oci:1", "mnt"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn programs_run_unless_forbidden() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "stratafs.test/busybox:1", "mnt"]);
    let run = || Command::new(point.join("bin/busybox")).args(["echo", "from the image"]).output();
    assert_eq!(run().unwrap().stdout, b"from the image\n");
    sandbox.ok(&["umount", "mnt"]);
    sandbox.ok(&["mount", "--noexec", "stratafs.test/busybox:1", "mnt"]);
    assert_eq!(run().unwrap_err().kind(), ErrorKind::PermissionDenied);
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn set_user_id_bits_and_devices_are_honoured_only_when_asked() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let (options, _) = mounted(&point).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.split(',').any(|o| o == option), "{options}");
    }
    let null = File::open(point.join("kinds/null")).unwrap_err();
    assert_eq!(null.kind(), ErrorKind::PermissionDenied);
    sandbox.ok(&["umount", "mnt"]);

    if !needs::is_root() {
        let error = sandbox.fails(&["mount", "--suid", "cases.oci:1", "mnt"]);
        assert!(error.contains("needs root"), "{error}");
        return;
    }
    sandbox.ok(&["mount", "--suid", "--dev", "cases.oci:1", "mnt"]);
    let (options, _) = mounted(&point).unwrap();
    assert!(!options.contains("nosuid") && !options.contains("nodev"), "{options}");
    assert!(options.split(',').any(|o| o == "ro"), "{options}");
    File::open(point.join("kinds/null")).unwrap();
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn the_store_is_worked_on_while_it_is_mounted() {
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "cases.oci:1", "mnt"]);
    let before = read_all(&point);
    let fixture = strata_testkit::fixture("cases-podman-multi.docker.tar");
    sandbox.ok(&["load", "-i", text(&fixture)]);
    sandbox.ok(&["tag", "cases.oci:1", "more:1"]);
    assert_eq!(sandbox.ok(&["rmi", "more:1"]), "Untagged: more:1\n");
    sandbox.ok(&["rmi", "stratafs.test/cases2:1", "stratafs.test/cases2:also"]);
    sandbox.ok(&["gc"]);
    sandbox.ok(&["-q", "fsck"]);
    assert_eq!(before, read_all(&point));
    sandbox.ok(&["umount", "mnt"]);
}
