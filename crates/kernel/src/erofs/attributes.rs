//! Extended attributes: sets that inodes have in common, and single ones that many sets hold.
//!
//! An attribute that at least [`SHARED_FROM`] inodes have stands once in the shared area; others
//! stand behind each inode.
//!
//! Invariants: sets are numbered in the order of their first inode, shared attributes likewise,
//! so equal trees give equal bytes; what the format cannot hold is told when a set is added and
//! is in no set.

use std::collections::HashMap;

use strata_tree::Xattr;

/// A pointer is four bytes: an attribute is worth sharing from its second inode on, but each one
/// that is shared costs a reader another block.
const SHARED_FROM: u32 = 3;
/// Bytes before the first attribute of an inode.
const HEADER: u64 = 12;
/// What the 16 bits of an inode's count allow.
const MOST: u64 = HEADER + 4 * (u16::MAX as u64 - 1);
/// Shared attributes of an inode are counted in 8 bits.
const MOST_SHARED: usize = u8::MAX as usize;

/// The prefixes that the format has numbers for. ACLs have no name beyond theirs.
const PREFIXES: [(&[u8], u8, bool); 5] = [
    (b"user.", 1, false),
    (b"system.posix_acl_access", 2, true),
    (b"system.posix_acl_default", 3, true),
    (b"trusted.", 4, false),
    (b"security.", 6, false),
];

/// The number of a set; 0 is the empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SetNumber(u32);

/// All sets of a tree.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    sets: Vec<Vec<u32>>,
    set_of: HashMap<Vec<u32>, u32>,
    /// Encoded, padded to 4 bytes.
    single: Vec<Vec<u8>>,
    single_of: HashMap<Vec<u8>, u32>,
    uses: Vec<u32>,
    /// Where a shared one stands, in units of 4 bytes.
    shared_at: Vec<Option<u32>>,
    /// Of each set, once it is known what is shared.
    lengths: Vec<u64>,
    area: Vec<u8>,
}

/// An attribute as the image has it; the reason where it cannot.
fn encode((name, value): &Xattr) -> Result<Vec<u8>, &'static str> {
    let found = PREFIXES.iter().find(|(prefix, _, whole)| match whole {
        true => name == prefix,
        false => name.starts_with(prefix) && name.len() > prefix.len(),
    });
    let Some((prefix, number, _)) = found else {
        return Err("EROFS has no number for its prefix");
    };
    let rest = name.get(prefix.len()..).unwrap_or_default();
    let (Ok(name_length), Ok(value_length)) =
        (u8::try_from(rest.len()), u16::try_from(value.len()))
    else {
        return Err("it is longer than EROFS holds");
    };
    let mut out = vec![name_length, *number];
    out.extend_from_slice(&value_length.to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(out)
}

impl Attributes {
    /// Counts an inode with these attributes; `dropped` hears the name of each one that the
    /// format cannot hold, and why.
    pub(super) fn add(
        &mut self,
        all: &[Xattr],
        dropped: &mut dyn FnMut(&[u8], &'static str),
    ) -> SetNumber {
        let mut set = Vec::new();
        let mut length = HEADER;
        for one in all {
            let encoded = match encode(one) {
                Ok(encoded) if length + encoded.len() as u64 <= MOST => encoded,
                Ok(_) => {
                    dropped(&one.0, "the inode's other attributes leave no room for it");
                    continue;
                }
                Err(why) => {
                    dropped(&one.0, why);
                    continue;
                }
            };
            length += encoded.len() as u64;
            set.push(self.single(encoded));
        }
        if set.is_empty() {
            return SetNumber::default();
        }
        let next = self.sets.len() as u32 + 1;
        let number = *self.set_of.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            next
        });
        SetNumber(number)
    }

    fn single(&mut self, encoded: Vec<u8>) -> u32 {
        let next = self.single.len() as u32;
        let number = *self.single_of.entry(encoded).or_insert_with_key(|encoded| {
            self.single.push(encoded.clone());
            self.uses.push(0);
            next
        });
        if let Some(uses) = self.uses.get_mut(number as usize) {
            *uses += 1;
        }
        number
    }

    /// Decides what is shared. To be called once all inodes are counted.
    pub(super) fn settle(&mut self) {
        self.set_of = HashMap::new();
        self.single_of = HashMap::new();
        for (encoded, uses) in self.single.iter().zip(&self.uses) {
            let at = u32::try_from(self.area.len() / 4).ok().filter(|_| *uses >= SHARED_FROM);
            self.shared_at.push(at);
            if at.is_some() {
                self.area.extend_from_slice(encoded);
            }
        }
        let length = |set: &Vec<u32>| {
            let mut shared = 0;
            set.iter().fold(HEADER, |length, number| {
                length + self.share(*number, &mut shared).map_or_else(|own| own.len() as u64, |_| 4)
            })
        };
        self.lengths = self.sets.iter().map(length).collect();
    }

    /// Where a set's next attribute stands in the shared area, of whose attributes the set has
    /// `taken` by now; else the attribute itself.
    fn share(&self, number: u32, taken: &mut usize) -> Result<u32, &[u8]> {
        match self.shared_at.get(number as usize).copied().flatten() {
            Some(at) if *taken < MOST_SHARED => {
                *taken += 1;
                Ok(at)
            }
            _ => Err(self.single.get(number as usize).map_or(&[], Vec::as_slice)),
        }
    }

    /// The shared area.
    pub(super) fn area(&self) -> &[u8] {
        &self.area
    }

    fn set(&self, set: SetNumber) -> Option<usize> {
        (set.0 as usize).checked_sub(1)
    }

    /// The bytes that a set takes behind an inode.
    pub(super) fn length(&self, set: SetNumber) -> u64 {
        self.set(set).and_then(|at| self.lengths.get(at)).copied().unwrap_or(0)
    }

    /// The count that an inode's core has for this length of attributes in bytes.
    pub(super) fn count(length: u64) -> u16 {
        length.checked_sub(HEADER).map_or(0, |rest| (rest / 4 + 1) as u16)
    }

    /// Appends a set as it stands behind an inode.
    pub(super) fn encode(&self, set: SetNumber, out: &mut Vec<u8>) {
        let Some(numbers) = self.set(set).and_then(|at| self.sets.get(at)) else { return };
        let head = out.len();
        out.extend_from_slice(&[0; HEADER as usize]);
        let mut taken = 0;
        for number in numbers {
            if let Ok(at) = self.share(*number, &mut taken) {
                out.extend_from_slice(&at.to_le_bytes());
            }
        }
        if let Some(count) = out.get_mut(head + 4) {
            *count = taken as u8;
        }
        taken = 0;
        for number in numbers {
            if let Err(own) = self.share(*number, &mut taken) {
                out.extend_from_slice(own);
            }
        }
    }
}
