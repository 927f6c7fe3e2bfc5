//! Unions of trees: many layers shown as one.
//!
//! A [`Stack`] takes any number of read-only layers, base first, and merges them as the kernel's
//! overlayfs and the OCI layer specification do. It is itself a `Lower`, so whatever shows or
//! compiles one tree shows or compiles an image.
//!
//! ```text
//! StoredLayer, StoredLayer, ... -> Stack -> compile -> FlatTree -> mount
//! ```
//!
//! A [`writable::Union`] puts one upper directory on top of such a tree and keeps every change
//! there, in the kernel's format.
//!
//! Invariants: no lower is ever written; a merged tree holds nodes only, never a whiteout, a mark
//! or a link to a lower layer.

mod intern;
mod listings;
mod merge;
pub mod private_mount;
mod redirect;
mod stack;
mod use_lock;
pub mod writable;

pub use stack::Stack;
pub use use_lock::UseLock;

#[cfg(test)]
mod tests;
