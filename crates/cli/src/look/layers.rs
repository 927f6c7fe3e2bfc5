//! `strata layers`: the layers of an image as a table, the base first.

use anyhow::Result;
use serde::Serialize;
use strata_tree::DiffId;

use super::render::escaped;
use super::{Screen, quiet};
use crate::{table, units};

/// How many characters of a command a terminal's line shows.
const CREATED_BY: usize = 60;

/// One layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct LayerRow {
    /// Its id.
    pub(crate) diff_id: DiffId,
    /// The names that it says something of, whiteouts too.
    pub(crate) entries: u64,
    /// Bytes of its regular files, each name once.
    pub(crate) bytes: u64,
    /// Bytes that the store keeps for it alone.
    pub(crate) stored_bytes: u64,
    /// What made it, from the image's history.
    pub(crate) created_by: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    index: usize,
    diff_id: String,
    entries: u64,
    bytes: u64,
    stored_bytes: u64,
    created_by: Option<&'a str>,
}

/// Writes the table.
///
/// # Errors
/// `out` fails.
pub(crate) fn run(rows: &[LayerRow], screen: &mut Screen<'_>) -> Result<()> {
    quiet(if screen.json { json(rows, screen) } else { rows_of_text(rows, screen) })
}

fn json(rows: &[LayerRow], screen: &mut Screen<'_>) -> Result<()> {
    let rows: Vec<Shown<'_>> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| Shown {
            index,
            diff_id: row.diff_id.to_string(),
            entries: row.entries,
            bytes: row.bytes,
            stored_bytes: row.stored_bytes,
            created_by: row.created_by.as_deref(),
        })
        .collect();
    serde_json::to_writer_pretty(&mut *screen.out, &rows).map_err(std::io::Error::from)?;
    writeln!(screen.out)?;
    Ok(screen.out.flush()?)
}

fn rows_of_text(rows: &[LayerRow], screen: &mut Screen<'_>) -> Result<()> {
    let mut cells = vec![["INDEX", "LAYER", "ENTRIES", "SIZE", "CREATED BY"].map(str::to_owned)];
    for (index, row) in rows.iter().enumerate() {
        cells.push([
            index.to_string(),
            row.diff_id.short(),
            row.entries.to_string(),
            units::size(row.bytes),
            command(row.created_by.as_deref().unwrap_or("-"), screen.terminal),
        ]);
    }
    table::print(&cells, &mut screen.out)?;
    Ok(screen.out.flush()?)
}

/// A history line on one line: blanks joined, cut on a terminal.
fn command(text: &str, terminal: bool) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let safe = escaped(joined.as_bytes());
    if !terminal || safe.chars().count() <= CREATED_BY {
        return safe.into_owned();
    }
    safe.chars().take(CREATED_BY - 1).chain(['\u{2026}']).collect()
}
