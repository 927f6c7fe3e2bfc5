//! Holds: layers that something outside of the store needs, whether or not it runs.
//!
//! ```text
//! ROOT/holds/<holder>/<diff id>     an empty file: that holder needs that layer
//! ```
//!
//! An image keeps its layers by rows of the index, a mount by a lock that dies with it. An engine
//! whose snapshots outlive every process has neither: it holds each layer that a snapshot of its
//! own is made of. A hold needs no index, so a rebuild of the index does not lose it.
//!
//! Invariants: a hold that [`Holds::add`] has returned from survives a power cut; a held layer is
//! removed by nobody.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use strata_tree::{DiffId, Name};

use super::dir::StoreDir;
use super::sweep::remove_file_if_there;
use crate::error::{Error, IoContext, Result};

/// The directory of all holders, below the root.
pub(super) const HOLDS: &str = "holds";

/// The layers that one holder needs.
#[derive(Debug, Clone)]
pub struct Holds {
    dir: PathBuf,
}

impl Holds {
    /// The holds of `holder`, one path component, in the store at `root`.
    ///
    /// # Errors
    /// `Damaged` for what cannot be the name of a holder.
    pub fn of(root: &Path, holder: &str) -> Result<Self> {
        if Name::new(holder.as_bytes()).is_err() || holder.starts_with('.') {
            return Err(Error::damaged("a holder of layers", format!("is called {holder:?}")));
        }
        Ok(Self { dir: root.join(HOLDS).join(holder) })
    }

    /// Holds layers, durably. The caller leases them until this returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn add<'l>(&self, layers: impl IntoIterator<Item = &'l DiffId>) -> Result<()> {
        let doing = || format!("cannot hold layers in {}", self.dir.display());
        let mut changed = false;
        for layer in layers {
            match File::create_new(self.path(layer)) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    std::fs::create_dir_all(&self.dir).doing(doing)?;
                    for dir in self.dir.ancestors().skip(1).take(2) {
                        File::open(dir).and_then(|dir| dir.sync_all()).doing(doing)?;
                    }
                    File::create(self.path(layer)).doing(doing)?;
                    changed = true;
                }
                Err(error) => return Err(error).doing(doing),
            }
        }
        if changed {
            File::open(&self.dir).and_then(|dir| dir.sync_all()).doing(doing)?;
        }
        Ok(())
    }

    /// Lets layers go. After a power cut some may be held still.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove<'l>(&self, layers: impl IntoIterator<Item = &'l DiffId>) -> Result<()> {
        layers.into_iter().try_for_each(|layer| remove_file_if_there(&self.path(layer)))
    }

    /// All that the holder holds.
    ///
    /// # Errors
    /// `Io`.
    pub fn all(&self) -> Result<BTreeSet<DiffId>> {
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| DiffId::from_hex(name).ok()).collect())
    }

    fn path(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(layer.hex())
    }
}

impl StoreDir {
    /// Who holds anything.
    pub(super) fn holders(&self) -> Result<Vec<String>> {
        names(&self.root().join(HOLDS))
    }

    /// Whether anybody holds a layer.
    pub(super) fn is_held(&self, layer: &DiffId) -> Result<bool> {
        let dir = self.root().join(HOLDS);
        let held = |holder: &String| dir.join(holder).join(layer.hex()).exists();
        Ok(self.holders()?.iter().any(held))
    }
}

/// The names in a directory, which need not be there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let doing = || format!("cannot list {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(doing),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.doing(doing)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
