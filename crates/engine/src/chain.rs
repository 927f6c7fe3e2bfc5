//! [`OpenChain`]: layers on top of each other without an image, for an engine that names them by
//! itself.
//!
//! Invariants: its layers cannot be removed as long as it lives; an upper becomes a layer only as a
//! whole, and is read, never changed.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use strata_content::FileTree;
use strata_content::threads::beside;
use strata_image::{LayerPacking, PackedDiff, pack_diff};
use strata_kernel::{attach, detached_erofs};
use strata_layer::{LayerInput, LeasedLayer, Progress, Store, Unpacked};
use strata_tree::DiffId;
use strata_union::writable::{UnionOptions, UpperView};

use crate::error::{Error, ErrorContext, Result, bail};
use crate::mounts::kernel::hindrance;
use crate::trees::{open_names, open_tree};
use crate::uppers::{diff_pipe, write_diff};

/// Layers, leased, and their merged tree. See the module.
pub struct OpenChain {
    layers: Vec<DiffId>,
    files: FileTree,
    _leased: Vec<LeasedLayer>,
}

impl OpenChain {
    /// Opens layers of a store, base first; none are an empty tree.
    ///
    /// # Errors
    /// `Store` with `NoLayer` for one that the store has not; `Tree` if they do not merge.
    pub fn open(store: &Store, layers: &[DiffId]) -> Result<Self> {
        let mut leased = Vec::with_capacity(layers.len());
        for layer in layers {
            let lease = store.lease(layer)?;
            leased.push(lease.ok_or(strata_layer::Error::NoLayer(*layer))?);
        }
        let tree = open_tree(store, &leased)?;
        let contents = LeasedLayer::files(&leased)?;
        let files = FileTree::new(Arc::new(tree), Arc::new(contents));
        Ok(Self { layers: layers.to_vec(), files, _leased: leased })
    }

    /// The merged tree.
    pub fn files(&self) -> &FileTree {
        &self.files
    }

    /// Mounts the names of the merged tree on a directory: with the store's `layers/` as its
    /// data-only lower they are one lower of overlayfs. The mount outlives this process.
    ///
    /// # Errors
    /// `KernelCannot` where only a daemon can show the tree; `Store`, `Erofs`.
    pub fn mount_names(&self, store: &Store, directory: &Path) -> Result<()> {
        if let Some(why) = hindrance(store) {
            return Err(Error::KernelCannot(why));
        }
        let names = open_names(store, &self.layers, &self.files)?;
        let mount = detached_erofs(&names)?;
        Ok(attach(&mount, &File::from(open_dir(directory)?))?)
    }

    /// Takes what an upper above these layers changes into the store, as a layer; `None` if it
    /// changes nothing. The marks in the upper are those of the kernel's overlayfs.
    ///
    /// # Errors
    /// `Union` for a damaged upper; `Store`; `Refused` for what no layer can hold.
    pub fn take_upper(
        &self,
        store: &Store,
        upper: &Path,
        progress: &dyn Progress,
    ) -> Result<Option<Unpacked>> {
        let doing = || format!("cannot take {} in", upper.display());
        let view = UpperView::open(self.files.clone(), upper, UnionOptions::default());
        let changes = view.and_then(|view| view.changes()).with_context(doing)?;
        if changes.list().next().is_none() && !changes.changes_root().with_context(doing)? {
            return Ok(None);
        }
        let (reader, writer) = diff_pipe()?;
        let input = LayerInput {
            label: upper.display().to_string(),
            diff_id: None,
            blob: None,
            reader: Box::new(reader),
        };
        let (written, unpacked) =
            beside(|| write_diff(changes, writer), || store.unpack(input, progress))
                .context("cannot start a thread")?;
        // The writer's error comes first, as in a commit.
        let left_out = written.with_context(doing)?;
        let unpacked = unpacked.with_context(doing)?;
        let Some(left_out) = left_out else {
            bail!("cannot take {} in: it was not read to the end", upper.display())
        };
        for one in left_out {
            progress.warning(&upper.display().to_string(), &one);
        }
        Ok(Some(unpacked))
    }

    /// Packs what an upper above these layers changes, as a diff; the upper may be in use.
    ///
    /// # Errors
    /// `Union` for a damaged upper; `Image`.
    pub fn pack_upper(
        &self,
        store: &Store,
        upper: &Path,
        packing: LayerPacking,
    ) -> Result<PackedDiff> {
        let what = format!("cannot pack {}", upper.display());
        let view = UpperView::open(self.files.clone(), upper, UnionOptions::default());
        let changes = view.and_then(|view| view.changes()).with_context(|| what.clone())?;
        let contents = changes.contents();
        let layer = FileTree::new(Arc::new(changes), contents);
        Ok(pack_diff(store, packing, &what, &mut |out| {
            let written = strata_diff::export::write_changes(&layer, out);
            written.map_err(strata_layer::Error::from)?;
            Ok(())
        })?)
    }
}

/// Takes the names at `directory` out of sight; an overlayfs that uses them keeps them.
///
/// # Errors
/// `Io`: nothing is mounted there, or the caller may not.
pub fn unmount_names(directory: &Path) -> Result<()> {
    Ok(rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Why the kernel cannot mount layers of this store for this process; `None` if it may.
pub fn kernel_hindrance(store: &Store) -> Option<String> {
    hindrance(store)
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}
