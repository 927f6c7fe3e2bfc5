//! The store on disk and the order in which it changes.
//!
//! ```text
//! ROOT/                   0700
//!   index.db              see index/
//!   images.json           images and tags once more, for a rebuild without index.db
//!   layers/<diff id>/     diff/ and headers.zst: complete in itself
//!   trees/<chain id>      compiled trees: derived, disposable
//!   blobs/sha256/<hex>    manifests and configs
//!   mounts/               one file a mount, kept by the daemons
//!   staging/  trash/      emptied at the next start, as far as nobody alive holds them
//! ```
//!
//! A layer is published by stage -> syncfs -> rename -> fsync parent -> commit. It is removed by
//! commit -> rename to trash -> remove. So at any moment a layer in the index is complete on disk,
//! and what is on disk beyond it is garbage that [`Store::gc`] removes.
//!
//! Invariants: nothing is reachable by other users (the root is 0700); every step that another
//! process could see is named in [`Step`].

mod access;
mod blobs;
mod check;
mod check_accounts;
mod check_files;
mod check_index;
mod checker;
mod df;
mod fsck_report;
mod gc;
mod images;
mod leases;
mod listing;
mod mend;
mod names;
mod new_index;
mod publish;
mod rebuild;
mod removal;
mod sharing;
mod sweep;
mod unpack;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use strata_tree::{ChainId, ContentDigest, DiffId};

use crate::error::{Error, IoContext, Result};
use crate::index::Index;
use crate::layout::layer_path;
use crate::lock::{Lock, flock};
use strata_diff::Limits;

pub use df::{Disk, DiskUsage, LayerUsage};
pub use fsck_report::{FsckReport, Problem};
pub use gc::GcReport;
pub use images::chain_id;
pub use leases::{LeasedImage, LeasedLayer};
pub use names::{HeldKind, HeldName, HeldNames};
pub use removal::Removal;
pub use sharing::{BlockUsage, SharedGroup, Sharing, Usage};
pub(crate) use unpack::verify;
pub use unpack::{LayerInput, Unpacked};

use new_index::NewIndex;

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

/// How to open a store.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Bounds on what a layer may ask for.
    pub limits: Limits,
    /// Called at every step.
    pub on_step: Option<StepHook>,
    /// A directory, which need not be there, for what a store that cannot be written has no room
    /// for: compiled trees, and a copy of an index that has a log.
    pub elsewhere: Option<PathBuf>,
}

/// Contents that running unpacks of this process have written and not yet published.
pub(crate) type Staged = Mutex<HashMap<ContentDigest, (Arc<OwnedFd>, PathBuf)>>;

/// A layer store, opened.
pub struct Store {
    root: PathBuf,
    root_fd: OwnedFd,
    options: StoreOptions,
    index: Mutex<Index>,
    staged: Staged,
    /// Why nothing can be written; see [`Store::open_existing`].
    read_only: Option<String>,
}

const DIRS: [&str; 7] = ["layers", "trees", "blobs", "blobs/sha256", "mounts", "staging", "trash"];

impl Store {
    /// Where the files of a layer are, in the layer's own tree.
    pub fn layer_files(&self, layer: &DiffId) -> PathBuf {
        self.root.join(layer_path(layer)).join("diff")
    }

    /// Opens the store at `root`, makes it if there is none, and removes what dead processes left.
    ///
    /// # Errors
    /// `NoIndex` if layers are there but `index.db` is not; `NewerStore`; `Io`.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, StoreOptions::default())
    }

    /// As [`Store::open`], with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self> {
        let root_fd = make_root(root)?;
        // As long as the store is open, nobody puts another index in place.
        flock(&root_fd, Lock::Shared).doing(|| format!("cannot lock {}", root.display()))?;
        let path = root.join("index.db");
        if !path.exists() {
            // Asked again after the layers: another process may have made both meanwhile.
            if has_layers(root)? && !path.exists() {
                return Err(Error::NoIndex(root.to_owned()));
            }
            NewIndex::make(root)?.put_first(&path)?;
        }
        let store = Self::assemble(root, root_fd, options, Index::open(&path)?);
        store.sweep();
        Ok(store)
    }

    fn assemble(root: &Path, root_fd: OwnedFd, options: StoreOptions, index: Index) -> Self {
        Self {
            root: root.to_owned(),
            root_fd,
            options,
            index: Mutex::new(index),
            staged: Mutex::default(),
            read_only: None,
        }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same, open.
    pub(crate) fn root_fd(&self) -> BorrowedFd<'_> {
        self.root_fd.as_fd()
    }

    /// The bounds that it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// An unnamed file in `staging/`, gone when it is closed.
    ///
    /// # Errors
    /// `Io`.
    pub fn scratch_file(&self) -> Result<File> {
        let dir = self.root.join("staging");
        let doing = || format!("cannot make a file in {}", dir.display());
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::open(&dir, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => Ok(fd.into()),
            // A file system without O_TMPFILE: made with a name, which is taken away at once.
            Err(_) => {
                let path = dir.join(format!("scratch-{}-{:p}", std::process::id(), &flags));
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .doing(doing)?;
                self.remove_file_if_there(&path)?;
                Ok(file)
            }
        }
    }

    /// Where the compiled tree of that chain is, or would be.
    pub fn tree_path(&self, chain: &ChainId) -> PathBuf {
        self.root.join("trees").join(chain.hex())
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
        let target = self.tree_path(chain);
        let doing = || format!("cannot write {}", target.display());
        let (temporary, file) = self.aside("tree")?;
        let written = write(&file).map_err(Error::from);
        // Opening checks the header alone, so the rest has to be on disk before the name is.
        let synced = written.and_then(|()| file.sync_data().doing(doing));
        let placed = synced.and_then(|()| std::fs::rename(&temporary, &target).doing(doing));
        if placed.is_err() {
            std::fs::remove_file(&temporary).doing(doing)?;
        }
        placed
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        // A panic while the lock was held has rolled its transaction back.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, step: Step) {
        if let Some(hook) = &self.options.on_step {
            hook(step);
        }
    }
}

fn make_root(root: &Path) -> Result<OwnedFd> {
    let doing = || format!("cannot make the store at {}", root.display());
    if !root.is_dir() {
        if let Some(parent) = root.parent() {
            std::fs::create_dir_all(parent).doing(doing)?;
        }
        match rustix::fs::mkdir(root, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).doing(doing),
        }
    }
    for dir in DIRS {
        let path = root.join(dir);
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).doing(|| format!("cannot make {}", path.display())),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).doing(doing)
}

fn has_layers(root: &Path) -> Result<bool> {
    let layers = root.join("layers");
    match std::fs::read_dir(&layers) {
        Ok(mut found) => Ok(found.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing(|| format!("cannot list {}", layers.display())),
    }
}
