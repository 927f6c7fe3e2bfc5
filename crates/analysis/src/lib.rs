//! Questions about images, answered from the index of a store.
//!
//! ```text
//! history       what each layer did to each name: why, diff, waste, duplicates
//! image_tree    all layers of one image at once, with totals: what `strata explore` shows
//! reuse         what images share, how alike they are, what other ways of sharing would save
//! lint          which entries of an image programs disagree on
//! Survey        what images share, of archives and layouts, of which nothing is loaded
//! ```
//!
//! Invariants: nothing is written, neither to a store nor beside it; questions to a store go
//! through its [`strata_layer::IndexReader`]; the same store gives the same answer.

pub mod history;
pub mod image_tree;
pub mod lint;
pub mod reuse;
mod survey;

pub use survey::{Survey, SurveyOptions, SurveyedImage};
