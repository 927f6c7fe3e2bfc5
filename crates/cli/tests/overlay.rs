//! `strata-overlay` as engines and mount(8) run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use strata_testkit::needs;
use tempfile::TempDir;

/// Two lowers, an upper and a mountpoint; unmounted when it goes.
struct Dirs(TempDir);

impl Dirs {
    /// `None` where nothing can be mounted.
    fn new() -> Option<Self> {
        if !needs::root_and_fuse() {
            return None;
        }
        let dirs = Self(tempfile::tempdir().unwrap());
        for name in ["top", "base", "upper", "work", "m"] {
            fs::create_dir(dirs.path(name)).unwrap();
        }
        fs::write(dirs.path("top/a"), "top").unwrap();
        fs::write(dirs.path("base/a"), "base").unwrap();
        fs::write(dirs.path("base/b"), "base").unwrap();
        Some(dirs)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs it in the directory that holds the others, as engines do.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_strata-overlay"))
            .args(args)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn unmount(&self) -> bool {
        let umount = Command::new("umount").arg(self.path("m")).stderr(Stdio::null()).status();
        umount.unwrap().success()
    }

    /// The line of the mount table.
    fn mounted(&self) -> Option<String> {
        let point = format!(" {} ", self.path("m").canonicalize().unwrap().display());
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().find(|line| line.contains(&point)).map(str::to_owned)
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        if self.mounted().is_some() {
            let _ = Command::new("umount").arg("-l").arg(self.path("m")).status();
        }
    }
}

#[test]
fn it_returns_when_the_mount_is_usable_and_lets_go_of_its_caller() {
    let Some(dirs) = Dirs::new() else { return };
    // `output` waits until nobody holds the pipes any more.
    let options = "lowerdir=top:base,upperdir=upper,workdir=work,bogus=1,nodev";
    let output = dirs.run(&["-o", options, "m"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "strata-overlay: ignoring the unknown option bogus=1\n");
    let line = dirs.mounted().unwrap();
    assert!(line.contains(" rw,nodev,noatime ") && line.contains("fuse.strata-overlay"), "{line}");
    assert!(line.contains("default_permissions,allow_other"), "{line}");
    assert_eq!(fs::read(dirs.path("m/a")).unwrap(), b"top");
    fs::remove_file(dirs.path("m/b")).unwrap();
    fs::write(dirs.path("m/new"), "new").unwrap();
    let number = fs::metadata(dirs.path("m/a")).unwrap().ino();
    assert!(dirs.unmount());
    let mark = fs::symlink_metadata(dirs.path("upper/b")).unwrap();
    assert!(mark.file_type().is_char_device() && mark.rdev() == 0);
    assert_eq!(fs::read(dirs.path("upper/new")).unwrap(), b"new");
    assert!(dirs.run(&["-o", options, "none", "m"]).status.success());
    assert!(dirs.mounted().unwrap().contains("fuse.strata-overlay none "));
    assert!(!dirs.path("m/b").exists());
    assert_eq!(fs::metadata(dirs.path("m/a")).unwrap().ino(), number);
    assert!(dirs.unmount());
}

#[test]
fn without_an_upper_nothing_can_be_written() {
    let Some(dirs) = Dirs::new() else { return };
    assert!(dirs.run(&["-olowerdir=top:base,squash_to_uid=7", "m"]).status.success());
    assert_eq!(fs::read(dirs.path("m/a")).unwrap(), b"top");
    assert_eq!(fs::metadata(dirs.path("m/b")).unwrap().uid(), 7);
    let refused = fs::write(dirs.path("m/new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(dirs.unmount());
}

#[test]
fn what_fails_is_said_once_and_leaves_nothing() {
    let Some(dirs) = Dirs::new() else { return };
    for (code, args, said) in [
        (1, ["-olowerdir=none", "m"], "No such file or directory"),
        (1, ["-olowerdir=top,upperdir=none,workdir=work", "m"], "none"),
        (1, ["-olowerdir=top", "absent"], "cannot mount on absent"),
        (2, ["-olowerdir=top,plugins=x", "m"], "not possible"),
    ] {
        let output = dirs.run(&args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.starts_with("strata-overlay: ") && text.matches(said).count() == 1, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(dirs.mounted(), None);
    }
}

#[test]
fn mount_and_umount_find_it() {
    let Some(dirs) = Dirs::new() else { return };
    if !needs::path("/sbin/mount.fuse3") {
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_strata-overlay"));
    let parts = ["lowerdir", "upperdir", "workdir"].iter().zip(["top", "upper", "work"]);
    let options: Vec<_> =
        parts.map(|(option, dir)| format!("{option}={}", dirs.path(dir).display())).collect();
    // mount.fuse3 takes a path for the type where the program is not in PATH.
    let mounted = Command::new("/sbin/mount.fuse3")
        .arg(format!("{}#none", program.display()))
        .arg(dirs.path("m"))
        .args(["-o", &options.join(",")])
        .status()
        .unwrap();
    assert!(mounted.success());
    assert_eq!(fs::read(dirs.path("m/a")).unwrap(), b"top");
    assert!(dirs.unmount());
}

#[test]
fn a_signal_ends_it_and_its_mount() {
    let Some(dirs) = Dirs::new() else { return };
    let mut child = Command::new(env!("CARGO_BIN_EXE_strata-overlay"))
        .args(["-f", "-olowerdir=top,upperdir=upper,workdir=work", "m"])
        .current_dir(dirs.0.path())
        .spawn()
        .unwrap();
    while dirs.mounted().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::yield_now();
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(dirs.mounted(), None);
}

#[test]
fn directories_in_one_another_are_refused_as_the_kernel_does() {
    let Some(dirs) = Dirs::new() else { return };
    for name in ["top/in", "upper/in", "work/in"] {
        fs::create_dir(dirs.path(name)).unwrap();
    }
    let looped = "Too many levels of symbolic links";
    for (options, said, errno) in [
        ("lowerdir=top,upperdir=top,workdir=work", "upperdir top is lowerdir top", looped),
        ("lowerdir=work,upperdir=upper,workdir=work", "workdir work is lowerdir work", looped),
        ("lowerdir=upper/in,upperdir=upper,workdir=work", "lowerdir upper/in lies in up", looped),
        ("lowerdir=work/in,upperdir=upper,workdir=work", "lowerdir work/in lies in work", looped),
        ("lowerdir=top:top,upperdir=upper,workdir=work", "lowerdir top is lowerdir top", looped),
        ("lowerdir=top:base:top/in", "lowerdir top/in lies in lowerdir top", looped),
        ("lowerdir=base,upperdir=upper,workdir=upper", "workdir upper is", "Invalid argument"),
        ("lowerdir=base,upperdir=upper,workdir=upper/in", "lies in upper", "Invalid argument"),
    ] {
        let output = dirs.run(&["-o", options, "m"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{options}: {text}");
        assert!(text.contains(said) && text.contains(errno), "{options}: {text}");
        assert_eq!(dirs.mounted(), None);
    }
    assert_eq!(fs::read_dir(dirs.path("top")).unwrap().count(), 2, "nothing was written");
}

/// `lowerdir=/` has every upper in it.
#[test]
fn an_upper_may_lie_in_a_lower() {
    let Some(dirs) = Dirs::new() else { return };
    let options = "lowerdir=.,upperdir=upper,workdir=work";
    let output = dirs.run(&["-o", options, "m"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(dirs.path("m/new"), "written").unwrap();
    fs::remove_dir_all(dirs.path("m/top")).unwrap();
    assert!(dirs.path("top").exists() && !dirs.path("new").exists());
    assert_eq!(fs::read_to_string(dirs.path("upper/new")).unwrap(), "written");
    assert!(dirs.unmount());
}

#[test]
fn an_upper_has_one_mount_and_the_next_one_waits_for_its_end() {
    let Some(dirs) = Dirs::new() else { return };
    let options = "lowerdir=top:base,upperdir=upper,workdir=work,index=on";
    for round in 0..5 {
        assert!(dirs.run(&["-o", options, "m"]).status.success(), "round {round}");
        fs::write(dirs.path("m/b"), vec![b'x'; 1 << 20]).unwrap();
        assert!(dirs.unmount());
    }
    assert!(dirs.run(&["-o", options, "m"]).status.success());
    fs::create_dir(dirs.path("m2")).unwrap();
    let second = dirs.run(&["-o", options, "m2"]);
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains("upper is in use as the upper of another mount"), "{text}");
    let shared = dirs.run(&["-o", &options.replace("index=on", "index=off"), "m2"]);
    let text = String::from_utf8(shared.stderr).unwrap();
    assert!(shared.status.success() && text.contains("undefined (index=off)"), "{text}");
    assert!(Command::new("umount").arg(dirs.path("m2")).status().unwrap().success());
    assert!(dirs.unmount());
}
