//! `strata mount`: joins the store, which opens images, with `mounts`, which serves them.
//!
//! Invariant: the tree is compiled before the daemon starts, so that the daemon's memory is that
//! of serving alone, and a broken image is reported by the command itself.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
pub(crate) use crate::mounts::MountArgs;
use crate::mounts::{self, Opened, Served};
use crate::uppers::{self, Held, Shelf};

pub(crate) fn run(context: &Context, args: &MountArgs) -> Result<()> {
    let mut globals: Vec<OsString> = vec!["--root".into(), context.root.clone().into()];
    if let Some(level) = &context.log_level {
        globals.extend(["--log-level".into(), level.into()]);
    }
    if args.daemon.is_some() {
        let request = args.request(&context.root, globals, args.upper.clone());
        return mounts::mount(&request, || open(context, args, args.upper.as_deref()));
    }
    args.lazy.ensure(context, &args.image)?;
    drop(context.open_image(&args.image)?);
    let upper = match args.rw || args.upper.is_some() {
        true => {
            let wanted = args.upper.as_deref();
            Some(uppers::for_mount(context, wanted, args.keep, &args.image)?)
        }
        false => None,
    };
    let name = upper.as_ref().map(|(upper, _)| upper.name.clone());
    let request = args.request(&context.root, globals, name.clone());
    let mounted = mounts::mount(&request, || open(context, args, name.as_deref()));
    match (&mounted, upper) {
        // Made for nothing.
        (Err(_), Some((upper, true))) => {
            if let Err(error) = Shelf::new(&context.root).remove(&upper) {
                tracing::warn!("{error:#}");
            }
        }
        (Ok(()), Some((upper, _))) if args.keep => writeln!(std::io::stdout(), "{}", upper.name)?,
        _ => {}
    }
    mounted
}

/// Opens what is to be served.
fn open(context: &Context, args: &MountArgs, upper: Option<&str>) -> Result<Opened> {
    let image = context.open_image(&args.image)?;
    let id = image.record.id.to_string();
    let Some(name) = upper else {
        let facts = (&*image.tree).into();
        return Ok(Opened {
            served: Served::Tree(image.files, facts),
            image: id,
            guard: image.guard,
        });
    };
    let shelf = Shelf::new(&context.root);
    let upper = shelf.find(name)?.with_context(|| format!("upper {name} is gone"))?;
    let held: Held = shelf.hold(&upper)?;
    let union = shelf.open(&upper, image.files)?;
    let guard = Box::new((held, image.guard));
    Ok(Opened { served: Served::Union(Arc::new(union)), image: id, guard })
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
