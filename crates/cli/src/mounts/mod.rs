//! Mounts as the command line knows them: started in the background, listed, taken away.
//!
//! `strata mount` runs itself once more as a daemon (`daemon`), which serves one mount and stands
//! in the registry (`registry`) as long as it lives; `strata mounts` reads the registry (`list`),
//! `strata umount` takes a mount away and waits for its daemon (`umount`). `point` reads the mount
//! table and judges mountpoints, `busy` finds who keeps a mount busy, `namespaces` where else it
//! is.
//!
//! Invariants: nothing here knows the store: the tree comes from the caller; whether a daemon
//! lives is asked of the kernel (a lock that ends with the process), never of a pid.

mod args;
mod busy;
mod daemon;
mod list;
mod namespaces;
mod point;
mod registry;
mod table;
mod umount;

use std::io::Write;
use std::path::Path;

use anyhow::Result;

pub(crate) use args::{MountArgs, MountsArgs, UmountArgs};
pub(crate) use daemon::{Opened, Served, mount};
pub(crate) use list::MountInfo;
pub(crate) use registry::clean;

/// `strata umount`.
///
/// # Errors
/// See [`umount::umount`].
pub(crate) fn umount(root: &Path, args: &UmountArgs) -> Result<()> {
    let how = match (args.abort, args.lazy) {
        (true, _) => umount::How::Abort,
        (false, true) => umount::How::Lazy,
        (false, false) => umount::How::Clean,
    };
    match umount::umount(root, &args.directory, how)? {
        umount::Unmounted::Ended => {}
        umount::Unmounted::Lingering { pid } => {
            let shown = args.directory.display();
            let mut err = std::io::stderr().lock();
            // The mount is gone all the same if nobody reads this.
            let _ = writeln!(err, "{shown}: files are open; pid {pid} serves them to the last");
        }
    }
    Ok(())
}

/// Unmounts what is mounted on a directory, and waits for its daemon.
///
/// # Errors
/// See [`umount::umount`].
pub(crate) fn unmount(root: &Path, directory: &Path) -> Result<()> {
    umount::umount(root, directory, umount::How::Clean).map(drop)
}

/// Where an upper is mounted, if it is: one of `mounts`.
pub(crate) fn of_upper<'a>(mounts: &'a [MountInfo], upper: &str) -> Option<&'a MountInfo> {
    mounts.iter().find(|mount| mount.record.upper.as_deref() == Some(upper))
}

/// The upper of the mount on a directory, if there is one.
pub(crate) fn upper_at(root: &Path, directory: &Path) -> Result<Option<String>> {
    let Ok(directory) = point::resolve(directory) else { return Ok(None) };
    let mut mounts = list::list(root)?.into_iter();
    let found = mounts.find(|mount| mount.record.mountpoint == directory);
    Ok(found.and_then(|mount| mount.record.upper))
}

/// The mounts of the store at `root` that are served, the oldest first.
///
/// # Errors
/// If the registry cannot be read.
pub(crate) fn all(root: &Path) -> Result<Vec<MountInfo>> {
    let mounts = list::list(root)?.into_iter();
    Ok(mounts.filter(|mount| mount.status != list::Status::Dead).collect())
}

/// `strata mounts`.
///
/// # Errors
/// If the registry cannot be read, or `out` not be written.
pub(crate) fn list(root: &Path, _args: &MountsArgs, json: bool, out: &mut dyn Write) -> Result<()> {
    let mounts = list::list(root)?;
    if json {
        list::write_json(&mounts, out)?;
    } else {
        list::write_table(&mounts, out)?;
    }
    Ok(())
}
