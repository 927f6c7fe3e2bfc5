//! The commands that work on the store: what comes in, what is there, what goes.
//!
//! Invariant: a command prints its result on stdout and everything else on stderr.

pub(crate) mod containerd;
pub(crate) mod df;
pub(crate) mod facts;
mod facts_from;
pub(crate) mod housekeeping;
pub(crate) mod layers;
pub(crate) mod lint;
pub(crate) mod load;
pub(crate) mod mount;
pub(crate) mod save;
pub(crate) mod shell;
