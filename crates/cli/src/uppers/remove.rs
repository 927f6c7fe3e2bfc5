//! `strata rm` and `container prune`: writable layers go.
//!
//! Invariants: what is mounted stays unless it is to be unmounted first (`rm --force`); a prune
//! takes nothing that is mounted, and nothing without a yes.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::json;
use stratafs::{MountInfo, UnmountHow};

use crate::context::{Context, Format};
use crate::images::Sure;
use crate::told::{tell, told};
use crate::units;

/// Remove writable layers
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names, or the directories that they are mounted on
    #[arg(required = true, value_name = "NAME|DIR")]
    uppers: Vec<String>,
    /// Unmount those that are mounted; what is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Taken for docker's sake: there are no volumes
    #[arg(short, long)]
    volumes: bool,
}

/// Remove all writable layers that are not mounted
///
/// Those too that were made with a name or with --keep: as with docker, whose containers go once
/// they are stopped. `strata system prune` removes only the temporary ones.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    sure: Sure,
}

pub(crate) fn run_rm(context: &Context, args: &RmArgs, out: &mut impl Write) -> Result<()> {
    let mut failed = Vec::new();
    for name in &args.uppers {
        match remove(context, name, args.force) {
            Ok(true) => writeln!(out, "{name}")?,
            // As docker says it, which does not call it an error.
            Ok(false) if args.force => tell(format_args!("strata: {}", absent(name))),
            Ok(false) => failed.push(absent(name)),
            Err(error) => failed.push(told(&error)),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

fn absent(name: &str) -> String {
    format!("no upper {name:?}; `strata uppers` lists them")
}

/// Removes one; `false` if there is none.
fn remove(context: &Context, name: &str, force: bool) -> Result<bool> {
    let shelf = context.engine().uppers();
    let Some(upper) = context.engine().upper(name)? else { return Ok(false) };
    if force {
        let mounted = context.engine().mounts()?;
        let at = MountInfo::of_upper(&mounted, &upper.name).map(|one| &one.record.mountpoint);
        if let Some(at) = at {
            context.engine().unmount(Path::new(at), UnmountHow::Clean)?;
        }
    }
    // A temporary one goes with its mount.
    match shelf.known(&upper.name)? {
        Some(upper) => Ok(shelf.remove(&upper).map(|()| true)?),
        None => Ok(true),
    }
}

pub(crate) fn run_prune(context: &Context, args: &PruneArgs, out: &mut impl Write) -> Result<()> {
    let warning = "This will remove all writable layers that are not mounted.";
    if !args.sure.ask(warning, out)? {
        return Ok(());
    }
    let shelf = context.engine().uppers();
    let (mut gone, mut freed) = (Vec::new(), 0);
    for upper in shelf.listed()? {
        if shelf.is_mounted(&upper)? {
            continue;
        }
        let bytes = shelf.bytes(&upper)?;
        shelf.remove(&upper).map_err(|error| anyhow!("upper {}: {error:#}", upper.name))?;
        freed += bytes;
        gone.push(upper.name);
    }
    if context.format == Format::Json {
        return Ok(writeln!(out, "{:#}", json!({ "deleted": gone, "reclaimed": freed }))?);
    }
    if !gone.is_empty() {
        writeln!(out, "Deleted Uppers:\n{}\n", gone.join("\n"))?;
    }
    Ok(writeln!(out, "Total reclaimed space: {}", units::size(freed))?)
}
