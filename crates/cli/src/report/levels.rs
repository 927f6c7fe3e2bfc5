//! What pieces of files would take if the store shared those: measured, when asked for.
//!
//! Invariant: every content of every layer is cut, so the levels compare with what the store holds.

use anyhow::Result;
use serde::Serialize;
use strata_analysis::reuse::chunks::{ChunkOptions, Cut, MeanSize, measure_chunks};
use strata_layer::Store;

use crate::context::Context;
use crate::reuse::chunks::{watched, written};

/// One way of cutting.
#[derive(Debug, Serialize)]
pub(super) struct Level {
    name: String,
    /// Bytes of the distinct pieces.
    bytes: u64,
    about: &'static str,
}

impl Level {
    /// A level of this name.
    pub(super) fn new(name: &str, bytes: u64, about: &'static str) -> Self {
        Self { name: name.to_owned(), bytes, about }
    }
}

/// Reads every content of the store, with progress on stderr.
pub(super) fn measure(context: &Context, store: &Store) -> Result<Vec<Level>> {
    let layers: Vec<_> = store.layers()?.into_iter().map(|layer| layer.diff_id).collect();
    let means = [64 << 10, 8 << 10].into_iter().filter_map(MeanSize::new).collect();
    let options = ChunkOptions { means, compress: false, ..ChunkOptions::default() };
    let measured =
        watched(context, |progress| Ok(measure_chunks(store, &layers, &options, progress)?))?;
    let level = |name: String, bytes, about| Some(Level { name, bytes, about });
    let cuts = measured.cuts.into_iter().filter_map(|of| match of.cut {
        Cut::Files => None,
        Cut::Chunks(mean) => {
            let name = format!("{} chunks", written(mean.bytes()));
            level(name, of.bytes, "chunks cut by content (fastcdc), of this mean size")
        }
        Cut::Blocks => level("4KiB blocks".to_owned(), of.bytes, "blocks cut by position"),
    });
    Ok(cuts.collect())
}
