//! [`BegunDirs`]: in which directories something was named.
//!
//! A path of many names begins as many directories. Their paths together are as long as the square
//! of it, so a directory is kept as a number that is made of its path.
//!
//! Invariant: memory is some bytes for each directory, however deep it is.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Directories, the root among them as the empty path.
#[derive(Default)]
pub(super) struct BegunDirs {
    /// Differs from run to run: nobody can make two paths of one number.
    numbers: RandomState,
    seen: HashSet<u64>,
}

impl BegunDirs {
    /// Notes a directory and all above it; gives those that are new.
    pub(super) fn begin<'p>(&mut self, dir: &'p [u8]) -> Vec<&'p [u8]> {
        let mut all = Vec::new();
        self.each(dir, |dir, number| all.push((dir, number)));
        // Where one is known, all above it are.
        let known = all.iter().rposition(|(_, number)| self.seen.contains(number));
        let new = all.split_off(known.map_or(0, |at| at + 1));
        self.seen.extend(new.iter().map(|(_, number)| number));
        new.into_iter().map(|(dir, _)| dir).collect()
    }

    pub(super) fn contains(&self, dir: &[u8]) -> bool {
        let mut last = 0;
        self.each(dir, |_, number| last = number);
        self.seen.contains(&last)
    }

    /// Hands over the directories on the way to one, the root first and itself last.
    fn each<'p>(&self, dir: &'p [u8], mut take: impl FnMut(&'p [u8], u64)) {
        let mut hasher = self.numbers.build_hasher();
        take(&dir[..0], hasher.finish());
        let mut at = 0;
        while at < dir.len() {
            let end = dir[at..].iter().position(|byte| *byte == b'/');
            let end = end.map_or(dir.len(), |length| at + length);
            hasher.write(&dir[at..end]);
            hasher.write_u8(b'/');
            take(&dir[..end], hasher.finish());
            at = end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_begins_all_above_it_once() {
        let mut begun = BegunDirs::default();
        assert_eq!(begun.begin(b"a/bc"), [&b""[..], b"a", b"a/bc"]);
        assert_eq!(begun.begin(b"a/b/c"), [&b"a/b"[..], b"a/b/c"]);
        assert_eq!(begun.begin(b"a/b"), [&b""[..]; 0]);
        assert_eq!(begun.begin(b""), [&b""[..]; 0]);
        for (dir, wanted) in [("", true), ("a/b", true), ("ab", false), ("a/b/c/d", false)] {
            assert_eq!(begun.contains(dir.as_bytes()), wanted, "{dir}");
        }
    }
}
