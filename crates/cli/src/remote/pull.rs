//! `strata pull`: docker's words, our store.
//!
//! Invariant: the lines that tell the result come once the image is committed, and the last of
//! them is the reference, as docker has it.

use std::io::Write;
use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use clap::Args;
use strata_image::registry::{PullOptions, Pulled, pull};
use strata_image::{Limits, Platform, Reference, ReferenceError};

use super::config::RegistryArgs;
use super::transfer::Transfer;
use crate::context::{Context, check_chain};
use crate::limits::LayerLimitArgs;

/// Fetch an image from a registry
///
/// A short name means Docker Hub: alpine is docker.io/library/alpine:latest. Only layers that
/// the store does not have are fetched, several at once, and unpacked as they come. Mirrors of
/// registries.conf and daemon.json are asked first; what they give is checked against the digest
/// that the registry itself, or the name, says.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// NAME[:TAG], NAME@DIGEST, HOST[:PORT]/NAME...
    #[arg(value_name = "REF")]
    name: Name,
    /// Take the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Layers to fetch at the same time [default: 3, or one for each processor if those are more]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    layer_limits: LayerLimitArgs,
    /// Bytes of one index, manifest or config [default: 4194304]
    #[arg(long, value_name = "BYTES", help_heading = "Limits on untrusted documents")]
    max_manifest_bytes: Option<u64>,
}

/// A reference, and whether it was given with a tag or digest.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) reference: Reference,
    pub(crate) is_bare: bool,
}

impl FromStr for Name {
    type Err = ReferenceError;

    fn from_str(text: &str) -> std::result::Result<Self, ReferenceError> {
        let last = text.rsplit('/').next().unwrap_or(text);
        Ok(Self { reference: text.parse()?, is_bare: !last.contains([':', '@']) })
    }
}

pub(crate) fn run(context: &Context, args: &PullArgs) -> Result<()> {
    let reference = &args.name.reference;
    let store = context.store_within(args.layer_limits.limits())?;
    let registries = args.registry.registries(context)?;
    let transfer = Transfer::new(context.quiet);
    if args.name.is_bare {
        transfer.line("Using default tag: latest");
    }
    let check = |held: &[_]| check_chain(&store, held);
    let options = PullOptions {
        platform: args.platform.clone(),
        threads: args.jobs,
        limits: document_limits(args.max_manifest_bytes),
        chain_check: Some(&check),
    };
    let asked = match (reference.digest(), reference.tag()) {
        (None, Some(tag)) => tag.as_str().to_owned(),
        _ => reference.to_string(),
    };
    transfer.line(&format!("{asked}: Pulling from {}", reference.repository().as_str()));
    let pulled =
        pull(&store, &registries, reference, &options, &transfer).context("cannot pull")?;
    let mut out = std::io::stdout();
    // The image is in the store whether or not anybody reads this.
    out.write_all(told(reference, &pulled, context.quiet).as_bytes()).unwrap_or_default();
    Ok(())
}

/// The bounds on documents that a registry gives.
pub(crate) fn document_limits(manifest_bytes: Option<u64>) -> Limits {
    let default = Limits::default();
    Limits { document_bytes: manifest_bytes.unwrap_or(default.document_bytes), ..default }
}

fn told(reference: &Reference, pulled: &Pulled, quiet: bool) -> String {
    if quiet {
        return format!("{reference}\n");
    }
    let status = match pulled.newer {
        true => "Downloaded newer image for",
        false => "Image is up to date for",
    };
    let name = reference.familiar();
    format!("Digest: {}\nStatus: {status} {name}\n{reference}\n", pulled.digest)
}
