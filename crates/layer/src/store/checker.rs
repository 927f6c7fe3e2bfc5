//! `fsck`: one check of one store, with what it remembers from layer to layer.
//!
//! Invariants: it changes nothing in the store; what it finds wrong is in its report; a store may
//! have more names and contents than fit into memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use strata_diff::record;
use strata_diff::spill::{Record, Spill, SpillSpace, Table, TablePlace};

use super::dir::StoreDir;
use super::fsck_report::FsckReport;
use crate::error::Result;
use crate::index::shared::SharedIndex;

record! {
    /// An inode that was read.
    pub(super) struct ReadInode {
        pub(super) device: u64,
        pub(super) inode: u64,
        pub(super) digest: [u8; 32],
    }
}

record! {
    /// The inode of a content that was met.
    pub(super) struct MetContent {
        /// `contents.id`.
        pub(super) id: i64,
        pub(super) device: u64,
        pub(super) inode: u64,
        pub(super) blocks: u64,
    }
}

/// A check of a store.
pub(super) struct Checker<'s> {
    pub(super) dir: &'s StoreDir,
    pub(super) index: &'s SharedIndex,
    pub(super) report: FsckReport,
    pub(super) read: Remembered<ReadInode>,
    pub(super) met: Remembered<MetContent>,
    /// Contents whose fs-verity digest was compared.
    pub(super) sealed: HashSet<i64>,
}

impl<'s> Checker<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        let scratch = dir.scratch_for_check();
        Self {
            dir,
            index,
            report: FsckReport::default(),
            read: Remembered::new(&scratch),
            met: Remembered::new(&scratch),
            sealed: HashSet::new(),
        }
    }
}

/// Records that are found by what they are of; none is taken out.
pub(super) struct Remembered<R> {
    all: Spill<R>,
    places: Table,
    hash: RandomState,
}

impl<R: Record> Remembered<R> {
    fn new(scratch: &Arc<SpillSpace>) -> Self {
        let (all, places) = (Spill::new(scratch, 30), Table::new(scratch, 20));
        Self { all, places, hash: RandomState::new() }
    }

    /// The record of a key of which `is` says that it is the one.
    pub(super) fn find(&self, key: impl Hash, is: impl Fn(&R) -> bool) -> Result<Option<R>> {
        let number = self.place(key, is)?.number;
        Ok(number.map(|number| self.all.get(u64::from(number))).transpose()?)
    }

    /// The same; where there is none, `record` is the one from now on.
    pub(super) fn find_or_put(
        &mut self,
        key: impl Hash,
        is: impl Fn(&R) -> bool,
        record: R,
    ) -> Result<R> {
        let place = self.place(key, is)?;
        if let Some(number) = place.number {
            return Ok(self.all.get(u64::from(number))?);
        }
        let number = u32::try_from(self.all.push(record)?).unwrap_or(u32::MAX);
        self.places.put(place, number)?;
        Ok(record)
    }

    fn place(&self, key: impl Hash, is: impl Fn(&R) -> bool) -> Result<TablePlace> {
        let hash = (self.hash.hash_one(key) >> 32) as u32;
        Ok(self.places.find(hash, |at| Ok(is(&self.all.get(u64::from(at))?)))?)
    }
}
