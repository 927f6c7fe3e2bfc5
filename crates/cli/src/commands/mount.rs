//! `strata mount`: joins the store, which opens images, with `mounts`, which serves them.
//!
//! Invariant: the tree is compiled before the daemon starts, so that the daemon's memory is that
//! of serving alone, and a broken image is reported by the command itself.

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context as _, Result};
use stratafs::{NamedUpper, OpenImage};

use crate::context::Context;
use crate::mounts;
pub(crate) use crate::mounts::MountArgs;

pub(crate) fn run(context: &Context, args: &MountArgs) -> Result<()> {
    let mut globals: Vec<OsString> = vec!["--root".into(), context.root.clone().into()];
    if let Some(level) = &context.log_level {
        globals.extend(["--log-level".into(), level.into()]);
    }
    if args.daemon.is_some() {
        let request = args.request(context.engine(), globals, args.upper.clone());
        return mounts::mount(&request, || open(context, args, args.upper.as_deref()));
    }
    args.lazy.ensure(context, &args.image)?;
    drop(context.open_image(&args.image)?);
    let upper = match args.rw || args.upper.is_some() {
        true => {
            let wanted = args.upper.as_deref();
            Some(context.engine().upper_for(&args.image, wanted, args.keep)?)
        }
        false => None,
    };
    let name = upper.as_ref().map(|(upper, _)| upper.name.clone());
    let request = args.request(context.engine(), globals, name.clone());
    let mounted = mounts::mount(&request, || open(context, args, name.as_deref()));
    match (&mounted, upper) {
        // Made for nothing.
        (Err(_), Some((upper, true))) => {
            if let Err(error) = context.engine().uppers().remove(&upper) {
                tracing::warn!("{error}");
            }
        }
        (Ok(()), Some((upper, _))) if args.keep => writeln!(std::io::stdout(), "{}", upper.name)?,
        _ => {}
    }
    mounted
}

/// Opens what is to be served.
fn open(
    context: &Context,
    args: &MountArgs,
    upper: Option<&str>,
) -> Result<(OpenImage, Option<NamedUpper>)> {
    let image = context.open_image(&args.image)?;
    let Some(name) = upper else { return Ok((image, None)) };
    let upper = context.engine().uppers().find(name)?;
    Ok((image, Some(upper.with_context(|| format!("upper {name} is gone"))?)))
}
