//! The daemon's side of a mount: a tree of nodes in, the kernel's FUSE requests answered.
//!
//! [`serve`] mounts a [`Lower`](strata_tree::Lower) at a directory and answers from a few threads
//! of this process until the mount ends. A request passes through three thin parts: `adapter`
//! (the kernel's types to ours, no decisions), `readonly` (what a read-only file system answers,
//! testable without a kernel), `reads` (file contents). `mounting` and `unmounting` own the mount
//! table; `session` ties their lives together.
//!
//! Invariants: fuser's types never leave this crate; a tree's node number is the inode number
//! that the kernel and every program see; nothing below a mount is ever written, and content is
//! opened read-only.

mod adapter;
mod attr;
mod errno;
mod error;
mod mounting;
mod options;
mod passthrough;
mod readonly;
mod reads;
mod session;
mod unmounting;

pub use error::{Error, Result};
pub use options::{MountOptions, Profile, TreeFacts};
pub use session::{Session, serve};
pub use unmounting::{Manner, SUBTYPE, Unmounter, unmount};
