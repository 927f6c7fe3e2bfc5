//! `strata-conform union`: lists the rules, plays them, and draws sequences.
//!
//! Invariant: the exit status is 1 if a rule of class security or data-loss is wrong or a drawn
//! sequence differs, and 2 if the suite could not do what it was told, or nothing of it.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::mounts::{self, UnionMount};
use super::play::{Ignored, UnionPlace};
use super::random;
use super::rules::{self, Rule};
use super::search::{Differing, RuleResult, Search, play_rules, search};
use crate::judge::{Judgement, Verdict};
use crate::progress::StatusLine;
use crate::report::OutputForm;
use crate::{Error, Result, at};

/// What `union` is told.
#[derive(Debug, Args)]
pub struct UnionArguments {
    /// List the rules
    #[arg(long)]
    list: bool,
    /// The union: a known name, or a command with %lower (colons between several, the uppermost
    /// first), %upper, %work and %mnt
    #[arg(long, value_name = "NAME|COMMAND")]
    mount: Option<String>,
    /// How a command's mount is unmounted [default: umount %mnt]
    #[arg(long, value_name = "COMMAND")]
    unmount: Option<String>,
    /// Only these rules
    #[arg(long, value_name = "ID", num_args = 1..)]
    rule: Vec<String>,
    /// Draw this many sequences of operations, instead of the rules
    #[arg(long, value_name = "COUNT", conflicts_with = "rule", requires = "mount")]
    random: Option<u64>,
    /// Draw no further sequence after this time
    #[arg(long, value_name = "SECONDS", requires = "random")]
    seconds: Option<u64>,
    /// The seed of the first sequence; each one after it has the next number
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Operations in a sequence
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    steps: usize,
    /// Go on after a sequence that differs, up to this many
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    differences: usize,
    /// Pass over these differences of drawn sequences
    #[arg(long, value_name = "WHAT", num_args = 1.., value_delimiter = ',')]
    ignore: Vec<Ignored>,
    /// Make lowers and uppers in DIR [default: where temporary files go]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How the list or the results are printed
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: OutputForm,
    /// Look for programs in DIR before the path
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// Does what the arguments say; whether nothing grave is wrong.
///
/// # Errors
/// If it cannot be done.
pub fn run(arguments: &UnionArguments, out: &mut dyn Write) -> Result<bool> {
    let Some(mount) = &arguments.mount else {
        at("standard output", list(out, &rules::select(&arguments.rule)?, arguments.format))?;
        return Ok(true);
    };
    let path = arguments.path.as_deref();
    let union = mounts::find(mount, arguments.unmount.as_deref(), path)?;
    let place = UnionPlace::new(arguments.dir.as_deref())?;
    let union = compared_as_possible(union, &place);
    if let Some(count) = arguments.random {
        let what = Search {
            count,
            time: arguments.seconds.map(Duration::from_secs),
            seed: arguments.seed,
            steps: arguments.steps,
            differences: arguments.differences,
            ignored: arguments.ignore.clone(),
        };
        let mut progress = StatusLine::new();
        let (played, found) = search(&union, &place, &what, |text| progress.show(text))?;
        drop(progress);
        let done = match arguments.format {
            OutputForm::Table => print_found(out, &union, played, &found),
            OutputForm::Json => {
                writeln!(out, "{:#}", json_found(&union, arguments.seed, played, &found))
            }
        };
        at("standard output", done)?;
        return Ok(found.is_empty());
    }
    let rules = rules::select(&arguments.rule)?;
    let mut progress = StatusLine::new();
    let results = play_rules(&union, rules, &place, |text| progress.show(text))?;
    drop(progress);
    let done = match arguments.format {
        OutputForm::Table => table(out, &results),
        OutputForm::Json => writeln!(out, "{:#}", json(&union, &results)),
    };
    at("standard output", done)?;
    match whether_ran(&results) {
        Ok(()) => Ok(is_good(&results)),
        Err(why) => Err(Error::NothingRan(why)),
    }
}

/// The union, whose uppers the kernel is not asked to mount where it cannot: that is said.
pub(crate) fn compared_as_possible(mut union: UnionMount, place: &UnionPlace) -> UnionMount {
    if let Some(error) = place.kernel_refusal(&union) {
        let name = &union.name;
        // The results are right without it.
        let _ = writeln!(
            std::io::stderr(),
            "strata-conform: {name}: what the kernel reads from its uppers is not compared: {error}"
        );
        union.kernel_options = None;
    }
    union
}

/// Nothing if a rule was asked; else why none was.
pub(crate) fn whether_ran(results: &[RuleResult]) -> std::result::Result<(), String> {
    let judged = || results.iter().filter_map(|(_, judged)| judged.as_ref());
    if judged().any(|judgement| judgement.verdict != Verdict::NotRun) {
        return Ok(());
    }
    let reason = judged().find_map(|judgement| judgement.reasons.first().cloned());
    Err(reason.unwrap_or_else(|| {
        "the running user cannot make the lowers or do the operations; root can".to_owned()
    }))
}

/// Whether no rule of a grave class is wrong.
#[must_use]
pub fn is_good(results: &[RuleResult]) -> bool {
    let wrong = |judgement: &Judgement| judgement.verdict == Verdict::Wrong;
    !results
        .iter()
        .any(|(rule, judged)| rule.class.is_grave() && judged.as_ref().is_some_and(wrong))
}

fn list(out: &mut dyn Write, rules: &[Rule], form: OutputForm) -> std::io::Result<()> {
    if form == OutputForm::Json {
        let all = rules.iter().map(|rule| {
            let (id, class, spec) = (&rule.id, rule.class.name(), rule.basis());
            json!({"id": id, "class": class, "spec": spec, "why": rule.why})
        });
        return writeln!(out, "{:#}", Value::Array(all.collect()));
    }
    let width = rules.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    rules.iter().try_for_each(|rule| {
        writeln!(out, "{:<width$}  {:<9}  {}", rule.id, rule.class, rule.basis())
    })
}

fn name(judgement: Option<&Judgement>) -> &'static str {
    judgement.map_or("not run", |judgement| judgement.verdict.name())
}

/// The table for people.
///
/// # Errors
/// If `out` cannot be written.
pub fn table(out: &mut dyn Write, results: &[RuleResult]) -> std::io::Result<()> {
    let width = results.iter().map(|(rule, _)| rule.id.len()).max().unwrap_or(0);
    for (rule, judgement) in results {
        let verdict = name(judgement.as_ref());
        writeln!(out, "{verdict:<8} {:<9} {:<width$}", rule.class, rule.id)?;
        for reason in judgement.iter().flat_map(|judgement| &judgement.reasons) {
            writeln!(out, "         {reason}")?;
        }
    }
    let mut counts = Vec::new();
    for verdict in ["pass", "allowed", "wrong", "not run"] {
        let count = results.iter().filter(|(_, judged)| name(judged.as_ref()) == verdict).count();
        counts.push(format!("{count} {verdict}"));
    }
    writeln!(out, "{} rules: {}", results.len(), counts.join(", "))
}

/// The same as JSON.
#[must_use]
pub fn json(union: &UnionMount, results: &[RuleResult]) -> Value {
    let rules = results.iter().map(|(rule, judged)| {
        let reasons = judged.as_ref().map(|judgement| &judgement.reasons);
        json!({
            "id": rule.id,
            "class": rule.class.name(),
            "result": name(judged.as_ref()),
            "reasons": reasons.cloned().unwrap_or_default(),
        })
    });
    let rules: Vec<Value> = rules.collect();
    json!({"union": union.name, "version": union.version, "rules": rules})
}

fn print_found(
    out: &mut dyn Write,
    union: &UnionMount,
    played: u64,
    found: &[Differing],
) -> std::io::Result<()> {
    for one in found {
        writeln!(out, "seed {}:", one.seed)?;
        for difference in &one.differences {
            writeln!(out, "  {difference}")?;
        }
        writeln!(out, "\n{}", one.script(union))?;
    }
    writeln!(out, "{played} sequences: {} differ", found.len())
}

fn json_found(union: &UnionMount, seed: u64, played: u64, found: &[Differing]) -> Value {
    let all = found.iter().map(|one| {
        json!({
            "seed": one.seed,
            "differences": one.differences,
            "operations": one.sequence.operations.len(),
            "script": one.script(union),
        })
    });
    let all: Vec<Value> = all.collect();
    json!({
        "union": union.name,
        "version": union.version,
        "generator": random::VERSION,
        "first_seed": seed,
        "sequences": played,
        "differ": all,
    })
}
