//! The blocks of one directory.
//!
//! Invariants: names are sorted by their bytes over all blocks, `.` and `..` among them; a block
//! is filled as far as whole entries fit; the length of a directory depends on its names alone,
//! so it is known before any inode has its number.

use super::format::{BLOCK, DIRENT};

/// One entry: a name and the bytes that differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirName<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u64,
    pub(super) kind: u8,
}

/// How many of the names fit the first block, by their lengths.
fn fitting(lengths: impl Iterator<Item = usize>) -> (usize, usize) {
    let (mut count, mut used) = (0, 0);
    for length in lengths {
        if used + DIRENT + length > BLOCK as usize {
            break;
        }
        used += DIRENT + length;
        count += 1;
    }
    (count, used)
}

/// Sorts the entries of a directory: what the tree has, and the two that every directory has.
pub(super) fn sort(entries: &mut [DirName<'_>]) {
    entries.sort_unstable_by(|a, b| a.name.cmp(b.name));
}

/// The length of a directory with these names, which are sorted.
pub(super) fn length(names: &[&[u8]]) -> u64 {
    let mut rest = names;
    let mut blocks = 0;
    loop {
        let (count, used) = fitting(rest.iter().map(|name| name.len()));
        rest = rest.get(count..).unwrap_or_default();
        if rest.is_empty() || count == 0 {
            return blocks * BLOCK + used as u64;
        }
        blocks += 1;
    }
}

/// The bytes of a directory: whole blocks and the last one up to its end.
pub(super) fn encode(entries: &[DirName<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let (count, _) = fitting(rest.iter().map(|entry| entry.name.len()));
        let (here, after) = rest.split_at(count.clamp(1, rest.len()));
        let mut name_at = DIRENT * here.len();
        for entry in here {
            out.extend_from_slice(&entry.number.to_le_bytes());
            out.extend_from_slice(&(name_at as u16).to_le_bytes());
            out.extend_from_slice(&[entry.kind, 0]);
            name_at += entry.name.len();
        }
        here.iter().for_each(|entry| out.extend_from_slice(entry.name));
        rest = after;
        if !rest.is_empty() {
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_before_the_bytes() {
        for count in [0, 1, 3, 200, 201, 202, 5000] {
            let names: Vec<Vec<u8>> = (0..count)
                .map(|n: usize| format!("{:0width$}", n, width = 1 + n * 37 % 255).into_bytes())
                .collect();
            let mut entries: Vec<DirName<'_>> = [b".".as_slice(), b".."]
                .into_iter()
                .chain(names.iter().map(Vec::as_slice))
                .map(|name| DirName { name, number: 1, kind: 2 })
                .collect();
            sort(&mut entries);
            let sorted: Vec<&[u8]> = entries.iter().map(|entry| entry.name).collect();
            assert_eq!(encode(&entries).len() as u64, length(&sorted), "{count}");
        }
    }
}
