//! Removing what nothing needs: `image prune`, and the part of `system prune` that is images.
//!
//! Invariants: nothing that is mounted or below an upper goes; nothing goes without a yes.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};

use anyhow::Result;
use clap::Args;
use serde_json::json;
use strata_layer::{Error as LayerError, Store};
use strata_tree::{DiffId, ImageId};

use super::filter::Filters;
use super::{KnownImage, familiar};
use crate::context::{Context, Format};
use crate::units;

/// Remove images that nothing needs
///
/// Without --all these are the images without a name. Images that are mounted, or that an upper
/// is on top of, stay.
#[derive(Debug, Args)]
pub(crate) struct PruneImagesArgs {
    /// All images that are not in use, not only those without a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    sure: Sure,
    /// Only images of which this holds, of several all: until=TIME|AGE, label=KEY[=VALUE],
    /// label!=KEY[=VALUE]; dangling=false is --all
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

/// Whether to ask first.
#[derive(Debug, Args)]
pub(crate) struct Sure {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Sure {
    /// Asks, unless told not to; no answer is a no.
    pub(crate) fn ask(&self, warning: &str, out: &mut impl Write) -> Result<bool> {
        if self.force {
            return Ok(true);
        }
        write!(out, "WARNING! {warning}\nAre you sure you want to continue? [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// What a prune removed.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub(super) untagged: Vec<String>,
    pub(super) deleted: Vec<String>,
    /// Bytes of contents and headers.
    pub(super) bytes: u64,
    /// Why not all was removed that is to go: what images an upper is on cannot be told.
    stopped: Option<stratafs::Error>,
}

pub(crate) fn run_prune(
    context: &Context,
    args: &PruneImagesArgs,
    out: &mut impl Write,
) -> Result<()> {
    let store = context.store_to_change()?;
    let allowed = ["until", "label", "label!", "dangling"];
    let mut filters = Filters::parse(&store, &args.filters, &allowed)?;
    // As docker's daemon has it: this is not about each image, but about which are looked at.
    let all = filters.take_dangling().map_or(args.all, |only| !only);
    let warning = match all {
        true => "This will remove all images without at least one mount or upper of them.",
        false => "This will remove all images without a name.",
    };
    if !args.sure.ask(warning, out)? {
        return Ok(());
    }
    let pruned = prune(context, &store, all, &filters)?;
    if context.format == Format::Json {
        let all = json!({
            "untagged": pruned.untagged, "deleted": pruned.deleted, "reclaimed": pruned.bytes,
        });
        writeln!(out, "{all:#}")?;
        return pruned.finished();
    }
    pruned.print(out)?;
    writeln!(out, "Total reclaimed space: {}", units::fine_size(pruned.bytes))?;
    pruned.finished()
}

impl Pruned {
    /// As docker lists them; nothing if there is nothing.
    pub(super) fn print(&self, out: &mut impl Write) -> Result<()> {
        if self.untagged.is_empty() && self.deleted.is_empty() {
            return Ok(());
        }
        writeln!(out, "Deleted Images:")?;
        self.untagged.iter().try_for_each(|name| writeln!(out, "untagged: {name}"))?;
        self.deleted.iter().try_for_each(|id| writeln!(out, "deleted: {id}"))?;
        Ok(writeln!(out)?)
    }

    /// The error of a prune that has not come to its end, for after what it did.
    pub(super) fn finished(self) -> Result<()> {
        self.stopped.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Removes images that nothing needs.
pub(super) fn prune(
    context: &Context,
    store: &Store,
    all: bool,
    filters: &Filters,
) -> Result<Pruned> {
    let (used, uppers) = (in_use(context)?, context.engine().uppers());
    let sharing = store.accounts().sharing()?;
    let headers: Vec<(DiffId, u64)> =
        store.layers()?.iter().map(|layer| (layer.diff_id, layer.headers_size)).collect();
    let mut pruned = Pruned::default();
    let mut gone: BTreeSet<DiffId> = BTreeSet::new();
    for image in KnownImage::all(store)? {
        let named = image.is_tagged();
        let wanted = all || !named;
        let names = image.names();
        let meant = names.iter().all(|name| filters.match_row(&image, name));
        if !wanted || !meant || used.contains(&image.record.id) {
            continue;
        }
        let known: Vec<&str> = image.tags.iter().map(String::as_str).collect();
        let used = || uppers.may_be_on(&image.record.id);
        match store.images().remove_known(&image.record.id, &known, &used) {
            Ok(layers) => {
                pruned.untagged.extend(image.tags.iter().map(|name| familiar(name)));
                pruned.deleted.push(image.record.id.to_string());
                pruned.deleted.extend(layers.iter().map(ToString::to_string));
                gone.extend(layers);
            }
            // Somebody has begun to use it, has named it, or was quicker.
            Err(
                LayerError::InUse { .. }
                | LayerError::Held { .. }
                | LayerError::NoImage(_)
                | LayerError::Renamed(_),
            ) => {
                // One that may be on any image keeps them all.
                if let Err(error) = uppers.on_image(&image.record.id) {
                    pruned.stopped = Some(error);
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let headers = headers.iter().filter(|(layer, _)| gone.contains(layer));
    pruned.bytes = sharing.freed_with(&gone) + headers.map(|(_, bytes)| bytes).sum::<u64>();
    Ok(pruned)
}

/// The images that are mounted or below an upper, as far as the uppers tell theirs.
pub(super) fn in_use(context: &Context) -> Result<BTreeSet<ImageId>> {
    let mut used = BTreeSet::new();
    for upper in context.engine().uppers().listed()? {
        used.extend(upper.image_id());
    }
    for mount in context.engine().mounts()? {
        used.extend(mount.record.image.parse::<ImageId>());
    }
    Ok(used)
}
