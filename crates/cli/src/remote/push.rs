//! `strata push`: docker's words, our store.
//!
//! Invariant: the line with the digest comes once the registry has the manifest.

use std::io::Write;
use std::num::NonZeroUsize;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use strata_image::{LayerPacking, PushOptions, push, resolve_image};
use strata_layer::{ImageRecord, Store};
use strata_registry::{Reference, Registries};
use strata_tree::ImageId;

use super::config::RegistryArgs;
use super::pull::RegistryName;
use super::transfer::{Stream, Transfer};
use crate::context::Context;

/// Send an image to a registry
///
/// What the registry has already is not sent; what another of its repositories has is mounted
/// from there. Where the registry has the very blobs that the image was pulled as, its manifest
/// is pushed byte for byte and keeps its digest. Other layers are compressed again, the same way
/// every time, so their digests, and the manifest's, are new; the image id is not.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image; without DESTINATION its name says where to
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The name to push it under
    #[arg(value_name = "DESTINATION")]
    destination: Option<RegistryName>,
    /// Every tag that the store has of this repository
    #[arg(short, long, conflicts_with = "destination")]
    all_tags: bool,
    /// How layers that the registry does not have are sent [default: as they came, else gzip]
    #[arg(long, value_name = "gzip|zstd|none", hide_possible_values = true)]
    compression: Option<PushCompression>,
    /// Layers to send at the same time [default: 5]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PushCompression {
    Gzip,
    Zstd,
    None,
}

impl From<PushCompression> for LayerPacking {
    fn from(compression: PushCompression) -> Self {
        match compression {
            PushCompression::Gzip => Self::Gzip,
            PushCompression::Zstd => Self::Zstd,
            PushCompression::None => Self::Plain,
        }
    }
}

pub(crate) fn run(context: &Context, args: &PushArgs) -> Result<()> {
    let name: RegistryName = match &args.destination {
        Some(name) => name.clone(),
        None => {
            let name = args.image.parse().map_err(anyhow::Error::msg);
            name.context("an image id says no place to push to")?
        }
    };
    let store = context.store()?;
    let registries = args.registry.registries(context)?;
    if !args.all_tags {
        let image = resolve_image(&store, &args.image)?;
        let transfer = Transfer::new(context.shown, Stream::Out);
        if name.is_bare {
            transfer.line("Using default tag: latest");
        }
        says_where(&transfer, &name.reference);
        return send(context, args, &store, &registries, &transfer, (&image, &name.reference));
    }
    let all = of_repository(&store, &name)?;
    says_where(&Transfer::new(context.shown, Stream::Out), &name.reference);
    for (reference, id) in all {
        let image = store.images().get(&id)?.with_context(|| format!("{reference} is gone"))?;
        // One for each image: the layers of the one before stay as they are.
        let transfer = Transfer::new(context.shown, Stream::Out);
        send(context, args, &store, &registries, &transfer, (&image, &reference))?;
    }
    Ok(())
}

/// Every tag that the store has of a repository.
fn of_repository(store: &Store, name: &RegistryName) -> Result<Vec<(Reference, ImageId)>> {
    let reference = &name.reference;
    if !name.is_bare {
        bail!("{reference}: with --all-tags the name has neither tag nor digest");
    }
    let mut all = Vec::new();
    for (tag, id) in store.images().tags()? {
        let known: Reference = tag.parse()?;
        let same = known.domain() == reference.domain()
            && known.repository() == reference.repository()
            && known.digest().is_none();
        if same {
            all.push((known, id));
        }
    }
    match all.is_empty() {
        true => bail!("no image of {}; `strata images` lists all", reference.familiar_name()),
        false => Ok(all),
    }
}

fn says_where(transfer: &Transfer, reference: &Reference) {
    let (domain, path) = (reference.domain().as_str(), reference.repository().as_str());
    transfer.line(&format!("The push refers to repository [{domain}/{path}]"));
}

fn send(
    context: &Context,
    args: &PushArgs,
    store: &Store,
    registries: &Registries,
    transfer: &Transfer,
    (image, reference): (&ImageRecord, &Reference),
) -> Result<()> {
    let options =
        PushOptions { packing: args.compression.map(LayerPacking::from), threads: args.jobs };
    let listen = |layer: &str, event: strata_image::PushEvent<'_>| {
        transfer.pushing(layer, event);
    };
    let pushed =
        push(store, registries, image, reference, &options, &listen).context("cannot push")?;
    // As docker: what is there under this name is known from now on. A store that cannot be written
    // has pushed all the same.
    let pin = reference.with_digest(pushed.digest).store_pin();
    if let Some(Err(error)) = pin.map(|pin| store.images().tag(&pin, &image.id)) {
        tracing::debug!("{reference}: its digest is not kept: {error}");
    }
    let tag = reference.tag().map_or("latest", |tag| tag.as_str());
    transfer.result(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
    if context.quiet {
        // The registry has the image whether or not anybody reads this.
        writeln!(std::io::stdout(), "{reference}").unwrap_or_default();
    }
    Ok(())
}
