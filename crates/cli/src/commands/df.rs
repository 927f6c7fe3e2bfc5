//! `strata df`: what the store holds, and which images hold it, in numbers that add up.
//!
//! Invariants: ATTRIBUTED of all images, engines and of what nobody holds is STORED in total; TOTAL
//! of the parts on disk is what `du` says of the store's root. JSON has exact integers.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use strata_image::resolve_image;
use strata_layer::{DiskUsage, ImageRecord, LayerUsage, Space, Usage};
use strata_tree::ImageId;

use crate::context::{Context, Format};
use crate::images::familiar_names;
use crate::{table, units};

/// Show what the store holds, whose it is, and what it takes on disk
///
/// For each image, and with -v for each layer: APPARENT is the bytes of its files with nothing
/// shared; LAYERED the same with layers shared and nothing else, what overlay2 needs; STORED the
/// bytes of its distinct contents, what the store has of it. STORED is UNIQUE, which no other image
/// and no engine holds and which removing it alone frees, and SHARED. ATTRIBUTED is its part of the
/// disk: each content is split evenly among the images that hold it, so that the column adds up to
/// the store.
/// In TOTAL each layer (LAYERED) or content (STORED) counts once. For layers, SHARED and ATTRIBUTED
/// are among layers.
///
/// Each name of an image has a line; long ones are cut at their beginning (JSON has them whole).
/// What an engine has that no image of the store has is in lines of its own, by the names that it
/// came with: containerd, podman.
///
/// Then everything on disk, part by part: SIZE as `du --apparent-size` counts, ON DISK in whole
/// blocks, as `du` does. `strata rmi --dry-run` tells what removing images frees of each.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Only these images, by name or id, and what they hold together
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Layers too
    #[arg(short, long)]
    verbose: bool,
    /// Show bytes instead of rounded sizes
    #[arg(short, long)]
    bytes: bool,
    /// STORED to ATTRIBUTED as contents take it on disk, in whole blocks
    #[arg(short, long)]
    disk: bool,
}

pub(crate) fn run_df(context: &Context, args: &DfArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let mut chosen: BTreeSet<ImageId> = BTreeSet::new();
    for text in &args.images {
        chosen.insert(resolve_image(&store, text)?.id);
    }
    let names = familiar_names(&store)?;
    let together = if chosen.is_empty() {
        None
    } else {
        let images = store.images().all()?;
        let at = images.iter().enumerate().filter(|(_, image)| chosen.contains(&image.id));
        let at = at.map(|(at, _)| at).collect();
        let held = store.held_images()?.layers();
        Some(store.accounts().sharing()?.together(&images, &held, &at))
    };
    let usage = store.into_disk_usage()?;
    let wanted = |image: &ImageRecord| chosen.is_empty() || chosen.contains(&image.id);
    let images: Vec<_> = usage.images.iter().filter(|(image, _)| wanted(image)).collect();
    let of_images: BTreeSet<_> = images.iter().flat_map(|(image, _)| &image.layers).collect();
    let layers = usage.layers.iter();
    let layers = layers.filter(|one| chosen.is_empty() || of_images.contains(&one.diff_id));
    let layers: Vec<&LayerUsage> = layers.collect();
    let name = |id: &ImageId| names.get(id).cloned().unwrap_or_default();
    if context.format == Format::Json {
        let images = images.iter().map(|(image, of)| image_json(image, &name(&image.id), of));
        let images: Vec<Value> = images.collect();
        let layers: Vec<Value> = layers.into_iter().map(layer_json).collect();
        let all = store_json(&usage, images, layers, together.as_ref());
        return Ok(writeln!(out, "{all:#}")?);
    }
    let show = Show { bytes: args.bytes, disk: args.disk };
    let mut rows = vec![["IMAGE", "IMAGE ID"].map(String::from).to_vec()];
    rows[0].extend(USAGE.map(String::from));
    for (image, of) in &images {
        let names = name(&image.id);
        let (first, more) = match &names[..] {
            [] => ("<none>", &names[..]),
            [first, more @ ..] => (first.as_str(), more),
        };
        rows.push(show.row(&[first.to_owned(), image.id.short()], of));
        rows.extend(more.iter().map(|name| vec![name.clone()]));
    }
    match &together {
        Some(all) => rows.push(show.row(&["TOGETHER".to_owned(), String::new()], all)),
        None => {
            let engines = usage.engines.iter();
            rows.extend(engines.map(|(held, of)| show.row(&[held.shown(), String::new()], of)));
            if usage.unheld.files > 0 || usage.unheld.apparent > 0 {
                rows.push(show.row(&["no image".to_owned(), String::new()], &usage.unheld));
            }
            rows.push(show.row(&["TOTAL".to_owned(), String::new()], &total(&usage)));
        }
    }
    cut_names(&mut rows);
    table::print_rows(&rows, out)?;
    if args.verbose {
        writeln!(out)?;
        print_layers(&show, &layers, out)?;
    }
    if together.is_some() {
        return Ok(());
    }
    writeln!(out)?;
    let mut rows = vec![["PART", "SIZE", "ON DISK"].map(String::from)];
    let parts = usage.disk.parts().into_iter().chain([("TOTAL", usage.disk.total())]);
    rows.extend(parts.map(|(part, space)| {
        [part.to_owned(), show.size(space.bytes), show.size(space.blocks * 512)]
    }));
    table::print(&rows, out)
}

/// Cuts the names of the first column, at their beginning, so that the table has 100 columns.
fn cut_names(rows: &mut [Vec<String>]) {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max();
    let others: usize = (1..).map_while(width).map(|width| width + 3).sum();
    let room = 100_usize.saturating_sub(others).max(16);
    for name in rows.iter_mut().filter_map(|row| row.first_mut()) {
        let long = name.chars().count();
        if long > room {
            *name = ['…'].into_iter().chain(name.chars().skip(long + 1 - room)).collect();
        }
    }
}

const USAGE: [&str; 6] = ["APPARENT", "LAYERED", "STORED", "UNIQUE", "SHARED", "ATTRIBUTED"];

/// How sizes are printed.
struct Show {
    bytes: bool,
    disk: bool,
}

impl Show {
    fn size(&self, bytes: u64) -> String {
        if self.bytes { bytes.to_string() } else { units::size(bytes) }
    }

    fn row(&self, head: &[String], of: &Usage) -> Vec<String> {
        let parts = match self.disk {
            false => [of.stored, of.unique, of.shared, of.attributed],
            true => {
                let blocks = &of.blocks;
                [blocks.stored, blocks.unique, blocks.shared, blocks.attributed].map(|n| n * 512)
            }
        };
        let sizes = [of.apparent, of.layered].into_iter().chain(parts);
        head.iter().cloned().chain(sizes.map(|bytes| self.size(bytes))).collect()
    }
}

/// All images and what no image holds.
fn total(usage: &DiskUsage) -> Usage {
    let engines = || usage.engines.iter().map(|(_, of)| of);
    let images = || usage.images.iter().map(|(_, of)| of).chain(engines()).chain([&usage.unheld]);
    let (stored, unique) = (usage.disk.contents, images().map(|of| of.unique).sum::<u64>());
    let blocks = strata_layer::BlockUsage {
        stored: stored.blocks,
        unique: images().map(|of| of.blocks.unique).sum(),
        shared: stored.blocks - images().map(|of| of.blocks.unique).sum::<u64>(),
        attributed: images().map(|of| of.blocks.attributed).sum(),
    };
    Usage {
        apparent: usage.apparent,
        layered: usage.layered,
        stored: stored.bytes,
        unique,
        shared: stored.bytes - unique,
        attributed: images().map(|of| of.attributed).sum(),
        files: usage.files,
        blocks,
    }
}

fn print_layers(show: &Show, layers: &[&LayerUsage], out: &mut impl Write) -> Result<()> {
    let mut rows = vec![["LAYER", "ENTRIES", "IMAGES"].map(String::from).to_vec()];
    rows[0].extend(USAGE.map(String::from));
    rows[0].extend(["HEADERS", "DIRECTORIES"].map(String::from));
    for layer in layers {
        let head = [layer.diff_id.short(), layer.entries.to_string(), layer.images.to_string()];
        let mut row = show.row(&head, &layer.usage);
        row.extend([layer.headers, layer.directories].map(|space| match show.disk {
            true => show.size(space.blocks * 512),
            false => show.size(space.bytes),
        }));
        rows.push(row);
    }
    table::print_rows(&rows, out)
}

/// The columns by name.
fn usage_json(of: &Usage) -> Value {
    json!({
        "files": of.files, "apparent": of.apparent, "layered": of.layered, "stored": of.stored,
        "unique": of.unique, "shared": of.shared, "attributed": of.attributed,
        "blocks": {
            "stored": of.blocks.stored, "unique": of.blocks.unique, "shared": of.blocks.shared,
            "attributed": of.blocks.attributed,
        },
    })
}

/// `more`, and the columns of `of`.
fn with_usage(mut more: Value, of: &Usage) -> Value {
    if let (Value::Object(more), Value::Object(columns)) = (&mut more, usage_json(of)) {
        more.extend(columns);
    }
    more
}

fn image_json(image: &ImageRecord, names: &[String], of: &Usage) -> Value {
    let layers: Vec<String> = image.layers.iter().map(ToString::to_string).collect();
    with_usage(json!({ "id": image.id.to_string(), "names": names, "layers": layers }), of)
}

fn layer_json(layer: &LayerUsage) -> Value {
    let more = json!({
        "diff_id": layer.diff_id.to_string(), "entries": layer.entries, "images": layer.images,
        "headers": space_json(layer.headers), "directories": space_json(layer.directories),
    });
    with_usage(more, &layer.usage)
}

/// Bytes and blocks of 512 bytes.
pub(crate) fn space_json(space: Space) -> Value {
    json!({ "bytes": space.bytes, "blocks": space.blocks })
}

fn store_json(
    usage: &DiskUsage,
    images: Vec<Value>,
    layers: Vec<Value>,
    together: Option<&Usage>,
) -> Value {
    let parts = usage.disk.parts().into_iter().chain([("total", usage.disk.total())]);
    let disk = parts.map(|(part, space)| (part.to_owned(), space_json(space)));
    let disk: serde_json::Map<String, Value> = disk.collect();
    let engines = usage.engines.iter().map(|(held, of)| {
        let layers: Vec<String> = held.layers.iter().map(ToString::to_string).collect();
        with_usage(json!({ "by": held.by, "name": held.name, "layers": layers }), of)
    });
    let engines: Vec<Value> = engines.collect();
    let mut all = json!({
        "images": images, "engines": engines, "layers": layers,
        "no_image": usage_json(&usage.unheld),
        "entries": usage.entries, "shared_by_layers": usage.shared, "disk": disk,
    });
    if let (Some(together), Value::Object(all)) = (together, &mut all) {
        all.insert("together".to_owned(), usage_json(together));
    }
    with_usage(all, &total(usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_long_names_has_a_hundred_columns() {
        let row = |name: &str, cells: [&str; 3]| {
            let cells = cells.into_iter().map(|cell| cell.repeat(9));
            [name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
        };
        let name = "registry.example.com/team/service/".repeat(4) + "é:1";
        let short = "x".repeat(100 - 3 * (9 + 3));
        let mut rows = vec![
            row("IMAGE", ["A", "B", "C"]),
            row(&name, ["1", "2", "3"]),
            vec![name.clone()],
            row(&short, ["1", "2", "3"]),
        ];
        cut_names(&mut rows);
        let mut out = Vec::new();
        table::print_rows(&rows, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let widths: Vec<usize> = out.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [100, 100, 64, 100], "{out}");
        assert!(out.contains("/team/service/é:1"), "{out}");
        assert!(out.contains(&short), "{out}");
    }
}
