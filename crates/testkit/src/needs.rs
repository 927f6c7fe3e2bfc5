//! What a test needs of the machine, and what happens where that is missing.
//!
//! A test that needs something asks first and returns if it is missing:
//! `if !needs::root() { return; }`. The test is then skipped and says why; with
//! `STRATA_TEST_ALL=1`, which `scripts/test` sets, it fails instead.
//!
//! Invariant: no test returns early for want of something without asking here.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether what a test needs is there; `what` completes "needs ...".
///
/// # Panics
/// If it is missing and nothing may be skipped.
#[must_use]
#[allow(clippy::print_stderr, reason = "who runs the tests wants to know")]
pub fn that(there: bool, what: &str) -> bool {
    if !there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let all = std::env::var_os("STRATA_TEST_ALL").is_some_and(|value| value == "1");
        assert!(!all, "{test} needs {what}, and STRATA_TEST_ALL=1 allows no skipping");
        eprintln!("skipped: {test} needs {what}");
    }
    there
}

/// Whether the tests run as root, without asking for it: what an ordinary user can do is tested
/// as well.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[must_use]
pub fn root() -> bool {
    that(is_root(), "root")
}

#[must_use]
pub fn fuse() -> bool {
    that(std::fs::File::open("/dev/fuse").is_ok(), "/dev/fuse")
}

/// Mounts that show everything: as root, and with FUSE.
#[must_use]
pub fn root_and_fuse() -> bool {
    root() && fuse()
}

/// A program in the path that answers `--version`, `--help` or anything at all.
#[must_use]
pub fn program(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    that(command.status().is_ok(), name)
}

#[must_use]
pub fn gnu_tar() -> bool {
    let version = Command::new("tar").arg("--version").output();
    let gnu = version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("GNU tar"));
    that(gnu, "GNU tar")
}

/// A file or directory of the machine.
#[must_use]
pub fn path(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    that(path.exists(), &path.display().to_string())
}
