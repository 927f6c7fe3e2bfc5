//! What the running program can do.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use strata_testkit::needs;

/// The program, which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and then the test says so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
}

fn wait_for(socket: &Path) {
    for _ in 0..1000 {
        if UnixStream::connect(socket).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not listen at {}", socket.display());
}

#[test]
fn it_answers_with_the_capabilities_that_it_needs_and_no_more() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata-snapshotter"));
    for (option, name) in [("--root", "store"), ("--run", "run"), ("--address", "socket")] {
        command.arg(option).arg(at(name));
    }
    let running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    wait_for(&at("socket"));
    let pid = running.0.id();
    // The socket is there a moment before it is served.
    let mut waited = 0;
    while field(pid, "NoNewPrivs:") == 0 && waited < 1000 {
        std::thread::sleep(Duration::from_millis(10));
        waited += 1;
    }
    assert_eq!(field(pid, "NoNewPrivs:"), 1);
    let own = rustix::thread::capabilities(None).unwrap().effective;
    let has = field(pid, "CapEff:");
    assert_eq!(has, field(pid, "CapPrm:"));
    for (name, bit, kept) in [
        ("CHOWN", 0, true),
        ("SYS_ADMIN", 21, true),
        ("NET_ADMIN", 12, false),
        ("SYS_MODULE", 16, false),
        ("SYS_PTRACE", 19, false),
        ("SYS_BOOT", 22, false),
    ] {
        let expected = kept && own.bits() & (1 << bit) != 0;
        assert_eq!(has & (1 << bit) != 0, expected, "{name}");
    }
}

/// What serves a chain beyond this program would keep systemd's socket open beyond it too.
#[test]
fn what_it_was_started_with_is_not_passed_on() {
    if !needs::root() || !needs::program("bash") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let listener = UnixListener::bind(at("socket")).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let number = listener.as_raw_fd();
    let start = format!("exec 3<&{number}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &start, "bash", env!("CARGO_BIN_EXE_strata-snapshotter")]);
    for (option, name) in [("--root", "store"), ("--run", "run"), ("--address", "other")] {
        command.arg(option).arg(at(name));
    }
    let running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    drop(listener);
    let pid = running.0.id();
    let mut waited = 0;
    while field(pid, "NoNewPrivs:") == 0 && waited < 1000 {
        std::thread::sleep(Duration::from_millis(10));
        waited += 1;
    }
    wait_for(&at("socket"));
    assert!(!at("other").exists(), "it made a socket of its own");
    let mut passed_on = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(info) = fs::read_to_string(&path) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        if number > 2 && flags & 0o2_000_000 == 0 {
            passed_on.push(fs::read_link(format!("/proc/{pid}/fd/{number}")));
        }
    }
    assert!(passed_on.is_empty(), "{passed_on:?}");
}
