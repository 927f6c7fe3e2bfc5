//! The contents of a layer that is being read: one record for each inode of stored bytes.
//!
//! There are as many as files, so a record is small: the place of a content in the stage is kept
//! only as long as members come ([`Locals`]), for a link to it may; and the latest content of a
//! digest is found by the first eight bytes of the digest.
//!
//! Invariant: what [`Locals::latest`] finds has that digest. It may miss one, where another digest
//! begins with the same bytes; then the bytes are stored once more.

use std::collections::HashMap;
use std::num::NonZeroU32;

use strata_tree::{ContentDigest, TreePath};

use crate::error::{Error, Result};
use crate::stage::StagePath;

/// The number of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalId(NonZeroU32);

impl LocalId {
    fn of(index: usize) -> Result<Self> {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        number.map(Self).ok_or_else(|| Error::damaged("a layer", "it has more than 2^32 files"))
    }

    /// From 0.
    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
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

/// All of them. See the module.
#[derive(Default)]
pub(crate) struct Locals {
    all: Vec<LocalContent>,
    sources: Sources,
    latest: HashMap<u64, LocalId>,
}

/// One of the names of each content in the stage, one after the other: what is in one piece goes
/// back to the system as soon as it is not needed any more, and single ones leave holes.
#[derive(Default)]
struct Sources {
    /// `/` and a path below the stage, `#` and the number of a shadow, or nothing.
    bytes: Vec<u8>,
    /// Where each begins, and ends.
    places: Vec<(u64, u32)>,
}

impl Sources {
    fn put(&mut self, source: &StagePath) -> (u64, u32) {
        let from = self.bytes.len();
        match source {
            StagePath::Diff(path) => {
                self.bytes.push(b'/');
                self.bytes.extend_from_slice(path.as_bytes());
            }
            StagePath::Shadow(number) => {
                self.bytes.push(b'#');
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
            StagePath::Relink => {}
        }
        (from as u64, (self.bytes.len() - from) as u32)
    }

    fn push(&mut self, source: &StagePath) {
        let place = self.put(source);
        self.places.push(place);
    }

    fn set(&mut self, at: usize, source: &StagePath) {
        self.places[at] = self.put(source);
    }

    fn get(&self, at: usize) -> StagePath {
        let (from, length) = self.places[at];
        match &self.bytes[from as usize..][..length as usize] {
            [b'/', path @ ..] => {
                // It was one when it was put here.
                StagePath::Diff(TreePath::clamped(path).unwrap_or_else(|_| TreePath::root()))
            }
            [b'#', number @ ..] => {
                StagePath::Shadow(number.first_chunk().map_or(0, |n| u64::from_le_bytes(*n)))
            }
            _ => StagePath::Relink,
        }
    }
}

fn key(digest: &ContentDigest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

impl Locals {
    /// Adds one, which is the latest of its digest.
    pub(crate) fn add(&mut self, content: LocalContent, source: StagePath) -> Result<LocalId> {
        let id = LocalId::of(self.all.len())?;
        self.latest.insert(key(&content.digest), id);
        self.all.push(content);
        self.sources.push(&source);
        Ok(id)
    }

    pub(crate) fn get(&self, id: LocalId) -> &LocalContent {
        &self.all[id.index()]
    }

    /// One of its names in the stage.
    pub(crate) fn source(&self, id: LocalId) -> StagePath {
        self.sources.get(id.index())
    }

    pub(crate) fn set_source(&mut self, id: LocalId, source: &StagePath) {
        self.sources.set(id.index(), source);
    }

    /// The latest one of that digest.
    pub(crate) fn latest(&self, digest: &ContentDigest) -> Option<LocalId> {
        let found = self.latest.get(&key(digest)).copied();
        found.filter(|id| self.get(*id).digest == *digest)
    }

    /// Has `id` found by its digest, unless another one is.
    pub(crate) fn find_also(&mut self, id: LocalId) {
        let key = key(&self.get(id).digest);
        self.latest.entry(key).or_insert(id);
    }

    /// No member comes any more: none is found by its digest from now on.
    pub(crate) fn forget_latest(&mut self) {
        self.latest = HashMap::new();
    }

    /// What is left of them when every name is in its place.
    pub(crate) fn settled(self) -> Vec<LocalContent> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_that_begin_alike_are_not_taken_for_each_other() {
        let mut locals = Locals::default();
        let mut add = |last: u8| {
            let mut digest = [7; 32];
            digest[31] = last;
            let digest = ContentDigest::from_bytes(digest);
            let content = LocalContent { digest, size: 1, known: None, member: u64::from(last) };
            locals.add(content, StagePath::Shadow(u64::from(last))).unwrap()
        };
        let (one, two, again) = (add(1), add(2), add(2));
        let digest = |id| locals.get(id).digest;
        assert_eq!(locals.latest(&digest(two)), Some(again));
        assert_eq!(locals.latest(&digest(one)), None);
        assert_eq!(locals.source(one), StagePath::Shadow(1));
        let path = TreePath::clamped(b"a/b").unwrap();
        for source in [StagePath::Diff(path), StagePath::Shadow(0x2f), StagePath::Relink] {
            locals.set_source(two, &source);
            assert_eq!(locals.source(two), source);
        }
        assert_eq!(locals.source(again), StagePath::Shadow(2));
    }
}
