//! The index of a store as a Parquet data set, for programs that read many stores at once.
//!
//! ```text
//! Snapshot ── rows of a table ── TableWriter ── TABLE.parquet ┐
//! configs ─┘   images.rs          columns of a     ...        ├ DataSet: store=NAME/day=DAY/
//!              layers.rs          row group        7 tables   ┘ in one step
//!              entries.rs
//! ```
//!
//! `docs/FACTS.md` describes the tables; [`schema`] is what it describes.
//!
//! Invariants: the same store gives the same bytes on the same day; memory depends on the size of
//! a row group and on how many directories lie side by side, not on how many entries there are; a
//! reader finds a whole data set or none.

mod data_set;
mod entries;
mod error;
mod fleet;
mod gather;
mod hmac;
mod images;
mod layers;
mod paths;
mod place;
pub mod schema;
mod table;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use strata_image::ImageConfig;
use strata_layer::{Snapshot, Store};
use strata_tree::ImageId;

pub use error::{Error, Result};
pub use fleet::{Fleet, FleetImage, FleetLayer, FleetStore, read_fleet};
pub use gather::{FactSource, GatherOptions, GatheredFacts, gather, write_gathered};
pub use hmac::HashKey;
pub use paths::PathPolicy;
pub use place::{Day, Place, StoreName};

use crate::data_set::DataSet;
use crate::table::TableWriter;

/// What becomes of a store's facts.
#[derive(Debug, Clone)]
pub struct FactsOptions {
    /// Which partition they are.
    pub place: Place,
    /// What leaves the store of its paths.
    pub paths: PathPolicy,
}

/// A data set that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFacts {
    /// The directory of its files.
    pub path: PathBuf,
    /// Whether there was one of the same store and day.
    pub replaced: bool,
    /// Its tables, in the order of [`schema::TABLES`].
    pub tables: Vec<WrittenTable>,
}

/// A table that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenTable {
    /// Its name.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// Writes the facts of a store below the directory `dir`, which is made if it is not there.
/// `progress` hears how many entries are written, and of how many.
///
/// # Errors
/// `Io`, `Parquet`; `Store` and `Image` where the store cannot be read. Nothing of the data set
/// is kept then, and an older one stays.
pub fn write(
    store: &Store,
    dir: &Path,
    options: &FactsOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenFacts> {
    let (snapshot, configs) = loop {
        let snapshot = Snapshot::of(store)?;
        if let Some(configs) = configs(store, &snapshot)? {
            break (snapshot, configs);
        }
    };
    let config = |id: &ImageId| {
        let config = configs.get(id).cloned();
        config.ok_or_else(|| strata_layer::Error::NoImage(*id).into())
    };
    write_tables(&snapshot, &config, dir, options, progress)
}

/// The configs of all images of a snapshot, which are not in the index; `None` if one of the
/// images has been removed since the snapshot was taken.
fn configs(store: &Store, snapshot: &Snapshot) -> Result<Option<HashMap<ImageId, ImageConfig>>> {
    let mut configs = HashMap::new();
    for image in snapshot.images()? {
        match ImageConfig::of_listed(store, &image.id)? {
            Some(config) => configs.insert(image.id, config),
            None => return Ok(None),
        };
    }
    Ok(Some(configs))
}

/// Gives the config of an image.
type Configs<'a> = dyn Fn(&ImageId) -> Result<ImageConfig> + 'a;

/// Writes all tables of a snapshot.
fn write_tables(
    snapshot: &Snapshot,
    config: &Configs<'_>,
    dir: &Path,
    options: &FactsOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenFacts> {
    let set = DataSet::begin(dir, &options.place)?;
    let mut tables = Vec::new();
    for table in &schema::TABLES {
        let file = set.file(table.name)?;
        let mut rows = TableWriter::new(file, table, options.paths.word())?;
        match table.name {
            schema::IMAGES => images::write_images(config, snapshot, &mut rows)?,
            schema::NAMES => images::write_names(snapshot, &mut rows)?,
            schema::IMAGE_LAYERS => images::write_image_layers(snapshot, &mut rows)?,
            schema::HISTORY => {
                images::write_history(config, snapshot, &options.paths, &mut rows)?;
            }
            schema::LAYERS => layers::write_layers(snapshot, &mut rows)?,
            schema::CONTENTS => layers::write_contents(snapshot, &mut rows)?,
            _ => entries::write_entries(snapshot, &options.paths, &mut rows, progress)?,
        }
        tables.push(rows.finish()?);
    }
    let (path, replaced) = set.publish()?;
    Ok(WrittenFacts { path, replaced, tables })
}
