//! What was found, as one page: programs across, cases or rules down, and below it what differs.
//!
//! The model: a [`VerdictMatrix`] is a table of verdicts with their reasons; the page of all
//! unpackers and unions has one for each kind. Both forms of the page, Markdown here and HTML in
//! [`crate::html`], draw the same matrices.
//!
//! Invariants: every row has a cell for each program; text of a program stands in code spans; the
//! page states what was seen, with the versions that were seen, and judges nobody.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::adapters::Unpacker;
use crate::catalogue::Class;
use crate::judge::{Judgement, Verdict};
use crate::powers::Powers;
use crate::run::CaseResult;
use crate::union::mounts::UnionMount;
use crate::union::search::{Differing, RuleResult};

/// One program and its version.
#[derive(Debug, Clone)]
pub struct Column {
    /// As the page names it.
    pub name: String,
    /// As it says it.
    pub version: String,
}

/// One case or rule, with a cell for each program; none where it was not run.
#[derive(Debug, Clone)]
pub struct MatrixRow {
    /// The id of the case or rule.
    pub id: String,
    /// What a wrong answer costs.
    pub class: Class,
    /// The sentence that it rests on.
    pub basis: String,
    /// The argument.
    pub why: String,
    /// What the running user cannot make: it was not compared ([`Powers::beyond`]).
    pub left_out: Vec<&'static str>,
    /// What the programs did.
    pub cells: Vec<Option<Judgement>>,
}

/// A table of verdicts.
#[derive(Debug, Clone)]
pub struct VerdictMatrix {
    /// The heading.
    pub title: String,
    /// The programs.
    pub columns: Vec<Column>,
    /// The cases or rules.
    pub rows: Vec<MatrixRow>,
    /// Programs that were not run, and why.
    pub absent: Vec<(String, String)>,
}

/// The first drawn sequence of each union that differed, as a script.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The union.
    pub name: String,
    /// How many sequences were played.
    pub played: u64,
    /// The differences and the script; none if no sequence differed.
    pub found: Option<(Vec<String>, String)>,
}

/// All that the page says.
#[derive(Debug, Clone)]
pub struct Page {
    /// Unpackers and unions.
    pub matrices: Vec<VerdictMatrix>,
    /// What the drawn sequences found.
    pub drawn: Vec<Drawn>,
    /// Whether root ran the programs.
    pub is_root: bool,
}

impl Page {
    /// Who ran the programs.
    pub(crate) fn user(&self) -> &'static str {
        if self.is_root { "root" } else { "an ordinary user" }
    }

    /// Whether something was not compared.
    pub(crate) fn is_partial(&self) -> bool {
        let mut rows = self.matrices.iter().flat_map(|matrix| &matrix.rows);
        rows.any(|row| (0..row.cells.len()).any(|at| row.is_partial(at)))
    }
}

/// The verdicts in the order of the page.
pub(crate) const VERDICTS: [&str; 5] = ["pass", "allowed", "refused", "wrong", "not run"];

impl MatrixRow {
    /// The verdict of a cell, as the page writes it.
    #[must_use]
    pub fn verdict(&self, at: usize) -> &'static str {
        let cell = self.cells.get(at).and_then(Option::as_ref);
        cell.map_or("not run", |judgement| judgement.verdict.name())
    }

    /// Whether the verdict of a cell rests on a tree that was compared only in part. What differs
    /// does so whatever was left out.
    fn is_partial(&self, at: usize) -> bool {
        !self.left_out.is_empty() && ["pass", "allowed"].contains(&self.verdict(at))
    }

    /// A cell as tables have it.
    pub(crate) fn cell(&self, at: usize) -> String {
        let verdict = self.verdict(at);
        if self.is_partial(at) { format!("{verdict} {PARTIAL}") } else { verdict.to_owned() }
    }

    /// Each verdict with its reasons and the programs that have both, of those that a reader has to
    /// know: what is refused, what is wrong, and what could not be asked.
    #[must_use]
    pub fn told<'a>(
        &self,
        columns: &'a [Column],
    ) -> Vec<(&'static str, Vec<String>, Vec<&'a str>)> {
        let mut told: BTreeMap<(&'static str, Vec<String>), Vec<&str>> = BTreeMap::new();
        for (column, cell) in columns.iter().zip(&self.cells) {
            if let Some(judgement) = cell
                && matches!(judgement.verdict, Verdict::Wrong | Verdict::Refused | Verdict::NotRun)
            {
                let key = (judgement.verdict.name(), judgement.reasons.clone());
                told.entry(key).or_default().push(&column.name);
            }
        }
        told.into_iter().map(|((verdict, reasons), names)| (verdict, reasons, names)).collect()
    }
}

impl VerdictMatrix {
    /// The cases against unpackers.
    #[must_use]
    pub fn of_cases(
        results: &[(Unpacker, Vec<CaseResult>)],
        absent: &[(String, String)],
        powers: Powers,
    ) -> Self {
        let columns = results.iter().map(|(one, all)| {
            let column = Column { name: one.name.clone(), version: one.version.clone() };
            (column, all.iter().map(|(_, judged)| Some(judged.clone())).collect())
        });
        let first = results.first().map(|(_, first)| first.as_slice()).unwrap_or_default();
        let rows = first.iter().map(|(case, _)| MatrixRow {
            id: case.id.clone(),
            class: case.class,
            basis: case.basis(),
            why: case.why.clone(),
            left_out: powers.beyond(&case.trees),
            cells: Vec::new(),
        });
        Self::joined("Unpackers", columns.collect(), rows.collect(), absent)
    }

    /// The rules against unions.
    #[must_use]
    pub fn of_rules(
        results: &[(UnionMount, Vec<RuleResult>)],
        absent: &[(String, String)],
        powers: Powers,
    ) -> Self {
        let columns = results.iter().map(|(one, all)| {
            let column = Column { name: one.name.clone(), version: one.version.clone() };
            (column, all.iter().map(|(_, judged)| judged.clone()).collect())
        });
        let first = results.first().map(|(_, first)| first.as_slice()).unwrap_or_default();
        let rows = first.iter().map(|(rule, _)| MatrixRow {
            id: rule.id.clone(),
            class: rule.class,
            basis: rule.basis(),
            why: rule.why.clone(),
            left_out: powers.beyond(&rule.trees),
            cells: Vec::new(),
        });
        Self::joined("Union mounts", columns.collect(), rows.collect(), absent)
    }

    /// Puts the verdicts of each program, row by row, into rows without cells.
    fn joined(
        title: &str,
        programs: Vec<(Column, Vec<Option<Judgement>>)>,
        mut rows: Vec<MatrixRow>,
        absent: &[(String, String)],
    ) -> Self {
        let mut columns = Vec::new();
        for (column, verdicts) in programs {
            columns.push(column);
            for (row, verdict) in rows.iter_mut().zip(verdicts) {
                row.cells.push(verdict);
            }
        }
        Self { title: title.to_owned(), columns, rows, absent: absent.to_vec() }
    }

    /// How many cells of a program have each of [`VERDICTS`].
    pub(crate) fn counts(&self, at: usize) -> [usize; 5] {
        VERDICTS.map(|verdict| self.rows.iter().filter(|row| row.verdict(at) == verdict).count())
    }
}

impl Drawn {
    /// What a search on a union found.
    #[must_use]
    pub fn new(union: &UnionMount, played: u64, found: &[Differing]) -> Self {
        let found = found.first().map(|one| (one.differences.clone(), one.script(union)));
        Self { name: union.name.clone(), played, found }
    }
}

/// What the verdicts mean, a line each.
pub(crate) const MEANINGS: [(&str, &str); 5] = [
    ("pass", "the expected tree, or a refusal of what must be refused"),
    ("allowed", "another tree, or a refusal, that the case or rule allows"),
    ("refused", "a refusal where a tree is expected"),
    ("wrong", "anything else"),
    (
        "not run",
        "this machine lacks what the case or rule needs, or does not tell who serves a mount",
    ),
];

/// What a cell says beside a verdict on a part.
const PARTIAL: &str = "(in part)";

/// And its meaning, where there is one.
pub(crate) const PARTIAL_MEANING: (&str, &str) =
    ("in part", "what the running user cannot make was not compared");

/// The page in Markdown.
///
/// # Errors
/// If `out` cannot be written.
pub fn markdown(out: &mut dyn Write, page: &Page) -> io::Result<()> {
    writeln!(out, "# Conformance of unpackers and union mounts\n")?;
    writeln!(out, "`scripts/conform` writes this page; [the guide](guide/conform.md) says what a")?;
    writeln!(out, "case and a rule are, and how to run them on any program. Each program ran as")?;
    writeln!(
        out,
        "{}, with storage of its own and its default options unless its name says",
        page.user()
    )?;
    writeln!(out, "otherwise.\n")?;
    let partial = page.is_partial().then_some(PARTIAL_MEANING);
    for (verdict, meaning) in MEANINGS.into_iter().chain(partial) {
        writeln!(out, "* *{verdict}*: {meaning}")?;
    }
    for matrix in &page.matrices {
        writeln!(out, "\n## {}\n", matrix.title)?;
        summary(out, matrix)?;
        for class in Class::ALL {
            verdicts(out, matrix, class)?;
        }
        writeln!(out, "\n### {}: what differs", matrix.title)?;
        for row in &matrix.rows {
            details(out, matrix, row)?;
        }
    }
    if !page.drawn.is_empty() {
        writeln!(out, "\n## Drawn sequences\n")?;
        writeln!(
            out,
            "The first random sequence of operations that differs from a plain directory,"
        )?;
        writeln!(out, "made small. Times, extended attributes, names that begin with `.wh.` and")?;
        writeln!(out, "refused operations are passed over here.")?;
    }
    for drawn in &page.drawn {
        let Drawn { name, played, found } = drawn;
        match found {
            None => writeln!(out, "\n### {name}: {played} sequences, none differs")?,
            Some((differences, script)) => {
                writeln!(out, "\n### {name}: sequence {played}\n")?;
                for difference in differences {
                    writeln!(out, "* {}", code(difference))?;
                }
                writeln!(out, "\n```sh\n{script}```")?;
            }
        }
    }
    Ok(())
}

fn summary(out: &mut dyn Write, matrix: &VerdictMatrix) -> io::Result<()> {
    writeln!(out, "| name | version | {} |", VERDICTS.join(" | "))?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for (at, Column { name, version }) in matrix.columns.iter().enumerate() {
        let counts = matrix.counts(at).map(|count| count.to_string());
        writeln!(out, "| {name} | {version} | {} |", counts.join(" | "))?;
    }
    for (name, why) in &matrix.absent {
        writeln!(out, "| {name} | not here: {why} | | | | | |")?;
    }
    Ok(())
}

fn verdicts(out: &mut dyn Write, matrix: &VerdictMatrix, class: Class) -> io::Result<()> {
    if !matrix.rows.iter().any(|row| row.class == class) {
        return Ok(());
    }
    writeln!(out, "\n### {}: {class}\n", matrix.title)?;
    let names: Vec<&str> = matrix.columns.iter().map(|column| column.name.as_str()).collect();
    writeln!(out, "| | {} |", names.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(names.len()))?;
    for row in matrix.rows.iter().filter(|row| row.class == class) {
        let all: Vec<String> = (0..names.len()).map(|at| row.cell(at)).collect();
        writeln!(out, "| {} | {} |", row.id, all.join(" | "))?;
    }
    Ok(())
}

/// Where a program does something else than the row expects.
fn details(out: &mut dyn Write, matrix: &VerdictMatrix, row: &MatrixRow) -> io::Result<()> {
    let told = row.told(&matrix.columns);
    let is_partial = (0..row.cells.len()).any(|at| row.is_partial(at));
    if told.is_empty() && !is_partial {
        return Ok(());
    }
    writeln!(out, "\n#### {}\n", row.id)?;
    writeln!(out, "{}. {}\n", row.basis.trim_end_matches('.'), row.why)?;
    for (verdict, reasons, names) in told {
        let reasons: Vec<String> = reasons.iter().map(|reason| code(reason)).collect();
        writeln!(out, "* {}: {verdict}: {}", names.join(", "), reasons.join("; "))?;
    }
    if is_partial {
        writeln!(out, "* not compared: {}", row.left_out.join(", "))?;
    }
    Ok(())
}

/// Text in a code span.
fn code(text: &str) -> String {
    if text.is_empty() { "no message".to_owned() } else { format!("`{}`", text.replace('`', "'")) }
}
