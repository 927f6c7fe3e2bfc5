//! `strata facts`: the index as a Parquet data set, for questions about many stores.
//!
//! Invariant: what is printed is what was written, table by table.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueHint};
use serde_json::{Value, json};
use strata_facts::{
    Day, FactsOptions, GatheredFacts, HashKey, PathPolicy, Place, StoreName, WrittenFacts, schema,
};

use super::facts_from::{FromArgs, gathered_json};
use crate::context::{Context, Format};
use crate::{progress, table, units};

/// Write what the store knows as a Parquet data set
///
/// DuckDB, Spark, Trino and pandas read it, those of many machines together. The tables are images,
/// names, image_layers, history, layers, entries and contents, each a file in
/// DIR/store=NAME/day=YYYY-MM-DD, which appears in one step and replaces one of the same store and
/// day. The same store gives the same bytes. No content of any file is in it.
///
/// With --from it is what archives, layouts and registries have. Their layers are read as streams,
/// each once, and nothing is unpacked. A run that was stopped is begun again by the same command,
/// and reads only what is missing.
#[derive(Debug, Args)]
pub(crate) struct FactsArgs {
    /// The directory of the data sets of all stores
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: PathBuf,
    /// The name of this store among them [default: the host's]
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// The day that it is of [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
    day: Option<String>,
    /// Leave out paths, and the commands and remarks of histories, which contain some
    #[arg(long, conflicts_with = "hash_paths")]
    no_paths: bool,
    /// Replace them by their HMAC-SHA256 under this key, @FILE for the bytes of a file
    #[arg(long, value_name = "KEY")]
    hash_paths: Option<String>,
    #[command(flatten)]
    from: FromArgs,
}

pub(crate) fn run_facts(context: &Context, args: &FactsArgs, out: &mut impl Write) -> Result<()> {
    let options = FactsOptions { place: place(args)?, paths: paths(args)? };
    let bar = progress::writing(context.shown);
    let mut wrote = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let (written, gathered) = if args.from.sources.is_empty() {
        let store = context.store()?;
        (strata_facts::write(&store, &args.output, &options, &mut wrote), None)
    } else {
        let ledger = args.from.ledger(&args.output, &options.place.store, args.day.as_deref());
        let gathered = args.from.gather(context, &ledger)?;
        (
            strata_facts::write_gathered(&gathered, &args.output, &options, &mut wrote),
            Some((gathered, ledger)),
        )
    };
    bar.finish_and_clear();
    let written =
        written.with_context(|| format!("cannot write facts to {}", args.output.display()))?;
    print(context, &options, &written, gathered.as_ref().map(|(gathered, _)| gathered), out)?;
    match gathered {
        Some((gathered, ledger)) => args.from.end(gathered, &ledger),
        None => Ok(()),
    }
}

fn print(
    context: &Context,
    options: &FactsOptions,
    written: &WrittenFacts,
    gathered: Option<&GatheredFacts>,
    out: &mut impl Write,
) -> Result<()> {
    if context.format == Format::Json {
        let tables = written.tables.iter().map(|table| {
            let sizes = json!({ "rows": table.rows, "bytes": table.bytes });
            (table.name.to_owned(), sizes)
        });
        let tables: serde_json::Map<String, Value> = tables.collect();
        let mut said = json!({
            "path": written.path, "store": options.place.store.to_string(),
            "day": options.place.day.to_string(), "version": schema::VERSION,
            "replaced": written.replaced, "tables": tables,
        });
        if let Some(gathered) = gathered {
            said["gathered"] = gathered_json(gathered);
        }
        return Ok(writeln!(out, "{said:#}")?);
    }
    if context.quiet {
        return Ok(writeln!(out, "{}", written.path.display())?);
    }
    let mut rows = vec![["TABLE", "ROWS", "SIZE"].map(String::from)];
    rows.extend(
        written
            .tables
            .iter()
            .map(|table| [table.name.to_owned(), table.rows.to_string(), units::size(table.bytes)]),
    );
    let bytes = written.tables.iter().map(|table| table.bytes).sum();
    rows.push(["TOTAL".to_owned(), String::new(), units::size(bytes)]);
    table::print(&rows, out)?;
    if let Some(GatheredFacts { images, read, known, .. }) = gathered {
        writeln!(out, "\n{images} images; {read} layers read now, {known} before")?;
    }
    let how = if written.replaced { " (replaced)" } else { "" };
    Ok(writeln!(out, "\n{}{how}", written.path.display())?)
}

fn place(args: &FactsArgs) -> Result<Place> {
    let store: StoreName = match &args.store {
        Some(name) => name.parse()?,
        None => {
            let host = rustix::system::uname();
            let host = host.nodename().to_string_lossy();
            host.parse().context("the host's name does not do; say --store NAME")?
        }
    };
    let day = args.day.as_deref().map(str::parse).transpose()?.unwrap_or_else(Day::today);
    Ok(Place { store, day })
}

fn paths(args: &FactsArgs) -> Result<PathPolicy> {
    let Some(key) = &args.hash_paths else {
        return Ok(if args.no_paths { PathPolicy::Nothing } else { PathPolicy::Plain });
    };
    let key = match key.strip_prefix('@') {
        Some(file) => std::fs::read(file).with_context(|| format!("cannot read {file}"))?,
        None => key.as_bytes().to_vec(),
    };
    Ok(PathPolicy::Hashed(HashKey::new(&key)?))
}
