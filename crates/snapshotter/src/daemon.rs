//! Chains that the kernel cannot show by itself, served through FUSE: each by a process of its own.
//!
//! ```text
//! strata-snapshotter show PLACE LAYER...     one process for each such chain
//! ```
//!
//! The process is not this one, so that containers go on when this one ends or is killed. It ends
//! when the mount is gone and the last overlayfs above it.
//!
//! Invariant: a process that was started has its mount usable when `start` returns, or is gone.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use strata_tree::DiffId;
use stratafs::{Engine, OpenChain};

use crate::error::{Error, IoDoing, Result};

/// What the process says when the mount is usable.
const READY: &str = "ready";

/// What is to be shown, and where.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The directory to mount on
    #[arg(value_name = "DIR")]
    place: PathBuf,
    /// The layers, base first
    #[arg(value_name = "LAYER", required = true)]
    layers: Vec<DiffId>,
}

/// Serves a chain until its mount is gone.
pub(crate) fn show(root: &Path, args: &ShowArgs) -> anyhow::Result<()> {
    let store = Engine::new(root).store()?;
    let served = OpenChain::open(&store, &args.layers)?.serve(&args.place);
    let served =
        served.with_context(|| format!("cannot show layers on {}", args.place.display()))?;
    drop(store);
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    Ok(served.wait()?)
}

/// Starts such a process.
pub(crate) fn start(root: &Path, place: &Path, layers: &[DiffId]) -> Result<()> {
    let doing = || format!("cannot start a process that shows {}", place.display());
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(root).arg("show").arg(place);
    command.args(layers.iter().map(ToString::to_string));
    // A signal to this one's group is not for it.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().doing(doing)?;
    let mut said = [0; READY.len()];
    let heard = child.stdout.take().map(|mut out| out.read_exact(&mut said));
    let ready = matches!(heard, Some(Ok(()))) && said == *READY.as_bytes();
    let mut waiting = move || child.wait();
    if ready {
        // Somebody has to take notice when it ends.
        let waiter = std::thread::Builder::new().name("daemon".to_owned());
        waiter.stack_size(64 << 10).spawn(waiting).doing(doing)?;
        return Ok(());
    }
    let ended = waiting().doing(doing)?;
    let why = format!("the process that was to show {} has ended: {ended}", place.display());
    Err(Error::FailedPrecondition(why))
}
