//! A sequence that differs, made small.
//!
//! First operations are taken away, in halves and then one by one; then entries of the lowers, with
//! what is below them; then whole lowers; and that again until nothing can go.
//!
//! Invariants: each sequence that is kept still differs, and its lowers are valid; at most
//! `budget` sequences are tried.

use super::random::Sequence;
use crate::{Result, TreeEntry};

/// The smallest sequence that was found, with its differences. One that cannot be played is none
/// that differs: what was found is kept.
pub fn shrink(
    first: Sequence,
    found: Vec<String>,
    mut budget: usize,
    mut differs: impl FnMut(&Sequence) -> Result<Vec<String>>,
) -> (Sequence, Vec<String>) {
    let mut best = (first, found);
    loop {
        let before = best.0.clone();
        let mut width = best.0.operations.len();
        while width > 0 {
            let mut at = 0;
            while at < best.0.operations.len() {
                let mut smaller = best.0.clone();
                let end = (at + width).min(smaller.operations.len());
                smaller.operations.drain(at..end);
                if !keep(&mut best, smaller, &mut budget, &mut differs) {
                    at += width;
                }
            }
            width /= 2;
        }
        for number in (0..best.0.lowers.len()).rev() {
            if best.0.lowers.len() > 1 {
                let mut smaller = best.0.clone();
                smaller.lowers.remove(number);
                if keep(&mut best, smaller, &mut budget, &mut differs) {
                    continue;
                }
            }
            let mut at = 0;
            while let Some(entry) = best.0.lowers.get(number).and_then(|tree| tree.get(at)) {
                let path = entry.path.clone();
                let mut smaller = best.0.clone();
                smaller.lowers[number].retain(|entry| !is_within(entry, &path));
                if !keep(&mut best, smaller, &mut budget, &mut differs) {
                    at += 1;
                }
            }
        }
        if best.0 == before || budget == 0 {
            return best;
        }
    }
}

fn is_within(entry: &TreeEntry, path: &[u8]) -> bool {
    entry.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Whether the smaller one differs too; it is the best one then.
fn keep(
    best: &mut (Sequence, Vec<String>),
    smaller: Sequence,
    budget: &mut usize,
    differs: &mut impl FnMut(&Sequence) -> Result<Vec<String>>,
) -> bool {
    if *budget == 0 || !smaller.is_valid() {
        return false;
    }
    *budget -= 1;
    let found = differs(&smaller).unwrap_or_default();
    let differs = !found.is_empty();
    if differs {
        *best = (smaller, found);
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::union::operation::Operation;
    use crate::union::random::draw;

    #[test]
    fn only_what_makes_the_difference_is_left() {
        let first = (0..).map(|seed| draw(seed, 30, true, true)).find(|one| {
            one.operations.contains(&Operation::Remount)
                && one.lowers.iter().flatten().any(|entry| entry.path == b"a/b")
        });
        let mut tried = 0;
        let (small, found) = shrink(first.unwrap(), vec!["first".to_owned()], 1000, |one| {
            tried += 1;
            let remounts = one.operations.contains(&Operation::Remount);
            let there = one.lowers.iter().flatten().any(|entry| entry.path == b"a/b");
            Ok(if remounts && there { vec!["again".to_owned()] } else { Vec::new() })
        });
        assert_eq!(small.operations, [Operation::Remount]);
        let paths: Vec<&[u8]> =
            small.lowers.iter().flatten().map(|entry| entry.path.as_slice()).collect();
        assert_eq!(paths, [&b"a"[..], b"a/b"]);
        assert_eq!(found, ["again"]);
        assert!(tried < 1000);
    }

    #[test]
    fn what_cannot_be_played_does_not_lose_what_was_found() {
        let first = draw(1, 30, true, true);
        let fails = |_: &Sequence| Err(Error::NothingRan("no space".to_owned()));
        let kept = shrink(first.clone(), vec!["first".to_owned()], 9, fails);
        assert_eq!(kept, (first, vec!["first".to_owned()]));
    }

    #[test]
    fn the_budget_ends_it() {
        let mut tried = 0;
        let first = draw(1, 30, true, true);
        let none = |_: &Sequence| {
            tried += 1;
            Ok(Vec::new())
        };
        shrink(first, Vec::new(), 3, none);
        assert_eq!(tried, 3);
    }
}
