//! What layers changed at a path: the difference of its states before and after them.
//!
//! Invariants: a path that is equal in all facts before and after is no change, but for a regular
//! file that was stored again ([`SpanChange::Again`]); directories that are only on the way to a
//! change have not changed themselves.

use std::ops::Range;

use super::{ImageTree, PathId, Version};

/// Some layers: those from `below` on, up to and without `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The number of layers that are there before.
    pub below: usize,
    /// The number of layers that are there after.
    pub to: usize,
}

impl Span {
    /// One layer.
    pub fn of(layer: usize) -> Self {
        Self { below: layer, to: layer + 1 }
    }

    /// The layers themselves.
    pub fn layers(self) -> Range<usize> {
        self.below..self.to
    }
}

/// What differs between two versions of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differences(u8);

/// Bits and words, in one table.
const WORDS: [&str; 7] = ["type", "content", "target", "mode", "owner", "time", "xattrs"];

impl Differences {
    /// `type`, `content`, `target` (of a symlink), `mode`, `owner`, `time`, `xattrs`.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        WORDS.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, w)| w)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanChange {
    /// It was not there before.
    Added,
    /// It differs in these facts.
    Modified(Differences),
    /// It is not there any more.
    Removed,
    /// A layer has the same file once more: nothing differs.
    Again,
}

impl ImageTree {
    /// What the layers of `span` did to a path; `None`: nothing.
    pub fn change(&self, path: PathId, span: Span) -> Option<SpanChange> {
        match (self.at(path, span.below), self.at(path, span.to)) {
            (None, None) => None,
            (None, Some(_)) => Some(SpanChange::Added),
            (Some(_), None) => Some(SpanChange::Removed),
            (Some(before), Some(after)) if before.number == after.number => None,
            (Some(before), Some(after)) => {
                let differences = self.differences(before, after);
                match differences.is_empty() {
                    true => Some(SpanChange::Again),
                    false => Some(SpanChange::Modified(differences)),
                }
            }
        }
    }

    /// In what two versions differ.
    pub fn differences(&self, a: &Version, b: &Version) -> Differences {
        let differ = [
            a.kind != b.kind,
            a.content != b.content,
            self.link(a) != self.link(b),
            a.perm != b.perm,
            (a.uid, a.gid) != (b.uid, b.gid),
            a.mtime != b.mtime,
            a.xattrs != b.xattrs,
        ];
        let bits = differ.iter().enumerate().map(|(bit, differs)| u8::from(*differs) << bit);
        Differences(bits.fold(0, |all, bit| all | bit))
    }
}
