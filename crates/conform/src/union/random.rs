//! Lowers and operations, drawn from a seed.
//!
//! Few names and few directories, so that operations meet: a name is removed, made again as
//! something else, renamed over another. Lowers hold whiteouts and opaque directories where the
//! machine can make them.
//!
//! Invariants: the same seed gives the same sequence on every machine and in every version of this
//! file that has the same [`VERSION`]; lowers have no hard links, for overlayfs.rst lets a union
//! break them; no operation is drawn that overlayfs.rst excepts from POSIX.

use std::collections::BTreeMap;

use rustix::fs::{FileType, RenameFlags};

use super::ground::{OPAQUE, merge};
use super::operation::{Operation, WriteKind};
use crate::TreeEntry;

/// Part of what reports print, with the seed.
pub const VERSION: u32 = 1;

/// Lowers and what is done on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The lowers, base first.
    pub lowers: Vec<Vec<TreeEntry>>,
    /// What is done.
    pub operations: Vec<Operation>,
}

impl Sequence {
    /// Whether each whiteout of the lowers hides a name, and none is in an opaque directory of its
    /// own lower: overlayfs.rst has a use for no others.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (0..self.lowers.len()).all(|number| {
            let below = merge(&self.lowers[..number]);
            let tree = &self.lowers[number];
            tree.iter().all(|entry| is_used(entry, tree, &below))
        })
    }

    /// Takes away what a file system without `user.` attributes cannot keep.
    pub fn leave_out_user_xattrs(&mut self) {
        for all in self.lowers.iter_mut().flatten().filter_map(|entry| entry.xattrs.as_mut()) {
            all.retain(|name, _| !name.starts_with(b"user."));
        }
        self.operations.retain(|operation| match operation {
            Operation::SetXattr { name, .. } | Operation::RemoveXattr { name, .. } => {
                !name.starts_with(b"user.")
            }
            _ => true,
        });
    }
}

/// Whether the entry is no whiteout, or hides something.
fn is_used(entry: &TreeEntry, tree: &[TreeEntry], below: &[TreeEntry]) -> bool {
    let holds = |dir: &TreeEntry| {
        let inside = entry.path.strip_prefix(dir.path.as_slice());
        is_opaque(dir) && inside.is_some_and(|rest| rest.starts_with(b"/"))
    };
    entry.kind != "char"
        || below.iter().any(|other| other.path == entry.path) && !tree.iter().any(holds)
}

fn is_opaque(entry: &TreeEntry) -> bool {
    entry.xattrs.as_ref().is_some_and(|all| all.contains_key(OPAQUE))
}

/// SplitMix64 (Steele, Lea, Flood 2014): the next number is a hash of a counter.
struct Numbers {
    state: u64,
    /// How many of the names are drawn.
    names: usize,
}

impl Numbers {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b".wh.a"];
const BODIES: [&[u8]; 4] = [b"", b"x", b"some text", b"other, longer text"];

/// The sequence of a seed, with as many operations; lowers have marks if `marks`, and operations
/// make names that begin with `.wh.` if `oci_names`.
#[must_use]
pub fn draw(seed: u64, steps: usize, marks: bool, oci_names: bool) -> Sequence {
    let names = NAMES.len() - usize::from(!oci_names);
    let mut numbers = Numbers { state: seed.wrapping_mul(2).wrapping_add(1), names };
    let count = 1 + numbers.below(if marks { 3 } else { 1 });
    let mut lowers: Vec<Vec<TreeEntry>> = Vec::new();
    for number in 0..count {
        let below = merge(&lowers);
        lowers.push(lower(&mut numbers, &below, marks && number > 0));
    }
    // Paths that are there at the start, and paths that operations can make.
    let mut paths: Vec<Vec<u8>> = merge(&lowers).into_iter().map(|entry| entry.path).collect();
    let mut operations = Vec::new();
    for _ in 0..steps {
        let operation = operation(&mut numbers, &paths, steps);
        match &operation {
            Operation::Write { path: to, .. }
            | Operation::Mkdir { path: to, .. }
            | Operation::Link { to, .. }
            | Operation::Rename { to, .. }
            | Operation::Symlink { path: to, .. } => paths.push(to.clone()),
            _ => {}
        }
        operations.push(operation);
    }
    Sequence { lowers, operations }
}

fn lower(numbers: &mut Numbers, below: &[TreeEntry], marks: bool) -> Vec<TreeEntry> {
    let mut tree: BTreeMap<Vec<u8>, TreeEntry> = BTreeMap::new();
    let mut dirs = vec![Vec::new()];
    for _ in 0..3 + numbers.below(8) {
        let Some(dir) = numbers.pick(&dirs).cloned() else { continue };
        // `.wh.` names are marks in some lowers: operations make them, lowers do not have them.
        let Some(name) = numbers.pick(&NAMES[..4]) else { continue };
        let path = join(&dir, name);
        if tree.contains_key(&path) {
            continue;
        }
        let known = below.iter().any(|entry| entry.path == path);
        let mut entry = match numbers.below(if marks && known { 7 } else { 6 }) {
            0..=2 if dir.iter().filter(|byte| **byte == b'/').count() < 2 => {
                dirs.push(path.clone());
                node(&path, "dir", b"", 0o755)
            }
            6 => node(&path, "char", b"0:0", 0o600),
            5 => node(&path, "symlink", b"a", 0o777),
            _ => {
                let body = numbers.pick(&BODIES).copied().unwrap_or_default();
                node(&path, "file", body, 0o644)
            }
        };
        if entry.kind == "dir" && marks && known && numbers.one_in(3) {
            entry.xattrs = Some(BTreeMap::from([(OPAQUE.to_vec(), b"y".to_vec())]));
        } else if entry.kind == "file" && numbers.one_in(4) {
            entry.xattrs = Some(BTreeMap::from([(b"user.lower".to_vec(), b"1".to_vec())]));
        }
        tree.insert(path, entry);
    }
    let all: Vec<TreeEntry> = tree.into_values().collect();
    all.iter().filter(|entry| is_used(entry, &all, below)).cloned().collect()
}

fn node(path: &[u8], kind: &str, body: &[u8], mode: u32) -> TreeEntry {
    TreeEntry {
        path: path.to_vec(),
        kind: kind.to_owned(),
        body: body.to_vec(),
        mode: Some(mode),
        uid: None,
        gid: None,
        mtime: Some((1_000_000_000, 0)),
        xattrs: Some(BTreeMap::new()),
        inode: path.to_vec(),
        closed: false,
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// A path that was there once, mostly; else a new name in a directory.
fn path(numbers: &mut Numbers, paths: &[Vec<u8>]) -> Vec<u8> {
    let known = numbers.pick(paths).cloned().unwrap_or_default();
    if known.is_empty() || numbers.one_in(3) {
        let name = numbers.pick(&NAMES[..numbers.names]).copied().unwrap_or(b"a");
        return if numbers.one_in(2) { name.to_vec() } else { join(&known, name) };
    }
    known
}

fn operation(numbers: &mut Numbers, paths: &[Vec<u8>], steps: usize) -> Operation {
    let path = &mut |numbers: &mut Numbers| path(numbers, paths);
    let body = |numbers: &mut Numbers| numbers.pick(&BODIES).copied().unwrap_or_default().to_vec();
    match numbers.below(24) {
        0..=2 => {
            let kinds = [WriteKind::Whole, WriteKind::New, WriteKind::Append, WriteKind::At(2)];
            let kind = numbers.pick(&kinds).copied().unwrap_or(WriteKind::Whole);
            Operation::Write { path: path(numbers), body: body(numbers), kind }
        }
        3 => Operation::Truncate { path: path(numbers), size: numbers.below(12) as u64 },
        4 | 5 => Operation::Mkdir { path: path(numbers), mode: 0o755 },
        6 | 7 => Operation::Rmdir { path: path(numbers) },
        8..=10 => Operation::Unlink { path: path(numbers) },
        11..=14 => {
            let flags = match numbers.below(6) {
                0 => RenameFlags::NOREPLACE,
                1 => RenameFlags::EXCHANGE,
                _ => RenameFlags::empty(),
            };
            Operation::Rename { from: path(numbers), to: path(numbers), flags }
        }
        15 | 16 => Operation::Link { from: path(numbers), to: path(numbers) },
        17 => Operation::Symlink { path: path(numbers), target: b"b".to_vec() },
        18 => Operation::Chmod { path: path(numbers), mode: 0o600 + 8 * numbers.below(8) as u32 },
        19 => Operation::SetXattr {
            path: path(numbers),
            name: b"user.note".to_vec(),
            value: body(numbers),
        },
        20 => Operation::RemoveXattr { path: path(numbers), name: b"user.lower".to_vec() },
        21 => Operation::Times { path: path(numbers), seconds: 1_100_000_000 },
        22 => Operation::Node { path: path(numbers), kind: FileType::Fifo, device: (0, 0) },
        _ if numbers.one_in(steps) => Operation::Kill,
        _ if numbers.one_in(2) => Operation::Remount,
        _ => Operation::Write { path: path(numbers), body: body(numbers), kind: WriteKind::Append },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_sequence() {
        assert_eq!(draw(7, 20, true, true), draw(7, 20, true, true));
        assert_ne!(draw(7, 20, true, true), draw(8, 20, true, true));
        let mut numbers = Numbers { state: 0, names: 5 };
        // The first number of the published test vector for the seed 0.
        assert_eq!(numbers.next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn what_is_drawn_is_of_every_kind() {
        let all: Vec<Sequence> = (0..300).map(|seed| draw(seed, 12, true, true)).collect();
        let lowers = || all.iter().flat_map(|one| one.lowers.iter().flatten());
        for kind in ["dir", "file", "symlink", "char"] {
            assert!(lowers().any(|entry| entry.kind == kind), "{kind}");
        }
        let opaque =
            |entry: &TreeEntry| entry.xattrs.as_ref().is_some_and(|all| all.contains_key(OPAQUE));
        assert!(lowers().any(opaque));
        let operations = || all.iter().flat_map(|one| &one.operations);
        assert!(operations().any(|operation| *operation == Operation::Kill));
        assert!(operations().any(|operation| matches!(operation, Operation::Link { .. })));
        // Without marks there is one lower, and no device in it.
        let plain: Vec<Sequence> = (0..50).map(|seed| draw(seed, 1, false, true)).collect();
        assert!(plain.iter().all(|one| one.lowers.len() == 1));
    }
}
