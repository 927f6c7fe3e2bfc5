//! The contents of a layer that is being read: one record for each inode of stored bytes.
//!
//! ```text
//! records   digest, size, where it came from, and what publishing finds out of it
//! sources   one of its names in the stage: `/` and a path, `#` and the number of a shadow, nothing
//! latest    digest -> the latest content with it
//! ```
//!
//! There are as many as files, so all of it is in [`Spill`]s.
//!
//! Invariant: each knows the one before it with the same digest; few have one.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;

use strata_diff::record;
use strata_diff::spill::{Spill, SpillSpace, SpillTexts, Table};
use strata_tree::{ContentDigest, TreePath};

use crate::error::{Error, Result};
use crate::stage::StagePath;

/// The number of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalId(NonZeroU32);

impl LocalId {
    fn of(index: u64) -> Result<Self> {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        number.map(Self).ok_or_else(|| Error::damaged("a layer", "it has more than 2^32 files"))
    }

    /// From 0.
    pub(crate) fn index(self) -> u64 {
        u64::from(self.0.get()) - 1
    }

    /// From 1.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }

    /// Of such a number; none is 0.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }
}

/// One inode of stored bytes that a layer uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalContent {
    pub digest: ContentDigest,
    pub size: u64,
    /// The row that it was linked from.
    pub known: Option<i64>,
    /// The number of the member of the tar whose body it is.
    pub member: u64,
}

record! {
    struct LocalRecord {
        digest: [u8; 32],
        size: u64,
        known: i64,
        member: u64,
        before: u32,
        source: u64,
    }
}

/// SQLite numbers rows from 1.
const NO_ROW: i64 = 0;

/// All of them. See the module.
pub(crate) struct Locals {
    all: Spill<LocalRecord>,
    sources: SpillTexts,
    latest: Table,
    hash: RandomState,
}

fn text(source: &StagePath) -> Vec<u8> {
    match source {
        StagePath::Diff(path) => [b"/", path.as_bytes()].concat(),
        StagePath::Shadow(number) => [b"#".as_slice(), &number.to_le_bytes()].concat(),
        StagePath::Relink => Vec::new(),
    }
}

impl Locals {
    pub(crate) fn new(scratch: &Arc<SpillSpace>) -> Self {
        Self {
            all: Spill::new(scratch, 17),
            sources: SpillTexts::new(scratch, 5),
            latest: Table::new(scratch, 12),
            hash: RandomState::new(),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.all.len()
    }

    /// All of their numbers.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Result<LocalId>> + use<> {
        (0..self.all.len()).map(LocalId::of)
    }

    fn place(&self, digest: &ContentDigest) -> Result<strata_diff::spill::TablePlace> {
        let hash = (self.hash.hash_one(digest) >> 32) as u32;
        let is = |at| Ok(self.all.get(u64::from(at))?.digest == *digest.as_bytes());
        Ok(self.latest.find(hash, is)?)
    }

    /// Adds one, which is the latest of its digest.
    pub(crate) fn add(&mut self, content: LocalContent, source: &StagePath) -> Result<LocalId> {
        let LocalContent { digest, size, known, member } = content;
        let id = LocalId::of(self.all.len())?;
        let place = self.place(&digest)?;
        let before = place.number.map_or(0, |before| before + 1);
        let source = self.sources.put(&text(source))?;
        let digest = *digest.as_bytes();
        let known = known.unwrap_or(NO_ROW);
        self.all.push(LocalRecord { digest, size, known, member, before, source })?;
        self.latest.put(place, id.number() - 1)?;
        Ok(id)
    }

    pub(crate) fn get(&self, id: LocalId) -> Result<LocalContent> {
        let LocalRecord { digest, size, known, member, .. } = self.all.get(id.index())?;
        let known = (known != NO_ROW).then_some(known);
        Ok(LocalContent { digest: ContentDigest::from_bytes(digest), size, known, member })
    }

    /// The one before it with the same digest.
    pub(crate) fn before(&self, id: LocalId) -> Result<Option<LocalId>> {
        Ok(LocalId::of_number(self.all.get(id.index())?.before))
    }

    /// One of its names in the stage.
    pub(crate) fn source(&self, id: LocalId) -> Result<StagePath> {
        let text = self.sources.get(self.all.get(id.index())?.source)?;
        Ok(match text.as_slice() {
            [b'/', path @ ..] => {
                // It was one when it was put here.
                StagePath::Diff(TreePath::clamped(path).unwrap_or_else(|_| TreePath::root()))
            }
            [b'#', number @ ..] => {
                StagePath::Shadow(number.first_chunk().map_or(0, |n| u64::from_le_bytes(*n)))
            }
            _ => StagePath::Relink,
        })
    }

    pub(crate) fn set_source(&mut self, id: LocalId, source: &StagePath) -> Result<()> {
        let source = self.sources.put(&text(source))?;
        Ok(self.all.update(id.index(), |record| record.source = source)?)
    }

    /// The latest one of that digest.
    pub(crate) fn latest(&self, digest: &ContentDigest) -> Result<Option<LocalId>> {
        let found = self.place(digest)?.number;
        found.map(|at| LocalId::of(u64::from(at))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use strata_diff::spill::Room;

    use super::*;

    #[test]
    fn the_latest_of_a_digest_is_found_and_knows_the_one_before() {
        for scratch in
            [SpillSpace::unbounded(), SpillSpace::new(&Room::new(1), 1, "tmp", tempfile::tempfile)]
        {
            let mut locals = Locals::new(&scratch);
            let mut add = |last: u32| {
                let mut digest = [7; 32];
                digest[28..].copy_from_slice(&last.to_le_bytes());
                let digest = ContentDigest::from_bytes(digest);
                let known = (last == 2).then_some(9);
                let content = LocalContent { digest, size: 1, known, member: u64::from(last) };
                locals.add(content, &StagePath::Shadow(u64::from(last))).unwrap()
            };
            let (one, two) = (add(1), add(2));
            for other in 3..2000 {
                add(other);
            }
            let again = add(2);
            let digest = |id| locals.get(id).unwrap().digest;
            assert_eq!(locals.latest(&digest(two)).unwrap(), Some(again));
            assert_eq!(locals.latest(&digest(one)).unwrap(), Some(one));
            assert_eq!(locals.before(again).unwrap(), Some(two));
            assert_eq!(locals.before(two).unwrap(), None);
            assert_eq!(locals.get(two).unwrap().known, Some(9));
            assert_eq!(locals.get(one).unwrap().known, None);
            assert_eq!(locals.source(one).unwrap(), StagePath::Shadow(1));
            let path = TreePath::clamped(b"a/b").unwrap();
            for source in [StagePath::Diff(path), StagePath::Shadow(0x2f), StagePath::Relink] {
                locals.set_source(two, &source).unwrap();
                assert_eq!(locals.source(two).unwrap(), source);
            }
            assert_eq!(locals.source(again).unwrap(), StagePath::Shadow(2));
        }
    }
}
