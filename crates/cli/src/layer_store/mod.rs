//! `strata layer-store`: the store as an additional layer store of podman, buildah and CRI-O.
//!
//! Invariants: the line that tells the directory comes once the mount can be used; a signal ends
//! it, and the mount first; what engines hold is in the store, so it can be listed and ended
//! whether one is served or not.

mod owners;

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueHint};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use strata_layer_store::{FetchTerms, HeldLayer, LayerStore, LayerStoreSettings};
use strata_registry::Reference;

use crate::context::{Context, Format};
use crate::remote::RegistryArgs;
use crate::table;
use crate::told::told;
use crate::trust::TrustArgs;

/// Serve the store's layers to podman, buildah and CRI-O
///
/// As an additional layer store on DIR: with additionallayerstores = ["DIR:ref"] in storage.conf,
/// they use layers that the store has where they are, and fetch and copy nothing. Each user who
/// runs them needs one of their own. What they use stays in the store until they have removed it.
#[derive(Debug, Args)]
pub(crate) struct LayerStoreArgs {
    /// The directory to mount on
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath,
          required_unless_present_any = ["held", "forget"])]
    directory: Option<PathBuf>,
    /// Pull into the store what is asked for and not there
    #[arg(long)]
    pull: bool,
    /// How many threads answer
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// List the layers that engines have, and serve nothing
    #[arg(long, conflicts_with_all = ["directory", "pull", "forget"])]
    held: bool,
    /// Take it that no engine has layers of this image any more, and serve nothing: for a storage
    /// that was not removed by its engine
    #[arg(long, value_name = "REF", conflicts_with_all = ["directory", "pull"])]
    forget: Option<Reference>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

pub(crate) fn run(context: &Context, args: &LayerStoreArgs, out: &mut impl Write) -> Result<()> {
    if args.held {
        return list(context, out);
    }
    if let Some(reference) = &args.forget {
        return forget(context, reference, out);
    }
    match &args.directory {
        Some(directory) => serve(context, args, directory.clone(), out),
        None => bail!("say a directory to serve the layers on"),
    }
}

fn serve(
    context: &Context,
    args: &LayerStoreArgs,
    directory: PathBuf,
    out: &mut impl Write,
) -> Result<()> {
    // Caught from now on, and obeyed once there is something to unmount.
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let (class, ids) = owners::suited()?;
    let pull = match args.pull {
        true => Some(fetch_terms(context, args)?),
        false => None,
    };
    let shown = std::path::absolute(&directory)
        .with_context(|| format!("{} is no usable path", directory.display()))?;
    let settings =
        LayerStoreSettings { directory, class, ids, pull, threads: usize::from(args.threads) };
    let served = LayerStore::start(&context.engine(), settings)?;
    writeln!(out, "Serving the layers of {} on {}", context.root.display(), shown.display())?;
    out.flush()?;
    let (tell, told) = mpsc::channel();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            // Nobody listens only where the process ends anyway.
            let _ = tell.send(());
        }
    })?;
    while !served.is_over() {
        match told.recv_timeout(LayerStore::REST_EVERY) {
            // What cannot be given up now is given up later; the mount goes on.
            Err(RecvTimeoutError::Timeout) => {
                served.rest().unwrap_or_else(|error| tracing::warn!("{error}"));
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(served.stop()?),
        }
    }
    Ok(())
}

/// The registries and the policy, read for each image: a service does not have to be started
/// again when somebody logs in or tightens the policy. What cannot be read now is told at once.
fn fetch_terms(context: &Context, args: &LayerStoreArgs) -> Result<Box<FetchTerms>> {
    let (context, registry, trust) = (context.clone(), args.registry.clone(), args.trust.clone());
    let read = move || -> Result<_> { Ok((registry.registries(&context)?, trust.trust()?)) };
    read()?;
    Ok(Box::new(move || read().map_err(|error| told(&error).into())))
}

fn list(context: &Context, out: &mut impl Write) -> Result<()> {
    let held = HeldLayer::all(&context.store()?)?;
    if context.format == Format::Json {
        let rows = held.iter().map(|one| {
            json!({
                "reference": one.reference.to_string(), "blob": one.blob.to_string(),
                "layer": one.layer().map(|layer| layer.to_string()), "count": one.count,
            })
        });
        return Ok(writeln!(out, "{:#}", rows.collect::<Value>())?);
    }
    let mut rows = vec![["IMAGE", "BLOB", "LAYER", "COUNT"].map(String::from)];
    rows.extend(held.iter().map(|one| {
        [
            one.reference.familiar(),
            one.blob.short(),
            one.layer().map_or_else(String::new, |layer| layer.short()),
            one.count.to_string(),
        ]
    }));
    table::print(&rows, out)
}

fn forget(context: &Context, reference: &Reference, out: &mut impl Write) -> Result<()> {
    let store = context.store_to_change()?;
    let held = HeldLayer::all(&store)?;
    let held: Vec<_> = held.iter().filter(|one| one.reference == *reference).collect();
    if held.is_empty() {
        bail!("no engine has layers of {reference}; `strata layer-store --held` lists all");
    }
    for one in held {
        one.end(&store)?;
        let layer = one.layer().map_or_else(String::new, |layer| layer.short());
        writeln!(out, "Forgotten: {layer}")?;
    }
    Ok(())
}
