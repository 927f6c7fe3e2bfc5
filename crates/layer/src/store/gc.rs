//! Garbage: layers without an image, directories and blobs and trees without a row.
//!
//! Invariant: what a load in progress has published and not yet committed is locked by it, so it
//! is left alone.

use std::path::PathBuf;

use strata_tree::{BlobDigest, ChainId, DiffId};

use super::sweep::remove_all;
use super::{LeasedLayer, Step, Store, chain_id};
use crate::error::{Error, IoContext, Result};
use crate::index::{self, LayerRecord, images};
use crate::lock::{Lock, Locked, lock_path};

/// What a collection removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GcReport {
    /// Layers of the index that no image had.
    pub layers: Vec<DiffId>,
    /// What lay in `layers/`, `blobs/` and `trees/` and the index did not have.
    pub orphans: Vec<PathBuf>,
    /// Blobs that no image needed.
    pub blobs: Vec<BlobDigest>,
    /// Compiled trees of images that are gone.
    pub trees: Vec<ChainId>,
    /// Bytes of regular files that all of this freed.
    pub freed: u64,
}

impl Store {
    /// Removes everything that no image needs and nobody is using.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn gc(&self) -> Result<GcReport> {
        let before = self.bytes_on_disk()?;
        self.sweep();
        let mut collector = Collector::new(self);
        collector.layers()?;
        collector.orphans()?;
        collector.files()?;
        let mut report = collector.report;
        report.freed = before.saturating_sub(self.bytes_on_disk()?);
        Ok(report)
    }

    /// Gives up layers that a failed load brought: those that no image has and nobody else holds
    /// are removed.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub fn discard_unreferenced(&self, leased: Vec<LeasedLayer>) -> Result<()> {
        let layers: Vec<DiffId> = leased.iter().map(|layer| *layer.diff_id()).collect();
        drop(leased);
        for diff_id in layers {
            if let Some(record) = self.layer(&diff_id)? {
                self.collect(&record)?;
            }
        }
        Ok(())
    }

    /// Removes a layer if no image has it and nobody holds it; says whether it did.
    pub(super) fn collect(&self, record: &LayerRecord) -> Result<bool> {
        let mut index = self.index();
        let tx = index.write()?;
        if images::referenced(&tx, &record.diff_id)? {
            return Ok(false);
        }
        let doomed = match self.lock_for_removal(&[record.diff_id]) {
            Ok(doomed) => doomed,
            Err(Error::InUse { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        index::remove_layer(&tx, record.id)?;
        tx.commit()?;
        drop(index);
        self.step(Step::Unreferenced);
        self.trash_layers(doomed)?;
        Ok(true)
    }

    pub(super) fn list(&self, dir: &str) -> Result<Vec<(String, PathBuf)>> {
        let path = self.root.join(dir);
        let doing = || format!("cannot list {}", path.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&path).doing(doing)? {
            let entry = entry.doing(doing)?;
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        found.sort();
        Ok(found)
    }
}

/// One collection of garbage, with what it removed.
pub(super) struct Collector<'s> {
    store: &'s Store,
    pub(super) report: GcReport,
}

impl<'s> Collector<'s> {
    pub(super) fn new(store: &'s Store) -> Self {
        Self { store, report: GcReport::default() }
    }

    /// Removes layers that no image has and nobody holds.
    fn layers(&mut self) -> Result<()> {
        for record in self.store.layers()? {
            if self.store.collect(&record)? {
                self.report.layers.push(record.diff_id);
            }
        }
        Ok(())
    }

    /// Removes what lies in `layers/` without a row, unless somebody holds it.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub(super) fn orphans(&mut self) -> Result<()> {
        for (name, path) in self.store.list("layers")? {
            if path.is_symlink() {
                remove_all(&path)?;
                self.report.orphans.push(path);
                continue;
            }
            let Locked::Held(_lock) = lock_path(&path, Lock::TryExclusive)? else { continue };
            if let Ok(diff_id) = DiffId::from_hex(&name)
                && self.store.layer(&diff_id)?.is_some()
            {
                continue;
            }
            let trashed = self.store.trash(&path)?;
            self.store.step(Step::Trashed);
            remove_all(&trashed)?;
            self.report.orphans.push(path);
        }
        Ok(())
    }

    /// Removes blobs and compiled trees that no image needs.
    fn files(&mut self) -> Result<()> {
        // Under the write lock: an image that is just being committed has its blobs before it.
        let mut index = self.store.index();
        let tx = index.write()?;
        let images = images::all(&tx)?;
        for (name, path) in self.store.list("blobs/sha256")? {
            let Ok(digest) = BlobDigest::from_hex(&name) else {
                self.store.remove_file_if_there(&path)?;
                self.report.orphans.push(path);
                continue;
            };
            let needed = images.iter().any(|image| {
                BlobDigest::from(image.id) == digest || image.manifest == Some(digest)
            });
            if !needed && !self.recent(&path) {
                self.store.remove_file_if_there(&path)?;
                self.report.blobs.push(digest);
            }
        }
        for (name, path) in self.store.list("trees")? {
            let Ok(chain) = ChainId::from_hex(&name) else {
                self.store.remove_file_if_there(&path)?;
                self.report.orphans.push(path);
                continue;
            };
            if !images.iter().any(|image| chain_id(&image.layers) == Some(chain)) {
                self.store.remove_file_if_there(&path)?;
                self.report.trees.push(chain);
            }
        }
        Ok(())
    }

    /// A load puts its blobs just before it commits; a minute is ample, and a later collection
    /// takes what a crash left.
    fn recent(&self, path: &std::path::Path) -> bool {
        let modified = path.metadata().and_then(|meta| meta.modified()).ok();
        let age = modified.and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age.as_secs() < 60) && self.others_alive()
    }

    fn others_alive(&self) -> bool {
        let mut staging = self.store.list("staging").unwrap_or_default().into_iter();
        staging.any(|(_, path)| matches!(lock_path(&path, Lock::TryExclusive), Ok(Locked::Busy)))
    }
}
