//! Small contents, read by several threads: opening a file takes longer than reading it.
//!
//! Invariants: each content is known by its place in the plan, so equal trees give equal images; at
//! most [`BATCH`] contents are in memory at once.

use std::collections::HashMap;
use std::thread;

use strata_content::FileTree;
use strata_content::threads::each;
use strata_tree::{NodeId, TreePath};

use super::blocks::fill;
use crate::error::Result;

/// Inodes whose contents are read at a time.
pub(super) const BATCH: usize = 2048;
/// Contents that are worth another thread.
const WORTH: usize = 64;
/// More threads wait for each other in the kernel.
const MOST: usize = 4;

/// A content to be read whole: its place in the plan, its node, its path, its bytes.
pub(super) type SmallContent<'p> = (usize, NodeId, &'p TreePath, usize);

/// How many threads read on this machine. The answer takes several system calls.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MOST)
}

/// Reads contents with this many threads, by their places in the plan.
///
/// # Errors
/// `Short`; `Io`; whatever the tree answers.
pub(super) fn read(
    tree: &FileTree,
    wanted: &[SmallContent<'_>],
    threads: usize,
) -> Result<HashMap<usize, Vec<u8>>> {
    let part = wanted.len().div_ceil(threads).max(WORTH);
    let read_part = |part: &[SmallContent<'_>]| -> Result<Vec<(usize, Vec<u8>)>> {
        part.iter().map(|one| Ok((one.0, read_one(tree, *one)?))).collect()
    };
    let mut all = HashMap::with_capacity(wanted.len());
    for read in each(threads - 1, wanted.chunks(part), read_part) {
        all.extend(read?);
    }
    Ok(all)
}

fn read_one(tree: &FileTree, (_, node, path, size): SmallContent<'_>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    fill(&*tree.open(node)?, path, (0, size as u64), &mut bytes)?;
    Ok(bytes)
}
