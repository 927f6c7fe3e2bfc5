//! The moments at which a store changes for whoever looks at its disk.
//!
//! Invariant: every step that another process could see, or a crash could leave, is named here.

use std::sync::Arc;

/// A moment at which a crash leaves a state of its own on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The bodies of a layer are in staging, its headers are not.
    BodiesWritten,
    /// The layer is complete in staging, not yet durable.
    Staged,
    /// Its bytes are durable.
    Synced,
    /// Equal contents that others published meanwhile were linked; rows are in the transaction.
    Reconciled,
    /// It has its place in `layers/`.
    Renamed,
    /// That place is durable; the index does not know it yet.
    ParentSynced,
    /// The layer is in the index.
    LayerCommitted,
    /// A manifest or config is in `blobs/`.
    BlobWritten,
    /// `images.json` names an image that the index does not have yet.
    ImageListed,
    /// The image is in the index.
    ImageCommitted,
    /// A removed image or layer has left the index; its directory is still there.
    Unreferenced,
    /// The directory is in the trash.
    Trashed,
    /// A rebuilt index is complete and durable, and not in its place yet.
    IndexRebuilt,
    /// It has replaced the damaged one.
    IndexReplaced,
}

impl Step {
    /// Every step, in the order in which a load, a removal and a rebuild take them.
    pub const ALL: [Self; 14] = [
        Self::BodiesWritten,
        Self::Staged,
        Self::Synced,
        Self::Reconciled,
        Self::Renamed,
        Self::ParentSynced,
        Self::LayerCommitted,
        Self::BlobWritten,
        Self::ImageListed,
        Self::ImageCommitted,
        Self::Unreferenced,
        Self::Trashed,
        Self::IndexRebuilt,
        Self::IndexReplaced,
    ];
}

/// Called at every step; crash tests end the process in it.
pub type StepHook = Arc<dyn Fn(Step) + Send + Sync>;
