//! [`PackedBlobs`]: as which blobs registries have layers that were packed here.
//!
//! A manifest says which blob a layer came as. A push of a layer makes a blob of its own where the
//! registry does not have that one. Whoever later asks for it by its digest is to find the layer.
//!
//! ```text
//! ROOT/packed.json    [{"blob": digest, "layer": diff id, "size": bytes}, ...]    newest last
//! ```
//!
//! Invariants: the file is replaced as a whole, and processes take turns (`flock` on `blobs/`); it
//! is knowledge that saves a transfer and nothing else, so where it is absent or damaged a new
//! one is begun; it has no more than [`KEPT`] blobs, and none of a layer that is gone.

use std::fs::File;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use strata_tree::{BlobDigest, DiffId};

use super::dir::StoreDir;
use crate::error::{IoContext, Result};
use crate::index::{self, shared::SharedIndex};
use crate::lock::{Lock, flock};

/// How many blobs are remembered.
const KEPT: usize = 4096;

/// Blobs of layers. See the module.
#[derive(Clone, Copy)]
pub struct PackedBlobs<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
}

/// One of them, as it is written.
#[derive(Clone, Serialize, Deserialize)]
struct One {
    blob: String,
    layer: String,
    size: u64,
}

impl<'s> PackedBlobs<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        Self { dir, index }
    }

    fn path(&self) -> PathBuf {
        self.dir.root().join("packed.json")
    }

    fn read(&self) -> Vec<One> {
        let text = std::fs::read(self.path()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// All blobs: digest and size in bytes, and the layer that each is.
    pub fn all(&self) -> Vec<(BlobDigest, u64, DiffId)> {
        let parsed = |one: One| Some((one.blob.parse().ok()?, one.size, one.layer.parse().ok()?));
        self.read().into_iter().filter_map(parsed).collect()
    }

    /// Remembers that a registry has `layer` as that blob.
    ///
    /// # Errors
    /// `Io`, `Sqlite`.
    pub fn remember(&self, layer: &DiffId, blob: &BlobDigest, size: u64) -> Result<()> {
        let blobs = self.dir.root().join("blobs");
        let doing = || format!("cannot lock {}", blobs.display());
        let turn = File::open(&blobs).doing(doing)?;
        flock(&turn, Lock::Exclusive).doing(doing)?;
        let new = One { blob: blob.to_string(), layer: layer.to_string(), size };
        let mut all = self.read();
        if all.iter().any(|one| (&one.blob, &one.layer) == (&new.blob, &new.layer)) {
            return Ok(());
        }
        let there: Vec<String> = {
            let layers = index::layers(&self.index.lock().db)?;
            layers.iter().map(|record| record.diff_id.to_string()).collect()
        };
        all.retain(|one| one.blob != new.blob && there.contains(&one.layer));
        all.push(new);
        let old = all.len().saturating_sub(KEPT);
        let doing = || format!("cannot write {}", self.path().display());
        let text = serde_json::to_vec(&all[old..]).map_err(std::io::Error::from).doing(doing)?;
        self.dir.write_aside(&self.path(), &text)
    }
}
