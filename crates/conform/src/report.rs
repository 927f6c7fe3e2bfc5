//! Results of one unpacker as text: a table for people, JSON for programs. [`crate::page`] is the
//! page of all.
//!
//! Invariant: text of an unpacker is escaped before it gets here.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::adapters::Unpacker;
use crate::judge::Verdict;
use crate::powers::Powers;
use crate::run::CaseResult;

/// Whether no case of a grave class is wrong.
#[must_use]
pub fn is_good(results: &[CaseResult]) -> bool {
    !results
        .iter()
        .any(|(case, judgement)| judgement.verdict == Verdict::Wrong && case.class.is_grave())
}

/// How a list or results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputForm {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn count(results: &[CaseResult], verdict: Verdict) -> usize {
    results.iter().filter(|(_, judgement)| judgement.verdict == verdict).count()
}

const VERDICTS: [Verdict; 5] =
    [Verdict::Pass, Verdict::Allowed, Verdict::Refused, Verdict::Wrong, Verdict::NotRun];

/// The table for people.
///
/// # Errors
/// If `out` cannot be written.
pub fn table(out: &mut dyn Write, results: &[CaseResult], powers: Powers) -> io::Result<()> {
    let mut partly = 0;
    let width = results.iter().map(|(case, _)| case.id.len()).max().unwrap_or(0);
    for (case, judgement) in results {
        let beyond = powers.beyond(&case.trees);
        let left_out = match beyond.is_empty() {
            true => String::new(),
            false => format!("  not possible here: {}", beyond.join(", ")),
        };
        partly += usize::from(!beyond.is_empty());
        let line = format!("{:<8} {:<9} {:<width$}", judgement.verdict, case.class, case.id);
        writeln!(out, "{line}{left_out}")?;
        let told = !matches!(judgement.verdict, Verdict::Pass | Verdict::Allowed);
        for reason in judgement.reasons.iter().filter(|_| told) {
            writeln!(out, "         {reason}")?;
        }
    }
    let counts: Vec<String> =
        VERDICTS.iter().map(|verdict| format!("{} {verdict}", count(results, *verdict))).collect();
    writeln!(out, "{} cases: {}", results.len(), counts.join(", "))?;
    match partly {
        0 => Ok(()),
        partly => writeln!(out, "{partly} of them compared in part, for want of privileges"),
    }
}

/// The same as JSON.
#[must_use]
pub fn json(unpacker: &Unpacker, results: &[CaseResult], powers: Powers) -> Value {
    let cases: Vec<Value> = results
        .iter()
        .map(|(case, judgement)| {
            json!({
                "id": case.id,
                "class": case.class.name(),
                "result": judgement.verdict.name(),
                "reasons": judgement.reasons,
                "not_possible_here": powers.beyond(&case.trees),
            })
        })
        .collect();
    json!({"unpacker": unpacker.name, "version": unpacker.version, "cases": cases})
}
