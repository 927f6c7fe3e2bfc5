//! What a store holds already of other layers.
//!
//! Invariant: what is reported as new is what loading those layers would write as contents, byte
//! for byte.

use std::collections::HashSet;

use strata_layer::{Result, Store};

use super::{Held, LayerContents};

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

/// Compares distinct layers with what the store contains.
///
/// # Errors
/// `Sqlite`.
pub fn would_add<'a>(
    store: &Store,
    layers: impl IntoIterator<Item = &'a LayerContents>,
) -> Result<Added> {
    let reader = store.reader();
    let mut added = Added::default();
    let mut seen = HashSet::new();
    for layer in layers {
        match reader.layer(&layer.diff_id)? {
            Some(_) => added.known_layers += 1,
            None => added.new_layers += 1,
        }
        for (digest, size) in &layer.contents {
            if seen.insert(*digest) {
                let sum = match reader.has(digest)? {
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
