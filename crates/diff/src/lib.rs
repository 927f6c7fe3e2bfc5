//! The tar of a layer, and the rows that it becomes.
//!
//! ```text
//! transported bytes ── stream: inflate ──> tar ── tar: DiffReader ──> members ── draft ──> rows
//!   gzip, zstd, ...      both digests       │        headers │ bodies     │
//!                                           │                v            └─> effects: what must
//!                                           │           headers.zst           follow on disk
//!                                           └─> digest of each body
//!
//! the exact tar <── headers: DiffStream ── headers.zst and the bodies
//! a tar         <── export ────────────── any tree
//! ```
//!
//! * [`stream`]: what was transported, whatever compressed it, as the tar inside, with the digests
//!   of both. [`sha256`] takes one pass over bytes that count in two digests.
//! * [`tar`]: blocks become [`Member`](tar::Member)s; what tar readers disagree on is refused.
//! * [`draft`]: members become a tree by the rules for layers (whiteouts, links, replaced names),
//!   and the tree becomes [`rows`], which an index keeps.
//! * [`headers`]: all of a tar that is no body, from which the exact tar comes back.
//! * [`export`]: a tree as a tar, whole or as a diff.
//!
//! A diff is untrusted input, so all of it is bounded by [`Limits`].
//!
//! Invariants: no path that leaves this crate leaves the root of its layer; nothing here opens,
//! makes or removes a file by its name, and nothing knows SQLite, so all of it can be fuzzed alone.

pub mod body;
pub mod draft;
mod error;
pub mod export;
pub mod headers;
mod limits;
pub mod rows;
pub mod sha256;
pub mod spill;
pub mod stream;
pub mod tar;

pub use error::{Error, Result};
pub use limits::Limits;
