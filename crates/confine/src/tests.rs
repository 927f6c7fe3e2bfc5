//! What a thread can do before and after it has entered a confinement.

#![allow(clippy::unwrap_used)] // Helpers are not #[test] functions.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use super::*;

/// Does something in a thread of its own, which has entered.
fn inside<T: Send>(confinement: &Confinement, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut kept = confinement.give_up();
            // Tests of what Landlock refuses do not run without it.
            kept.retain(|error| !matches!(error, Error::NoLandlock));
            assert!(kept.is_empty(), "{kept:?}");
            work()
        });
        thread.join().unwrap()
    })
}

fn refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn has_landlock() -> bool {
    let kept = std::thread::spawn(|| Confinement::writer().give_up()).join().unwrap();
    !kept.iter().any(|error| matches!(error, Error::NoLandlock))
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/file"), "inside").unwrap();
        fs::write(dir.path().join("out"), "outside").unwrap();
        fs::hard_link(dir.path().join("out"), dir.path().join("in/other-name")).unwrap();
        std::os::unix::fs::symlink("../out", dir.path().join("in/link")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inner(&self) -> Vec<PathBuf> {
        vec![self.path("in")]
    }
}

#[test]
fn a_reader_reads_what_is_beneath_and_nothing_else() {
    if !has_landlock() {
        return;
    }
    let world = World::new();
    // What is open stays open, and does not lead out.
    let top = File::open(world.dir.path()).unwrap();
    inside(&Confinement::reader(world.inner()), || {
        assert_eq!(fs::read(world.path("in/file")).unwrap(), b"inside");
        assert_eq!(fs::read_dir(world.path("in")).unwrap().count(), 3);
        assert!(refused(fs::read(world.path("out"))));
        assert!(refused(fs::read(world.path("in/link"))));
        assert!(refused(fs::read(world.path("in/../out"))));
        assert!(refused(fs::read("/etc/passwd")));
        let flags = rustix::fs::OFlags::RDONLY;
        let through = rustix::fs::openat(&top, "out", flags, rustix::fs::Mode::empty());
        assert!(refused(through.map_err(io::Error::from)));
    });
    assert_eq!(fs::read(world.path("out")).unwrap(), b"outside", "other threads go on");
}

#[test]
fn a_reader_writes_nothing() {
    if !has_landlock() {
        return;
    }
    let world = World::new();
    inside(&Confinement::reader(world.inner()), || {
        assert!(refused(fs::write(world.path("in/file"), "other")));
        assert!(refused(fs::write(world.path("in/new"), "")));
        assert!(refused(fs::create_dir(world.path("in/dir"))));
        assert!(refused(fs::remove_file(world.path("in/file"))));
        assert!(refused(std::os::unix::fs::symlink("a", world.path("in/b"))));
    });
    assert_eq!(fs::read(world.path("in/file")).unwrap(), b"inside");
}

#[test]
fn a_server_writes_beneath_and_nowhere_else() {
    if !has_landlock() {
        return;
    }
    let world = World::new();
    inside(&Confinement::server(world.inner()), || {
        fs::write(world.path("in/file"), "other").unwrap();
        fs::create_dir(world.path("in/dir")).unwrap();
        fs::rename(world.path("in/file"), world.path("in/dir/file")).unwrap();
        fs::remove_file(world.path("in/dir/file")).unwrap();
        assert!(refused(fs::write(world.path("out"), "other")));
        assert!(refused(fs::read(world.path("out"))));
    });
}

#[test]
fn nobody_runs_programs_but_a_writer() {
    if !has_landlock() {
        return;
    }
    let world = World::new();
    let run = || Command::new("/bin/true").status();
    for confinement in [Confinement::reader(world.inner()), Confinement::server(world.inner())] {
        assert!(refused(inside(&confinement, run)));
    }
    assert!(inside(&Confinement::writer(), run).unwrap().success());
}

#[test]
fn nobody_speaks_tcp() {
    if !has_landlock() {
        return;
    }
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let all = [
        Confinement::reader(world.inner()),
        Confinement::server(world.inner()),
        Confinement::writer(),
    ];
    for confinement in all {
        inside(&confinement, || {
            assert!(refused(TcpStream::connect(address)));
            assert!(refused(TcpListener::bind("127.0.0.1:0")));
        });
    }
    // What listens already goes on to be asked.
    inside(&Confinement::server(world.inner()), || {
        std::thread::scope(|_| listener.set_nonblocking(true).unwrap());
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_writer_does_to_files_what_it_did_before() {
    if !strata_testkit::needs::root() {
        return;
    }
    let world = World::new();
    inside(&Confinement::writer(), || {
        let path = world.path("in/file");
        std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
        fs::rename(&path, world.path("moved")).unwrap();
        fs::hard_link(world.path("moved"), world.path("in/again")).unwrap();
        let pipe = world.path("in/null");
        let null = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, null).unwrap();
    });
}

#[test]
fn a_mounter_mounts_and_so_do_the_programs_that_it_runs() {
    if !strata_testkit::needs::root() {
        return;
    }
    let world = World::new();
    let at = world.path("in");
    inside(&Confinement::mounter(), || {
        rustix::mount::mount_bind(&at, &at).unwrap();
        let run = |program: &str, args: &[&Path]| {
            let run = Command::new(program).args(args).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap()
        };
        run("umount", &[&at]);
        // What a program could have of its own, it has no more than the thread.
        let status = run("cat", &[Path::new("/proc/self/status")]);
        let line = status.lines().find(|line| line.starts_with("CapEff:")).unwrap();
        let has = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(has & !Confinement::mounter().capabilities.bits(), 0, "{line}");
        assert!(TcpListener::bind("127.0.0.1:0").is_ok());
    });
}

/// The capabilities of the thread that asks.
fn effective() -> CapabilitySet {
    rustix::thread::capabilities(None).unwrap().effective
}

#[test]
fn capabilities_go_and_do_not_come_back() {
    if !strata_testkit::needs::root() {
        return;
    }
    let world = World::new();
    let before = effective();
    inside(&Confinement::reader(world.inner()), || {
        assert_eq!(effective(), before & CapabilitySet::DAC_READ_SEARCH);
        assert!(rustix::thread::no_new_privs().unwrap());
        let all = CapabilitySets {
            effective: before,
            permitted: before,
            inheritable: CapabilitySet::empty(),
        };
        assert!(rustix::thread::set_capabilities(None, all).is_err());
        // A thread that is started inside is inside.
        std::thread::scope(|scope| {
            let found = scope.spawn(effective).join().unwrap();
            assert_eq!(found, before & CapabilitySet::DAC_READ_SEARCH);
        });
    });
    let handing = Confinement::reader(world.inner()).handing_over();
    assert!(inside(&handing, effective).contains(before & CapabilitySet::SYS_ADMIN));
    let writing = inside(&Confinement::writer(), effective);
    let lost = CapabilitySet::SYS_MODULE | CapabilitySet::NET_ADMIN | CapabilitySet::SYS_PTRACE;
    assert!(!writing.intersects(lost));
    assert_eq!(effective(), before, "other threads go on");
}

#[test]
fn a_directory_that_is_not_there_is_told_and_costs_no_other_bound() {
    let missing = Path::new("/nonexistent/directory").to_owned();
    std::thread::scope(|scope| {
        let confinement = Confinement::reader(vec![missing]);
        scope.spawn(move || {
            let kept = confinement.give_up();
            assert!(matches!(kept.as_slice(), [Error::Directory { .. }]), "{kept:?}");
            assert!((effective() & !CapabilitySet::DAC_READ_SEARCH).is_empty());
        });
    });
}
