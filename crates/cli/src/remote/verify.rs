//! `strata verify`: whether two places have the same image.
//!
//! Invariant: exit code 0 only if both have the same image id, and with it the same layers, for
//! the id is the digest of the config, which names the diff ids.

use std::io::Write;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;
use strata_image::{ImageFacts, Location, LocationError, Platform, resolve_image};
use strata_registry::Registries;
use strata_tree::BlobDigest;

use super::config::RegistryArgs;
use super::pull::document_limits;
use super::transfer::{Stream, Transfer};
use crate::context::{Context, Format};
use crate::progress::ShowProgress;
use crate::table;

/// Compare an image in two places
///
/// A name alone means its registry itself, none of its mirrors. Also understood are docker://,
/// oci:, oci-archive:, docker-archive: and strata: (the store). Compared are the digest that the
/// name stands for, the platform's manifest, the image id and every layer. Nothing is pulled.
///
/// Exit code 0 says that both have the same image, 1 that they do not. The same image may be
/// compressed in different ways, and then has different manifests; --exact refuses that too.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The image
    #[arg(value_name = "REF")]
    image: Where,
    /// The same image elsewhere
    #[arg(long, value_name = "REF")]
    against: Where,
    /// The manifests must be the same too
    #[arg(long)]
    exact: bool,
    /// If it is an index, compare the images for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// A location; without a prefix, in a registry.
#[derive(Debug, Clone)]
struct Where(Location);

impl FromStr for Where {
    type Err = LocationError;

    fn from_str(text: &str) -> std::result::Result<Self, LocationError> {
        Ok(Self(match Location::parse(text)? {
            Some(location) => location,
            None => Location::Registry(text.parse()?),
        }))
    }
}

pub(crate) fn run(context: &Context, args: &VerifyArgs, out: &mut impl Write) -> Result<()> {
    let registries = args.registry.registries(context)?;
    let one = facts(context, &registries, args, &args.image.0)?;
    let two = facts(context, &registries, args, &args.against.0)?;
    let (same, exact) = (one.is_same_image(&two), one.is_same_manifest(&two));
    if context.format == Format::Json {
        let all = json!({
            "sameImage": same,
            "sameManifest": exact,
            "image": shown(&args.image.0, &one),
            "against": shown(&args.against.0, &two),
        });
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
    } else if !context.quiet {
        table::print(&rows(&one, &two), out)?;
        let said = match (same, exact) {
            (_, true) => "Same image, same manifest",
            (true, false) => "Same image, other manifests",
            (false, false) => "Different images",
        };
        writeln!(out, "{said}")?;
    }
    out.flush()?;
    match (same, exact) {
        (true, true) => Ok(()),
        (true, false) if !args.exact => Ok(()),
        (true, false) => bail!("{} and {} have other manifests", args.image.0, args.against.0),
        (false, _) => bail!("{} and {} are different images", args.image.0, args.against.0),
    }
}

fn facts(
    context: &Context,
    registries: &Registries,
    args: &VerifyArgs,
    location: &Location,
) -> Result<ImageFacts> {
    let (platform, limits) = (args.platform.as_ref(), document_limits(None));
    let facts = match location {
        Location::Registry(reference) => {
            let listener = Transfer::new(ShowProgress::Nothing, Stream::Err);
            ImageFacts::of_registry(registries, reference, platform, &limits, &listener)
        }
        Location::Files { format, path, name } => {
            let scratch = || context.scratch();
            ImageFacts::of_files(*format, path, name.as_deref(), platform, &scratch, &limits)
        }
        Location::Stored(name) => {
            let store = context.store()?;
            resolve_image(&store, name).and_then(|image| ImageFacts::of_store(&store, &image))
        }
    };
    facts.with_context(|| format!("cannot look at {location}"))
}

type Row = [String; 4];

fn rows(one: &ImageFacts, two: &ImageFacts) -> Vec<Row> {
    let row = |what: String, a: Option<String>, b: Option<String>| {
        let mark = match (&a, &b) {
            (Some(a), Some(b)) if a == b => "same",
            (Some(_), Some(_)) => "other",
            _ => "-",
        };
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [what, mark.to_owned(), cell(a), cell(b)]
    };
    let short = |digest: Option<BlobDigest>| digest.map(|digest| digest.short());
    let mut rows = vec![
        ["", "", "IMAGE", "AGAINST"].map(str::to_owned),
        row("digest".to_owned(), short(one.digest), short(two.digest)),
        row("manifest".to_owned(), short(one.manifest), short(two.manifest)),
        row("image id".to_owned(), Some(one.id.short()), Some(two.id.short())),
    ];
    for at in 0..one.layers.len().max(two.layers.len()) {
        let (a, b) = (one.layers.get(at), two.layers.get(at));
        let diff_ids = [a, b].map(|layer| layer.map(|layer| layer.diff_id.short()));
        let [x, y] = diff_ids;
        rows.push(row(format!("layer {}", at + 1), x, y));
        let blob = |layer: Option<&strata_image::LayerFacts>| {
            layer.and_then(|layer| layer.blob).map(|(digest, _)| digest.short())
        };
        rows.push(row("  as blob".to_owned(), blob(a), blob(b)));
    }
    rows
}

fn shown(location: &Location, facts: &ImageFacts) -> serde_json::Value {
    let layers: Vec<_> = facts
        .layers
        .iter()
        .map(|layer| {
            let (digest, size) = layer.blob.unzip();
            json!({
                "diffId": layer.diff_id.to_string(),
                "digest": digest.map(|digest| digest.to_string()),
                "size": size,
            })
        })
        .collect();
    json!({
        "location": location.to_string(),
        "digest": facts.digest.map(|digest| digest.to_string()),
        "manifest": facts.manifest.map(|digest| digest.to_string()),
        "id": facts.id.to_string(),
        "layers": layers,
    })
}
