//! [`HeldLayer`]: a layer that an engine has, as it is written down.
//!
//! Each making of `use` counts one up, each removal of the layer's directory one down, as
//! containers-storage does them: at a look-up and when a layer is made of it, at the end of a pull
//! and when that layer is removed.
//!
//! Invariant: what is written down is enough to show the layer again, whatever became of the name.

use serde::{Deserialize, Serialize};
use strata_layer::{Hold, Store};
use strata_registry::Reference;
use strata_tree::{BlobDigest, DiffId};

use crate::catalogue::InChain;
use crate::error::Result;

/// What all keys of such holds begin with.
const KIND: &str = "layer-store";
/// The name under which the store keeps them.
pub(crate) const HOLDER: &str = "layer-store";

/// A held layer, read. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLayer {
    /// The image that it was asked for by.
    pub reference: Reference,
    /// The digest that it was asked for by.
    pub blob: BlobDigest,
    /// How often it was taken and not given back.
    pub count: u64,
    pub(crate) found: InChain,
}

#[derive(Serialize, Deserialize)]
struct Note {
    reference: String,
    blob: String,
    size: u64,
}

impl HeldLayer {
    pub(crate) fn key(reference: &Reference, blob: &BlobDigest) -> String {
        format!("{KIND} {reference} {blob}")
    }

    /// The hold, if it is one of a layer store.
    pub(crate) fn of(hold: &Hold) -> Option<Self> {
        if !hold.key.starts_with(KIND) {
            return None;
        }
        let note: Note = serde_json::from_str(&hold.note).ok()?;
        Some(Self {
            reference: note.reference.parse().ok()?,
            blob: note.blob.parse().ok()?,
            count: hold.count,
            found: InChain { layers: hold.layers.clone(), size: note.size },
        })
    }

    /// The layer itself.
    pub fn layer(&self) -> Option<DiffId> {
        self.found.layers.last().copied()
    }

    /// All that is held, sorted by reference.
    ///
    /// # Errors
    /// `Store`.
    pub fn all(store: &Store) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = store.holds(HOLDER)?.all()?.iter().filter_map(Self::of).collect();
        all.sort_by(|a, b| (&a.reference, a.blob).cmp(&(&b.reference, b.blob)));
        Ok(all)
    }

    /// Ends the hold, however often the layer was taken.
    ///
    /// # Errors
    /// `Store`.
    pub fn end(&self, store: &Store) -> Result<()> {
        store.holds(HOLDER)?.end(&Self::key(&self.reference, &self.blob))?;
        Ok(())
    }
}

/// The hold of a layer in its chain.
pub(crate) fn hold_of(reference: &Reference, blob: &BlobDigest, found: &InChain) -> Hold {
    let note = Note { reference: reference.to_string(), blob: blob.to_string(), size: found.size };
    Hold {
        key: HeldLayer::key(reference, blob),
        by: "podman".to_owned(),
        count: 1,
        layers: found.layers.clone(),
        images: vec![reference.familiar()],
        refuses: true,
        // Strings and a number always become JSON.
        note: serde_json::to_string(&note).unwrap_or_default(),
    }
}
