//! Every command where the store cannot be written, has no room, or is not there, and where what is
//! printed cannot be.
//!
//! Invariant: the commands are those that the program itself lists, so that none is forgotten.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use strata_testkit::fixture;
use strata_testkit::needs;
use strata_testkit::sandbox::Sandbox;

const IMAGE: &str = "stratafs.test/busybox:1";

/// What a command does to a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Nothing; it needs none.
    Apart,
    /// Looks.
    Looks,
    /// Removes, or changes what is there.
    Changes,
    /// Adds, and makes a store for it.
    Adds,
}

use Does::{Adds, Apart, Changes, Looks};

/// Every command, with arguments that work on a store with one image. Those of registries need a
/// network, or go on without end.
const COMMANDS: &[(&str, Does, &[&str])] = &[
    ("pull", Adds, &["localhost:1/none"]),
    ("push", Looks, &["stratafs.test/busybox:1", "localhost:1/none"]),
    ("copy", Adds, &["stratafs.test/busybox:1", "oci-archive:copied.tar"]),
    ("login", Apart, &["localhost:1"]),
    ("logout", Apart, &["localhost:1"]),
    ("search", Apart, &["localhost:1/none"]),
    ("manifest", Apart, &["localhost:1/none"]),
    ("trust", Apart, &["show"]),
    ("verify", Apart, &["--against", "oci-archive:none.tar", IMAGE]),
    ("serve", Looks, &["--help"]),
    ("layer-store", Looks, &["--help"]),
    ("containerd", Looks, &["--help"]),
    ("load", Adds, &["-i", "IMAGE"]),
    ("import", Adds, &["ROOTFS", "imported:1"]),
    ("save", Looks, &["-o", "saved.tar", IMAGE]),
    ("images", Looks, &[]),
    ("tag", Changes, &[IMAGE, "other:1"]),
    ("rmi", Changes, &[IMAGE]),
    ("inspect", Looks, &[IMAGE]),
    ("history", Looks, &[IMAGE]),
    ("image", Looks, &["ls"]),
    ("system", Looks, &["df"]),
    ("mount", Looks, &["--pull", "never", IMAGE, "point"]),
    ("umount", Apart, &["point"]),
    ("mounts", Apart, &[]),
    ("uppers", Apart, &[]),
    ("ps", Apart, &[]),
    ("diff", Looks, &[IMAGE, IMAGE]),
    ("why", Looks, &["stratafs.test/busybox:1:/etc/passwd"]),
    ("duplicates", Looks, &[]),
    ("commit", Changes, &["none", "none:1"]),
    ("rm", Apart, &["none"]),
    ("ls", Looks, &["stratafs.test/busybox:1:/"]),
    ("cat", Looks, &["stratafs.test/busybox:1:/etc/passwd"]),
    ("cp", Looks, &["stratafs.test/busybox:1:/etc/passwd", "copied"]),
    ("stat", Looks, &["stratafs.test/busybox:1:/etc"]),
    ("layers", Looks, &[IMAGE]),
    ("explore", Looks, &["--print", IMAGE]),
    ("unpack", Looks, &[IMAGE, "tree"]),
    ("export", Looks, &["-o", "exported.tar", IMAGE]),
    ("report", Looks, &["-o", "report.html"]),
    ("reuse", Looks, &[]),
    ("df", Looks, &[]),
    ("facts", Looks, &["-o", "facts"]),
    ("lint", Looks, &[IMAGE]),
    ("fsck", Looks, &[]),
    ("gc", Changes, &[]),
    ("info", Looks, &[]),
    ("version", Apart, &[]),
    ("completions", Apart, &["bash"]),
    ("man", Apart, &[]),
];

/// Commands that fail here whatever the place: there is no registry, no upper, no mount.
const FAIL: &[&str] =
    &["pull", "push", "login", "logout", "search", "manifest", "verify", "umount", "commit", "rm"];

fn arguments(command: &str, args: &[&str]) -> Vec<String> {
    let replaced = args.iter().map(|arg| match *arg {
        "IMAGE" => fixture("cases.oci").to_str().unwrap().to_owned(),
        "ROOTFS" => fixture("rootfs.tar").to_str().unwrap().to_owned(),
        arg => arg.to_owned(),
    });
    [command.to_owned()].into_iter().chain(replaced).collect()
}

fn strata(sandbox: &Sandbox, root: &Path, command: &str, args: &[&str]) -> Command {
    let all = arguments(command, args);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut ours = sandbox.command_on(root, &all);
    ours.arg("--quiet");
    ours.env("HOME", sandbox.path()).env("XDG_CACHE_HOME", sandbox.path().join("cache"));
    ours
}

/// Runs it: whether it succeeded, and what it said.
fn run(sandbox: &Sandbox, root: &Path, command: &str, args: &[&str]) -> (bool, String) {
    let output = strata(sandbox, root, command, args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code < 3), "{command}: {:?}", output.status);
    assert!(!said.contains("panicked"), "{command}: {said}");
    (output.status.success(), said)
}

#[test]
fn every_command_is_tried() {
    let sandbox = Sandbox::new();
    let help = sandbox.ok(&["--help"]);
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        // A description goes on in a column of its own.
        let Some(name) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) else {
            continue;
        };
        let name = name.split(' ').next().unwrap();
        let known = COMMANDS.iter().any(|(command, ..)| *command == name);
        assert!(known || ["help", "container"].contains(&name), "{name} is in no table here");
    }
}

#[test]
fn looking_makes_no_store() {
    let sandbox = Sandbox::new();
    let root = sandbox.path().join("none");
    for (command, does, args) in COMMANDS {
        if *does == Adds || args == &["--help"] {
            continue;
        }
        let (_, said) = run(&sandbox, &root, command, args);
        assert!(!root.exists(), "{command} made a store");
        if *does == Looks || *does == Changes && *command != "commit" {
            let told = format!("there is no store at {}", root.display());
            assert!(said.contains(&told), "{command}: {said}");
        }
    }
}

/// A file system that is taken away with it.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where nothing can be mounted.
    fn new(args: &[&str], at: &Path) -> Option<Self> {
        if !needs::root() {
            return None;
        }
        fs::create_dir_all(at).unwrap();
        assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_store_that_cannot_be_written_is_looked_into() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let (store, root) = (sandbox.path().join("store"), sandbox.path().join("read-only"));
    let Some(_mounted) = Mounted::new(&["--bind", store.to_str().unwrap()], &root) else { return };
    let remounted = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&root).status();
    assert!(remounted.unwrap().success());
    sandbox.dir("point");
    for (command, does, args) in COMMANDS {
        let (done, said) = run(&sandbox, &root, command, args);
        match does {
            // What was mounted just before, and written down elsewhere.
            _ if *command == "umount" => assert!(done, "{said}"),
            _ if FAIL.contains(command) => {}
            Changes | Adds => assert!(!done && said.contains("read-only"), "{command}: {said}"),
            Looks | Apart => assert!(done, "{command}: {said}"),
        }
    }
    assert!(sandbox.ok(&["fsck"]).contains("no problems"));
}

#[test]
fn a_full_disk_is_looked_into_and_freed() {
    let sandbox = Sandbox::new();
    let disk = sandbox.path().join("disk");
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=12m", "tmpfs"], &disk) else {
        return;
    };
    let root = disk.join("store");
    let archive = fixture("busybox-gzip.oci.tar");
    let archive = archive.to_str().unwrap();
    let (loaded, said) = run(&sandbox, &root, "load", &["-i", archive]);
    assert!(loaded, "{said}");
    let (listed, said) = run(&sandbox, &root, "ls", &["stratafs.test/busybox:1:/"]);
    assert!(listed, "{said}");
    let fill = || {
        let mut zeros = File::options().append(true).create(true).open(disk.join("fill")).unwrap();
        while std::io::Write::write_all(&mut zeros, &[0; 4096]).is_ok() {}
    };
    sandbox.dir("point");
    for (command, does, args) in COMMANDS {
        fill();
        if *command == "mount" {
            continue; // It has to be written down where it is.
        }
        let (done, said) = run(&sandbox, &root, command, args);
        let full = said.contains("full") || said.contains("No space left");
        match does {
            _ if FAIL.contains(command) => {}
            Looks | Apart => assert!(done, "{command}: {said}"),
            Changes | Adds => assert!(done || full, "{command}: {said}"),
        }
    }
    // A little room is enough to remove an image, and that gives more.
    let filled = File::options().write(true).open(disk.join("fill")).unwrap();
    let length = filled.metadata().unwrap().len();
    filled.set_len(length.saturating_sub(512 << 10)).unwrap();
    let (_, said) = run(&sandbox, &root, "rmi", &[IMAGE]);
    assert!(said.is_empty() || said.contains("no image"), "{said}");
    let (loaded, said) = run(&sandbox, &root, "load", &["-i", archive]);
    assert!(loaded, "{said}");
    fs::remove_file(disk.join("fill")).unwrap();
    let (clean, said) = run(&sandbox, &root, "fsck", &[]);
    assert!(clean, "{said}");
}

/// Nothing was looked at, so there is no compiled tree to give back.
#[test]
fn an_image_is_removed_from_a_disk_without_any_room() {
    let sandbox = Sandbox::new();
    let disk = sandbox.path().join("disk");
    for command in ["rmi", "prune"] {
        let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=12m", "tmpfs"], &disk)
        else {
            return;
        };
        let root = disk.join("store");
        let archive = fixture("busybox-gzip.oci.tar");
        let (loaded, said) = run(&sandbox, &root, "load", &["-i", archive.to_str().unwrap()]);
        assert!(loaded, "{said}");
        let mut zeros = File::create(disk.join("fill")).unwrap();
        while std::io::Write::write_all(&mut zeros, &[0; 4096]).is_ok() {}
        drop(zeros);
        let (done, said) = match command {
            "rmi" => run(&sandbox, &root, "rmi", &["stratafs.test/busybox:1"]),
            _ => run(&sandbox, &root, "image", &["prune", "--all", "--force"]),
        };
        assert!(done, "{command}: {said}");
        assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 0, "{command}");
        fs::remove_file(disk.join("fill")).unwrap();
        let (clean, said) = run(&sandbox, &root, "fsck", &[]);
        assert!(clean, "{said}");
        // What is loaded next sets the room aside again.
        let (loaded, said) = run(&sandbox, &root, "load", &["-i", archive.to_str().unwrap()]);
        assert!(loaded && root.join("reserve").exists(), "{said}");
    }
}

#[test]
fn nothing_panics_where_it_cannot_print() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    let store = sandbox.path().join("store");
    sandbox.dir("point");
    for (command, _, args) in COMMANDS {
        if *command == "mount" {
            continue; // Its daemon is another test's.
        }
        for out in ["full", "ended", "closed"] {
            let mut ours = strata(&sandbox, &store, command, args);
            match out {
                "full" => ours.stdout(File::options().write(true).open("/dev/full").unwrap()),
                "ended" => ours.stdout(rustix::pipe::pipe().unwrap().1),
                _ => {
                    let mut shell = Command::new("sh");
                    shell.arg("-c").arg("exec \"$0\" \"$@\" >&-").arg(ours.get_program());
                    shell.args(ours.get_args()).current_dir(sandbox.path());
                    for (name, value) in ours.get_envs() {
                        value.map(|value| shell.env(name, value));
                    }
                    ours = shell;
                    ours.stdout(Stdio::null())
                }
            };
            let output = ours.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert!(code.is_some_and(|code| code < 3), "{command}, {out}: {code:?} {said}");
            assert!(!said.contains("panicked"), "{command}, {out}: {said}");
        }
    }
}

/// With few descriptors a check cannot be done, which says nothing of what is stored.
#[test]
fn a_repair_with_few_descriptors_takes_nothing_out() {
    let sandbox = Sandbox::new();
    let root = sandbox.path().join("store");
    let archive = fixture("busybox-gzip.oci.tar");
    let (loaded, said) = run(&sandbox, &root, "load", &["-i", archive.to_str().unwrap()]);
    assert!(loaded, "{said}");
    let shown = || strata(&sandbox, &root, "images", &[]).output().unwrap().stdout;
    let before = shown();
    assert!(!before.is_empty(), "an id is shown");
    let (mut failed, mut mended) = (0, 0);
    for descriptors in 4..40 {
        for rebuilds in [false, true] {
            if rebuilds {
                fs::write(root.join("index.db"), "").unwrap();
            }
            let line = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
            let repair = strata(&sandbox, &root, "fsck", &["--repair"]);
            let mut few = Command::new("sh");
            few.args(["-c", &line]).arg(repair.get_program()).args(repair.get_args());
            let done = few.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned()
                + &String::from_utf8_lossy(&done.stdout);
            assert!(!said.contains("taken out"), "{descriptors}: {said}");
            failed += usize::from(!done.status.success());
            mended += usize::from(done.status.success());
            if !done.status.success() {
                let (done, said) = run(&sandbox, &root, "fsck", &["--repair"]);
                assert!(done, "{descriptors}: {said}");
            }
            assert_eq!(shown(), before, "{descriptors}: {said}");
        }
    }
    assert!(failed > 4 && mended > 4, "{failed} {mended}");
}
