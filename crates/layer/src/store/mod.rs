//! The store on disk and the order in which it changes.
//!
//! ```text
//! ROOT/                   0700, unless its owner lets others in, see dir.rs
//!   index.db              see index/
//!   images.json           images and tags once more, for a rebuild without index.db
//!   layers/<diff id>/     diff/ and headers.zst: complete in itself
//!   trees/<chain id>      compiled trees: derived, disposable
//!   blobs/sha256/<hex>    manifests and configs
//!   mounts/               one file a mount, kept by the daemons; what engines have taken
//!   holds/                layers that snapshots of an engine need, see holds.rs
//!   layer-blobs           which blobs are which layers, as far as known
//!   staging/  trash/      emptied at the next start, as far as nobody alive holds them
//! ```
//!
//! A layer is published by stage -> syncfs -> rename -> fsync parent -> commit. It is removed by
//! commit -> rename to trash -> remove. So at any moment a layer in the index is complete on disk,
//! and what is on disk beyond it is garbage that [`Store::gc`] removes.
//!
//! [`Store`] is what others open. Its parts have their state to themselves:
//!
//! ```text
//! StoreDir          the root: paths, single files, blobs, trash; who is told of each Step
//! SharedIndex       the connection to index.db that all threads share
//! OfferedContents   what running unpacks of this process have written and not yet published
//! Images, Accounts  images and tags; who holds what: each on a directory and an index
//! Unpack, Collector, Checker, Mender     one operation each, with what it has found so far
//! ```
//!
//! Invariant: every step that another process could see is named in [`Step`].

mod access;
mod accounts;
mod blobs;
mod check;
mod check_accounts;
mod check_files;
mod check_holds;
mod check_index;
mod checker;
mod df;
mod dir;
mod files;
mod fsck_report;
mod gc;
mod held_images;
mod holds;
mod images;
mod kernel_leases;
mod layer_blobs;
mod layer_rows;
mod leases;
mod listing;
mod mend;
mod names;
mod names_images;
mod new_index;
mod publish;
mod rebuild;
mod removal;
mod reserve;
mod sharing;
mod steps;
mod sweep;
mod unpack;
mod verity;

use std::fs::File;
use std::path::{Path, PathBuf};

use strata_diff::Limits;
use strata_tree::{BlobDigest, ChainId, DiffId, ImageId};

use crate::error::Result;
use crate::index::shared::SharedIndex;
use crate::index::{self, LayerRecord};
use crate::offered::OfferedContents;
use crate::scratch::BooksMemory;

pub use accounts::Accounts;
pub use df::{Disk, DiskUsage, LayerUsage};
pub(crate) use dir::{StoreDir, has_layers};
pub use fsck_report::{FsckReport, Problem};
pub use gc::GcReport;
pub use held_images::{HeldImage, HeldImages};
pub use holds::{Hold, Holds};
pub use images::{Images, TaggedImages, chain_above, chain_id};
pub use kernel_leases::{KernelLease, KernelLeases, LEASE_BLOCK};
pub use layer_blobs::LayerBlobs;
pub use leases::{LeasedImage, LeasedLayer};
pub use names::{HeldKind, HeldName, HeldNames};
pub use names_images::{NamesImages, NamesKind};
pub use publish::Unpacked;
pub use removal::Removal;
pub use sharing::{BlockUsage, SharedGroup, Sharing, Usage};
pub use steps::{Step, StepHook};
pub(crate) use unpack::verify;
pub use unpack::{Giving, LayerInput};
pub use verity::Verity;

/// How to open a store.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Bounds on what a layer may ask for.
    pub limits: Limits,
    /// Find out the fs-verity digests of layers that are unpacked, and seal their files.
    pub verity: bool,
    /// Bytes of memory for what is noted of the layers that are unpacked at a time, or of those
    /// that are checked; what is beyond them goes to a file in `staging/`. 48 MiB where it is not
    /// said.
    pub memory: Option<usize>,
    /// Called at every step.
    pub on_step: Option<StepHook>,
    /// A directory, which need not be there, for what a store that cannot be written has no room
    /// for: compiled trees, and a copy of an index that has a log.
    pub elsewhere: Option<PathBuf>,
}

/// A layer store, opened: its parts, each with a state of its own.
pub struct Store {
    dir: StoreDir,
    index: SharedIndex,
    offered: OfferedContents,
    limits: Limits,
    elsewhere: Option<PathBuf>,
    seals: bool,
}

impl Store {
    fn assemble(mut dir: StoreDir, index: SharedIndex, options: StoreOptions) -> Self {
        let StoreOptions { limits, elsewhere, verity: seals, memory, on_step: _ } = options;
        if let Some(memory) = memory {
            dir.set_memory(BooksMemory::of(memory));
        }
        Self { dir, index, offered: OfferedContents::default(), limits, elsewhere, seals }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.dir.root()
    }

    /// The bounds that it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Its images and tags.
    pub fn images(&self) -> Images<'_> {
        Images::new(&self.dir, &self.index)
    }

    /// Who holds which contents, and what the disk takes for it.
    pub fn accounts(&self) -> Accounts<'_> {
        Accounts::new(&self.dir, &self.index)
    }

    /// Counts, and closes the store first, so that the index is counted as it is left behind.
    ///
    /// # Errors
    /// As [`Accounts::disk_usage`].
    pub fn into_disk_usage(self) -> Result<DiskUsage> {
        let mut usage = self.accounts().disk_usage()?;
        let Self { dir, index, .. } = self;
        index.close()?;
        usage.disk.index = df::index_space(&dir)?;
        Ok(usage)
    }

    /// All layers, in the order in which they came.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn layers(&self) -> Result<Vec<LayerRecord>> {
        index::layers(&self.index.lock().db)
    }

    /// One layer.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>> {
        index::find_layer(&self.index.lock().db, diff_id)
    }

    /// Leases a layer; `None` if the store does not have it.
    ///
    /// # Errors
    /// `Damaged` if the index has it and `layers/` does not; `Io`.
    pub fn lease(&self, diff_id: &DiffId) -> Result<Option<LeasedLayer>> {
        LeasedLayer::take(&self.dir, &self.index, diff_id)
    }

    /// Leases every layer of an image, base first, and the image itself.
    ///
    /// # Errors
    /// `NoImage`, `NoLayer`, and as [`Store::lease`].
    pub fn lease_image(&self, id: &ImageId) -> Result<(LeasedImage, Vec<LeasedLayer>)> {
        LeasedImage::take(&self.dir, &self.index, id)
    }

    /// Where the files of a layer are, in the layer's own tree.
    pub fn layer_files(&self, layer: &DiffId) -> PathBuf {
        self.dir.layer(layer).join("diff")
    }

    /// Keeps a manifest or config, durably.
    ///
    /// # Errors
    /// `Io`.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<BlobDigest> {
        self.dir.put_blob(bytes)
    }

    /// Reads a manifest or config.
    ///
    /// # Errors
    /// `NoBlob`, `Damaged` if its bytes are not those of its name, `Io`.
    pub fn blob(&self, digest: &BlobDigest) -> Result<Vec<u8>> {
        self.dir.blob(digest)
    }

    /// An unnamed file in `staging/`, gone when it is closed.
    ///
    /// # Errors
    /// `Io`.
    pub fn scratch_file(&self) -> Result<File> {
        self.dir.scratch_file()
    }

    /// Which blobs its layers are known to be.
    pub fn layer_blobs(&self) -> LayerBlobs<'_> {
        LayerBlobs::new(&self.dir, &self.index)
    }

    /// What `holder`, one path component, has of its layers.
    ///
    /// # Errors
    /// `Damaged` for what cannot be the name of a holder.
    pub fn holds(&self, holder: &str) -> Result<Holds> {
        Holds::of(self.dir.root(), holder)
    }

    /// What all engines have of its layers.
    ///
    /// # Errors
    /// `Damaged` for a hold that says nothing; `Io`.
    pub fn held_images(&self) -> Result<HeldImages> {
        HeldImages::of(&self.dir)
    }

    /// The images of names that the kernel mounts.
    pub fn names_images(&self) -> NamesImages<'_> {
        NamesImages(&self.dir)
    }

    /// Where the compiled tree of that chain is, or would be.
    pub fn tree_path(&self, chain: &ChainId) -> PathBuf {
        self.dir.tree(chain)
    }

    /// Puts a compiled tree in its place, in one step that readers of an older one do not notice.
    ///
    /// # Errors
    /// `Io`, and what `write` says.
    pub fn put_tree(
        &self,
        chain: &ChainId,
        write: impl FnOnce(&File) -> strata_tree::Result<()>,
    ) -> Result<()> {
        self.dir.put_derived(&self.dir.tree(chain), |file| write(file).map_err(crate::Error::from))
    }

    /// Removes everything that no image needs and nobody is using.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn gc(&self) -> Result<GcReport> {
        gc::Collector::new(&self.dir, &self.index).collect_all()
    }

    /// Gives up layers that a failed load brought: those that no image has and nobody else leases
    /// are removed.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn discard_unreferenced(&self, leased: Vec<LeasedLayer>) -> Result<()> {
        let layers: Vec<DiffId> = leased.iter().map(|layer| *layer.diff_id()).collect();
        drop(leased);
        gc::Collector::new(&self.dir, &self.index).collect_of(&layers)
    }

    /// Removes the compiled tree of a chain and its image of names, unless the chain is that of an
    /// image. A mount that has them open keeps them; both are compiled again when they are needed.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn drop_derived(&self, chain: &ChainId) -> Result<()> {
        gc::Collector::new(&self.dir, &self.index).derived(chain)
    }

    /// Its directory, for what reads of it beside the index.
    pub(crate) fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// Its index.
    pub(crate) fn index(&self) -> &SharedIndex {
        &self.index
    }
}
