//! Writable layers: kept in the store, mounted on top of an image, listed, compared, committed.
//!
//! ```text
//! ROOT/uppers/<name>/upper.json   which image it belongs to
//!                   /upper/       its changes (crates/union, writable)
//!                   /work/        what is being made
//! ```
//!
//! The engine keeps them; `commands` lists, compares and commits them, `ps` shows them as docker
//! shows containers, `remove` removes them.
//!
//! Invariants: a directory of `uppers/` is complete as soon as it has its name; an upper is
//! locked (flock on its directory) while a mount writes to it; an image that an upper belongs to
//! is not removed.

mod commands;
mod ps;
mod remove;

pub(crate) use commands::{
    CommitArgs, DiffArgs, UppersArgs, merged, run_commit, run_diff, run_uppers,
};
pub(crate) use ps::{PsArgs, run_ps};
pub(crate) use remove::{PruneArgs, RmArgs, run_prune, run_rm};
