//! Garbage: layers that no image has and nobody holds; directories, blobs and trees without a row.
//!
//! Invariant: what a load in progress has published and not yet committed is locked by it, so it
//! is left alone.

use std::path::PathBuf;

use strata_tree::{BlobDigest, ChainId, DiffId};

use super::df::bytes_on_disk;
use super::dir::{NAMES_ENDING, StoreDir};
use super::images::chain_id;
use super::steps::Step;
use super::sweep::{remove_all, remove_file_if_there};
use crate::error::Result;
use crate::index::shared::SharedIndex;
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

/// One collection of garbage, with what it removed.
pub(super) struct Collector<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
    pub(super) report: GcReport,
    /// Directories without a row that stay, for a mount or an engine has their layers.
    pub(super) needed: Vec<DiffId>,
}

impl<'s> Collector<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        Self { dir, index, report: GcReport::default(), needed: Vec::new() }
    }

    /// Removes everything that no image needs and nobody is using.
    pub(super) fn collect_all(mut self) -> Result<GcReport> {
        let before = bytes_on_disk(self.dir)?;
        self.dir.sweep();
        self.layers()?;
        self.orphans()?;
        self.files()?;
        self.report.freed = before.saturating_sub(bytes_on_disk(self.dir)?);
        Ok(self.report)
    }

    /// Removes a layer if no image has it and nobody leases it; says whether it did.
    pub(super) fn collect(&self, record: &LayerRecord) -> Result<bool> {
        let mut index = self.index.lock();
        let tx = index.write()?;
        if images::referenced(&tx, &record.diff_id)? {
            return Ok(false);
        }
        let doomed = match self.dir.lock_for_removal(&[record.diff_id]) {
            Ok(doomed) if doomed.layers().next().is_none() => return Ok(false),
            Ok(doomed) => doomed,
            Err(error) if error.is_in_use() => return Ok(false),
            Err(error) => return Err(error),
        };
        index::remove_layer(&tx, record.id)?;
        tx.commit()?;
        drop(index);
        self.dir.step(Step::Unreferenced);
        self.dir.remove_layers(doomed)?;
        Ok(true)
    }

    /// Removes those of `layers` that no image has and nobody leases.
    pub(super) fn collect_of(&self, layers: &[DiffId]) -> Result<()> {
        for diff_id in layers {
            let record = index::find_layer(&self.index.lock().db, diff_id)?;
            if let Some(record) = record {
                self.collect(&record)?;
            }
        }
        Ok(())
    }

    /// Removes layers that no image has and nobody leases.
    fn layers(&mut self) -> Result<()> {
        let records = index::layers(&self.index.lock().db)?;
        for record in records {
            if self.collect(&record)? {
                self.report.layers.push(record.diff_id);
            }
        }
        Ok(())
    }

    /// Removes what lies in `layers/` without a row, unless somebody uses it: a rebuilt index has
    /// no row of a damaged layer, of which a mount may still show what is whole.
    ///
    /// # Errors
    /// `Sqlite`, `Io`.
    pub(super) fn orphans(&mut self) -> Result<()> {
        for (name, path) in self.dir.list("layers")? {
            if path.is_symlink() {
                remove_all(&path)?;
                self.report.orphans.push(path);
                continue;
            }
            let Locked::Held(_lock) = lock_path(&path, Lock::TryExclusive)? else { continue };
            if let Ok(diff_id) = DiffId::from_hex(&name) {
                if index::find_layer(&self.index.lock().db, &diff_id)?.is_some() {
                    continue;
                }
                if self.is_needed(&diff_id)? {
                    self.needed.push(diff_id);
                    continue;
                }
            }
            let trashed = self.dir.move_to_trash(&path)?;
            self.dir.step(Step::Trashed);
            remove_all(&trashed)?;
            self.report.orphans.push(path);
        }
        Ok(())
    }

    /// Whether a mount of the kernel or an engine has a layer, whose directory the caller has
    /// locked. Where that cannot be read it has.
    fn is_needed(&self, layer: &DiffId) -> Result<bool> {
        let mounted = self.dir.kernel_leases().kept()?;
        if mounted.iter().any(|mount| mount.layers.contains(layer)) || self.dir.is_held(layer)? {
            return Ok(true);
        }
        match self.dir.refuses(&[*layer]) {
            Ok(held) => Ok(held.is_some()),
            Err(error) if error.may_be_damage() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes what was compiled of a chain, unless it is that of an image.
    pub(super) fn derived(&self, chain: &ChainId) -> Result<()> {
        let mut index = self.index.lock();
        let tx = index.write()?;
        if images::all(&tx)?.iter().any(|image| chain_id(&image.layers) == Some(*chain)) {
            return Ok(());
        }
        remove_file_if_there(&self.dir.tree(chain))?;
        remove_file_if_there(&self.dir.names_image(chain))
    }

    /// Removes blobs and compiled trees that no image needs.
    fn files(&mut self) -> Result<()> {
        // Under the write lock: an image that is just being committed has its blobs before it.
        let mut index = self.index.lock();
        let tx = index.write()?;
        let images = images::all(&tx)?;
        for (name, path) in self.dir.list("blobs/sha256")? {
            let Ok(digest) = BlobDigest::from_hex(&name) else {
                remove_file_if_there(&path)?;
                self.report.orphans.push(path);
                continue;
            };
            let needed = images.iter().any(|image| {
                BlobDigest::from(image.id) == digest || image.manifest == Some(digest)
            });
            if !needed && !self.recent(&path) {
                remove_file_if_there(&path)?;
                self.report.blobs.push(digest);
            }
        }
        for (name, path) in self.dir.list("trees")? {
            let Ok(chain) = ChainId::from_hex(name.trim_end_matches(NAMES_ENDING)) else {
                remove_file_if_there(&path)?;
                self.report.orphans.push(path);
                continue;
            };
            if !images.iter().any(|image| chain_id(&image.layers) == Some(chain)) {
                remove_file_if_there(&path)?;
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
        let mut staging = self.dir.list("staging").unwrap_or_default().into_iter();
        staging.any(|(_, path)| matches!(lock_path(&path, Lock::TryExclusive), Ok(Locked::Busy)))
    }
}
