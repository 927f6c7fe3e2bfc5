//! Facts of images that are in no store: their layers are read as streams, and nothing is unpacked.
//!
//! ```text
//! FactSource ── images ── layers that the ledger has not ── Ledger ── Snapshot ── the same tables
//!   archive      manifest    several at once, each diff id     index.db
//!   reference    and config  once for all
//!   registry
//! ```
//!
//! The [`Ledger`](strata_layer::Ledger) lies in a working directory. A run that was killed is begun
//! again with the same one, and reads only what is missing.
//!
//! Invariants: what is refused is what a load refuses (but for stacks that do not merge, which need
//! the store); the tables are those of a store that has loaded the same images, but for what these
//! take on its disk, which is NULL; a layer is read once, however many images have it.

mod jobs;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use strata_image::{ImageConfig, Platform, SourceLimits, SourceSpec};
use strata_layer::{ImageRecord, Ledger, Limits, Progress};
use strata_registry::{Reference, Registries};
use strata_tree::BlobDigest;

use crate::error::Result;
use crate::{FactsOptions, WrittenFacts, write_tables};

/// Where images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactSource {
    /// In a layout or an archive.
    Files(SourceSpec),
    /// In a registry, under that name.
    Image(Reference),
    /// In a registry: all tags of the repositories that its catalogue lists.
    Registry {
        /// Its host, with its port if one is given.
        host: String,
        /// Only the repository of this name and those below it.
        prefix: Option<String>,
    },
}

/// How to read them.
#[derive(Debug, Clone)]
pub struct GatherOptions {
    /// The ledger's directory, which is made if it is not there.
    pub ledger: PathBuf,
    /// Of an index, the images for this platform; without it the host's.
    pub platform: Option<Platform>,
    /// How many images or layers are read at once.
    pub at_once: NonZeroUsize,
    /// Goes on after an image that cannot be read, and leaves it out.
    pub keep_going: bool,
    /// What the sources may make us read.
    pub limits: SourceLimits,
    /// What their layers may ask for.
    pub layer_limits: Limits,
}

/// What sources have, read.
pub struct GatheredFacts {
    ledger: Ledger,
    /// Images with their layers, each once.
    pub images: usize,
    /// Layers that were read now.
    pub read: u64,
    /// Layers that an earlier run had read.
    pub known: u64,
    /// What registries have under a tag that is no image for the platform, with the reason.
    pub passed_over: Vec<(String, String)>,
    /// Images that could not be read, with the reason; only with `keep_going`.
    pub failed: Vec<(String, String)>,
}

/// Reads all images of the sources. `scratch` gives files for archives that are compressed or come
/// through a pipe.
///
/// # Errors
/// The first thing that is not right: those of [`strata_image::load`] and [`strata_image::pull()`];
/// `Store` if the ledger cannot be written. What was read so far stays in the ledger.
pub fn gather(
    sources: &[FactSource],
    registries: &Registries,
    scratch: &(dyn Fn() -> strata_image::Result<File> + Sync),
    options: &GatherOptions,
    progress: &dyn Progress,
) -> Result<GatheredFacts> {
    let ledger = Ledger::open(&options.ledger)?;
    let run = jobs::Run::new(&ledger, registries, scratch, options, progress);
    let mut outcome = run.all(sources)?;
    let mut held: Vec<(ImageRecord, Vec<String>)> = Vec::new();
    for image in std::mem::take(&mut outcome.images) {
        let mut missing = None;
        for layer in &image.record.layers {
            if missing.is_none() && !ledger.has(layer)? {
                missing = Some(layer);
            }
        }
        match missing {
            None => held.push((image.record, image.names)),
            Some(layer) => {
                let why = format!("its layer {layer} could not be read");
                outcome.failed.push((image.title, why));
            }
        }
    }
    outcome.passed_over.sort();
    outcome.failed.sort();
    outcome.failed.dedup_by(|a, b| a.0 == b.0);
    ledger.show(&held)?;
    let images = ledger.snapshot()?.images()?.len();
    let jobs::Outcome { read, known, passed_over, failed, .. } = outcome;
    Ok(GatheredFacts { ledger, images, read, known, passed_over, failed })
}

/// Writes the facts of what was gathered, as [`crate::write`] writes those of a store.
///
/// # Errors
/// As [`crate::write`].
pub fn write_gathered(
    gathered: &GatheredFacts,
    dir: &Path,
    options: &FactsOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenFacts> {
    let snapshot = gathered.ledger.snapshot()?;
    let config = |id: &_| {
        let bytes = gathered.ledger.document(&BlobDigest::from(*id))?;
        Ok(ImageConfig::parse(&bytes)?)
    };
    write_tables(&snapshot, &config, dir, options, progress)
}
