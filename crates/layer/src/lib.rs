//! The store of layers.
//!
//! A diff (the tar of a layer) is read and drafted into rows by `strata_diff`; its files are
//! written below `staging/`, where equal contents become one inode; then the layer is published:
//! into `layers/<diff id>/` and, as rows, into `index.db`. [`StoredLayer`] shows a published layer
//! as a [`strata_tree::Lower`]; [`checkout`] writes any tree back as files.
//!
//! Invariants: a layer in the index is complete and durable on disk; no path of an archive leaves
//! the staging directory; nothing but directories and plain read-only files is created from image
//! data; nothing of a refused input stays.

mod body_target;
mod books;
mod build;
pub mod checkout;
mod early_sync;
mod error;
mod given;
mod index;
mod inspect;
mod layout;
mod ledger;
mod locals;
mod lock;
mod measure;
mod offered;
mod progress;
mod read_ahead;
mod reader;
mod scratch;
mod snapshot;
mod stage;
mod store;
mod stored_layer;
mod verified;
mod verity;
mod write_behind;

pub use error::{Error, IoContext, Result};
pub use given::GivenFiles;
pub use index::{ImageRecord, LayerRecord};
pub use inspect::{InspectedContent, InspectedLayer, inspect};
pub use ledger::Ledger;
pub use measure::Space;
pub use progress::{Event, Progress};
pub use reader::{
    ContentId, HolderSetId, IndexReader, NamedContent, RepeatedContent, RepeatedContents,
};
pub use snapshot::{Snapshot, SnapshotContent, SnapshotEntry};
pub use store::{
    Accounts, BlockUsage, Disk, DiskUsage, FsckReport, GcReport, Giving, HeldImage, HeldImages,
    HeldKind, HeldName, HeldNames, Hold, Holds, Images, KernelLease, KernelLeases, LEASE_BLOCK,
    LayerBlobs, LayerInput, LayerUsage, LeasedImage, LeasedLayer, NamesImages, NamesKind, Problem,
    Removal, SharedGroup, Sharing, Step, StepHook, Store, StoreOptions, TaggedImages, Unpacked,
    Usage, Verity, chain_above, chain_id,
};
pub use stored_layer::StoredLayer;
pub use strata_diff::Limits;
pub use verified::VerifiedContents;
