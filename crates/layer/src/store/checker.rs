//! `fsck`: one check of one store, with what it remembers from layer to layer.
//!
//! Invariants: it changes nothing in the store; what it finds wrong is in its report.

use std::collections::{HashMap, HashSet};

use strata_tree::ContentDigest;

use super::dir::StoreDir;
use super::fsck_report::FsckReport;
use crate::index::shared::SharedIndex;

/// A check of a store.
pub(super) struct Checker<'s> {
    pub(super) dir: &'s StoreDir,
    pub(super) index: &'s SharedIndex,
    pub(super) report: FsckReport,
    /// The digest of each inode that was read.
    pub(super) digests: HashMap<(u64, u64), ContentDigest>,
    /// Contents whose fs-verity digest was compared.
    pub(super) sealed: HashSet<i64>,
    /// The inode of each content that was met, and its blocks.
    pub(super) inodes: HashMap<i64, ((u64, u64), u64)>,
}

impl<'s> Checker<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        Self {
            dir,
            index,
            report: FsckReport::default(),
            digests: HashMap::new(),
            sealed: HashSet::new(),
            inodes: HashMap::new(),
        }
    }
}
