//! The daemon's side of a mount: a tree of nodes in, the kernel's FUSE requests answered.
//!
//! [`serve`] mounts a [`Lower`](strata_tree::Lower) at a directory and answers from a few threads
//! of this process until the mount ends. A request passes through three thin parts: `adapter` (the
//! kernel's types to ours, no decisions), `readonly` (what a read-only file system answers,
//! testable without a kernel), `reads` (file contents). [`serve_growing`] is for a tree whose top
//! grows and listens ([`LiveTop`]). [`serve_union`] does the same for a
//! writable [`Union`](strata_union::writable::Union), by way of `writable`. What every mount needs
//! is in `connection` (handshake, polling, the end) and `replies` (how answers are sent).
//! `mounting` and `unmounting` own the mount table; `session` ties their lives together.
//!
//! Invariants: fuser's types never leave this crate; a node's number is the inode number that
//! the kernel and every program see; what a lower holds is never written, and its content is
//! never handed to the kernel on a writable mount.

mod adapter;
mod attr;
mod busy_poll;
mod connection;
mod errno;
mod error;
mod hearing;
mod ids;
mod inherited;
mod ioctls;
mod limits;
mod live_top;
mod mounting;
mod options;
mod passthrough;
mod readonly;
mod reads;
mod replies;
mod session;
mod unmounting;
mod writable;

pub use error::{Error, Result};
pub use hearing::hear;
pub use ids::{IdMap, IdMapError, Ids, in_first_user_namespace};
pub use inherited::InheritedFds;
pub use limits::outlast_file_size_limit;
pub use live_top::{Heard, LiveTop};
pub use options::{MountOptions, Profile, TreeFacts, WritableOptions};
pub use session::{MountCover, Session, serve, serve_below, serve_growing, serve_union};
pub use unmounting::{Manner, SUBTYPE, Unmounter, unmount};
