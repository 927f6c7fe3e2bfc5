//! What does not keep the rules of the shape yet, by name: a list that only gets shorter.
//!
//! Invariant: a line of `exceptions.txt` that no longer applies is an error, so that a rule that
//! holds once holds for good.

use std::collections::BTreeMap;

use crate::project::none;

const LIST: &str = include_str!("exceptions.txt");

/// Compares what breaks the rule `kind`, by name, each with what is wrong, with the list.
pub(crate) fn ratchet(kind: &str, wrong: impl Iterator<Item = (String, String)>) {
    let wrong: BTreeMap<String, String> = wrong.collect();
    let lines = LIST.lines().filter_map(|line| line.split_once(' '));
    let listed: Vec<&str> = lines.filter(|(of, _)| *of == kind).map(|(_, name)| name).collect();
    let new = wrong.iter().filter(|(name, _)| !listed.contains(&name.as_str()));
    let gone = listed.iter().filter(|name| !wrong.contains_key(**name));
    let new = new.map(|(name, what)| format!("{kind} {name}: {what}"));
    let gone = gone.map(|name| {
        format!("{kind} {name}: keeps the rule now; take its line out of tests/tidy/exceptions.txt")
    });
    none(new.chain(gone).collect());
}
