//! What the running program can do.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs;
use std::os::unix::net::UnixStream;
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
