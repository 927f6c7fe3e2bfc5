//! `strata images`, `tag` and `rmi`, in docker's words.
//!
//! Invariant: two tags of one image are two rows; an image without a tag is one row of `<none>`.

use std::io::Write;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use strata_image::{ImageConfig, Reference, resolve_image};
use strata_layer::{ImageRecord, Store};
use strata_tree::ImageId;

use crate::context::{Context, Format};
use crate::look::LayerRow;
use crate::uppers::{Shelf, Upper};
use crate::{report, units};

/// List images
///
/// The newest first. SIZE adds up the files of all layers, as docker does; `strata df` tells what
/// is stored.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only this repository (app), or this reference (app:1)
    reference: Option<String>,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
}

/// Give an image a further name
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of the image
    source: String,
    /// The new name
    target: Reference,
}

/// Remove names, and images that have none left
///
/// An image that is mounted is in use and stays. Layers go with the last image that needs them.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// Remove an image by id even if it has several names
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    repository: String,
    tag: String,
    id: String,
    created: Option<String>,
    size: u64,
    layers: Vec<String>,
    manifest: Option<String>,
}

pub(crate) fn run_images(context: &Context, args: &ImagesArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let tags = store.tags()?;
    let mut rows = Vec::new();
    for image in store.images()? {
        let config = ImageConfig::of(&store, &image.id)?;
        let created = config.created();
        let size = image_size(&store, &image)?;
        let mut names: Vec<(String, String)> =
            tags.iter().filter(|(_, id)| *id == image.id).map(|(name, _)| split(name)).collect();
        if names.is_empty() {
            names.push(("<none>".to_owned(), "<none>".to_owned()));
        }
        for (repository, tag) in names {
            let row = Row {
                repository,
                tag,
                id: image.id.to_string(),
                created: created.map(|time| time.to_string()),
                size,
                layers: image.layers.iter().map(ToString::to_string).collect(),
                manifest: image.manifest.map(|digest| digest.to_string()),
            };
            if args.reference.as_deref().is_none_or(|wanted| matches(&row, wanted)) {
                rows.push((created, row));
            }
        }
    }
    rows.sort_by(|(a, x), (b, y)| {
        b.cmp(a).then_with(|| (&x.repository, &x.tag).cmp(&(&y.repository, &y.tag)))
    });
    if context.format == Format::Json {
        let rows: Vec<&Row> = rows.iter().map(|(_, row)| row).collect();
        serde_json::to_writer_pretty(&mut *out, &rows)?;
        writeln!(out)?;
        return Ok(());
    }
    if context.quiet {
        let mut seen: Vec<&str> = Vec::new();
        for (_, row) in &rows {
            if !seen.contains(&row.id.as_str()) {
                seen.push(&row.id);
                writeln!(out, "{}", shown_id(&row.id, args.no_trunc))?;
            }
        }
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = vec![["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(String::from)];
    for (created, row) in &rows {
        table.push([
            row.repository.clone(),
            row.tag.clone(),
            shown_id(&row.id, args.no_trunc).to_owned(),
            created.map_or("N/A".to_owned(), |time| units::age(time, now)),
            units::size(row.size),
        ]);
    }
    crate::table::print(&table, out)
}

fn shown_id(id: &str, whole: bool) -> &str {
    if whole { id } else { id.get(7..19).unwrap_or(id) }
}

fn split(name: &str) -> (String, String) {
    let familiar = name
        .parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (familiar, "<none>".to_owned()),
    }
}

fn matches(row: &Row, wanted: &str) -> bool {
    let (repository, tag) = split(wanted);
    let bare = !wanted.rsplit('/').next().unwrap_or(wanted).contains(':');
    row.repository == repository && (bare || row.tag == tag)
}

/// What `strata layers` shows, base first.
pub(crate) fn layer_rows(context: &Context, text: &str) -> Result<Vec<LayerRow>> {
    let store = context.store()?;
    let image = resolve_image(&store, text)?;
    let config = ImageConfig::of(&store, &image.id)?;
    let usage = store.disk_usage()?;
    let mut commands = config.history().into_iter().filter(|step| step.layer.is_some());
    let mut rows = Vec::new();
    for diff_id in &image.layers {
        let Some(layer) = usage.layers.iter().find(|layer| layer.diff_id == *diff_id) else {
            bail!("layer {diff_id} of {text} is not in the store; `strata fsck` tells more");
        };
        rows.push(LayerRow {
            diff_id: *diff_id,
            entries: layer.entries,
            bytes: layer.apparent,
            stored_bytes: layer.stored - layer.shared,
            created_by: commands.next().and_then(|step| step.created_by.map(str::to_owned)),
        });
    }
    Ok(rows)
}

/// Bytes of the regular files of all its layers, as docker adds them up.
fn image_size(store: &Store, image: &ImageRecord) -> Result<u64> {
    let mut size = 0;
    for layer in &image.layers {
        size += store.layer(layer)?.map_or(0, |record| record.apparent);
    }
    Ok(size)
}

pub(crate) fn run_tag(context: &Context, args: &TagArgs) -> Result<()> {
    let store = context.store()?;
    let image = resolve_image(&store, &args.source)?;
    let name = match (args.target.store_tag(), args.target.digest()) {
        (Some(name), None) => name,
        _ => bail!("{} names a digest; a tag is a name like {}:v1", args.target, args.source),
    };
    store.tag(&name, &image.id)?;
    Ok(())
}

pub(crate) fn run_rmi(context: &Context, args: &RmiArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let uppers = Shelf::new(&context.root).all()?;
    let mut failed = Vec::new();
    for text in &args.images {
        if let Err(error) = remove(&store, &uppers, text, args.force, out) {
            failed.push(report::told(&error));
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("\nstrata: ")),
    }
}

/// By name: the name goes, and the image if it was its last. By id: the image, if it has one name
/// at most.
fn remove(
    store: &Store,
    uppers: &[Upper],
    text: &str,
    force: bool,
    out: &mut impl Write,
) -> Result<()> {
    let image = resolve_image(store, text)?;
    let names: Vec<String> = names_of(store, &image.id)?;
    let named = text
        .parse::<Reference>()
        .ok()
        .and_then(|reference| reference.store_tag())
        .filter(|name| names.contains(name));
    let short = image.id.short();
    match named {
        Some(name) if names.len() > 1 => {
            store.untag(&name)?;
            writeln!(out, "Untagged: {}", familiar(&name))?;
            return Ok(());
        }
        None if names.len() > 1 && !force => bail!(
            "unable to delete {short} (must be forced): it is named {}; remove those names, or \
             use --force",
            names.iter().map(|name| familiar(name)).collect::<Vec<_>>().join(", ")
        ),
        Some(_) | None => {}
    }
    let id = image.id.to_string();
    if let Some(upper) = uppers.iter().find(|upper| upper.image == id) {
        bail!(
            "unable to delete {}: upper {} is on top of it; remove that first: strata rm {}",
            familiar(text),
            upper.name,
            upper.name
        );
    }
    let freed = store
        .remove_image(&image.id)
        .with_context(|| format!("unable to delete {}", familiar(text)))?;
    for name in &names {
        writeln!(out, "Untagged: {}", familiar(name))?;
    }
    writeln!(out, "Deleted: {}", image.id)?;
    for layer in freed {
        writeln!(out, "Deleted: {layer}")?;
    }
    Ok(())
}

fn names_of(store: &Store, id: &ImageId) -> Result<Vec<String>> {
    let tags = store.tags()?.into_iter();
    Ok(tags.filter(|(_, image)| image == id).map(|(name, _)| name).collect())
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
