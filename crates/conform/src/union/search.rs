//! All rules on one union, and a search for a sequence that differs.
//!
//! Invariant: each sequence has a seed of its own, so what was found is found again.

use std::time::{Duration, Instant};

use super::mounts::UnionMount;
use super::play::{Ignored, UnionPlace, play_pair, play_rule};
use super::random::{Sequence, draw};
use super::rules::Rule;
use super::script::script;
use super::shrink::shrink;
use crate::judge::{Judgement, Verdict};
use crate::{Error, Result};

/// A rule and its verdict; none if it cannot be asked here ([`UnionPlace::can_play`]).
pub type RuleResult = (Rule, Option<Judgement>);

/// How many smaller sequences are tried.
const BUDGET: usize = 400;

/// A drawn sequence that differs, as small as it could be made.
#[derive(Debug, Clone)]
pub struct Differing {
    /// What it was drawn from.
    pub seed: u64,
    /// The small one.
    pub sequence: Sequence,
    /// How the small one differs.
    pub differences: Vec<String>,
}

impl Differing {
    /// The sequence as a shell script.
    #[must_use]
    pub fn script(&self, union: &UnionMount) -> String {
        script(union, &self.sequence, &self.differences)
    }
}

/// How far a search goes.
#[derive(Debug, Clone)]
pub struct Search {
    /// Sequences at most.
    pub count: u64,
    /// Until when.
    pub time: Option<Duration>,
    /// The seed of the first sequence.
    pub seed: u64,
    /// Operations in a sequence.
    pub steps: usize,
    /// Sequences that differ, at most.
    pub differences: usize,
    /// What is passed over.
    pub ignored: Vec<Ignored>,
}

/// Plays all rules on the union; `show` is told how far it is.
///
/// # Errors
/// If the union cannot be mounted at all.
pub fn play_rules(
    union: &UnionMount,
    rules: Vec<Rule>,
    place: &UnionPlace,
    mut show: impl FnMut(&str),
) -> Result<Vec<RuleResult>> {
    let count = rules.len();
    let mut union_stands = None;
    let judged = rules.into_iter().enumerate().map(|(at, rule)| {
        show(&format!("{}: rule {} of {count}", union.name, at + 1));
        let can = place.can_play(&rule);
        let judgement = can.then(|| match play_rule(union, &rule, place) {
            Err(Error::CannotRun(_, why))
                if *union_stands.get_or_insert_with(|| can_stand(union, place)) =>
            {
                let reasons = vec![format!("cannot be mounted: {why}")];
                Ok(Judgement { verdict: Verdict::Wrong, reasons })
            }
            other => other,
        });
        Ok((rule, judgement.transpose()?))
    });
    judged.collect()
}

/// Whether the union can be mounted at all: what it then cannot do is its own fault.
fn can_stand(union: &UnionMount, place: &UnionPlace) -> bool {
    play_pair(union, &[Vec::new()], &[], place, &[]).is_ok()
}

/// Draws sequences until enough of them differ; how many were played, and those that differ.
///
/// # Errors
/// If the union cannot be mounted at all.
pub fn search(
    union: &UnionMount,
    place: &UnionPlace,
    what: &Search,
    mut show: impl FnMut(&str),
) -> Result<(u64, Vec<Differing>)> {
    let end = what.time.map(|time| Instant::now() + time);
    let marks = place.can_make_marks();
    let oci_names = !what.ignored.contains(&Ignored::OciNames);
    let (mut played, mut found, mut union_stands) = (0, Vec::new(), None);
    while played < what.count
        && found.len() < what.differences
        && end.is_none_or(|end| Instant::now() < end)
    {
        let seed = what.seed.wrapping_add(played);
        let mut sequence = draw(seed, what.steps, marks, oci_names);
        if !place.powers().user_xattrs {
            sequence.leave_out_user_xattrs();
        }
        let mut pair = |one: &Sequence| match play_pair(
            union,
            &one.lowers,
            &one.operations,
            place,
            &what.ignored,
        ) {
            Err(Error::CannotRun(_, why))
                if *union_stands.get_or_insert_with(|| can_stand(union, place)) =>
            {
                Ok(vec![format!("cannot be mounted: {why}")])
            }
            other => other,
        };
        let differences = pair(&sequence)?;
        played += 1;
        if !differences.is_empty() {
            show(&format!("{}: seed {seed} differs; making it small", union.name));
            let (sequence, differences) = shrink(sequence, differences, BUDGET, pair);
            found.push(Differing { seed, sequence, differences });
        }
        let (name, count) = (&union.name, what.count);
        show(&format!("{name}: {played} of {count} sequences, {} differ", found.len()));
    }
    Ok((played, found))
}
