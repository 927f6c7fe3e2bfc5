//! Node numbers out of device and inode numbers, unique over all directories of one mount.
//!
//! ```text
//! bit 63 62   61 .. 54        53 .. 0
//!      0  0   device index    st_ino
//! ```
//!
//! Device indices are given in the order of first use, from 0, so on one file system a number is
//! `st_ino` itself (overlayfs.rst, "Inode properties", `xino`). What does not fit has index
//! [`MOVED`] and a hash of its device index and `st_ino` below: inode numbers of 2^54 and more,
//! devices beyond the indices, and inode 1 of device 0 where it is not the root, because 1 is
//! the root's.
//!
//! Invariants: one (device, inode) has one number, and no other has the same; numbers repeat
//! over remounts if devices come up in the same order and no two hashes collide, which is what
//! 54 bits are for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::open_dirs::OpenDirs;
use crate::node::NodeId;

/// Bits of `st_ino` that a number keeps.
const INODE_BITS: u32 = 54;
/// The device index of what does not fit.
const MOVED: u64 = 255;
/// How many devices have an index of their own. The one in between is [`Numbers::SPARE`]'s.
const DEVICES: usize = 254;

/// Gives the numbers of one mount: shared by all its directories.
#[derive(Debug, Default)]
pub struct Numbers {
    given: Mutex<Given>,
    open_dirs: OpenDirs,
}

#[derive(Debug, Default)]
struct Given {
    /// Device numbers in the order of first use.
    devices: Vec<u64>,
    /// Who has which number with the index [`MOVED`]: device index and inode.
    moved: HashMap<u64, (u64, u64)>,
}

impl Numbers {
    /// The first of 2^54 numbers that no directory gives: free for a merge of them.
    pub const SPARE: u64 = (DEVICES as u64) << INODE_BITS;

    /// No device known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Directories that are open, by their numbers.
    pub(super) fn open_dirs(&self) -> &OpenDirs {
        &self.open_dirs
    }

    /// The number of an inode that is not a root.
    pub fn number(&self, device: u64, inode: u64) -> NodeId {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let known = given.devices.iter().position(|known| *known == device);
        let index = known.unwrap_or_else(|| {
            given.devices.push(device);
            given.devices.len() - 1
        });
        let plain = (index as u64) << INODE_BITS | inode;
        let fits = index < DEVICES && inode >> INODE_BITS == 0;
        if fits && plain > NodeId::ROOT.0 {
            return NodeId(plain);
        }
        let who = (index as u64, inode);
        let mut low = mixed(who.0.rotate_left(32) ^ mixed(who.1));
        loop {
            low &= (1 << INODE_BITS) - 1;
            let number = MOVED << INODE_BITS | low;
            if *given.moved.entry(number).or_insert(who) == who {
                return NodeId(number);
            }
            low += 1;
        }
    }
}

/// Spreads all bits over all bits (the finalizer of MurmurHash3).
fn mixed(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_device_keeps_its_own_numbers() {
        let numbers = Numbers::new();
        assert_eq!(numbers.number(2049, 12), NodeId(12));
        assert_eq!(numbers.number(2049, (1 << 54) - 1), NodeId((1 << 54) - 1));
        assert_eq!(numbers.number(7, 12), NodeId(1 << 54 | 12));
        assert_eq!(numbers.number(7, 1), NodeId(1 << 54 | 1));
        assert_eq!(numbers.number(2049, 12), NodeId(12));
    }

    #[test]
    fn what_does_not_fit_is_unique_and_the_same_again() {
        let (first, second) = (Numbers::new(), Numbers::new());
        let mut seen = HashSet::new();
        for device in 0..300 {
            for inode in [0, 1, 2, 1 << 53, 1 << 54, 3 << 60, u64::MAX - 1, u64::MAX] {
                let number = first.number(device, inode);
                assert_eq!(number, second.number(device, inode));
                assert!(seen.insert(number), "{device} {inode} {number:?}");
                assert_eq!(number.0 >> 62, 0);
                assert_ne!(number, NodeId::ROOT);
                assert!(!(Numbers::SPARE..MOVED << INODE_BITS).contains(&number.0));
            }
        }
        for device in (0..300).rev() {
            assert!(seen.contains(&first.number(device, u64::MAX)));
        }
    }

    #[test]
    fn a_number_that_is_taken_gives_way() {
        let numbers = Numbers::new();
        let first = numbers.number(0, 1 << 60);
        let taken = Numbers::new();
        taken.given.lock().unwrap().moved.insert(first.0, (9, 9));
        let second = taken.number(0, 1 << 60);
        assert_ne!(first, second);
        assert_eq!(taken.number(0, 1 << 60), second);
    }
}
