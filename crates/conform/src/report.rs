//! Results as text: a table for people, JSON for programs, Markdown for the page of all unpackers.
//!
//! Invariant: text of an unpacker is escaped before it gets here, and stands in code spans on the
//! page.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::adapters::Unpacker;
use crate::catalogue::Class;
use crate::judge::Verdict;
use crate::run::CaseResult;

/// Whether no case of a grave class is wrong.
#[must_use]
pub fn is_good(results: &[CaseResult]) -> bool {
    !results
        .iter()
        .any(|(case, judgement)| judgement.verdict == Verdict::Wrong && case.class.is_grave())
}

fn count(results: &[CaseResult], verdict: Verdict) -> usize {
    results.iter().filter(|(_, judgement)| judgement.verdict == verdict).count()
}

const VERDICTS: [Verdict; 4] = [Verdict::Pass, Verdict::Allowed, Verdict::Refused, Verdict::Wrong];

/// The table for people.
///
/// # Errors
/// If `out` cannot be written.
pub fn table(out: &mut dyn Write, results: &[CaseResult]) -> io::Result<()> {
    let width = results.iter().map(|(case, _)| case.id.len()).max().unwrap_or(0);
    for (case, judgement) in results {
        writeln!(out, "{:<8} {:<9} {:<width$}", judgement.verdict, case.class, case.id)?;
        let told = matches!(judgement.verdict, Verdict::Wrong | Verdict::Refused);
        for reason in judgement.reasons.iter().filter(|_| told) {
            writeln!(out, "         {reason}")?;
        }
    }
    let counts: Vec<String> =
        VERDICTS.iter().map(|verdict| format!("{} {verdict}", count(results, *verdict))).collect();
    writeln!(out, "{} cases: {}", results.len(), counts.join(", "))
}

/// The same as JSON.
#[must_use]
pub fn json(unpacker: &Unpacker, results: &[CaseResult]) -> Value {
    let cases: Vec<Value> = results
        .iter()
        .map(|(case, judgement)| {
            json!({
                "id": case.id,
                "class": case.class.name(),
                "result": judgement.verdict.name(),
                "reasons": judgement.reasons,
            })
        })
        .collect();
    json!({"unpacker": unpacker.name, "version": unpacker.version, "cases": cases})
}

/// The page of all unpackers, in Markdown.
///
/// # Errors
/// If `out` cannot be written.
pub fn page(
    out: &mut dyn Write,
    results: &[(Unpacker, Vec<CaseResult>)],
    absent: &[(&'static str, String)],
) -> io::Result<()> {
    writeln!(out, "# Unpackers and the cases of `strata-conform`\n")?;
    writeln!(out, "`scripts/conform` writes this page; [the guide](guide/conform.md) says what a")?;
    writeln!(out, "case is and how to run the cases. *pass* is the expected tree or refusal;")?;
    writeln!(out, "*allowed* is another tree, or a refusal, that the case allows; *refused* is a")?;
    writeln!(out, "refusal where a tree is expected; *wrong* is anything else. Each program ran")?;
    writeln!(out, "as root, with storage of its own.\n")?;
    writeln!(out, "| name | version | {} |", VERDICTS.map(Verdict::name).join(" | "))?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (unpacker, results) in results {
        let counts = VERDICTS.map(|verdict| count(results, verdict).to_string());
        let (name, version) = (&unpacker.name, &unpacker.version);
        writeln!(out, "| {name} | {version} | {} |", counts.join(" | "))?;
    }
    for (name, why) in absent {
        writeln!(out, "| {name} | not run: {why} | | | | |")?;
    }
    let names: Vec<&str> = results.iter().map(|(unpacker, _)| unpacker.name.as_str()).collect();
    let Some((_, first)) = results.first() else { return Ok(()) };
    for class in Class::ALL {
        writeln!(out, "\n## {class}\n")?;
        writeln!(out, "| case | {} |", names.join(" | "))?;
        writeln!(out, "|---|{}", "---|".repeat(names.len()))?;
        for (at, (case, _)) in first.iter().enumerate().filter(|(_, (case, _))| case.class == class)
        {
            let verdicts: Vec<&str> =
                results.iter().map(|(_, results)| results[at].1.verdict.name()).collect();
            writeln!(out, "| {} | {} |", case.id, verdicts.join(" | "))?;
        }
    }
    details(out, results, first)
}

/// Where a program shows or does something else than the case expects.
fn details(
    out: &mut dyn Write,
    results: &[(Unpacker, Vec<CaseResult>)],
    first: &[CaseResult],
) -> io::Result<()> {
    writeln!(out, "\n## What differs\n")?;
    writeln!(out, "Each case that a program refuses or shows otherwise, with the basis of the")?;
    writeln!(
        out,
        "expectation, and the difference in the words of the suite or the program's own"
    )?;
    writeln!(out, "last line.")?;
    for (at, (case, _)) in first.iter().enumerate() {
        // The same reasons are told once, with all the names.
        let mut told: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
        for (unpacker, results) in results {
            let judgement = &results[at].1;
            if matches!(judgement.verdict, Verdict::Wrong | Verdict::Refused) {
                let reasons = judgement.reasons.iter().map(|reason| code(reason));
                let reasons: Vec<String> = reasons.collect();
                let key = (judgement.verdict.name(), reasons.join("; "));
                told.entry(key).or_default().push(&unpacker.name);
            }
        }
        if told.is_empty() {
            continue;
        }
        writeln!(out, "\n### {}\n", case.id)?;
        writeln!(out, "{}. {}\n", case.basis().trim_end_matches('.'), case.why)?;
        for ((verdict, reasons), names) in told {
            writeln!(out, "* {}: {verdict}: {reasons}", names.join(", "))?;
        }
    }
    Ok(())
}

/// Text in a code span.
fn code(text: &str) -> String {
    if text.is_empty() { "no message".to_owned() } else { format!("`{}`", text.replace('`', "'")) }
}
