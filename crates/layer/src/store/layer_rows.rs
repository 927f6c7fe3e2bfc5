//! `fsck`: what should be in a layer's directory.
//!
//! Invariants: a row is made when it is asked for, for there may be millions; rows of the index
//! stand in only where none can be derived, and may say anything.

use std::ops::Range;

use strata_tree::{ContentDigest, Presence};

use crate::build::Built;
use crate::error::Result;
use crate::index::rows::{EntryRow, RowKind};

/// What a name of a layer's directory must be.
pub(super) enum Expected {
    /// With what this row has in it.
    Directory(u64),
    File(ContentDigest, u64),
    /// Checked elsewhere.
    Headers,
}

/// A layer's rows, counted from 0.
pub(super) enum LayerRows<'a> {
    /// Those that its directory says.
    Derived(&'a Built),
    /// Those of the index.
    Stored(&'a [EntryRow]),
}

impl LayerRows<'_> {
    fn count(&self) -> u64 {
        match self {
            Self::Derived(built) => built.rows.count(),
            Self::Stored(rows) => rows.len() as u64,
        }
    }

    fn row(&self, at: u64) -> Result<Option<EntryRow>> {
        match self {
            Self::Derived(built) if at < built.rows.count() => built.row(at).map(Some),
            Self::Derived(_) => Ok(None),
            Self::Stored(rows) => Ok(rows.get(at as usize).cloned()),
        }
    }

    /// What a directory should have, by name.
    pub(super) fn below(&self, row: u64) -> Result<impl Iterator<Item = Result<ExpectedName>>> {
        let children = match self.row(row)?.map(|row| row.kind) {
            Some(RowKind::Directory { first, children, .. }) if children > 0 => {
                let first = first.saturating_sub(1);
                first..first.saturating_add(children).min(self.count())
            }
            _ => Range::default(),
        };
        Ok(children.filter_map(|at| self.named(at).transpose()))
    }

    /// What a row asks for, if it asks for anything.
    fn named(&self, at: u64) -> Result<Option<ExpectedName>> {
        let Some(row) = self.row(at)? else { return Ok(None) };
        let expected = match &row.kind {
            RowKind::Directory { marks, .. } => {
                (marks.presence != Presence::Phantom).then_some(Expected::Directory(at))
            }
            RowKind::HardLink(target) => {
                self.row(target.0.wrapping_sub(1))?.as_ref().and_then(content)
            }
            _ => content(&row),
        };
        Ok(expected.map(|expected| (row.name, expected)))
    }
}

/// A name, and what must be there.
pub(super) type ExpectedName = (Box<[u8]>, Expected);

fn content(row: &EntryRow) -> Option<Expected> {
    match &row.kind {
        RowKind::Regular(digest) => {
            Some(Expected::File(*digest, row.meta.as_ref().map_or(0, |meta| meta.size)))
        }
        _ => None,
    }
}
