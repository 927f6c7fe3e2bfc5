//! Mounts that the kernel serves by itself: what they show, who may not remove what they show, and
//! what is left of them.
//!
//! Invariant: each test needs root of the initial user namespace, and says so.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::XattrFlags;
use strata_testkit::namespace::Namespace;
use strata_testkit::needs;
use strata_testkit::sandbox::Sandbox;
use strata_testkit::tars::{Head, Tar};

const IMAGE: &str = "stratafs.test/busybox:1";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn busybox() -> Sandbox {
    Sandbox::with("busybox-gzip.oci.tar")
}

/// Mounts by the kernel, and says what with.
fn mount(sandbox: &Sandbox, more: &[&str]) {
    sandbox.ok(&[&["mount", "--backend", "kernel"], more].concat());
}

/// What a walk sees: owners, modes, sizes, times, links, contents, attributes, and which names are
/// one inode.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut open = vec![PathBuf::from(".")];
    while let Some(path) = open.pop() {
        let at = root.join(&path);
        let meta = fs::symlink_metadata(&at).unwrap();
        let mut body = Vec::new();
        if meta.is_dir() {
            open.extend(fs::read_dir(&at).unwrap().map(|one| path.join(one.unwrap().file_name())));
        } else if meta.is_file() {
            body = fs::read(&at).unwrap();
        } else if meta.is_symlink() {
            body = fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes();
        }
        let mut names = vec![0; 1 << 16];
        let length = rustix::fs::llistxattr(&at, names.as_mut_slice()).unwrap();
        let mut attributes = BTreeMap::new();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(&at, name, value.as_mut_slice()).unwrap();
            attributes.insert(name.to_vec(), value[..length].to_vec());
        }
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let facts = (meta.mode(), meta.uid(), meta.gid(), size, meta.rdev(), links);
        let times = (meta.mtime(), meta.mtime_nsec());
        let digest = strata_testkit::digest(&body);
        inodes.insert(path.clone(), meta.ino());
        all.insert(path, format!("{facts:?} {times:?} {attributes:?} {digest}"));
    }
    // Numbers differ between the backends; which names share one does not.
    let mut first: BTreeMap<u64, &PathBuf> = BTreeMap::new();
    for (path, inode) in &inodes {
        let same = first.entry(*inode).or_insert(path);
        all.get_mut(path).unwrap().push_str(&format!(" {same:?}"));
    }
    all
}

fn files_in(sandbox: &Sandbox, dir: &str) -> Vec<String> {
    let names = fs::read_dir(sandbox.path().join("store").join(dir)).unwrap();
    let mut names: Vec<String> =
        names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn digests_are_required_or_the_mount_is_refused() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    sandbox.dir("mnt");
    let sealed = fs::write(sandbox.path().join("probe"), "x").and_then(|()| {
        let probe = fs::File::open(sandbox.path().join("probe"))?;
        Ok(strata_tree::seal_with_verity(&probe)?)
    });
    let args = ["mount", "--backend", "kernel", "--verity", IMAGE, "mnt"];
    if sealed.is_ok() {
        sandbox.ok(&args);
        let shown = seen(&sandbox.path().join("mnt"));
        assert!(shown.len() > 20);
        sandbox.ok(&["umount", "mnt"]);
    } else {
        let error = sandbox.fails(&args);
        for part in ["cannot seal /", "fs-verity", "tune2fs", "--verify", IMAGE] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!sandbox.ok(&["mounts"]).contains("mnt"));
    }
    let error = sandbox.fails(&["mount", "--verity", "--backend", "fuse", IMAGE, "mnt"]);
    assert!(error.contains("--backend kernel"), "{error}");
    // It is a fact that does no harm where nobody asks for it.
    let rootfs = strata_testkit::fixture("rootfs.tar.gz");
    sandbox.ok(&["import", "--verity", text(&rootfs), "a:1"]);
    mount(&sandbox, &["a:1", "mnt"]);
    sandbox.ok(&["umount", "mnt"]);
    sandbox.ok(&["fsck"]);
}

#[test]
fn it_shows_what_the_daemon_shows() {
    if !needs::root_and_fuse() {
        return;
    }
    for fixture in ["busybox-gzip.oci.tar", "cases.oci"] {
        let sandbox = Sandbox::with(fixture);
        let image = sandbox.ok(&["images", "-q"]).trim().to_owned();
        let (one, two) = (sandbox.dir("one"), sandbox.dir("two"));
        let refused = sandbox.run(&["mount", "--backend", "kernel", &image, "two"]);
        if !refused.status.success() {
            // An image with a character device 0:0, which the kernel's overlayfs cannot show.
            let said = String::from_utf8(refused.stderr).unwrap();
            assert!(said.contains("overlayfs takes it for a whiteout"), "{said}");
            assert!(said.contains("--backend fuse"), "{said}");
            assert_eq!(fixture, "cases.oci");
            continue;
        }
        sandbox.ok(&["mount", "--backend", "fuse", &image, "one"]);
        let (daemon, kernel) = (seen(&one), seen(&two));
        assert!(daemon.len() > 20);
        for (path, facts) in &daemon {
            assert_eq!(kernel.get(path), Some(facts), "{path:?}");
        }
        assert_eq!(kernel.len(), daemon.len());
        sandbox.ok(&["umount", "one"]);
        sandbox.ok(&["umount", "two"]);
    }
}

#[test]
fn it_is_listed_and_keeps_its_image_until_it_goes() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    mount(&sandbox, &[IMAGE, "mnt"]);
    let listed = &sandbox.json(&["mounts"])[0];
    assert_eq!(listed["backend"], "kernel");
    assert_eq!(listed["status"], "alive");
    assert!(listed.get("pid").is_none(), "no process serves it: {listed}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(text(&point))).unwrap();
    assert!(line.contains(" ro,nosuid,nodev,") && line.contains(" - overlay strata:"), "{line}");
    let id = sandbox.ok(&["images", "-q"]).trim().to_owned();
    for args in [&["rmi", IMAGE][..], &["rmi", "--force", &id]] {
        assert!(sandbox.fails(args).contains("unmount it first: strata umount "), "{args:?}");
    }
    assert!(sandbox.fails(&["rmi", "--dry-run", IMAGE]).contains("it is mounted on"));
    sandbox.ok(&["gc"]);
    assert!(sandbox.fails(&["mount", IMAGE, "mnt"]).contains("already mounted"));
    assert_eq!(fs::read(point.join("etc/passwd")).unwrap()[..4], *b"root");
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(sandbox.json(&["mounts"]).as_array().unwrap().len(), 0);
    assert_eq!(files_in(&sandbox, "mounts"), [".lock"]);
    sandbox.ok(&["fsck"]);
    sandbox.ok(&["rmi", IMAGE]);
    assert_eq!((files_in(&sandbox, "trees").len(), files_in(&sandbox, "layers").len()), (0, 0));
}

#[test]
fn a_mount_that_only_another_namespace_has_keeps_its_image() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    mount(&sandbox, &["--upper", "work", IMAGE, "mnt"]);
    let namespace = Namespace::with(&point);
    let error = sandbox.fails(&["umount", "mnt"]);
    assert!(error.contains("lives on in another mount namespace"), "{error}");
    assert_eq!(sandbox.json(&["mounts"])[0]["status"], "elsewhere");
    assert!(sandbox.fails(&["rmi", IMAGE]).contains("another mount namespace"));
    assert!(sandbox.fails(&["rm", "work"]).contains("another mount namespace"));
    // Nobody knows of the record any more: the kernel still says that the lease is kept.
    let record = files_in(&sandbox, "mounts").into_iter().find(|name| name.ends_with(".json"));
    fs::remove_file(sandbox.path().join("store/mounts").join(record.unwrap())).unwrap();
    assert!(sandbox.fails(&["rm", "work"]).contains("is in use"));
    assert!(sandbox.fails(&["rmi", IMAGE]).contains("upper work is on top of it"));
    sandbox.ok(&["gc"]);
    drop(namespace);
    // The kernel gives the file back a moment after the last process of the namespace.
    let gone = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        sandbox.run(&["rm", "work"]).status.success()
    });
    assert!(gone, "the upper stays in use");
    sandbox.ok(&["rmi", IMAGE]);
    sandbox.ok(&["gc"]);
    assert_eq!(files_in(&sandbox, "mounts"), [".lock"]);
    assert!(!point.join("etc").exists());
}

#[test]
fn what_is_open_is_served_after_a_lazy_unmount() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    mount(&sandbox, &[IMAGE, "mnt"]);
    let mut open = fs::File::open(point.join("etc/passwd")).unwrap();
    assert!(sandbox.fails(&["umount", "mnt"]).contains("is busy"));
    sandbox.ok(&["umount", "--lazy", "mnt"]);
    assert_eq!(sandbox.json(&["mounts"])[0]["status"], "detached");
    assert!(sandbox.fails(&["rmi", IMAGE]).contains("it ends with the last of them"));
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert!(content.starts_with("root"));
    drop(open);
    let gone = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        sandbox.run(&["rmi", IMAGE]).status.success()
    });
    assert!(gone, "the image stays in use");
}

#[test]
fn an_upper_goes_from_one_backend_to_the_other_and_is_committed() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    let begin = |backend: &str| {
        sandbox.ok(&["mount", "--backend", backend, "--upper", "work", IMAGE, "mnt"]);
    };
    begin("fuse");
    fs::write(point.join("etc/daemon"), "by the daemon").unwrap();
    fs::remove_file(point.join("bin/ls")).unwrap();
    fs::rename(point.join("home"), point.join("house")).unwrap();
    sandbox.ok(&["umount", "mnt"]);
    begin("kernel");
    assert_eq!(fs::read(point.join("etc/daemon")).unwrap(), b"by the daemon");
    assert!(!point.join("bin/ls").exists() && point.join("house/user").exists());
    fs::write(point.join("etc/kernel"), "by the kernel").unwrap();
    fs::remove_dir_all(point.join("tmp")).unwrap();
    let passwd = point.join("etc/passwd");
    rustix::fs::setxattr(&passwd, "user.mark", b"kept", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(point.join("bin/cat"), Some(7), Some(8)).unwrap();
    let of_kernel = seen(&point);
    let diff = sandbox.ok(&["diff", "work"]);
    assert!(sandbox.fails(&["rm", "work"]).contains("unmount it first"));
    assert!(
        sandbox
            .fails(&["mount", "--upper", "work", IMAGE, text(&sandbox.dir("other"))])
            .contains("upper work is in use")
    );
    sandbox.ok(&["umount", "mnt"]);
    begin("fuse");
    let of_daemon = seen(&point);
    for (path, facts) in &of_kernel {
        assert_eq!(of_daemon.get(path), Some(facts), "{path:?}");
    }
    assert_eq!(of_daemon.len(), of_kernel.len());
    assert_eq!(sandbox.ok(&["diff", "work"]), diff);
    sandbox.ok(&["umount", "mnt"]);
    for line in ["A /etc/daemon", "A /etc/kernel", "D /bin/ls", "A /house", "D /tmp"] {
        assert!(diff.lines().any(|seen| seen == line), "{line} is not in {diff}");
    }
    sandbox.ok(&["commit", "work", "made:1"]);
    assert_eq!(sandbox.ok(&["cat", "made:1:/etc/kernel"]), "by the kernel");
    let made = sandbox.dir("made");
    mount(&sandbox, &["made:1", "made"]);
    let committed = seen(&made);
    assert_eq!(committed.keys().collect::<Vec<_>>(), of_kernel.keys().collect::<Vec<_>>());
    sandbox.ok(&["umount", "made"]);
}

#[test]
fn a_temporary_upper_goes_with_its_mount() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    mount(&sandbox, &["--rw", IMAGE, "mnt"]);
    fs::write(point.join("new"), "x").unwrap();
    assert_eq!(files_in(&sandbox, "uppers").len(), 1);
    sandbox.ok(&["umount", "mnt"]);
    assert_eq!(files_in(&sandbox, "uppers").len(), 0);
    // By umount(8), which knows nothing of uppers: the next collection does.
    mount(&sandbox, &["--rw", IMAGE, "mnt"]);
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    // A process that makes names ahead has the record for a moment longer.
    let over = (0..500).any(|_| {
        sandbox.ok(&["gc"]);
        std::thread::sleep(std::time::Duration::from_millis(10));
        files_in(&sandbox, "mounts") == [".lock"]
    });
    assert!(over, "{:?}", files_in(&sandbox, "mounts"));
    assert_eq!(files_in(&sandbox, "uppers").len(), 0);
}

#[test]
fn what_a_kill_left_is_cleaned_up() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    sandbox.dir("mnt");
    mount(&sandbox, &[IMAGE, "mnt"]);
    let store = sandbox.path().join("store/mounts");
    let names = files_in(&sandbox, "mounts");
    let kept = |ending: &str| {
        let name = names.iter().find(|name| name.ends_with(ending)).unwrap();
        (store.join(format!("killed{ending}")), fs::read(store.join(name)).unwrap())
    };
    // The two steps after which a file of a mount is there and the mount is not: a lease, and a
    // lease with a record.
    let (lease, record) = (kept(".lease"), kept(".json"));
    sandbox.ok(&["umount", "mnt"]);
    for left in [vec![&lease], vec![&lease, &record]] {
        left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        sandbox.ok(&["gc"]);
        assert_eq!(files_in(&sandbox, "mounts"), [".lock"]);
        left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        // A dead mount holds nothing.
        sandbox.ok(&["rmi", "--dry-run", IMAGE]);
        mount(&sandbox, &[IMAGE, "mnt"]);
        sandbox.ok(&["umount", "mnt"]);
        assert_eq!(files_in(&sandbox, "mounts"), [".lock"]);
    }
    sandbox.ok(&["rmi", IMAGE]);
}

#[test]
fn a_damaged_image_of_names_is_told_and_made_again() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    mount(&sandbox, &[IMAGE, "mnt"]);
    sandbox.ok(&["umount", "mnt"]);
    let names = files_in(&sandbox, "trees").into_iter().find(|name| name.ends_with(".erofs"));
    let path = sandbox.path().join("store/trees").join(names.unwrap());
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[5000] ^= 1;
    fs::write(&path, &bad).unwrap();
    assert!(sandbox.fails(&["fsck"]).contains("1 problem"));
    sandbox.ok(&["fsck", "--repair"]);
    // Cut short, as a disk that was full would: no seal.
    fs::write(&path, &good[..good.len() - 4096]).unwrap();
    mount(&sandbox, &[IMAGE, "mnt"]);
    assert_eq!(fs::read(&path).unwrap(), good);
    assert!(point.join("etc").exists());
    sandbox.ok(&["umount", "mnt"]);
    sandbox.ok(&["fsck"]);
}

#[test]
fn auto_takes_the_daemon_for_what_overlayfs_cannot_show() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let point = sandbox.dir("mnt");
    // A character device 0:0: a header of type 3, whose device numbers are zero.
    let tar = Tar::default().add(Head::new(b'3', b"zero"), b"").file(b"f", b"text").end();
    fs::write(sandbox.path().join("zero.tar"), tar).unwrap();
    sandbox.ok(&["import", "zero.tar", "zero:1"]);
    let error = sandbox.fails(&["mount", "--backend", "kernel", "zero:1", "mnt"]);
    assert!(error.contains("it cannot show /zero: a character device 0:0"), "{error}");
    assert!(error.contains("try --backend fuse"), "{error}");
    for more in [&[][..], &["--rw"], &["--upper", "work"]] {
        let args = [&["mount", "-v", "--backend", "auto"], more, &["zero:1", "mnt"]].concat();
        let output = sandbox.run(&args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("through FUSE: ") && said.contains("/zero"), "{said}");
        let kind = fs::symlink_metadata(point.join("zero")).unwrap();
        assert_eq!((kind.mode() & 0o170_000, kind.rdev()), (0o020_000, 0));
        sandbox.ok(&["umount", "mnt"]);
        assert_eq!(files_in(&sandbox, "mounts"), [".lock"]);
    }
}

#[test]
fn auto_says_what_it_takes_and_why() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = busybox();
    sandbox.dir("mnt");
    let said = |args: &[&str]| {
        let all = [&["mount", "-v"], args, &[IMAGE, "mnt"]].concat();
        let output = sandbox.run(&all);
        assert!(output.status.success());
        sandbox.ok(&["umount", "mnt"]);
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&["--backend", "auto"]).contains("the kernel serves it"));
    assert!(said(&["--backend", "fuse"]).contains("a daemon serves it through FUSE"));
    let profile = said(&["--backend", "auto", "--profile", "passthrough"]);
    assert!(profile.contains("--profile asks for a daemon"), "{profile}");
    // The environment is asked where the option is not given.
    assert!(said(&[]).contains("a daemon serves it"));
    let mut odd = sandbox.command(&["mount", IMAGE, "mnt"]);
    let odd = odd.env("STRATA_BACKEND", "loop").output().unwrap();
    assert!(String::from_utf8(odd.stderr).unwrap().contains("auto, kernel, userns or fuse"));
}

/// Whether a process makes names of this store ahead.
fn makes_names_ahead(sandbox: &Sandbox) -> bool {
    let store = text(sandbox.path()).as_bytes();
    let of_store = |line: &Vec<u8>| {
        line.windows(11).any(|word| word == b"names-ahead")
            && line.windows(store.len()).any(|word| word == store)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|one| fs::read(one.path().join("cmdline")).ok());
    lines.any(|line| of_store(&line))
}

#[test]
fn names_are_made_ahead_as_long_as_the_mount_lives() {
    if !needs::root() {
        return;
    }
    let sandbox = busybox();
    let point = sandbox.dir("mnt");
    let many = (0..20_000).fold(Tar::default(), |tar, number| {
        tar.add(Head::new(b'0', format!("{}/{number}", number % 90).as_bytes()), b"")
    });
    fs::write(sandbox.path().join("many.tar"), many.end()).unwrap();
    sandbox.ok(&["import", "many.tar", "many:1"]);
    // A busy machine may look when all is made already.
    let made_ahead = (0..20).any(|_| {
        mount(&sandbox, &["many:1", "mnt"]);
        let seen = makes_names_ahead(&sandbox);
        // Nothing of the store is open once it is unmounted.
        sandbox.ok(&["umount", "mnt"]);
        assert!(!makes_names_ahead(&sandbox));
        seen
    });
    let several = std::thread::available_parallelism().unwrap().get() > 1;
    assert_eq!(made_ahead, several);

    mount(&sandbox, &["many:1", "mnt"]);
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
    let since = std::time::Instant::now();
    while makes_names_ahead(&sandbox) {
        assert!(since.elapsed().as_secs() < 20, "it goes on without the mount");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    sandbox.ok(&["rmi", "many:1"]);
}

#[test]
fn mount_8_mounts_an_image() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = busybox();
    let mnt = sandbox.dir("mnt");
    let helper = sandbox.path().join("mount.strata");
    std::os::unix::fs::symlink(strata_testkit::sandbox::program("strata"), &helper).unwrap();
    let options =
        format!("store={},nofail,x-systemd.automount", sandbox.path().join("store").display());
    let helper = |image: &str, more: &str| {
        let mut helper = Command::new(&helper);
        helper.args([image, text(&mnt), "-o", &format!("{options},{more}")]);
        helper.env("HOME", sandbox.path()).output().unwrap()
    };
    let done = helper(IMAGE, "ro");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(mnt.join("bin").is_dir());
    sandbox.ok(&["umount", "mnt"]);
    // mount(8) says rw of each line without ro; a writable layer has a name.
    assert!(helper(IMAGE, "rw,upper=kept").status.success());
    fs::write(mnt.join("new"), "kept").unwrap();
    sandbox.ok(&["umount", "mnt"]);
    assert!(sandbox.ok(&["ps", "-a"]).contains("kept"));
    let refused = helper(IMAGE, "remount");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(refused.stderr, b"mount.strata: there is no option remount\n");
    let refused = helper(IMAGE, "threads=0");
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    let failed = helper("stratafs.test/none:1", "ro");
    assert_eq!(failed.status.code(), Some(32), "{}", String::from_utf8_lossy(&failed.stderr));
}

#[test]
fn mount_8_may_ask_again_for_what_is_mounted() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = busybox();
    let mnt = sandbox.dir("mnt");
    let helper = sandbox.path().join("mount.strata");
    std::os::unix::fs::symlink(strata_testkit::sandbox::program("strata"), &helper).unwrap();
    let store = sandbox.path().join("store");
    let code = |image: &str, options: &str| {
        let mut helper = Command::new(&helper);
        helper.args([image, "mnt", "-o", &format!("store={},{options}", store.display())]);
        helper.env("HOME", sandbox.path()).current_dir(sandbox.path());
        helper.output().unwrap().status.code()
    };
    let mounts = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.split(' ').nth(4) == mnt.to_str()).count()
    };
    sandbox.ok(&["tag", IMAGE, "other:1"]);
    for backend in ["backend=auto", "backend=fuse"] {
        for line in ["ro", "rw,upper=kept", "writable", "noexec,nofail"] {
            let line = format!("{backend},{line}");
            for _ in 0..3 {
                assert_eq!(code(IMAGE, &line), Some(0), "{line}");
                assert_eq!(mounts(), 1, "{line}");
            }
            // What is not the same is not there.
            let others = ["suid", "rw,upper=another", "rw,upper=kept,noexec", "writable,noexec"];
            for other in others {
                assert_eq!(code(IMAGE, &format!("{backend},{other}")), Some(32), "{line}: {other}");
            }
            assert_eq!(code("other:1", &line), Some(32), "{line}");
            sandbox.ok(&["umount", "mnt"]);
            assert_eq!(mounts(), 0, "{line}");
        }
        sandbox.ok(&["rm", "kept"]);
    }
}
