//! Writable mounts and what comes of them: uppers, diffs, commits, saved archives.
//!
//! Invariant: nothing waits for time to pass.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use strata_testkit::hard::Immutable;
use strata_testkit::sandbox::Sandbox;
use strata_testkit::tars::{Head, Tar};

const IMAGE: &str = "stratafs.test/busybox:1";

fn busybox() -> Sandbox {
    Sandbox::with("busybox-gzip.oci.tar")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_written_is_kept_listed_and_committed() {
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--upper", "work", IMAGE, text(&point)]);
    fs::write(point.join("etc/new"), "written").unwrap();
    fs::remove_file(point.join("bin/ls")).unwrap();
    fs::rename(point.join("home"), point.join("house")).unwrap();
    let listed = &sandbox.json(&["uppers"])[0];
    assert_eq!((&listed["name"], &listed["reference"]), (&"work".into(), &IMAGE.into()));
    assert_eq!(listed["mountpoint"], text(&point.canonicalize().unwrap()));
    let diff = "C /bin\nD /bin/ls\nC /etc\nA /etc/new\nD /home\nA /house\nA /house/user\n";
    let while_mounted = sandbox.ok(&["diff", text(&point)]);
    let shown = sandbox.json(&["inspect", "work"]);
    let at = text(&point.canonicalize().unwrap()).to_owned();
    assert_eq!(shown[0]["GraphDriver"]["Data"]["MergedDir"], at.as_str());
    assert_eq!(sandbox.json(&["inspect", text(&point)])[0]["Upper"], "work");
    assert_eq!(
        sandbox.ok(&["ps", "--format", "{{.Names}} {{.State}} {{.Mounts}}"]).trim(),
        format!("work running {at}")
    );
    assert!(
        sandbox.ok(&["system", "df"]).lines().any(|line| line.starts_with("Images   1       1 "))
    );
    sandbox.ok(&["image", "prune", "-a", "-f"]);
    for line in diff.lines() {
        assert!(while_mounted.lines().any(|seen| seen == line), "{line} is not in {while_mounted}");
    }
    sandbox.ok(&["umount", text(&point)]);
    assert_eq!(sandbox.ok(&["diff", "work"]), while_mounted);
    sandbox.ok(&["mount", "--upper", "work", IMAGE, text(&point)]);
    assert_eq!(fs::read_to_string(point.join("etc/new")).unwrap(), "written");
    sandbox.ok(&["umount", text(&point)]);
    assert!(sandbox.fails(&["cat", &format!("{IMAGE}:/etc/new")]).contains("/etc/new"));

    // By force a name can be taken away (tests/docker.rs), the image never.
    let image = sandbox.json(&["images"])[0]["id"].as_str().unwrap().to_owned();
    for args in [&["rmi", IMAGE][..], &["rmi", "-f", &image]] {
        let error = sandbox.fails(args);
        assert!(error.contains("upper work is on top of it"), "{error}");
    }
    // The layer is not read then; that its pipe breaks is no reason to tell.
    let error = sandbox.fails(&["commit", "work", &format!("new@sha256:{}", "0".repeat(64))]);
    assert!(error.contains("cannot commit upper work: "), "{error}");
    assert!(error.contains("digest") && !error.contains("pipe"), "{error}");
    let id = sandbox.ok(&["commit", "-m", "why", "-a", "who", "work", "new/image:1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(sandbox.ok(&["cat", "new/image:1:/etc/new"]), "written");
    assert!(!sandbox.ok(&["ls", "new/image:1:/bin"]).lines().any(|name| name == "ls"));
    assert!(sandbox.ok(&["ls", "new/image:1:/"]).lines().any(|name| name == "house"));
    let whole = sandbox.run(&["export", "work"]).stdout;
    assert!(whole == sandbox.run(&["export", "new/image:1"]).stdout, "another tree is committed");
    assert!(whole != sandbox.run(&["export", IMAGE]).stdout);
    let layers = sandbox.json(&["layers", "new/image:1"]);
    assert_eq!(layers.as_array().unwrap().len(), 5);
    assert_eq!(sandbox.ok(&["rm", "work"]), "work\n");
    assert_eq!(sandbox.json(&["uppers"]), serde_json::json!([]));
    sandbox.ok(&["rmi", IMAGE]);
    assert!(sandbox.ok(&["fsck"]).contains("no problems"));
}

#[test]
fn a_temporary_upper_goes_with_its_mount() {
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--rw", IMAGE, text(&point)]);
    fs::write(point.join("file"), "gone soon").unwrap();
    assert_eq!(sandbox.json(&["uppers"])[0]["temporary"], true);
    sandbox.ok(&["umount", text(&point)]);
    assert_eq!(sandbox.json(&["uppers"]), serde_json::json!([]));
    let name = sandbox.ok(&["mount", "--rw", "--keep", IMAGE, text(&point)]);
    fs::write(point.join("file"), "kept").unwrap();
    sandbox.ok(&["umount", text(&point)]);
    assert_eq!(sandbox.ok(&["diff", name.trim()]).lines().last(), Some("A /file"));
}

#[test]
fn a_new_upper_stays_however_its_mount_ends() {
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    let table = File::open("/proc/self/mountinfo").unwrap();
    let mut child =
        sandbox.spawn(&["mount", "--foreground", "--upper", "new", IMAGE, text(&point)]);
    while !point.join("bin").exists() {
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&table, PollFlags::PRI)], Some(&limit)).unwrap(), 1);
        assert!(child.try_wait().unwrap().is_none(), "it ended");
    }
    fs::write(point.join("written"), "kept").unwrap();
    fs::remove_file(point.join("bin/ls")).unwrap();
    // What whiteouts are links of goes at the end; this does not.
    let upper = sandbox.path().join("store/uppers/new");
    let made = fs::read_dir(upper.join("work/work")).unwrap().map(|entry| entry.unwrap().path());
    let held = made.into_iter().find(|path| text(path).contains("/#")).unwrap();
    fs::remove_file(&held).unwrap();
    fs::create_dir(&held).unwrap();
    let stuck = Immutable::make(&held.join("stuck"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().success(), stuck.is_none());
    drop(stuck);
    assert_eq!(fs::read_to_string(upper.join("upper/written")).unwrap(), "kept");
    assert_eq!(sandbox.ok(&["diff", "new"]), "C /bin\nD /bin/ls\nA /written\n");
}

#[test]
fn an_upper_has_one_writer_and_one_image() {
    let sandbox = busybox();
    sandbox.ok(&["load", "-i", text(&strata_testkit::fixture("cases.oci"))]);
    let (one, two) = (sandbox.dir("one"), sandbox.dir("two"));
    sandbox.ok(&["mount", "--upper", "work", IMAGE, text(&one)]);
    let error = sandbox.fails(&["mount", "--upper", "work", IMAGE, text(&two)]);
    assert!(error.contains("upper work is in use: it is mounted on "), "{error}");
    assert!(sandbox.fails(&["rm", "work"]).contains("is mounted"));
    let error = sandbox.fails(&["mount", "--upper", "work", "cases.oci:1", text(&two)]);
    assert!(error.contains("belongs to stratafs.test/busybox:1"), "{error}");
    let error = sandbox.fails(&["mount", "--upper", "../out", IMAGE, text(&two)]);
    assert!(error.contains("cannot be the name of an upper"), "{error}");
    // Nothing was made for the mounts that failed.
    assert_eq!(sandbox.json(&["uppers"]).as_array().unwrap().len(), 1);
    sandbox.ok(&["umount", text(&one)]);
}

#[test]
fn an_image_under_an_upper_that_was_made_while_others_go_stays() {
    let sandbox = busybox();
    sandbox.ok(&["load", "-i", text(&strata_testkit::fixture("cases.oci"))]);
    sandbox.ok(&["import", text(&strata_testkit::fixture("rootfs.tar")), "other:1"]);
    sandbox.ok(&["mount", "--upper", "gate", "other:1", text(&sandbox.dir("mnt"))]);
    sandbox.ok(&["umount", "mnt"]);
    let uppers = sandbox.path().join("store/uppers");
    let (gate, whole) = (uppers.join("gate/upper.json"), uppers.join("gate/whole.json"));
    fs::rename(&gate, &whole).unwrap();
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();

    let removal = sandbox.spawn(&["rmi", "cases.oci:1", IMAGE]);
    // It has listed the uppers, and reads this one, once another one is made.
    let mut said = File::options().write(true).open(&gate).unwrap();
    let description = fs::read_to_string(&whole).unwrap();
    fs::rename(&whole, &gate).unwrap();
    sandbox.ok(&["mount", "--upper", "late", IMAGE, "mnt"]);
    sandbox.ok(&["umount", "mnt"]);
    said.write_all(description.as_bytes()).unwrap();
    drop(said);

    let output = removal.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("upper late is on top of it"), "{error}");
    assert_eq!(sandbox.ok(&["diff", "late"]), "");
    assert!(sandbox.fails(&["inspect", "cases.oci:1"]).contains("no image"));
}

#[test]
fn a_damaged_upper_is_told_and_removed_by_its_name() {
    let sandbox = busybox();
    sandbox.ok(&["load", "-i", text(&strata_testkit::fixture("cases.oci"))]);
    sandbox.ok(&["mount", "--upper", "work", IMAGE, text(&sandbox.dir("mnt"))]);
    sandbox.ok(&["umount", "mnt"]);
    let description = sandbox.path().join("store/uppers/work/upper.json");
    let image = sandbox.json(&["uppers"])[0]["image"].as_str().unwrap().to_owned();
    fs::write(&description, "").unwrap();
    assert_eq!(sandbox.json(&["uppers"])[0]["reference"], "(damaged)");
    assert!(sandbox.ok(&["ps", "-a"]).contains("(damaged)"));
    assert!(sandbox.run(&["gc"]).status.success());
    for args in [&["info"][..], &["system", "df"], &["image", "prune", "-f"]] {
        sandbox.ok(args);
    }
    // Of several names one can go.
    sandbox.ok(&["tag", IMAGE, "other:1"]);
    sandbox.ok(&["rmi", "other:1"]);
    let mut asked = sandbox.command(&[]);
    asked.env("STRATA_COMPLETE", "fish").args(["--", "strata", "--root"]);
    asked.arg(sandbox.path().join("store")).args(["rm", "wo"]);
    let offers = asked.output().unwrap().stdout;
    assert!(offers.starts_with(b"work\t"), "{}", String::from_utf8_lossy(&offers));
    // It may be on any image.
    for args in [
        &["rmi", "cases.oci:1"][..],
        &["image", "prune", "-a", "-f"],
        &["system", "prune", "-a", "-f"],
        &["mount", "--upper", "work", IMAGE, "mnt"],
        &["diff", "work"],
        &["inspect", "work"],
        &["container", "inspect", "work"],
    ] {
        let error = sandbox.fails(args);
        assert!(error.contains("upper work is damaged: "), "{error}");
        assert!(error.contains("; `strata rm work` removes"), "{error}");
    }
    let stopped = sandbox.run(&["system", "prune", "-a", "-f"]);
    assert!(String::from_utf8(stopped.stdout).unwrap().contains("Total reclaimed space: "));
    assert_eq!(sandbox.json(&["images"]).as_array().unwrap().len(), 2);
    // It is on this one.
    fs::write(&description, format!("{{\"image\": \"{image}\"}}")).unwrap();
    assert!(sandbox.fails(&["rmi", IMAGE]).contains("upper work is on top of it"));
    sandbox.ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(sandbox.json(&["images"]).as_array().unwrap().len(), 1);
    assert!(sandbox.fails(&["diff", "work"]).contains("`strata rm work` removes"));
    sandbox.ok(&["rm", "work"]);
    sandbox.ok(&["rmi", IMAGE]);
}

#[test]
fn a_check_says_which_uppers_cannot_be_mounted() {
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--upper", "work", IMAGE, "mnt"]);
    fs::write(point.join("written"), "kept").unwrap();
    sandbox.ok(&["umount", "mnt"]);
    let uppers = sandbox.path().join("store/uppers");
    // As at the root of a disk: that is no upper.
    fs::create_dir(uppers.join("lost+found")).unwrap();
    sandbox.ok(&["fsck"]);

    for (gone, says) in [
        ("upper.json", "upper work: its upper.json is damaged: it is not there; what was written"),
        ("work", "upper work: its directory work is not there; make "),
        ("upper", "upper work: its directory upper is not there; make "),
    ] {
        let (there, away) = (uppers.join("work").join(gone), sandbox.path().join("away"));
        fs::rename(&there, &away).unwrap();
        for args in [&["fsck"][..], &["fsck", "--repair"]] {
            let error = sandbox.fails(args);
            assert!(error.contains(&format!("1 problem, the first is {says}")), "{error}");
        }
        assert!(sandbox.fails(&["rmi", IMAGE]).contains("upper work"));
        assert_eq!(sandbox.json(&["uppers"]).as_array().unwrap().len(), 1);
        fs::rename(&away, &there).unwrap();
        sandbox.ok(&["fsck"]);
    }

    // A repair takes out the damaged image, and the upper waits for another copy.
    let config = sandbox.json(&["uppers"])[0]["image"].as_str().unwrap().to_owned();
    let config = config.trim_start_matches("sha256:");
    let config = sandbox.path().join("store/blobs/sha256").join(config);
    fs::remove_file(config).unwrap();
    let error = sandbox.fails(&["fsck", "--repair"]);
    assert!(error.contains("upper work: its image stratafs.test/busybox:1 ("), "{error}");
    assert!(error.contains(") is not in the store; load or pull it again"), "{error}");
    sandbox.ok(&["load", "-i", text(&strata_testkit::fixture("busybox-gzip.oci.tar"))]);
    sandbox.ok(&["fsck"]);
    sandbox.ok(&["mount", "--upper", "work", IMAGE, "mnt"]);
    assert_eq!(fs::read_to_string(point.join("written")).unwrap(), "kept");
    sandbox.ok(&["umount", "mnt"]);
}

#[test]
fn a_directory_names_the_upper_that_is_mounted_there_now() {
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--upper", "first", IMAGE, "mnt"]);
    fs::write(point.join("of-first"), "").unwrap();
    let open = File::open(point.join("of-first")).unwrap();
    sandbox.ok(&["umount", "--lazy", "mnt"]);
    // Nothing is there, so it is the one that was.
    assert_eq!(sandbox.ok(&["diff", "./mnt"]), "A /of-first\n");
    sandbox.ok(&["mount", "--upper", "second", IMAGE, "mnt"]);
    fs::write(point.join("of-second"), "").unwrap();
    assert_eq!(sandbox.ok(&["diff", "./mnt"]), "A /of-second\n");
    // The first is dead and not cleaned up.
    let mounts = sandbox.json(&["mounts"]);
    let first = mounts.as_array().unwrap().iter().find(|mount| mount["upper"] == "first").unwrap();
    let pid = i32::try_from(first["pid"].as_i64().unwrap()).ok().and_then(Pid::from_raw).unwrap();
    let daemon = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    poll(&mut [PollFd::new(&daemon, PollFlags::IN)], None).unwrap();
    drop(open);
    assert!(sandbox.fails(&["rm", "./mnt"]).contains("upper second is in use"));
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(sandbox.ok(&["diff", "first"]), "A /of-first\n");
    assert_eq!(sandbox.ok(&["diff", "second"]), "A /of-second\n");
}

#[test]
fn a_name_is_that_of_an_upper_first_and_a_directory_second() {
    let sandbox = busybox();
    let (work, other) = (sandbox.dir("work"), sandbox.dir("other"));
    sandbox.ok(&["mount", "--upper", "demo", IMAGE, text(&work)]);
    sandbox.ok(&["mount", "--upper", "work", IMAGE, text(&other)]);
    fs::write(work.join("of-demo"), "").unwrap();
    fs::write(other.join("of-work"), "").unwrap();
    assert_eq!(sandbox.ok(&["diff", "work"]), "A /of-work\n");
    assert_eq!(sandbox.ok(&["diff", "./work"]), "A /of-demo\n");
    let mut inside = sandbox.command(&["diff", "."]);
    assert_eq!(inside.current_dir(&work).output().unwrap().stdout, b"A /of-demo\n");
    assert_eq!(sandbox.ok(&["rm", "-f", "work"]), "work\n");
    assert_eq!(sandbox.json(&["uppers"])[0]["name"], "demo");
    // No upper has this name any more.
    assert_eq!(sandbox.ok(&["diff", "work"]), "A /of-demo\n");
    sandbox.ok(&["umount", text(&work)]);
}

#[test]
fn what_is_saved_is_the_same_and_loads_as_what_it_was() {
    let sandbox = Sandbox::with("cases-docker25.docker.tar");
    let names = ["stratafs.test/cases:2", "cases:1", "stratafs.test/cases:latest"];
    let mut args = vec!["save", "-o", "one.tar"];
    args.extend(names);
    sandbox.ok(&args);
    args[2] = "two.tar";
    sandbox.ok(&args);
    let read = |name: &str| fs::read(sandbox.path().join(name)).unwrap();
    assert!(read("one.tar") == read("two.tar"), "two archives of the same images differ");
    let other = Sandbox::new();
    other.ok(&["load", "-i", text(&sandbox.path().join("one.tar"))]);
    let facts = |sandbox: &Sandbox| {
        let images = sandbox.json(&["images"]);
        let facts = images.as_array().unwrap().iter().map(|image| {
            format!("{}:{} {} {}", image["repository"], image["tag"], image["id"], image["layers"])
        });
        let mut facts: Vec<String> = facts.collect();
        facts.sort();
        facts
    };
    assert_eq!(facts(&other), facts(&sandbox));
    assert!(other.ok(&["fsck"]).contains("no problems"));
}

#[test]
fn attributes_that_cannot_be_held_are_told_by_load_and_by_the_copy_up() {
    let sandbox = Sandbox::new();
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    let named = |tar: Tar, flag, name: &str, attribute: &str, bytes: usize| {
        let value = vec![b'v'; bytes];
        tar.pax(&[(attribute, &value)]).add(Head::new(flag, name.as_bytes()), b"")
    };
    let mut tar = Tar::default();
    for (flag, name, attribute, bytes) in [
        (b'0', "huge", "SCHILY.xattr.user.huge", 70_000),
        (b'0', "name", long.as_str(), 1),
        (b'0', "none", "SCHILY.xattr.com.example", 1),
        (b'6', "fifo", "SCHILY.xattr.user.a", 1),
        (b'0', "block", "SCHILY.xattr.user.block", 6_000),
        (b'0', "fine", "SCHILY.xattr.user.fine", 9),
    ] {
        tar = named(tar, flag, name, attribute, bytes);
    }
    fs::write(sandbox.path().join("rootfs.tar"), tar.end()).unwrap();
    let told = sandbox.run(&["import", "rootfs.tar", "image:1"]);
    let told = String::from_utf8(told.stderr).unwrap();
    let warned = |path: &str, what: &str| {
        let mut lines = told.lines();
        lines.any(|line| line.contains(&format!(": /{path}: its extended attribute {what}")))
    };
    assert!(warned("huge", "user.huge has 70000 bytes, and Linux takes 65536"), "{told}");
    assert!(warned("name", "user.nnn") && told.contains("a name of 305 bytes"), "{told}");
    assert!(warned("none", "com.example is in no namespace"), "{told}");
    assert!(warned("fifo", "user.a is for files and directories alone"), "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("warning:")).count(), 4, "{told}");

    let point = sandbox.dir("mnt");
    sandbox.ok(&["mount", "--upper", "work", "image:1", text(&point)]);
    let probe = sandbox.path().join("probe");
    fs::write(&probe, "").unwrap();
    let plain = rustix::fs::setxattr(&probe, "user.block", &[b'v'; 6_000], XattrFlags::empty());
    let chmod = |name: &str| {
        let done = fs::set_permissions(point.join(name), fs::Permissions::from_mode(0o600));
        done.map_err(|error| error.raw_os_error().unwrap())
    };
    use rustix::io::Errno;
    assert_eq!(chmod("huge"), Err(Errno::TOOBIG.raw_os_error()));
    assert_eq!(chmod("name"), Err(Errno::RANGE.raw_os_error()));
    assert_eq!(chmod("block"), plain.map_err(Errno::raw_os_error));
    assert_eq!((chmod("none"), chmod("fifo"), chmod("fine")), (Ok(()), Ok(()), Ok(())));
    let upper = sandbox.path().join("store/uppers/work/upper");
    assert!(!upper.join("huge").exists() && upper.join("fine").exists());

    let logs = fs::read_dir(sandbox.path().join("store/mounts")).unwrap();
    let logs = logs.map(|entry| entry.unwrap().path());
    let log: String = logs
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let line = |name: &str, what: &str| {
        let start = format!("cannot copy up to {}: ", upper.join(name).display());
        log.lines().any(|line| line.contains(&start) && line.contains(what))
    };
    let huge = "the extended attribute user.huge of 70000 bytes is refused: Argument list too long";
    assert!(line("huge", huge), "{log}");
    assert!(line("name", "of 1 bytes is refused: Numerical result out of range"), "{log}");
    let block = "user.block of 6000 bytes is refused: No space left on device";
    let no_room = plain == Err(Errno::NOSPC);
    assert_eq!(line("block", block) && line("block", "ea_inode"), no_room, "{log}");
    assert!(!["none", "fifo", "fine"].iter().any(|name| line(name, "")), "{log}");
    sandbox.ok(&["umount", text(&point)]);
}
