//! The limit of a process that would hold for the files of its mount.
//!
//! Invariant: what cannot be raised stays, and is no error.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of file sizes, which a daemon has from the shell that started it, as far as it
/// goes. The kernel heeds the limit of every program that writes to the mount; this one's would
/// hold for all of them.
pub fn raise_file_size_limit() {
    let none = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Fsize, none).is_err() {
        // Only root may raise the hard limit.
        let most = getrlimit(Resource::Fsize).maximum;
        let reachable = Rlimit { current: most, maximum: most };
        if let Err(error) = setrlimit(Resource::Fsize, reachable) {
            tracing::warn!("cannot raise the limit of file sizes: {error}");
        }
    }
}
