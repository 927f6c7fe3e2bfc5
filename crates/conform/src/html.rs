//! The page of [`crate::page`] as one HTML file that needs nothing else.
//!
//! Invariants: every text is escaped; nothing is fetched and nothing runs: the page has no script,
//! and details open by the browser's own `<details>`.

use std::io::{self, Write};

use crate::catalogue::Class;
use crate::page::{Drawn, MEANINGS, MatrixRow, PARTIAL_MEANING, Page, VERDICTS, VerdictMatrix};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em;
  color: #1b1b1b; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border: 1px solid #ccc; padding: .2em .6em; text-align: left; vertical-align: top }
thead th { position: sticky; top: 0; background: #f4f4f4 }
td.pass { background: #e3f3e3 } td.allowed { background: #eef5d8 }
td.refused { background: #fdf0c8 } td.wrong { background: #f9d6d2 } td.not { color: #888 }
summary { cursor: pointer; font-family: monospace } pre { background: #f4f4f4; padding: .8em;
  overflow-x: auto }
p.basis { color: #555; margin: .2em 0 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } thead th, pre { background: #242424 }
  th, td { border-color: #444 } td.pass { background: #1d3a1d } td.allowed { background: #2f3a15 }
  td.refused { background: #4a3d10 } td.wrong { background: #52201b } p.basis { color: #aaa }
}";

/// Writes the page.
///
/// # Errors
/// If `out` cannot be written.
pub fn html(out: &mut dyn Write, page: &Page) -> io::Result<()> {
    let title = "Conformance of unpackers and union mounts";
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width\">")?;
    writeln!(out, "<title>{title}</title>\n<style>{STYLE}\n</style>\n<h1>{title}</h1>\n<ul>")?;
    let partial = page.is_partial().then_some(PARTIAL_MEANING);
    for (verdict, meaning) in MEANINGS.into_iter().chain(partial) {
        writeln!(out, "<li><b>{verdict}</b>: {}", escaped(meaning))?;
    }
    writeln!(out, "</ul>\n<p>Each program ran as {}.</p>", page.user())?;
    for matrix in &page.matrices {
        writeln!(out, "<h2>{}</h2>", escaped(&matrix.title))?;
        summary(out, matrix)?;
        for class in Class::ALL {
            let rows: Vec<&MatrixRow> =
                matrix.rows.iter().filter(|row| row.class == class).collect();
            if !rows.is_empty() {
                verdicts(out, matrix, class, &rows)?;
            }
        }
    }
    if !page.drawn.is_empty() {
        writeln!(out, "<h2>Drawn sequences</h2>")?;
    }
    page.drawn.iter().try_for_each(|one| drawn(out, one))?;
    writeln!(out, "</html>")
}

fn summary(out: &mut dyn Write, matrix: &VerdictMatrix) -> io::Result<()> {
    writeln!(out, "<table><thead><tr><th>name<th>version")?;
    VERDICTS.iter().try_for_each(|verdict| write!(out, "<th>{verdict}"))?;
    writeln!(out, "</thead>")?;
    for (at, column) in matrix.columns.iter().enumerate() {
        write!(out, "<tr><td>{}<td>{}", escaped(&column.name), escaped(&column.version))?;
        matrix.counts(at).iter().try_for_each(|count| write!(out, "<td>{count}"))?;
        writeln!(out)?;
    }
    for (name, why) in &matrix.absent {
        writeln!(out, "<tr><td>{}<td colspan=6>not here: {}", escaped(name), escaped(why))?;
    }
    writeln!(out, "</table>")
}

fn verdicts(
    out: &mut dyn Write,
    matrix: &VerdictMatrix,
    class: Class,
    rows: &[&MatrixRow],
) -> io::Result<()> {
    writeln!(out, "<h3>{class}</h3>\n<table><thead><tr><th>")?;
    matrix.columns.iter().try_for_each(|column| write!(out, "<th>{}", escaped(&column.name)))?;
    writeln!(out, "</thead>")?;
    for row in rows {
        write!(out, "<tr><td><details><summary>{}</summary>", escaped(&row.id))?;
        let basis = escaped(row.basis.trim_end_matches('.'));
        write!(out, "<p class=basis>{basis}. {}</p>", escaped(&row.why))?;
        for (verdict, reasons, names) in row.told(&matrix.columns) {
            let names = escaped(&names.join(", "));
            write!(out, "<p>{names}: {verdict}</p><pre>{}</pre>", escaped(&reasons.join("\n")))?;
        }
        write!(out, "</details>")?;
        for at in 0..matrix.columns.len() {
            let verdict = row.verdict(at);
            write!(out, "<td class=\"{verdict}\">{}", row.cell(at))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "</table>")
}

fn drawn(out: &mut dyn Write, drawn: &Drawn) -> io::Result<()> {
    let (name, played) = (escaped(&drawn.name), drawn.played);
    match &drawn.found {
        None => writeln!(out, "<p>{name}: {played} sequences, none differs</p>"),
        Some((differences, script)) => {
            let (differences, script) = (escaped(&differences.join("; ")), escaped(script));
            writeln!(out, "<details><summary>{name}: sequence {played}: {differences}</summary>")?;
            writeln!(out, "<pre>{script}</pre></details>")
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
