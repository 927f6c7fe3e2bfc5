//! `strata mount`: joins the store, which opens images, with `mounts`, which serves them.
//!
//! Invariant: the tree is compiled before the daemon starts, so that the daemon's memory is that
//! of serving alone, and a broken image is reported by the command itself.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use stratafs::{HeldUpper, OpenImage, Profile, Store};

use crate::context::Context;
pub(crate) use crate::mounts::MountArgs;
use crate::mounts::{self, BackendArg, MountRequest, StandingMount};
use crate::results::Results;
use crate::told::tell;

pub(crate) fn run(context: &Context, args: &MountArgs) -> Result<()> {
    let mut globals: Vec<OsString> = vec!["--root".into(), context.root.clone().into()];
    if let Some(level) = &context.log_level {
        globals.extend(["--log-level".into(), level.into()]);
    }
    if args.daemon.is_some() {
        let request = args.request(context.engine(), globals, args.upper.clone());
        return mounts::mount(&request, None, |lock| open(context, args, lock))?.wait();
    }
    if args.backend()? == BackendArg::Userns && (args.rw || args.upper.is_some()) {
        anyhow::bail!("--backend userns has no writable layers; try --backend fuse");
    }
    if args.verify && args.backend()? == BackendArg::Userns {
        anyhow::bail!("--backend userns has the kernel read contents, so nothing can verify them");
    }
    if args.verity && matches!(args.backend()?, BackendArg::Userns | BackendArg::Fuse) {
        anyhow::bail!("--verity has the kernel compare contents, so it is for --backend kernel");
    }
    let store = args.lazy.ensure(context, &args.image)?;
    let image = OpenImage::open(&store, &args.image)?;
    let image = match args.verify && args.foreground {
        true => image.verified(&store)?,
        false => image,
    };
    let (upper, made) = match args.rw || args.upper.is_some() {
        true => {
            let (engine, wanted) = (context.engine(), args.upper.as_deref());
            let (upper, made) = engine.upper_for(&image, &args.image, wanted, args.keep)?;
            (Some(upper), made)
        }
        false => (None, false),
    };
    let name = upper.as_ref().map(|held| held.upper.name.clone());
    let mut request = args.request(context.engine(), globals, name);
    request.names_only = args.backend()? == BackendArg::Userns;
    request.image_id = Some(image.record.id.to_string());
    let mounted = match serve_in_kernel(args, &request, store, &image, upper.clone()) {
        Ok(true) => Ok(StandingMount::ELSEWHERE),
        Ok(false) => {
            let (lock, top) = (upper.as_ref().and_then(HeldUpper::lock), upper.clone());
            mounts::mount(&request, lock, |_| Ok((image, top)))
        }
        Err(error) => Err(error),
    };
    let standing = match (mounted, upper) {
        (Ok(standing), Some(held)) if args.keep => {
            writeln!(Results::new(std::io::stdout()), "{}", held.upper.name)?;
            standing
        }
        (Ok(standing), _) => standing,
        (Err(error), upper) => {
            // Made for nothing.
            if let Some(Err(error)) =
                upper.filter(|_| made).map(|upper| context.engine().uppers().discard(upper))
            {
                tracing::warn!("{error}");
            }
            return Err(error);
        }
    };
    // However it ends from here on, a new upper stays: somebody may have written to it.
    standing.wait()
}

/// Has the kernel serve it, if that is wanted and possible; `false` if a daemon has to.
fn serve_in_kernel(
    args: &MountArgs,
    request: &MountRequest,
    store: Store,
    image: &OpenImage,
    upper: Option<HeldUpper>,
) -> Result<bool> {
    let backend = args.backend()?;
    if backend == BackendArg::Userns {
        say(args, "a daemon serves the names through FUSE, and the kernel reads the contents");
        return Ok(false);
    }
    let daemon = match backend {
        BackendArg::Fuse => Some("--backend fuse"),
        BackendArg::Kernel if args.foreground => {
            anyhow::bail!("--foreground is for a daemon, and --backend kernel has none")
        }
        BackendArg::Kernel if args.verify => {
            anyhow::bail!("--verify is for a daemon: the kernel compares no digests")
        }
        BackendArg::Auto if args.foreground => Some("--foreground"),
        BackendArg::Auto if args.verify => Some("--verify"),
        BackendArg::Auto if request.profile != Profile::NoOpen && !args.verity => Some("--profile"),
        BackendArg::Auto | BackendArg::Kernel | BackendArg::Userns => None,
    };
    let mounted = match daemon {
        Some(option) => Err(stratafs::Error::KernelCannot(format!("{option} asks for a daemon"))),
        None => mounts::mount_in_kernel(request, &store, image, upper),
    };
    let said = match (&mounted, backend) {
        (Ok(()), _) => "the kernel serves it: names from an EROFS image".to_owned(),
        (Err(stratafs::Error::KernelCannot(why)), BackendArg::Auto | BackendArg::Fuse)
            if !args.verity =>
        {
            format!("a daemon serves it through FUSE: {why}")
        }
        (Err(_), _) => {
            return mounted.map(|()| true).map_err(|error| mounts::explained(request, error));
        }
    };
    say(args, &said);
    Ok(mounted.is_ok())
}

/// What serves the mount, and why, for those who want to know.
fn say(args: &MountArgs, said: &str) {
    tracing::info!("{said}");
    if args.verbose {
        tell(format_args!("{}: {said}", args.directory.display()));
    }
}

/// Opens what a daemon is to serve. `lock` is what the command has locked for it, if it has.
fn open(
    context: &Context,
    args: &MountArgs,
    lock: Option<OwnedFd>,
) -> Result<(OpenImage, Option<HeldUpper>)> {
    let store = context.store()?;
    let image = OpenImage::open(&store, args.image_id.as_ref().unwrap_or(&args.image))?;
    let image = if args.verify { image.verified(&store)? } else { image };
    let Some(name) = &args.upper else { return Ok((image, None)) };
    let uppers = context.engine().uppers();
    let upper = uppers.find(name)?.with_context(|| format!("upper {name} is gone"))?;
    let held = match lock {
        Some(lock) => uppers.adopt(upper, lock)?,
        None => upper.into(),
    };
    Ok((image, Some(held)))
}
