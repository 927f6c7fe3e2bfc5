//! The limit of a process that would hold for the files of its mount.
//!
//! Invariant: what cannot be raised stays, and is no error; it ends no daemon.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

/// Raises the limit of file sizes, which a daemon has from the shell that started it, as far as it
/// goes. The kernel heeds the limit of every program that writes to the mount; this one's would
/// hold for all of them. A write beyond a limit that stays is refused (`EFBIG`), and does not end
/// the daemon: from now on the process catches SIGXFSZ.
///
/// # Errors
/// What sigaction(2) says.
pub fn outlast_file_size_limit() -> io::Result<()> {
    let none = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Fsize, none).is_err() {
        // Only root may raise the hard limit.
        let most = getrlimit(Resource::Fsize).maximum;
        let reachable = Rlimit { current: most, maximum: most };
        if let Err(error) = setrlimit(Resource::Fsize, reachable) {
            tracing::warn!("cannot raise the limit of file sizes: {error}");
        }
    }
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}
