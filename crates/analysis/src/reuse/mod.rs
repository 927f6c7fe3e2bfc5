//! What images have in common, and what each way of sharing would save.
//!
//! ```text
//! Accounts::sharing ──┬─ Levels: bytes with no sharing, of layers, of files
//! sharing_of        ──┴─ Matrix: image x image ── nearest, closest, clusters
//!                           pairs.rs: sums over sets of images, eight sets at a time
//! ```
//! Everything is computed from [`Sharing`](strata_layer::Sharing): groups of contents that the same
//! layers hold. Where it comes from (a store's index, or the layers of archives that are in no
//! store) makes no difference.
//!
//! Invariants: bytes are whole numbers from the first to the last sum; only the linkage of
//! clusters uses floating point. The same images in the same order give the same answer.

pub mod chunks;
mod clusters;
mod gathered;
mod known;
mod levels;
mod matrix;
mod pairs;
mod survey;

pub use clusters::{Cluster, Tree};
pub use gathered::{LayerContents, sharing_of};
pub use known::{Added, would_add};
pub use levels::{CountedLayer, Levels, levels};
pub use matrix::{Held, Matrix, Relative, Shared, Similarity, held, matrix, relatives};
pub use survey::{SurveyedLayer, cut_layer, survey_layer};

#[cfg(test)]
mod tests;
