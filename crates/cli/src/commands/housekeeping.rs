//! `strata fsck` and `gc`.
//!
//! Invariant: `fsck` exits with 0 only if nothing is wrong (any more).

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use strata_layer::{FsckReport, GcReport, Problem, Store};

use crate::context::{Context, Format};
use crate::limits::LayerLimitArgs;
use crate::{progress, units};

/// Check the store against itself
///
/// Reads and hashes every file of every layer, compares directories and index both ways, and says
/// which writable layers cannot be mounted. The exit code is 0 only if nothing is wrong.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Mend what can be mended: rebuild the index, take damaged images out
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    limits: LayerLimitArgs,
}

pub(crate) fn run_fsck(context: &Context, args: &FsckArgs, out: &mut impl Write) -> Result<()> {
    let listener = progress::listener(context.shown);
    let options = context.options(args.limits.limits());
    let report = Store::fsck(&context.root, args.repair, options, &*listener)?;
    let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let unmended = problems.len();
    // Which images there are, an index that is wrong does not tell.
    if !report.problems.iter().any(|problem| matches!(problem, Problem::Index(_))) {
        let uppers = context.engine().uppers().problems(&context.store()?)?;
        problems.extend(uppers.iter().map(ToString::to_string));
    }
    print_report(context, &report, &problems, out)?;
    let Some(first) = problems.first() else { return Ok(()) };
    let count = units::counted(problems.len() as u64, "problem");
    // What is wrong with an upper has its way out in its own words.
    match (args.repair, unmended) {
        (_, 0) => bail!("{count}, the first is {first}"),
        (false, _) => bail!("{count}, the first is {first}; --repair mends what can be mended"),
        (true, _) => {
            bail!("{count} left, the first is {first}; unmount what is in use and repair again")
        }
    }
}

fn print_report(
    context: &Context,
    report: &FsckReport,
    problems: &[String],
    out: &mut impl Write,
) -> Result<()> {
    if context.format == Format::Json {
        let all = json!({
            "layers": report.layers, "files": report.files, "bytes": report.bytes,
            "problems": problems, "notes": report.notes, "repaired": report.repaired,
        });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for problem in problems {
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
        if problems.is_empty() { "no problems" } else { "problems found" },
    )?;
    Ok(())
}

pub(crate) fn run_gc(context: &Context, out: &mut impl Write) -> Result<()> {
    context.engine().mount_records().clean()?;
    let uppers = context.engine().uppers().clean()?;
    let store = context.store_to_change()?;
    let report = context.freeing(|| Ok(store.gc()?))?;
    if context.format == Format::Json {
        let all = json!({
            "layers": texts(&report.layers),
            "orphans": report.orphans.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>(),
            "blobs": texts(&report.blobs),
            "trees": texts(&report.trees),
            "uppers": uppers,
            "freed": report.freed,
        });
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for upper in &uppers {
        writeln!(out, "Deleted: upper {upper}")?;
    }
    match uppers.is_empty() {
        false if report == GcReport::default() => Ok(()),
        _ => print_collected(&report, out),
    }
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn print_collected(report: &GcReport, out: &mut impl Write) -> Result<()> {
    for layer in &report.layers {
        writeln!(out, "Deleted: layer {layer}")?;
    }
    for orphan in &report.orphans {
        writeln!(out, "Deleted: {}", orphan.display())?;
    }
    for blob in &report.blobs {
        writeln!(out, "Deleted: blob {blob}")?;
    }
    for tree in &report.trees {
        writeln!(out, "Deleted: tree {tree}")?;
    }
    if *report == GcReport::default() {
        writeln!(out, "Nothing to delete: images need all that is there")?;
    } else {
        writeln!(out, "Total reclaimed space: {}", units::size(report.freed))?;
    }
    Ok(())
}
