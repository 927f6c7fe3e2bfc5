//! `strata df`, `fsck` and `gc`.
//!
//! Invariant: `fsck` exits with 0 only if nothing is wrong (any more).

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use strata_layer::{FsckReport, Store};

use crate::context::{Context, Format};
use crate::{progress, table, units};

/// Show what the store holds and shares
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show bytes instead of rounded sizes
    #[arg(short, long)]
    bytes: bool,
}

/// Check the store against itself
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Mend what can be mended: rebuild the index, take damaged images out
    #[arg(long)]
    repair: bool,
}

pub(crate) fn run_df(context: &Context, args: &DfArgs, out: &mut impl Write) -> Result<()> {
    let store = context.store()?;
    let usage = store.disk_usage()?;
    if context.format == Format::Json {
        let layers: Vec<_> = usage
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "diff_id": layer.diff_id.to_string(), "entries": layer.entries,
                    "apparent": layer.apparent, "stored": layer.stored,
                    "shared": layer.shared, "headers": layer.headers,
                })
            })
            .collect();
        let all = json!({
            "layers": layers, "entries": usage.entries, "apparent": usage.apparent,
            "stored": usage.stored, "shared": usage.shared, "headers": usage.headers,
            "directories": usage.directories, "index": usage.index,
        });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    let size = |bytes: u64| if args.bytes { bytes.to_string() } else { units::size(bytes) };
    let head = ["LAYER", "ENTRIES", "APPARENT", "STORED", "SHARED", "HEADERS"];
    let mut rows = vec![head.map(String::from)];
    for layer in &usage.layers {
        rows.push([
            layer.diff_id.short(),
            layer.entries.to_string(),
            size(layer.apparent),
            size(layer.stored),
            size(layer.shared),
            size(layer.headers),
        ]);
    }
    rows.push([
        "TOTAL".to_owned(),
        usage.entries.to_string(),
        size(usage.apparent),
        size(usage.stored),
        size(usage.shared),
        size(usage.headers),
    ]);
    table::print(&rows, out)?;
    writeln!(out)?;
    let on_disk = usage.stored + usage.headers + usage.directories;
    writeln!(
        out,
        "layers/ holds {}: contents {}, headers {}, directories {}; index.db is {}",
        size(on_disk),
        size(usage.stored),
        size(usage.headers),
        size(usage.directories),
        size(usage.index),
    )?;
    Ok(())
}

pub(crate) fn run_fsck(context: &Context, args: &FsckArgs, out: &mut impl Write) -> Result<()> {
    let listener = progress::listener(context.quiet);
    let report = Store::fsck(&context.root, args.repair, context.options(), &*listener)?;
    print_report(context, &report, out)?;
    let left = report.problems.len();
    if left > 0 && !args.repair {
        bail!("{left} problems; --repair mends what can be mended");
    }
    if left > 0 {
        bail!("{left} problems are left; unmount what is in use and repair again");
    }
    Ok(())
}

fn print_report(context: &Context, report: &FsckReport, out: &mut impl Write) -> Result<()> {
    if context.format == Format::Json {
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let all = json!({
            "layers": report.layers, "files": report.files, "bytes": report.bytes,
            "problems": problems, "notes": report.notes, "repaired": report.repaired,
        });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for problem in &report.problems {
        writeln!(out, "problem: {problem}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    for repaired in &report.repaired {
        writeln!(out, "repaired: {repaired}")?;
    }
    writeln!(
        out,
        "{} layers, {} files, {} hashed: {}",
        report.layers,
        report.files,
        units::size(report.bytes),
        if report.problems.is_empty() { "no problems" } else { "problems found" },
    )?;
    Ok(())
}

pub(crate) fn run_gc(context: &Context, out: &mut impl Write) -> Result<()> {
    let report = context.store()?.gc()?;
    crate::mounts::clean(&context.root)?;
    if context.format == Format::Json {
        let names = |ids: Vec<String>| ids;
        let all = json!({
            "layers": names(report.layers.iter().map(ToString::to_string).collect()),
            "orphans": names(report.orphans.iter().map(|p| p.display().to_string()).collect()),
            "blobs": names(report.blobs.iter().map(ToString::to_string).collect()),
            "trees": names(report.trees.iter().map(ToString::to_string).collect()),
            "freed": report.freed,
        });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for layer in &report.layers {
        writeln!(out, "Deleted: {layer}")?;
    }
    for orphan in &report.orphans {
        writeln!(out, "Deleted: {}", orphan.display())?;
    }
    writeln!(out, "Total reclaimed space: {}", units::size(report.freed))?;
    Ok(())
}
