//! [`LiveTop`]: the part of a mounted tree that grows and listens.
//!
//! A mount's tree never changes, so the kernel remembers all of it for ever. A tree may have a top
//! where names come while it is mounted, and where programs say something by making a file or
//! removing a directory. The kernel asks for such names each time, and hands on those calls.
//!
//! Invariants: nothing is made or removed: each of those calls is refused, with ENOENT where it was
//! heard, for that is what its callers wait for; what may take long is looked for on a thread of
//! its own, so the rest of the mount goes on.

use strata_tree::{NodeId, Result};

/// What became of a call that would change the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It was heard: ENOENT.
    Yes,
    /// It means nothing there: EROFS.
    No,
}

/// The top of a tree. See the module.
pub trait LiveTop: Send + Sync {
    /// Whether names may come in this directory, so that the kernel is to ask each time.
    fn grows(&self, dir: NodeId) -> bool;

    /// Whether looking for `name` may take long.
    fn takes_long(&self, dir: NodeId, name: &[u8]) -> bool;

    /// A program makes the file `name`.
    ///
    /// # Errors
    /// What it was told cannot be kept.
    fn file_made(&self, dir: NodeId, name: &[u8]) -> Result<Heard>;

    /// A program removes the directory `name`.
    ///
    /// # Errors
    /// As [`LiveTop::file_made`].
    fn dir_removed(&self, dir: NodeId, name: &[u8]) -> Result<Heard>;
}
