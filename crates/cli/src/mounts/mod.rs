//! Mounts as the command line knows them: started in the background, listed, taken away.
//!
//! `strata mount` runs itself once more as a daemon (`daemon`), which serves one mount and stands
//! in the registry (`registry`) as long as it lives; `strata mounts` reads the registry (`list`),
//! `strata umount` takes a mount away and waits for its daemon (`umount`). `point` reads the mount
//! table and judges mountpoints, `busy` finds who keeps a mount busy.
//!
//! Invariants: nothing here knows the store: the tree comes from the caller; whether a daemon
//! lives is asked of the kernel (a lock that ends with the process), never of a pid.

mod args;
mod busy;
mod daemon;
mod list;
mod point;
mod registry;
mod umount;

use std::io::Write;
use std::path::Path;

use anyhow::Result;

pub(crate) use args::{MountArgs, MountsArgs, UmountArgs};
pub(crate) use daemon::{Opened, mount};
pub(crate) use registry::clean;

/// `strata umount`.
///
/// # Errors
/// See [`umount::umount`].
pub(crate) fn umount(root: &Path, args: &UmountArgs) -> Result<()> {
    match umount::umount(root, &args.directory, args.lazy)? {
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
