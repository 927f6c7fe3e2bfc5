//! Mounts as the command line knows them: started in the background, listed, taken away.
//!
//! `strata mount` runs itself once more as a daemon (`daemon`), which serves one mount through the
//! engine and is in its records as long as it lives; `strata mounts` shows the records (`list`),
//! `strata umount` takes a mount away and waits for its daemon. Beside a new mount that the kernel
//! serves `ahead` is at work for a moment.
//!
//! Invariant: nothing here knows the store: the caller hands in the image.

mod ahead;
mod args;
mod daemon;
mod list;

use std::io::Write;

use anyhow::Result;
use stratafs::{Engine, UnmountHow, Unmounted};

use crate::told::tell;

pub(crate) use ahead::answer;
pub(crate) use args::{BackendArg, MountArgs, MountsArgs, UmountArgs};
pub(crate) use daemon::{MountRequest, StandingMount, explained, mount, mount_in_kernel};

/// `strata umount`.
///
/// # Errors
/// See [`Engine::unmount`].
pub(crate) fn umount(engine: &Engine, args: &UmountArgs) -> Result<()> {
    let how = match (args.abort, args.lazy) {
        (true, _) => UnmountHow::Abort,
        (false, true) => UnmountHow::Lazy,
        (false, false) => UnmountHow::Clean,
    };
    match engine.unmount(&args.directory, how)? {
        Unmounted::Ended => {}
        Unmounted::Lingering { pid } => {
            let server = pid.map_or("the kernel".to_owned(), |pid| format!("pid {pid}"));
            let shown = args.directory.display();
            tell(format_args!("{shown}: files are open; {server} serves them to the last"));
        }
    }
    Ok(())
}

/// `strata mounts`.
///
/// # Errors
/// If the records cannot be read, or `out` not be written.
pub(crate) fn list(
    engine: &Engine,
    _args: &MountsArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let mounts = engine.recorded_mounts()?;
    if json {
        list::write_json(&mounts, out)?;
    } else {
        list::write_table(&mounts, out)?;
    }
    Ok(())
}
