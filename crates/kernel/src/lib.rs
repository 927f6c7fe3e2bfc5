//! Trees for the kernel: any merged [`Lower`](strata_tree::Lower) as an image that Linux mounts
//! by itself.
//!
//! [`write_erofs`] writes a whole tree, names and contents, into one EROFS image. A Linux from
//! 5.4 on mounts the image without strata. [`write_names`] writes an image of names alone, and
//! [`detached_overlay`] puts contents under it that lie elsewhere; a [`MarkedTree`] has the same
//! names for a user namespace, where EROFS is not mounted. [`names_ahead`] makes first walks of a
//! mount faster.
//!
//! Invariants: a tree is asked through `Lower` alone; equal trees give equal bytes; what the format
//! cannot hold is left out and reported, never changed; this crate makes mounts out of descriptors
//! and knows neither stores nor paths.

mod ahead;
mod erofs;
mod error;
mod marks;
mod mounting;

pub use ahead::names_ahead;
pub use erofs::{
    Dropped, NamesForm, VerityOf, WrittenImage, empty_image, write as write_erofs, write_names,
};
pub use error::{Error, Result};
pub use marks::MarkedTree;
pub use mounting::{OverlayParts, attach, detached_erofs, detached_overlay};
