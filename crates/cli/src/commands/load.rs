//! `strata load` and `strata import`.
//!
//! Invariant: the lines of an image are printed as soon as it is committed, so that what was
//! loaded before a failure is known.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueHint};
use strata_image::{ConfigChange, ImportOptions, LoadOptions, Loaded, Platform, SourceSpec};
use strata_registry::Reference;

use crate::context::Context;
use crate::limits::{NewLayerArgs, SourceLimitArgs};
use crate::progress;
use crate::trust::TrustArgs;

/// Load images from an archive or an OCI layout
///
/// Reads what `docker save`, `podman save`, skopeo, buildah and umoci write, compressed or not,
/// and checks every digest. Layers that the store has already are not unpacked again. Nothing is
/// kept of an image that is not right in every byte.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive, OCI layout directory, or - for standard input; with oci: or oci-archive: what
    /// its index.json lists, with docker-archive: its manifest.json, without a prefix both;
    /// oci:DIR:TAG takes one image
    #[arg(short, long, value_name = "FILE|DIR|-", default_value = "-",
          value_hint = ValueHint::AnyPath)]
    input: String,
    /// The same without -i
    #[arg(value_name = "FILE|DIR", conflicts_with = "input", value_hint = ValueHint::AnyPath)]
    file: Option<String>,
    /// Take the image for this platform where there is a choice
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// A further name for the image, which must be the only one
    #[arg(short = 't', long = "tag", value_name = "REF")]
    name: Option<Reference>,
    /// Layers to unpack at the same time [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    layers: NewLayerArgs,
    #[command(flatten)]
    source_limits: SourceLimitArgs,
}

/// Make a one-layer image of a plain tar
///
/// The tar holds a root file system, as `docker export` or debootstrap give it.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The tar, plain or compressed (gzip, zstd, xz, bzip2), or - for standard input
    #[arg(value_name = "ROOTFS.tar|-", value_hint = ValueHint::FilePath)]
    tar: PathBuf,
    /// The image's name [default: none; its id is printed]
    reference: Option<Reference>,
    /// A change of what the image says of a container, as a line of a Dockerfile: CMD, ENTRYPOINT,
    /// ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<ConfigChange>,
    /// A remark for the image's history
    #[arg(short, long)]
    message: Option<String>,
    /// The platform that the files are for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// The creation time, for reproducible image ids [default: now]
    #[arg(long, value_name = "TIME")]
    created: Option<jiff::Timestamp>,
    #[command(flatten)]
    layers: NewLayerArgs,
}

pub(crate) fn run_load(context: &Context, args: &LoadArgs) -> Result<()> {
    let input = args.file.as_ref().unwrap_or(&args.input);
    if input == "-" && std::io::stdin().is_terminal() {
        bail!("standard input is a terminal; name an archive with -i FILE, or pipe one in");
    }
    let trust = args.trust.trust()?;
    let store = context.store_for(&args.layers)?;
    let spec: SourceSpec = input.parse().context("cannot load")?;
    let listener = progress::listener(context.shown);
    let show = |loaded: &Loaded| print_loaded(context, loaded);
    let options = LoadOptions {
        platform: args.platform.clone(),
        name: args.name.clone(),
        threads: args.jobs,
        trust: Some(&trust),
        on_loaded: Some(&show),
        limits: args.source_limits.limits(&args.layers.limits),
    };
    // The error names the archive itself, or the image.
    stratafs::load(&store, &spec, options, &*listener).context("cannot load")?;
    Ok(())
}

pub(crate) fn run_import(context: &Context, args: &ImportArgs) -> Result<()> {
    if args.tar.is_dir() {
        bail!(
            "{0} is a directory, not a tar; try: tar -C {0} -c . | strata import - REF",
            args.tar.display()
        );
    }
    let store = context.store_for(&args.layers)?;
    let listener = progress::listener(context.shown);
    let options = ImportOptions {
        created: args.created,
        platform: args.platform.clone(),
        message: args.message.clone(),
        changes: args.changes.clone(),
    };
    let loaded =
        stratafs::import(&store, args.tar.as_ref(), args.reference.as_ref(), options, &*listener)
            .context("cannot import")?;
    // As docker: the id alone. The image is in the store whether or not anybody reads this.
    std::io::stdout().write_all(format!("{}\n", loaded.id).as_bytes()).unwrap_or_default();
    Ok(())
}

fn print_loaded(context: &Context, loaded: &Loaded) {
    let mut text = String::new();
    for reference in &loaded.references {
        match context.quiet {
            true => text.push_str(&format!("{}\n", loaded.id)),
            false => text.push_str(&format!("Loaded image: {}\n", reference.familiar())),
        }
    }
    if loaded.references.is_empty() {
        match context.quiet {
            true => text.push_str(&format!("{}\n", loaded.id)),
            false => text.push_str(&format!("Loaded image ID: {}\n", loaded.id)),
        }
    }
    // The image is in the store whether or not anybody reads this.
    std::io::stdout().write_all(text.as_bytes()).unwrap_or_default();
}
