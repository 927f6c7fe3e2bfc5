//! Trees for the kernel: any merged [`Lower`](strata_tree::Lower) as an image that Linux mounts
//! by itself.
//!
//! [`write_erofs`] writes a whole tree, names and contents, into one EROFS image. A Linux from
//! 5.4 on mounts the image without strata.
//!
//! Invariants: this crate writes bytes and mounts nothing; it asks a tree through `Lower` alone;
//! equal trees give equal bytes; what the format cannot hold is left out and reported, never
//! changed.

mod erofs;
mod error;

pub use erofs::{Dropped, WrittenImage, write as write_erofs};
pub use error::{Error, Result};
