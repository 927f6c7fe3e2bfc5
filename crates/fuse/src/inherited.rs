//! The descriptors that a program was started with.
//!
//! A shell leaves pipes, locks and directories open in the programs that it starts; in a daemon
//! they would live on. A descriptor that has survived exec(2) has no close-on-exec flag; every one
//! that this process opens by itself has that flag from the start. So the two can be distinguished
//! at any time.
//!
//! Invariants: standard input, output and error stay open; no descriptor is closed that a value of
//! this process owns.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::RawFd;

/// `O_CLOEXEC` as proc_pid_fdinfo(5) shows it in `flags`, the same on every architecture that
/// this builds for.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// The descriptors beyond 2 that were open when the program began.
#[derive(Debug)]
pub struct InheritedFds(Vec<RawFd>);

impl InheritedFds {
    /// Lists them. They stay open, so that paths such as `/dev/fd/7` still lead somewhere.
    ///
    /// # Errors
    /// Those of reading `/proc/self/fd`.
    pub fn note() -> io::Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
        }
        found.retain(|fd| *fd > 2 && survived_exec(*fd));
        Ok(Self(found))
    }

    /// Closes them.
    pub fn close(self) {
        for fd in self.0 {
            // SAFETY: the descriptor was open without close-on-exec when it was noted. Nothing in
            // this workspace, the standard library or rustix opens one so, therefore it came from
            // the program before exec(2), no value of this process owns it, and nothing but this
            // call, which consumes the list, closes it.
            unsafe { rustix::io::close(fd) };
        }
    }
}

/// Whether the descriptor is open, and has no close-on-exec flag.
fn survived_exec(fd: RawFd) -> bool {
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { return false };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_setfd};

    #[test]
    fn what_this_process_opens_is_not_inherited() {
        let ours = fs::File::open("/dev/null").unwrap();
        assert!(!InheritedFds::note().unwrap().0.contains(&ours.as_raw_fd()));
        fcntl_setfd(&ours, FdFlags::empty()).unwrap();
        assert!(InheritedFds::note().unwrap().0.contains(&ours.as_raw_fd()));
        fcntl_setfd(&ours, FdFlags::CLOEXEC).unwrap();
        assert!(!survived_exec(RawFd::MAX));
        assert!(InheritedFds::note().unwrap().0.iter().all(|fd| *fd > 2));
    }
}
