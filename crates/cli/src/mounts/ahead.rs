//! `strata names-ahead LEASE`: the process that is beside a new mount of the kernel's for a moment.
//!
//! ```text
//! strata mount ── the mount stands ── end
//!                      └── names-ahead: stdin  the root of the names
//!                                       stdout the record of the mount, locked
//! ```
//!
//! It is no command for people, so it is none of clap's: it has to begin quickly.
//!
//! Invariants: a mount does not wait for it, and is the same without it; it ends with the mount.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use stratafs::NamesAhead;

const NAME: &str = "names-ahead";
/// What else there is to do comes first.
const NICE: i32 = 10;

/// Starts it, where another processor has time for it.
pub(super) fn start(names: NamesAhead) {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        return;
    }
    let NamesAhead { names, record, lease } = names;
    let started = Command::new("/proc/self/exe")
        .arg0("strata")
        .args([OsStr::new(NAME), lease.as_os_str()])
        .stdin(names)
        .stdout(record)
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn();
    if let Err(error) = started {
        tracing::info!("the names are not made ahead: {error}");
    }
}

/// Does it, if that is what this process was started for.
pub(crate) fn answer(mut args: impl Iterator<Item = OsString>) -> io::Result<bool> {
    let lease = match (args.nth(1), args.next(), args.next()) {
        (Some(name), Some(lease), None) if name == NAME => lease.into(),
        _ => return Ok(false),
    };
    let names = io::stdin().as_fd().try_clone_to_owned()?;
    let record = io::stdout().as_fd().try_clone_to_owned()?;
    // As it is, if it cannot be nicer.
    let _ = rustix::process::nice(NICE);
    NamesAhead { names, record, lease }.make();
    Ok(true)
}
