//! `strata system df` and `system prune`: the store as docker's words see it.
//!
//! Invariants: in `system df -v` UNIQUE SIZE is what removing that image alone frees, and the
//! contents that several images hold, or an engine too, are on a line of their own, so that the
//! sizes add up to the store; RECLAIMABLE is what removing all inactive things frees.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use strata_layer::{Store, Usage};
use strata_tree::{DiffId, ImageId};
use stratafs::{MountInfo, NamedUpper};

use super::filter::Filters;
use super::prune::{Sure, in_use, prune};
use super::{KnownImage, docker_time, shown_id};
use crate::context::{Context, Format};
use crate::document::{Document, Field};
use crate::template::Template;
use crate::{table, units};

/// Show what images and uppers take, and what could be freed
///
/// `strata df` tells the same layer by layer. With --format '{{...}}' the fields are .Type
/// .TotalCount .Active .Size .Reclaimable.
#[derive(Debug, Args)]
pub(crate) struct SystemDfArgs {
    /// One line an image and an upper
    #[arg(short, long)]
    verbose: bool,
}

/// Remove images, uppers and files that nothing needs
#[derive(Debug, Args)]
pub(crate) struct SystemPruneArgs {
    /// All images that are not in use, not only those without a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    sure: Sure,
    /// Taken for docker's sake: there are no volumes
    #[arg(long)]
    volumes: bool,
    /// Only images of which this holds, of several all: until=TIME|AGE, label=KEY[=VALUE],
    /// label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    r#type: String,
    total_count: String,
    active: String,
    size: String,
    reclaimable: String,
    #[serde(skip)]
    bytes: (u64, u64),
}

impl Row {
    fn new(kind: &str, total: usize, active: usize, size: u64, free: u64) -> Self {
        let share = free.saturating_mul(100).checked_div(size).unwrap_or(0);
        Self {
            r#type: kind.to_owned(),
            total_count: total.to_string(),
            active: active.to_string(),
            size: units::fine_size(size),
            reclaimable: match size {
                0 => units::fine_size(free),
                _ => format!("{} ({share}%)", units::fine_size(free)),
            },
            bytes: (size, free),
        }
    }
}

const HEADS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// An image with what it takes.
struct Taken {
    image: KnownImage,
    usage: Usage,
    active: bool,
}

/// All images, and bytes of the store.
struct Images {
    taken: Vec<Taken>,
    /// Bytes of all contents.
    stored: u64,
    /// Bytes of all `headers.zst`.
    headers: u64,
    /// Bytes of both that go with the inactive images.
    free: u64,
}

fn images(store: &Store, used: &BTreeSet<ImageId>) -> Result<Images> {
    let known = KnownImage::all(store)?;
    let sharing = store.accounts().sharing()?;
    let records: Vec<_> = known.iter().map(|image| image.record.clone()).collect();
    let held = store.held_images()?.layers();
    let usage = sharing.images_beside(&records, &held);
    let active: BTreeSet<&DiffId> = records
        .iter()
        .filter(|record| used.contains(&record.id))
        .flat_map(|record| &record.layers)
        .collect();
    let layers = store.layers()?;
    // What an engine has stays whatever is removed here.
    let stays = |layer: &DiffId| active.contains(layer) || held.contains(layer);
    let idle: Vec<_> = layers.iter().filter(|layer| !stays(&layer.diff_id)).collect();
    let headers: u64 = layers.iter().map(|layer| layer.headers_size).sum();
    let stored: u64 = sharing.groups.iter().map(|group| group.bytes).sum();
    let gone = idle.iter().map(|layer| layer.diff_id).collect();
    let free = sharing.freed_with(&gone) + idle.iter().map(|layer| layer.headers_size).sum::<u64>();
    let taken = known.into_iter().zip(usage).map(|(image, usage)| {
        let active = used.contains(&image.record.id);
        Taken { image, usage, active }
    });
    Ok(Images { taken: taken.collect(), stored, headers, free })
}

pub(crate) fn run_system_df(
    context: &Context,
    args: &SystemDfArgs,
    out: &mut impl Write,
) -> Result<()> {
    let store = context.store()?;
    let Images { taken, stored, headers, free } = images(&store, &in_use(context)?)?;
    let shelf = context.engine().uppers();
    let mut uppers = Vec::new();
    let mounts = context.engine().mounts()?;
    for upper in shelf.listed()? {
        let mounted = MountInfo::of_upper(&mounts, &upper.name).is_some();
        let bytes = shelf.bytes(&upper)?;
        uppers.push((upper, mounted, bytes));
    }
    let sum = |wanted: fn(bool) -> bool| -> u64 {
        uppers.iter().filter(|upper| wanted(upper.1)).map(|upper| upper.2).sum()
    };
    let active = taken.iter().filter(|image| image.active).count();
    let mounted = uppers.iter().filter(|upper| upper.1).count();
    let rows = [
        Row::new("Images", taken.len(), active, stored + headers, free),
        Row::new("Uppers", uppers.len(), mounted, sum(|_| true), sum(|mounted| !mounted)),
    ];
    match &context.format {
        Format::Template(text) if args.verbose => {
            let document = in_dockers_words(&taken, &uppers);
            return Template::parse(text)?.print_documents(&[document], out);
        }
        Format::Template(text) => return Template::parse(text)?.print(&HEADS, &rows, out),
        Format::Json => return Ok(writeln!(out, "{:#}", in_json(&taken, &uppers, &rows))?),
        Format::Table => {}
    }
    if !args.verbose {
        let mut lines = vec![HEADS.map(|(_, head)| head.to_owned())];
        lines.extend(
            rows.map(|row| [row.r#type, row.total_count, row.active, row.size, row.reclaimable]),
        );
        return table::print(&lines, out);
    }
    let unique: u64 = taken.iter().map(|one| one.usage.unique).sum();
    writeln!(out, "Images space usage:\n")?;
    print_images(&taken, &uppers, out)?;
    writeln!(
        out,
        "\nContents: {} in all = {} of one image each + {} of several",
        units::fine_size(stored),
        units::fine_size(unique),
        units::fine_size(stored - unique)
    )?;
    writeln!(out, "\nUppers space usage:\n")?;
    let mut lines = vec![["NAME", "IMAGE", "SIZE", "MOUNTED"].map(String::from)];
    lines.extend(uppers.iter().map(|(upper, mounted, bytes)| {
        let mounted = if *mounted { "yes" } else { "no" };
        [upper.name.clone(), upper.reference.clone(), units::fine_size(*bytes), mounted.to_owned()]
    }));
    table::print(&lines, out)
}

fn in_json(
    taken: &[Taken],
    uppers: &[(NamedUpper, bool, u64)],
    rows: &[Row; 2],
) -> serde_json::Value {
    let list: Vec<_> = taken
        .iter()
        .map(|one| {
            json!({
                "id": one.image.record.id.to_string(), "names": one.image.familiar_names(),
                "stored": one.usage.stored, "unique": one.usage.unique,
                "shared": one.usage.stored - one.usage.unique, "active": one.active,
            })
        })
        .collect();
    let kept: Vec<_> = uppers
        .iter()
        .map(|(upper, mounted, bytes)| {
            json!({ "name": upper.name, "size": bytes, "active": mounted })
        })
        .collect();
    let of = |row: &Row| json!({ "size": row.bytes.0, "reclaimable": row.bytes.1 });
    json!({
        "images": list, "uppers": kept,
        "totals": { "images": of(&rows[0]), "uppers": of(&rows[1]) },
    })
}

/// `docker system df -v` as a template sees it; uppers are the containers.
fn in_dockers_words(taken: &[Taken], uppers: &[(NamedUpper, bool, u64)]) -> Document {
    let now = Timestamp::now();
    let since =
        |time: Option<Timestamp>| time.map_or("N/A".to_owned(), |time| units::age(time, now));
    let at = |time: Option<Timestamp>| time.map(docker_time).unwrap_or_default();
    let images = taken.iter().flat_map(|one| {
        let id = one.image.record.id.to_string();
        let created = one.image.config.created();
        let used = uppers.iter().filter(|(upper, ..)| upper.image == id).count();
        let size = units::fine_size(one.usage.stored);
        let shared = units::fine_size(one.usage.stored - one.usage.unique);
        let names = one.image.names().into_iter().map(|(repository, tag)| {
            json!({
                "Containers": used.to_string(), "CreatedAt": at(created),
                "CreatedSince": since(created), "Digest": "", "ID": id,
                "Repository": repository, "SharedSize": shared, "Size": size, "Tag": tag,
                "UniqueSize": units::fine_size(one.usage.unique), "VirtualSize": size,
            })
        });
        names.map(Document::from).collect::<Vec<_>>()
    });
    let containers = uppers.iter().map(|(upper, mounted, bytes)| {
        Document::from(json!({
            "CreatedAt": at(upper.created_at()), "ID": upper.name, "Image": upper.reference,
            "Names": upper.name, "RunningFor": since(upper.created_at()),
            "Size": units::fine_size(*bytes), "State": if *mounted { "running" } else { "exited" },
        }))
    });
    Document::Record(vec![
        Field::new("Images", Document::List(images.collect())),
        Field::new("Containers", Document::List(containers.collect())),
        Field::new("Volumes", json!([])),
        Field::new("BuildCache", json!([])),
    ])
}

fn print_images(
    taken: &[Taken],
    uppers: &[(NamedUpper, bool, u64)],
    out: &mut impl Write,
) -> Result<()> {
    let head = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "UPPERS",
    ];
    let now = Timestamp::now();
    let mut lines = vec![head.map(String::from)];
    for one in taken {
        let id = one.image.record.id.to_string();
        let created = one.image.config.created();
        for (repository, tag) in one.image.names() {
            lines.push([
                repository,
                tag,
                shown_id(&id, false).to_owned(),
                created.map_or("N/A".to_owned(), |time| units::age(time, now)),
                units::fine_size(one.usage.stored),
                units::fine_size(one.usage.stored - one.usage.unique),
                units::fine_size(one.usage.unique),
                uppers.iter().filter(|(upper, ..)| upper.image == id).count().to_string(),
            ]);
        }
    }
    table::print(&lines, out)
}

pub(crate) fn run_system_prune(
    context: &Context,
    args: &SystemPruneArgs,
    out: &mut impl Write,
) -> Result<()> {
    let store = context.store_to_change()?;
    let filters = Filters::parse(&store, &args.filters, &["until", "label", "label!"])?;
    let which = match args.all {
        true => "all images without at least one mount or upper of them",
        false => "all images without a name",
    };
    let warning = format!(
        "This will remove:\n  - {which}\n  - temporary uppers that are not mounted\n  - files \
         that no image needs\n"
    );
    if !args.sure.ask(&warning, out)? {
        return Ok(());
    }
    context.engine().mount_records().clean()?;
    let uppers = context.engine().uppers().clean()?;
    let pruned = prune(context, &store, args.all, &filters)?;
    let collected = store.gc()?;
    let bytes = pruned.bytes + collected.freed;
    if context.format == Format::Json {
        let all = json!({
            "uppers": uppers, "untagged": pruned.untagged, "deleted": pruned.deleted,
            "reclaimed": bytes,
        });
        writeln!(out, "{all:#}")?;
        return pruned.finished();
    }
    if !uppers.is_empty() {
        writeln!(out, "Deleted Uppers:\n{}\n", uppers.join("\n"))?;
    }
    pruned.print(out)?;
    writeln!(out, "Total reclaimed space: {}", units::fine_size(bytes))?;
    pruned.finished()
}
