//! Where bytes come from: the second seam, beside the names of [`strata_tree::Lower`].
//!
//! A tree says which bytes a regular file has ([`strata_tree::ContentRef`]); a [`Contents`] opens
//! them. So names can be asked without a byte being there, and bytes can come from a store, from
//! memory or from far away without any tree knowing.
//!
//! ```text
//! Lower --content(node)--> ContentRef --open--> Contents --> Content: len, read_at, as_file
//!   names                  layer, path                        bytes
//! ```
//!
//! [`Files`] are the files below the directories of layers, [`Joined`] puts several contents one
//! above the other, [`Memory`] holds bytes. A [`FileTree`] is a tree with its contents.
//!
//! Invariants: a content is read-only and never changes while it is open; a caller that can use a
//! file asks [`Content::as_file`] first, and reads otherwise; this crate knows no store and no
//! format.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod contents;
#[cfg(any(test, feature = "conformance"))]
mod failing;
mod file_tree;
mod files;
mod joined;
mod memory;
pub mod threads;

pub use contents::{Content, Contents, Reader};
#[cfg(any(test, feature = "conformance"))]
pub use failing::FailingAfter;
pub use file_tree::FileTree;
pub use files::{FileContent, Files, LayerDir};
pub use joined::Joined;
pub use memory::Memory;

#[cfg(test)]
mod tests;
