//! The pieces that were seen: half of each one's sha256.
//!
//! Invariant: of several workers that have the same piece, exactly one is told that it is new.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

/// Parts with a lock of their own: many more than processors, so that workers seldom meet, and
/// so that only a small part of the table is twice in memory while it grows.
const SHARDS: usize = 256;

type Shard = HashSet<u128, BuildHasherDefault<Prefix>>;

/// Half hashes.
pub(super) struct PieceTable(Vec<Mutex<Shard>>);

impl PieceTable {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// Whether it was not there before.
    pub(super) fn insert(&self, half: u128) -> bool {
        let shard = &self.0[(half >> 120) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner).insert(half)
    }
}

/// The bytes are a hash already.
#[derive(Default)]
struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, half: u128) {
        self.0 = half as u64;
    }
}
