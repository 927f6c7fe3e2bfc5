//! What of other layers a store holds already.
//!
//! Invariant: what is told new is what loading those layers would write as contents, byte for byte.

use std::collections::HashSet;

use super::{Held, LayerContents};
use crate::error::Result;
use crate::store::Store;

/// What loading layers would add to a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Layers that it has.
    pub known_layers: u64,
    /// Layers that it does not have.
    pub new_layers: u64,
    /// Contents that it holds.
    pub known: Held,
    /// Contents that it does not hold: these would be written.
    pub new: Held,
}

impl Store {
    /// Compares distinct layers with what the store holds.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn would_add<'a>(
        &self,
        layers: impl IntoIterator<Item = &'a LayerContents>,
    ) -> Result<Added> {
        let index = self.index();
        let mut added = Added::default();
        let mut seen = HashSet::new();
        let mut held = index.db.prepare("SELECT 1 FROM contents WHERE digest = ?1")?;
        for layer in layers {
            match crate::index::find_layer(&index.db, &layer.diff_id)? {
                Some(_) => added.known_layers += 1,
                None => added.new_layers += 1,
            }
            for (digest, size) in &layer.contents {
                if seen.insert(*digest) {
                    let sum = match held.exists([digest.as_bytes()])? {
                        true => &mut added.known,
                        false => &mut added.new,
                    };
                    sum.files += 1;
                    sum.bytes += size;
                }
            }
        }
        Ok(added)
    }
}
