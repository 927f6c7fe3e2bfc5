//! The command line: `layers` lists, writes and runs the cases, `union` the rules, and `report`
//! runs all unpackers and unions.
//!
//! Invariant: the exit status of `layers` is 0, 1 if a case of class security or data-loss is
//! wrong, and 2 if the suite could not do what it was told; `report` states facts and exits with
//! 0, or with 2 also if no program could be run.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::adapters::{self, Unpacker};
use crate::catalogue::{self, Case};
use crate::judge::Verdict;
use crate::page::{self, Drawn, Page, VerdictMatrix};
use crate::powers::Powers;
use crate::progress::StatusLine;
use crate::report::OutputForm;
use crate::run::CaseResult;
use crate::union::cli::UnionArguments;
use crate::union::mounts::{self, UnionMount};
use crate::union::play::{Ignored, UnionPlace};
use crate::union::search::{self, RuleResult, Search};
use crate::union::{self, rules};
use crate::{Error, Result, at, html, image, report, run};

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
    /// Run all known unpackers and unions of this machine, and write one page on them
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
    /// Seconds that an unpacker, and then its mount, may take for one case
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

#[derive(Debug, Args)]
struct PageArguments {
    /// Only these unpackers: names, or commands as in `layers`
    #[arg(long, value_name = "NAME|COMMAND", num_args = 1..)]
    unpacker: Vec<String>,
    /// Only these unions: names, or commands as in `union`
    #[arg(long, value_name = "NAME|COMMAND", num_args = 1..)]
    union: Vec<String>,
    /// Do not print the details of these cases and rules: their authors have not answered yet
    #[arg(long, value_name = "ID", num_args = 1..)]
    withhold: Vec<String>,
    /// Draw this many sequences of operations for each union
    #[arg(long, value_name = "COUNT", default_value_t = 300)]
    random: u64,
    /// Write the page to FILE as HTML too: one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Only these cases
    #[arg(long, value_name = "ID", num_args = 1..)]
    case: Vec<String>,
    /// The file to write, in Markdown [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Look for programs in DIR before the path
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Seconds that an unpacker, and then its mount, may take for one case
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
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
        let path = dir.join("VERSION");
        let text = format!("{}\n", catalogue::VERSION);
        at(path.display(), std::fs::write(&path, text))?;
    }
    if let Some(unpacker) = &arguments.unpacker {
        let unpacker = adapters::find(unpacker, arguments.path.as_deref())?;
        let results = run::run_all(cases, &unpacker, Duration::from_secs(arguments.timeout))?;
        good = report::is_good(&results);
        let powers = Powers::here()?;
        at(
            "standard output",
            match arguments.format {
                OutputForm::Table => report::table(out, &results, powers),
                OutputForm::Json => {
                    writeln!(out, "{:#}", report::json(&unpacker, &results, powers))
                }
            },
        )?;
        let ran = results.iter().any(|(_, judgement)| judgement.verdict != Verdict::NotRun);
        if let (false, Some((_, judgement))) = (ran, results.first()) {
            return Err(Error::NothingRan(judgement.reasons.join("; ")));
        }
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
    let mut progress = StatusLine::new();
    let place = UnionPlace::new(None)?;
    let mut found = Findings::new(Powers::here()?, place.powers());
    let first = arguments.path.as_deref();
    let (unpackers, absent) = if arguments.unpacker.is_empty() {
        adapters::present(first)
    } else {
        let named: Result<_> =
            arguments.unpacker.iter().map(|one| adapters::find(one, first)).collect();
        (named?, Vec::new())
    };
    found.absent_unpackers = absent.into_iter().map(|(name, why)| (name.to_owned(), why)).collect();
    for unpacker in unpackers {
        progress.show(&format!("{}: all cases", unpacker.name));
        let cases = catalogue::select(&arguments.case)?;
        match run::run_all(cases, &unpacker, Duration::from_secs(arguments.timeout)) {
            Ok(judged) => found.unpackers.push((unpacker, judged)),
            Err(error) => found.absent_unpackers.push((unpacker.name, error.to_string())),
        }
        write_page(arguments, &found)?;
    }
    let (unions, absent) = if arguments.union.is_empty() {
        mounts::present(first)
    } else {
        let named: Result<_> =
            arguments.union.iter().map(|one| mounts::find(one, None, first)).collect();
        (named?, Vec::new())
    };
    found.absent_unions = absent.into_iter().map(|(name, why)| (name.to_owned(), why)).collect();
    for union in unions {
        let union = union::cli::compared_as_possible(union, &place);
        let played = rules::all().and_then(|rules| {
            search::play_rules(&union, rules, &place, |text| progress.show(text))
        });
        match played {
            Ok(results) => {
                let what = arguments.search();
                let (count, differ) =
                    search::search(&union, &place, &what, |text| progress.show(text))?;
                found.drawn.push(Drawn::new(&union, count, &differ));
                found.unions.push((union, results));
            }
            Err(error) => found.absent_unions.push((union.name, error.to_string())),
        }
        write_page(arguments, &found)?;
    }
    drop(progress);
    if arguments.output.is_none() {
        at("standard output", page::markdown(out, &found.page(&arguments.withhold)))?;
    }
    let ran =
        |(_, results): &(UnionMount, Vec<RuleResult>)| union::cli::whether_ran(results).is_ok();
    if found.unpackers.is_empty() && !found.unions.iter().any(ran) {
        return Err(Error::NothingRan("the page says why of each program".to_owned()));
    }
    Ok(true)
}

/// What has been found so far.
struct Findings {
    unpacking: Powers,
    mounting: Powers,
    unpackers: Vec<(Unpacker, Vec<CaseResult>)>,
    absent_unpackers: Vec<(String, String)>,
    unions: Vec<(UnionMount, Vec<RuleResult>)>,
    absent_unions: Vec<(String, String)>,
    drawn: Vec<Drawn>,
}

impl Findings {
    fn new(unpacking: Powers, mounting: Powers) -> Self {
        Self {
            unpacking,
            mounting,
            unpackers: Vec::new(),
            absent_unpackers: Vec::new(),
            unions: Vec::new(),
            absent_unions: Vec::new(),
            drawn: Vec::new(),
        }
    }

    fn page(&self, withheld: &[String]) -> Page {
        let mut matrices = vec![
            VerdictMatrix::of_cases(&self.unpackers, &self.absent_unpackers, self.unpacking),
            VerdictMatrix::of_rules(&self.unions, &self.absent_unions, self.mounting),
        ];
        let rows = matrices.iter_mut().flat_map(|matrix| &mut matrix.rows);
        for row in rows.filter(|row| withheld.contains(&row.id)) {
            for judgement in row.cells.iter_mut().flatten() {
                judgement.reasons = vec!["withheld until its authors have answered".to_owned()];
            }
        }
        let is_root = rustix::process::geteuid().is_root();
        Page { matrices, drawn: self.drawn.clone(), is_root }
    }
}

impl PageArguments {
    /// How far the page's search on each union goes.
    fn search(&self) -> Search {
        Search {
            count: self.random,
            time: None,
            seed: 1,
            steps: 12,
            differences: 1,
            ignored: vec![Ignored::Times, Ignored::Xattrs, Ignored::OciNames, Ignored::Refusals],
        }
    }
}

/// Writes the files as far as the run is, so that an interrupted run leaves what it has found.
fn write_page(arguments: &PageArguments, found: &Findings) -> Result<()> {
    if let Some(path) = &arguments.output {
        let mut file = at(path.display(), File::create(path))?;
        at(path.display(), page::markdown(&mut file, &found.page(&arguments.withhold)))?;
    }
    if let Some(path) = &arguments.html {
        let mut file = at(path.display(), File::create(path))?;
        at(path.display(), html::html(&mut file, &found.page(&arguments.withhold)))?;
    }
    Ok(())
}
