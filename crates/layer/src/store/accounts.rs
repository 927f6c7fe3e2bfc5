//! [`Accounts`]: who holds which contents, what the disk takes for it, and what a removal frees.
//!
//! Invariant: nothing is changed, neither in the index nor on disk.

use strata_tree::ImageId;

use super::df::{self, DiskUsage};
use super::dir::StoreDir;
use super::names::HeldNames;
use super::removal::{self, Removal};
use super::sharing::Sharing;
use crate::error::Result;
use crate::index::shared::SharedIndex;

/// The accounts of a store, kept in its index.
#[derive(Clone, Copy)]
pub struct Accounts<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
}

impl<'s> Accounts<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        Self { dir, index }
    }

    /// All contents by the layers that hold them.
    ///
    /// ```
    /// # fn main() -> strata_layer::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// let store = strata_layer::Store::open(&place.path().join("store"))?;
    /// let (images, sharing) = (store.images().all()?, store.accounts().sharing()?);
    /// // What each image costs, and what removing it alone frees.
    /// let usage = sharing.images(&images);
    /// for (image, usage) in images.iter().zip(&usage) {
    ///     println!("{}: {} stored, {} its own", image.id, usage.stored, usage.unique);
    /// }
    /// // Everybody's share and what nobody holds is the store.
    /// let shares: u64 = usage.iter().map(|usage| usage.attributed).sum();
    /// let rest = sharing.unheld(&images);
    /// assert_eq!(shares + rest.stored, store.accounts().disk_usage()?.stored);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Sqlite`; `Damaged` if a row of the index is none that strata writes.
    pub fn sharing(&self) -> Result<Sharing> {
        Sharing::read(&self.index.lock().db)
    }

    /// Counts. As long as the store is open, its index has a log that counts too; see
    /// [`Store::into_disk_usage`](super::Store::into_disk_usage).
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        df::disk_usage(self.dir, self.index)
    }

    /// Prepares to read the names of layers; `sharing` is the store's.
    ///
    /// # Errors
    /// `Sqlite`; `Damaged` if a row of the index is none that strata writes.
    pub fn held_names(&self, sharing: &Sharing) -> Result<HeldNames<'s>> {
        HeldNames::new(self.index, sharing)
    }

    /// What removing `wanted`, one after the other, and then the names `untagged` would free.
    ///
    /// ```
    /// # fn main() -> strata_layer::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// let store = strata_layer::Store::open(&place.path().join("store"))?;
    /// let all: Vec<_> = store.images().all()?.iter().map(|image| image.id).collect();
    /// let freed = store.accounts().removal(&all, &[])?;
    /// println!("{} layers, {} bytes", freed.layers.len(), freed.total().bytes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NoImage`; `Sqlite`, `Io`.
    pub fn removal(&self, wanted: &[ImageId], untagged: &[String]) -> Result<Removal> {
        removal::removal(self.dir, self.index, wanted, untagged)
    }
}
