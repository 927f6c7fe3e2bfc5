//! Layers and the store that keeps them.
//!
//! A diff (the tar of a layer) is read by [`diff::DiffReader`], drafted into a tree by the
//! whiteout rules, and written below `staging/`; equal contents become one inode; then the layer
//! is published: into `layers/<diff id>/` and, as rows, into `index.db`. [`StoredLayer`] shows a
//! published layer as a [`strata_tree::Lower`]; [`checkout`] and [`export`] write any tree back as
//! files or as a tar.
//!
//! Invariants: a layer in the index is complete and durable on disk; no path of an archive leaves
//! the staging directory; nothing but directories and plain read-only files is created from image
//! data; nothing of a refused input stays.

mod build;
pub mod checkout;
pub mod diff;
mod draft;
mod error;
pub mod export;
mod headers;
pub mod history;
mod index;
mod limits;
mod lock;
mod progress;
pub mod reuse;
mod stage;
mod store;
mod stored_layer;
pub mod stream;

pub use error::{Error, Result};
pub use index::{ImageRecord, LayerRecord};
pub use limits::Limits;
pub use progress::{Event, Progress};
pub use store::{
    DiskUsage, FsckReport, GcReport, HeldImage, HeldLayer, ImageUsage, LayerInput, LayerUsage,
    Problem, SharedGroup, Sharing, Step, StepHook, Store, StoreOptions, Unpacked, chain_id,
};
pub use stored_layer::StoredLayer;
