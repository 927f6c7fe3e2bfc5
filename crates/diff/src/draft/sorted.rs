//! The names of one directory in the order of their bytes.
//!
//! ```text
//! chain of names ──> runs: as many as memory holds, sorted ──> merged: the smallest of the heads
//! ```
//!
//! Invariant: memory holds one run, or one name of each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::nodes::Nodes;
use super::{DirId, NameId};
use crate::error::Result;
use crate::spill::Spill;

/// Bytes of a run in memory, at most.
const RUN: usize = 4 << 20;
/// Bytes that a name takes there beside its own.
const BESIDE: usize = 48;

/// Appends the names that a directory shows, whiteouts among them.
pub(super) fn append_sorted(nodes: &Nodes, dir: DirId, out: &mut Spill<u32>) -> Result<()> {
    let most = RUN.min(nodes.scratch.memory() / 8);
    let mut runs = Spill::new(&nodes.scratch, 1);
    let mut bounds = Vec::new();
    let (mut run, mut bytes) = (Vec::new(), 0);
    nodes.each_name(dir, |id, name| {
        if name.slot.is_none() && !name.hidden {
            return Ok(());
        }
        if bytes > most {
            bounds.push(end_run(&mut run, &mut runs)?);
            bytes = 0;
        }
        let text = nodes.text_of(&name)?;
        bytes += BESIDE + text.as_bytes().len();
        run.push((text, id.0));
        Ok(())
    })?;
    if bounds.is_empty() {
        end_run(&mut run, out)?;
        return Ok(());
    }
    bounds.push(end_run(&mut run, &mut runs)?);
    // Of each run where it goes on, and its end.
    let mut rest: Vec<(u64, u64)> = Vec::with_capacity(bounds.len());
    for end in bounds {
        rest.push((rest.last().map_or(0, |last| last.1), end));
    }
    let count = rest.len();
    let mut heads = BinaryHeap::with_capacity(count);
    let mut advance = |run: usize| {
        let (at, end) = rest[run];
        if at == end {
            return Ok(None);
        }
        rest[run].0 += 1;
        let id = runs.get(at)?;
        let text = nodes.text_of(&nodes.name(NameId(id))?)?;
        Ok::<_, crate::Error>(Some(Reverse((text, id, run))))
    };
    for run in 0..count {
        heads.extend(advance(run)?);
    }
    while let Some(Reverse((_, id, run))) = heads.pop() {
        out.push(id)?;
        heads.extend(advance(run)?);
    }
    Ok(())
}

/// Sorts a run and appends its names; gives where it ends.
fn end_run(run: &mut Vec<(strata_tree::NameBuf, u32)>, out: &mut Spill<u32>) -> Result<u64> {
    run.sort_unstable();
    for (_, id) in run.drain(..) {
        out.push(id)?;
    }
    Ok(out.len())
}
