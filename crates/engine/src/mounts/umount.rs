//! Unmounting: the mount goes, then its daemon.
//!
//! Invariants: only our own mounts are touched; when a clean unmount has returned, the daemon is
//! dead and its image can be removed; a mount that lives on in another namespace is named with a
//! process there.

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use strata_fuse::{Error, Manner};

use super::records::{KnownMount, MountRecords};
use super::{busy, namespaces, point};
use crate::error::{ErrorContext, Result, bail};

/// How long a daemon may take to end once nothing is mounted any more.
const END: Duration = Duration::from_secs(20);
/// After this time other namespaces are searched for the mount.
const SOON: Duration = Duration::from_millis(500);
/// How long a lazy unmount waits: the daemon has to serve what is still open.
const LAZY_END: Duration = Duration::from_secs(1);

/// What is left after unmounting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing.
    Ended,
    /// The mount lives on until the last open file is closed (after a lazy unmount).
    Lingering {
        /// The daemon; `None` where the kernel serves it.
        pid: Option<u32>,
    },
}

/// How a mount is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmountHow {
    /// If nothing is open below it.
    Clean,
    /// Also with open files, which are served to the last.
    Lazy,
    /// Also in other namespaces: the daemon is ended, and open files with it.
    Abort,
}

/// Unmounts the image at `directory`, whatever store it is from.
///
/// # Errors
/// If no image is mounted there, if it is busy (naming some of the processes), if it lives on in
/// another mount namespace (naming a process there), or if the kernel or fusermount3 refuse.
pub(crate) fn umount(
    registry: &MountRecords,
    directory: &Path,
    how: UnmountHow,
) -> Result<Unmounted> {
    let shown = directory.display();
    let path = point::resolve(directory)?;
    let served = served_at(registry, &path)?;
    if !point::is_ours(&path) {
        return match (served, how) {
            (Some(one), UnmountHow::Abort) => abort(registry, &one),
            (Some(one), UnmountHow::Clean | UnmountHow::Lazy) => {
                bail!("{}", not_here(&one, directory))
            }
            (None, _) => {
                registry.clean()?;
                bail!("no image is mounted on {shown}");
            }
        };
    }
    let manner = match how {
        UnmountHow::Clean if !point::is_stale(&path) => Manner::Clean,
        UnmountHow::Clean | UnmountHow::Lazy | UnmountHow::Abort => Manner::Lazy,
    };
    match strata_fuse::unmount(&path, manner) {
        Ok(()) => {}
        Err(Error::Busy(_)) => bail!("{}", busy_message(&path, directory)),
        Err(error) => match point::owner_of(&path).filter(|owner| !may_unmount(*owner)) {
            Some(owner) => bail!(
                "{shown} was mounted by another user (uid {owner}), who can unmount it, as root can"
            ),
            None => return Err(error.into()),
        },
    }
    if let Some(one) = served {
        let pid = one.record.pid;
        let of_kernel = one.is_of_kernel();
        match how {
            UnmountHow::Abort if !of_kernel => return abort(registry, &one),
            UnmountHow::Abort => {
                if !one.wait_for_end(LAZY_END) {
                    bail!("{}", not_here(&one, directory));
                }
            }
            UnmountHow::Lazy if !one.wait_for_end(LAZY_END) => {
                return Ok(Unmounted::Lingering { pid: (!of_kernel).then_some(pid) });
            }
            UnmountHow::Clean if !one.wait_for_end(SOON) => {
                if let Some(text) = lives_on(&one, directory) {
                    bail!("{shown} is unmounted here, and {text}");
                }
                if of_kernel && !one.wait_for_end(LAZY_END) {
                    bail!("{}", not_here(&one, directory));
                }
                if !one.wait_for_end(END) {
                    bail!(
                        "{shown} is unmounted, but its daemon (pid {pid}) does not end; \
                         `strata umount --abort {shown}` ends it"
                    );
                }
            }
            UnmountHow::Clean | UnmountHow::Lazy => {}
        }
    }
    registry.clean()?;
    Ok(Unmounted::Ended)
}

/// The living mount at a place. Another namespace may have one at the same path: then it is the one
/// that is mounted here.
fn served_at(registry: &MountRecords, path: &Path) -> Result<Option<KnownMount>> {
    let mut all = registry.all()?;
    all.retain(|one| one.alive && one.record.mountpoint == path);
    let device = point::device_mounted_at(path);
    let here = all.iter().position(|one| device.is_some() && one.record.device == device);
    Ok((!all.is_empty()).then(|| all.swap_remove(here.unwrap_or(0))))
}

/// Ends a daemon, and with it the file system wherever it is mounted.
fn abort(registry: &MountRecords, one: &KnownMount) -> Result<Unmounted> {
    if one.is_of_kernel() {
        bail!("{}", not_here(one, &one.record.mountpoint));
    }
    let pid = one.record.pid;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(process) = process else { bail!("the record names no process: {pid}") };
    // It syncs what was written before it goes.
    for (signal, limit) in [(Signal::TERM, END), (Signal::KILL, END)] {
        match kill_process(process, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot end pid {pid}")),
        }
        if one.wait_for_end(limit) {
            registry.clean()?;
            return Ok(Unmounted::Ended);
        }
    }
    bail!("pid {pid} does not end; it waits for something in the kernel")
}

/// The error for a mount that is registered and not in this namespace.
fn not_here(one: &KnownMount, directory: &Path) -> String {
    let shown = directory.display();
    let text = lives_on(one, directory).unwrap_or_else(|| match one.is_of_kernel() {
        true => "files of it are open, and it ends with the last of them".to_owned(),
        false => format!(
            "files of it are open; pid {} serves them to the last, and `strata umount --abort \
             {shown}` ends it at once",
            one.record.pid
        ),
    });
    format!("{shown} is not mounted here any more; {text}")
}

/// Where else it is mounted, and what to do about that.
fn lives_on(one: &KnownMount, directory: &Path) -> Option<String> {
    let elsewhere = namespaces::having(one.record.device.as_deref()?);
    let (first, rest) = elsewhere.split_first()?;
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} other namespaces"),
    };
    let end = match one.is_of_kernel() {
        true => String::new(),
        false => format!(", or at once with `strata umount --abort {}`", directory.display()),
    };
    Some(format!("lives on in another mount namespace: {first}{more}; it ends with that{end}"))
}

fn may_unmount(owner: u32) -> bool {
    let me = rustix::process::getuid();
    me.is_root() || me.as_raw() == owner
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
        let error = umount(&MountRecords::existing(dir.path(), None), dir.path(), UnmountHow::Lazy)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no image is mounted on "), "{error}");
    }
}
