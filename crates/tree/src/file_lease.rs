//! Whether somebody else has a file open, the kernel included.
//!
//! A write lease on a file is granted if nobody else has it open (fcntl(2), `F_SETLEASE`). A mount
//! of a file, such as EROFS makes it without a loop device, has the file open as long as its
//! file system lives: in whatever mount namespace, and also once it is detached.
//!
//! Invariants: the lease is given back before the question is answered; nobody is killed by the
//! signal of a lease that is broken meanwhile; the call is the one place here that is `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::{Errno, Result};

/// `F_SETSIG` (fcntl(2)), the same number on every architecture of Linux.
const SET_SIGNAL: libc::c_int = 10;

/// Whether anybody but the caller's `file`, which is open once, has the same inode open. Whoever
/// opens the file just then waits until the question is answered.
///
/// # Errors
/// `EACCES`: the file is another user's (without `CAP_LEASE`). `EINVAL`: the file system has no
/// leases, such as NFS and FUSE. In both cases nothing is known.
pub fn is_open_elsewhere(file: &File) -> Result<bool> {
    // The default signal, SIGIO, would end the process; this one is ignored by default.
    control(file, SET_SIGNAL, libc::SIGURG)?;
    match control(file, libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => {
            control(file, libc::F_SETLEASE, libc::F_UNLCK)?;
            Ok(false)
        }
        Err(Errno::AGAIN) => Ok(true),
        Err(errno) => Err(errno),
    }
}

fn control(file: &File, command: libc::c_int, value: libc::c_int) -> Result<()> {
    // SAFETY: these commands take a number and no pointer; the descriptor is open while `file` is
    // borrowed.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
        0 => Ok(()),
        _ => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_descriptor_is_seen_until_it_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mine = file.reopen().unwrap();
        assert_eq!(is_open_elsewhere(&mine), Ok(true), "the one that made it");
        let path = file.into_temp_path();
        assert_eq!(is_open_elsewhere(&mine), Ok(false));
        let reader = File::open(&path).unwrap();
        assert_eq!(is_open_elsewhere(&mine), Ok(true));
        drop(reader);
        assert_eq!(is_open_elsewhere(&mine), Ok(false));
        // Asked twice, for the lease was given back; others can open it.
        assert!(File::options().write(true).open(&path).is_ok());
    }
}
