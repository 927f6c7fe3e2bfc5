//! `strata report`: the store's accounts as one page that opens without a network.
//!
//! ```text
//! store ── data (accounts) ──┐
//!          ├ shares          ├── page ── one HTML file: data, style, script and charts in it
//!          ├ tree            │
//!          ├ matrix          │
//!          ├ levels          │
//!          └ waste           │
//! facts of many stores ── hosts, wording
//! assets/ ───────────────────┘      (echarts.min.js: see scripts/echarts)
//! ```
//!
//! Invariants: nothing of an image is markup or script on the page; the page's policy names the
//! digests of its own scripts and styles and allows nothing else, no network least of all.

mod data;
mod hosts;
mod levels;
mod matrix;
mod page;
mod shares;
mod tree;
mod waste;
mod wording;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueHint};
use serde_json::json;
use strata_image::resolve_image;

use self::data::PageData;
use crate::context::{Context, Format};
use crate::look;
use crate::{progress, units};

/// Write a page that shows where the bytes are
///
/// One HTML file that a browser opens without a network: what the store holds and what sharing
/// saves, a map of the bytes from the store down to single files, which images share with which,
/// and how each image grew layer by layer. Its numbers are those of `strata df`. If the store is
/// very large, it shows the large things one by one, and the small ones together.
///
/// With --facts it is the page of many stores, from what `strata facts` wrote on each: hosts take
/// the place of images, and their layers are below them.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Only these images (names or ids) [default: all]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Show the stores whose facts are below these directories, each by its latest day
    #[arg(long, value_name = "DIR", num_args = 1.., value_hint = ValueHint::DirPath,
          conflicts_with_all = ["images", "chunks"])]
    facts: Vec<PathBuf>,
    /// The file to write, - for standard output
    #[arg(short, long, default_value = "report.html", value_name = "FILE",
          value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Measure what sharing chunks and blocks of files would save too: reads every file
    #[arg(long)]
    chunks: bool,
}

pub(crate) fn run(context: &Context, args: &ReportArgs, out: &mut impl Write) -> Result<()> {
    let report = match args.facts.is_empty() {
        true => of_store(context, args)?,
        false => of_facts(context, args)?,
    };
    let page = page::page(&report)?;
    if args.output.as_os_str() == "-" {
        return Ok(out.write_all(page.as_bytes())?);
    }
    look::to_file(&args.output, "write the page", &mut |out: &mut dyn Write| {
        Ok(out.write_all(page.as_bytes())?)
    })?;
    let (shown, bytes) = (report.images(), page.len() as u64);
    let (key, one) = if report.hosts { ("hosts", "host") } else { ("images", "image") };
    if context.format == Format::Json {
        let said = json!({ "output": args.output, key: shown, "bytes": bytes });
        return Ok(writeln!(out, "{said:#}")?);
    }
    if context.quiet {
        return Ok(writeln!(out, "{}", args.output.display())?);
    }
    let noun = if shown == 1 { one } else { key };
    let (output, size) = (args.output.display(), units::size(bytes));
    Ok(writeln!(out, "{output}: {shown} {noun}, {size}")?)
}

fn of_facts(context: &Context, args: &ReportArgs) -> Result<PageData> {
    let bar = progress::reading(context.shown);
    let fleet = strata_facts::read_fleet(&args.facts, &mut |done, total| {
        bar.set_message(format!("Reading facts: {done} of {total} hosts"));
    });
    bar.finish_and_clear();
    Ok(hosts::collect(fleet?, &args.facts))
}

fn of_store(context: &Context, args: &ReportArgs) -> Result<PageData> {
    let store = context.store()?;
    let mut wanted = BTreeSet::new();
    for text in &args.images {
        wanted.insert(resolve_image(&store, text)?.id);
    }
    let levels = match args.chunks {
        true => levels::measure(context, &store)?,
        false => Vec::new(),
    };
    data::collect(store, &context.root, &wanted, levels)
}
