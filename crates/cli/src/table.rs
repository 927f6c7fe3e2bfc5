//! Columns for people, as docker aligns them.
//!
//! Invariant: a column is as wide as its widest cell and three spaces; the last is not padded,
//! and no line ends with blanks.

use std::io::Write;

use anyhow::Result;

/// Prints rows of cells; the first row is the heading.
pub(crate) fn print<const N: usize>(rows: &[[String; N]], out: &mut impl Write) -> Result<()> {
    let rows: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    print_cells(&rows, out)
}

/// The same, of any number of cells.
pub(crate) fn print_rows(rows: &[Vec<String>], out: &mut impl Write) -> Result<()> {
    let rows: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    print_cells(&rows, out)
}

/// Prints lines whose cells are parted by tabs; the first is the heading.
pub(crate) fn print_columns(lines: &[String], out: &mut dyn Write) -> Result<()> {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    print_cells(&rows, out)
}

fn print_cells(rows: &[Vec<&str>], out: &mut dyn Write) -> Result<()> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
