//! `strata umount`: the mount goes, then its daemon.
//!
//! Invariants: only our own mounts are touched; when a clean unmount has returned, the daemon is
//! dead and its image can be removed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use strata_fuse::{Error, Manner};

use super::registry::Registry;
use super::{busy, point};

/// How long a daemon may take to end once nothing is mounted any more.
const END: Duration = Duration::from_secs(20);
/// How long a lazy unmount waits: the daemon has to serve what is still open.
const LAZY_END: Duration = Duration::from_secs(1);

/// What is left after unmounting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmounted {
    /// Nothing.
    Ended,
    /// The daemon goes on until the last open file is closed (after a lazy unmount).
    Lingering {
        /// The daemon.
        pid: u32,
    },
}

/// Unmounts the image at `directory`, whatever store it is from.
///
/// # Errors
/// If no image is mounted there, if it is busy (naming some of the processes), or if the kernel
/// or fusermount3 refuse.
pub(crate) fn umount(root: &Path, directory: &Path, lazy: bool) -> Result<Unmounted> {
    let shown = directory.display();
    let registry = Registry::existing(root);
    let path = point::resolve(directory)?;
    if !point::is_ours(&path) {
        registry.clean()?;
        bail!("no image is mounted on {shown}");
    }
    let served = registry.all()?.into_iter().find(|one| one.alive && one.record.mountpoint == path);
    let manner = if lazy || point::is_stale(&path) { Manner::Lazy } else { Manner::Clean };
    match strata_fuse::unmount(&path, manner) {
        Ok(()) => {}
        Err(Error::Busy(_)) => bail!("{}", busy_message(&path, directory)),
        Err(error) => return Err(error.into()),
    }
    if let Some(one) = served {
        let pid = one.record.pid;
        let ended = one.wait_for_end(if lazy { LAZY_END } else { END });
        if !ended && lazy {
            return Ok(Unmounted::Lingering { pid });
        }
        if !ended {
            bail!("{shown} is unmounted, but its daemon (pid {pid}) does not end");
        }
    }
    registry.clean()?;
    Ok(Unmounted::Ended)
}

fn busy_message(path: &Path, directory: &Path) -> String {
    let shown = directory.display();
    let users = busy::users_of(path);
    let mut text = format!("{shown} is busy");
    for user in &users {
        text.push_str("\n  ");
        text.push_str(user);
    }
    if users.is_empty() {
        text.push_str(" (used by processes that you may not see)");
    }
    text.push_str("\nstrata umount --lazy takes it away at once and lets open files be read on");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_directory_is_not_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let error = umount(dir.path(), dir.path(), true).unwrap_err().to_string();
        assert!(error.starts_with("no image is mounted on "), "{error}");
    }
}
