//! Where inodes lie: blocks filled one inode after another, without an inode's tail ending in
//! another block than it starts in.
//!
//! An inode goes into the fullest block that still has room for it, among the last
//! [`WINDOW`] blocks; else a new block begins.
//!
//! Invariants: places do not overlap; a block that is more than [`WINDOW`] blocks behind the
//! newest one gets no inode any more, so a writer that goes through the inodes in the order of
//! placing keeps that many blocks in memory; equal sequences of sizes give equal places.

use std::collections::VecDeque;

use super::format::{BLOCK, SLOT};

/// How many blocks are open at once.
pub(super) const WINDOW: u64 = 256;
const SLOTS: usize = (BLOCK / SLOT) as usize;

/// The blocks of inodes. See the module.
#[derive(Debug)]
pub(super) struct InodeSpace {
    /// Blocks with room, by the number of free slots, older ones first.
    open: Vec<VecDeque<u64>>,
    blocks: u64,
    /// Where the last byte of an inode is followed by none of another.
    end: u64,
}

impl InodeSpace {
    /// No inodes yet, and `used` bytes of the first block taken.
    pub(super) fn new(used: u64) -> Self {
        let mut space = Self { open: vec![VecDeque::new(); SLOTS + 1], blocks: 1, end: used };
        space.keep(0, BLOCK - used);
        space
    }

    fn keep(&mut self, block: u64, free: u64) {
        let slots = (free / SLOT) as usize;
        if slots > 0
            && let Some(list) = self.open.get_mut(slots)
        {
            list.push_back(block);
        }
    }

    /// The place of an inode of `length` bytes, as its number. One that is longer than a block
    /// begins a block of its own.
    pub(super) fn place(&mut self, length: u64) -> u64 {
        let number = self.find(length);
        self.end = self.end.max(number * SLOT + length);
        number
    }

    fn find(&mut self, length: u64) -> u64 {
        let slots = length.div_ceil(SLOT);
        let oldest = self.blocks.saturating_sub(WINDOW);
        for free in (slots as usize).max(1)..=SLOTS {
            let Some(list) = self.open.get_mut(free) else { break };
            while list.front().is_some_and(|block| *block < oldest) {
                list.pop_front();
            }
            if let Some(block) = list.pop_front() {
                let free = free as u64;
                self.keep(block, (free - slots) * SLOT);
                return (block + 1) * (BLOCK / SLOT) - free;
            }
        }
        let first = self.blocks;
        self.blocks += length.div_ceil(BLOCK).max(1);
        self.keep(self.blocks - 1, (self.blocks - first) * BLOCK - slots * SLOT);
        first * (BLOCK / SLOT)
    }

    /// How many blocks hold all inodes and `more` bytes behind the last one.
    pub(super) fn blocks_and_after(&self, more: u64) -> u64 {
        (self.end + more).div_ceil(BLOCK)
    }

    /// How many blocks there are by now.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_small_ones_stay_in_a_block() {
        let mut space = InodeSpace::new(1152);
        let mut taken = std::collections::BTreeSet::new();
        let mut newest = 0;
        for n in 0..20_000_u64 {
            let length = 32 + n.wrapping_mul(2_654_435_761) % 4065;
            let length = if n % 1000 == 999 { length + 3 * BLOCK } else { length };
            let start = space.place(length);
            let slots = length.div_ceil(SLOT);
            assert!(start * SLOT >= 1152);
            assert!((start..start + slots).all(|slot| taken.insert(slot)), "{n}");
            let (first, last) = (start * SLOT / BLOCK, ((start + slots) * SLOT - 1) / BLOCK);
            assert!(length > BLOCK || first == last, "{n}");
            assert!(first + WINDOW >= newest, "{n}: block {first} was closed");
            newest = newest.max(last);
            assert!(last < space.blocks());
        }
        let used = taken.len() as u64 * SLOT;
        assert!(used * 100 > space.blocks() * BLOCK * 95, "{used} of {}", space.blocks() * BLOCK);
    }
}
