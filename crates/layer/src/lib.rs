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

mod body;
mod build;
pub mod checkout;
pub mod diff;
mod draft;
mod error;
pub mod export;
mod headers;
mod index;
mod inspect;
mod layout;
mod limits;
mod lock;
mod measure;
mod progress;
mod read_ahead;
mod reader;
mod stage;
mod store;
mod stored_layer;
pub mod stream;

pub use error::{Error, IoContext, Result};
pub use index::rows::{EntryRow, Meta, RowKind};
pub use index::{ImageRecord, LayerRecord};
pub use inspect::{InspectedContent, InspectedLayer, inspect};
pub use limits::Limits;
pub use measure::Space;
pub use progress::{Event, Progress};
pub use reader::{
    ContentId, HolderSetId, IndexReader, NamedContent, RepeatedContent, RepeatedContents,
};
pub use store::{
    BlockUsage, Disk, DiskUsage, FsckReport, GcReport, HeldImage, HeldKind, HeldLayer, HeldName,
    HeldNames, LayerInput, LayerUsage, Problem, Removal, SharedGroup, Sharing, Step, StepHook,
    Store, StoreOptions, Unpacked, Usage, chain_id,
};
pub use stored_layer::StoredLayer;
