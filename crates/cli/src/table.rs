//! Columns for people, as docker aligns them.
//!
//! Invariant: a column is as wide as its widest cell and three spaces; the last is not padded.

use std::io::Write;

use anyhow::Result;

/// Prints rows of cells; the first row is the heading.
pub(crate) fn print<const N: usize>(rows: &[[String; N]], out: &mut impl Write) -> Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            line.push_str(cell);
            if at + 1 < N {
                line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
            }
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}
