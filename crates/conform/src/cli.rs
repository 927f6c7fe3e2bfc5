//! The command line: `layers` lists, writes and runs the cases, `report` runs all unpackers.
//!
//! Invariant: the exit status of `layers` is 0, 1 if a case of class security or data-loss is
//! wrong, and 2 if the suite could not do what it was told; `report` states facts and exits with
//! 0 or 2.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::adapters;
use crate::catalogue::{self, Case};
use crate::report;
use crate::union::{self, cli::UnionArguments};
use crate::{Result, at, image, run};

/// A conformance suite for programs that unpack the layers of OCI images
#[derive(Debug, Parser)]
#[command(name = "strata-conform", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// List the cases, write them, or give them to an unpacker
    Layers(LayerArguments),
    /// List the rules of union mounts, or play them or random operations on one
    Union(UnionArguments),
    /// Run all known unpackers of this machine, and write one page on them
    Report(PageArguments),
}

#[derive(Debug, Args)]
struct LayerArguments {
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Only these cases
    #[arg(long, value_name = "ID", num_args = 1..)]
    case: Vec<String>,
    /// Write each case to DIR/ID: an OCI layout, an OCI archive, a docker archive, and what is
    /// expected as JSON
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// The unpacker: a known name, or a command with %layout (an OCI layout, its tag is `case`) and
    /// %out (an empty directory)
    #[arg(long, value_name = "NAME|COMMAND")]
    unpacker: Option<String>,
    /// How the list or the results are printed
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: OutputForm,
    /// Look for programs in DIR before the path
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Seconds that an unpacker may take for one case
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

#[derive(Debug, Args)]
struct PageArguments {
    /// Only these unpackers: names, or commands as in `layers`
    #[arg(long, value_name = "NAME|COMMAND", num_args = 1..)]
    unpacker: Vec<String>,
    /// Only these cases
    #[arg(long, value_name = "ID", num_args = 1..)]
    case: Vec<String>,
    /// The file to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Look for programs in DIR before the path
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Seconds that an unpacker may take for one case
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// How a list or results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Does what the arguments say; whether no grave case is wrong.
///
/// # Errors
/// If it cannot be done.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<bool> {
    match &arguments.command {
        Word::Layers(arguments) => layers(arguments, out),
        Word::Union(arguments) => union::cli::run(arguments, out),
        Word::Report(arguments) => page(arguments, out),
    }
}

fn layers(arguments: &LayerArguments, out: &mut dyn Write) -> Result<bool> {
    let cases = catalogue::select(&arguments.case)?;
    let mut good = true;
    if let Some(dir) = &arguments.write {
        for case in &cases {
            image::write(dir, case)?;
        }
    }
    if let Some(unpacker) = &arguments.unpacker {
        let unpacker = adapters::find(unpacker, arguments.path.as_deref())?;
        let results = run::run_all(cases, &unpacker, Duration::from_secs(arguments.timeout))?;
        good = report::is_good(&results);
        at(
            "standard output",
            match arguments.format {
                OutputForm::Table => report::table(out, &results),
                OutputForm::Json => writeln!(out, "{:#}", report::json(&unpacker, &results)),
            },
        )?;
    } else if arguments.list || arguments.write.is_none() {
        at("standard output", list(out, &cases, arguments.format))?;
    }
    Ok(good)
}

fn list(out: &mut dyn Write, cases: &[Case], form: OutputForm) -> std::io::Result<()> {
    if form == OutputForm::Json {
        let all: Vec<Value> = cases.iter().map(image::described).collect();
        return writeln!(out, "{:#}", json!(all));
    }
    let width = cases.iter().map(|case| case.id.len()).max().unwrap_or(0);
    cases.iter().try_for_each(|case| {
        writeln!(out, "{:<width$}  {:<9}  {}", case.id, case.class, case.basis())
    })
}

fn page(arguments: &PageArguments, out: &mut dyn Write) -> Result<bool> {
    let first = arguments.path.as_deref();
    let (unpackers, absent) = if arguments.unpacker.is_empty() {
        adapters::present(first)
    } else {
        let named: Result<_> =
            arguments.unpacker.iter().map(|one| adapters::find(one, first)).collect();
        (named?, Vec::new())
    };
    let mut results = Vec::new();
    for unpacker in unpackers {
        let cases = catalogue::select(&arguments.case)?;
        let judged = run::run_all(cases, &unpacker, Duration::from_secs(arguments.timeout))?;
        results.push((unpacker, judged));
    }
    match &arguments.output {
        Some(path) => {
            let mut file = at(path.display(), File::create(path))?;
            at(path.display(), report::page(&mut file, &results, &absent))?;
        }
        None => at("standard output", report::page(out, &results, &absent))?,
    }
    Ok(true)
}
