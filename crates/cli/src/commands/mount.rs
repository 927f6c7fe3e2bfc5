//! `strata mount`: joins the store, which opens images, with `mounts`, which serves them.
//!
//! Invariant: the tree is compiled before the daemon starts, so that the daemon's memory is that
//! of serving alone, and a broken image is reported by the command itself.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
pub(crate) use crate::mounts::MountArgs;
use crate::mounts::{self, Opened};

pub(crate) fn run(context: &Context, args: &MountArgs) -> Result<()> {
    let mut globals: Vec<OsString> = vec!["--root".into(), context.root.clone().into()];
    if let Some(level) = &context.log_level {
        globals.extend(["--log-level".into(), level.into()]);
    }
    let request = args.request(&context.root, globals);
    if args.daemon.is_none() {
        drop(context.open_image(&args.image)?);
    }
    mounts::mount(&request, || {
        let image = context.open_image(&args.image)?;
        Ok(Opened {
            facts: (&*image.tree).into(),
            tree: image.tree,
            image: image.record.id.to_string(),
            guard: image.guard,
        })
    })
}

/// Refuses a directory inside the store: what is written there would be taken for layers.
pub(crate) fn refuse_inside(root: &Path, dir: &Path) -> Result<()> {
    let real = |path: &Path| {
        // The last component may be yet to be made.
        let path = std::path::absolute(path)?;
        path.canonicalize().or_else(|error| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
            _ => Err(error),
        })
    };
    let inside = real(dir).with_context(|| format!("cannot use {}", dir.display()))?;
    if real(root).is_ok_and(|root| inside.starts_with(root)) {
        bail!("{} is inside the store; choose a directory elsewhere", dir.display());
    }
    Ok(())
}
