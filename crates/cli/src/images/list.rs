//! `strata images`.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use strata_layer::Store;

use super::filter::{Filters, is_named};
use super::{KnownImage, NONE, docker_time, shown_id, split};
use crate::context::{Context, Format};
use crate::template::Template;
use crate::units;

/// List images
///
/// The newest first. SIZE adds up the files of all layers, as docker does; `strata df` tells what
/// is stored. Where engines have layers of the store, HELD BY says which of them has all of an
/// image, and what they have beside the images follows. With --format '{{...}}' the fields are
/// .Repository .Tag .Digest .ID .CreatedSince .CreatedAt .Size .SharedSize .UniqueSize .Containers.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only this repository (app), this reference (app:1), or those like it ('team/*')
    reference: Option<String>,
    /// Taken for docker's sake: there are no intermediate images to show
    #[arg(short, long)]
    all: bool,
    /// Show the digests that the names were pulled as
    #[arg(long)]
    digests: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only images of which this holds, of several all, of references one: dangling=true|false,
    /// label=KEY[=VALUE], before=IMAGE, since=IMAGE, reference=PATTERN, until=TIME|AGE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

/// A row as strata gives it in JSON.
#[derive(Debug, Serialize)]
struct Row {
    repository: String,
    tag: String,
    id: String,
    created: Option<String>,
    size: u64,
    layers: Vec<String>,
    manifest: Option<String>,
    /// What the name was pulled as: an index's digest, or the manifest's.
    digest: Option<String>,
    /// The engines that have all its layers.
    held_by: Vec<String>,
}

/// A row of what an engine has and no image of the store: it has no id.
#[derive(Debug, Serialize)]
struct HeldRow {
    repository: String,
    tag: String,
    id: (),
    size: u64,
    layers: Vec<String>,
    held_by: Vec<String>,
}

/// A row as a template sees it: docker's fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerRow {
    containers: String,
    created_at: String,
    created_since: String,
    digest: String,
    #[serde(rename = "ID")]
    id: String,
    repository: String,
    shared_size: String,
    size: String,
    tag: String,
    unique_size: String,
    virtual_size: String,
}

const HEADS: [(&str, &str); 11] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
    ("Containers", "CONTAINERS"),
];

pub(crate) fn run_images(context: &Context, args: &ImagesArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let allowed = ["dangling", "label", "before", "since", "reference", "until"];
    let filters = Filters::parse(&store, &args.filters, &allowed)?;
    let shows_digests = args.digests
        || matches!(&context.format, Format::Template(text) if text.contains(".Digest"));
    let rows = rows(&store, &filters, args.reference.as_deref(), shows_digests)?;
    let all = args.filters.is_empty();
    let held = if all { held_rows(&store, args.reference.as_deref())? } else { Vec::new() };
    match &context.format {
        Format::Json => {
            let rows = rows.iter().map(|(_, row)| JsonRow::Image(row));
            let rows: Vec<JsonRow<'_>> = rows.chain(held.iter().map(JsonRow::Held)).collect();
            serde_json::to_writer_pretty(&mut *out, &rows)?;
            Ok(writeln!(out)?)
        }
        Format::Template(text) => {
            let rows = in_dockers_words(&store, &rows, text, args.no_trunc)?;
            Template::parse(text)?.print(&HEADS, &rows, out)
        }
        Format::Table if context.quiet => print_ids(&rows, args.no_trunc, out),
        Format::Table => print_table(&rows, &held, args, out),
    }
}

/// A row of either kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum JsonRow<'a> {
    Image(&'a Row),
    Held(&'a HeldRow),
}

/// A row, and when its image was made.
type Dated = (Option<Timestamp>, Row);

/// The newest first, then by name; of `reference` alone if there is one.
fn rows(
    store: &Store,
    filters: &Filters,
    reference: Option<&str>,
    each_digest: bool,
) -> Result<Vec<Dated>> {
    let mut rows = Vec::new();
    let engines = store.held_images()?;
    for image in KnownImage::all(store)? {
        let held_by = engines.holders_of(&image.record.layers);
        let created = image.config.created();
        let size = image.size(store)?;
        for name in image.names() {
            let named = reference.is_none_or(|wanted| is_named(wanted, &name));
            if !named || !filters.match_row(&image, &name) {
                continue;
            }
            // As docker: a row for each digest, where digests are shown.
            let digests = image.digests_in(&name.0).into_iter().map(Some);
            let mut digests: Vec<Option<String>> = digests.collect();
            if digests.is_empty() {
                digests.push(None);
            }
            if !each_digest {
                digests.truncate(1);
            }
            for digest in digests {
                let row = Row {
                    repository: name.0.clone(),
                    tag: name.1.clone(),
                    digest,
                    id: image.record.id.to_string(),
                    created: created.map(|time| time.to_string()),
                    size,
                    layers: image.record.layers.iter().map(ToString::to_string).collect(),
                    manifest: image.record.manifest.map(|digest| digest.to_string()),
                    held_by: held_by.iter().map(|by| (*by).to_owned()).collect(),
                };
                rows.push((created, row));
            }
        }
    }
    rows.sort_by(|(a, x), (b, y)| {
        b.cmp(a).then_with(|| (&x.repository, &x.tag).cmp(&(&y.repository, &y.tag)))
    });
    Ok(rows)
}

/// What engines have that no image of the store has; under `reference` alone if there is one.
fn held_rows(store: &Store, reference: Option<&str>) -> Result<Vec<HeldRow>> {
    let mut rows = Vec::new();
    for held in store.held_images()?.beside(&store.images().all()?) {
        let none = || (NONE.to_owned(), NONE.to_owned());
        let name = held.name.as_deref().map_or_else(none, split);
        if reference.is_some_and(|wanted| !is_named(wanted, &name)) {
            continue;
        }
        let mut size = 0;
        for layer in &held.layers {
            size += store.layer(layer)?.map_or(0, |record| record.apparent);
        }
        rows.push(HeldRow {
            repository: name.0,
            tag: name.1,
            id: (),
            size,
            layers: held.layers.iter().map(ToString::to_string).collect(),
            held_by: vec![held.by],
        });
    }
    Ok(rows)
}

/// The rows as the template `text` sees them: docker's fields.
fn in_dockers_words(
    store: &Store,
    rows: &[Dated],
    text: &str,
    whole_ids: bool,
) -> Result<Vec<DockerRow>> {
    let usage = if ["SharedSize", "UniqueSize"].iter().any(|field| text.contains(field)) {
        let images = store.images().all()?;
        let held = store.held_images()?.layers();
        let usage = store.accounts().sharing()?.images_beside(&images, &held);
        let ids = images.iter().map(|image| image.id.to_string());
        ids.zip(usage).collect()
    } else {
        HashMap::new()
    };
    let rows = rows.iter().map(|(created, row)| {
        let usage = usage.get(&row.id);
        let size = |of: fn(&strata_layer::Usage) -> u64| {
            usage.map_or("N/A".to_owned(), |usage| units::fine_size(of(usage)))
        };
        DockerRow {
            containers: "N/A".to_owned(),
            created_at: created.map_or_else(not_said, docker_time),
            created_since: since(*created),
            digest: row.digest.clone().unwrap_or_else(|| NONE.to_owned()),
            id: shown_id(&row.id, whole_ids).to_owned(),
            repository: row.repository.clone(),
            shared_size: size(|usage| usage.shared),
            size: units::size(row.size),
            tag: row.tag.clone(),
            unique_size: size(|usage| usage.unique),
            virtual_size: units::fine_size(row.size),
        }
    });
    Ok(rows.collect())
}

/// Each id once.
fn print_ids(rows: &[Dated], whole_ids: bool, out: &mut impl Write) -> Result<()> {
    let mut seen: Vec<&str> = Vec::new();
    for (_, row) in rows {
        if !seen.contains(&row.id.as_str()) {
            seen.push(&row.id);
            writeln!(out, "{}", shown_id(&row.id, whole_ids))?;
        }
    }
    Ok(())
}

/// The last column is there only if an engine has anything.
fn print_table(
    rows: &[Dated],
    held: &[HeldRow],
    args: &ImagesArgs,
    out: &mut impl Write,
) -> Result<()> {
    let is_held = !held.is_empty() || rows.iter().any(|(_, row)| !row.held_by.is_empty());
    let mut heads = vec!["REPOSITORY", "TAG"];
    heads.extend(args.digests.then_some("DIGEST"));
    heads.extend(["IMAGE ID", "CREATED", "SIZE"]);
    heads.extend(is_held.then_some("HELD BY"));
    let mut lines = vec![heads.join("\t")];
    for (created, row) in rows {
        let mut cells = vec![row.repository.as_str(), &row.tag];
        cells.extend(args.digests.then(|| row.digest.as_deref().unwrap_or(NONE)));
        let (since, size) = (since(*created), units::size(row.size));
        cells.extend([shown_id(&row.id, args.no_trunc), &since, &size]);
        let by = row.held_by.join(", ");
        cells.extend(is_held.then_some(&*by));
        lines.push(cells.join("\t"));
    }
    for row in held {
        let mut cells = vec![row.repository.as_str(), &row.tag];
        cells.extend(args.digests.then_some(NONE));
        let (since, size, by) = (not_said(), units::size(row.size), row.held_by.join(", "));
        cells.extend([NONE, &since, &size, &by]);
        lines.push(cells.join("\t"));
    }
    crate::table::print_columns(&lines, out)
}

fn since(created: Option<Timestamp>) -> String {
    created.map_or_else(not_said, |time| units::age(time, Timestamp::now()))
}

fn not_said() -> String {
    "N/A".to_owned()
}
