//! A row of the table of manual pages.
//!
//! The model: what clap does not know of a command: what it uses, its exit codes, its relatives.
//!
//! Invariant: rows are data; `mod` makes pages of them.

use super::places::Use;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRow {
    /// The command, as it is typed after `strata`.
    pub(super) of: &'static str,
    pub(super) uses: &'static [Use],
    /// What each example is for, and its line.
    pub(super) examples: &'static [(&'static str, &'static str)],
    /// Exit codes that are not as everywhere.
    pub(super) exits: &'static [(u8, &'static str)],
    /// Commands of strata by name, and other pages with their section: docker-load(1).
    pub(super) see: &'static [&'static str],
}

pub(super) type Examples = &'static [(&'static str, &'static str)];

pub(super) const fn row(
    of: &'static str,
    uses: &'static [Use],
    see: &'static [&'static str],
    examples: Examples,
) -> PageRow {
    PageRow { of, uses, examples, exits: &[], see }
}
