//! An image that is made here, of a layer that has just been read: what [`crate::derive()`] and
//! [`crate::import`] have in common.
//!
//! Invariant: whatever fails, the store is as before: a layer that it did not have goes again.

use std::io::Read;

use jiff::Timestamp;
use strata_layer::{LayerInput, LeasedLayer, Progress};
use strata_registry::Reference;

use crate::checked_store::{CheckedStore, NewImage};
use crate::error::{Error, Result};
use crate::load::{Loaded, LoadedLayer, discard};

/// The bytes of a config and of the manifest that names it.
pub(crate) type Documents = (Vec<u8>, Vec<u8>);

/// What an image is made of.
pub(crate) struct Recipe<'a> {
    pub(crate) name: Option<&'a Reference>,
    /// The layers below the new one, base first.
    pub(crate) below: Vec<LeasedLayer>,
    /// The diff of the new layer.
    pub(crate) diff: Box<dyn Read + Send + 'a>,
    /// What progress calls the diff.
    pub(crate) label: String,
    /// What errors call the layer.
    pub(crate) layer: &'static str,
}

/// Says what errors call an image of that name.
///
/// # Errors
/// `NameWithDigest`.
pub(crate) fn title_of(name: Option<&Reference>) -> Result<String> {
    match name {
        Some(name) if name.digest().is_some() => Err(Error::NameWithDigest(name.to_string())),
        Some(name) => Ok(name.familiar()),
        None => Ok("the new image".to_owned()),
    }
}

/// A creation time as configs have it, in whole seconds; without one, now.
pub(crate) fn created(time: Option<Timestamp>) -> String {
    time.unwrap_or_else(Timestamp::now).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes the layer into the store and commits the image that `documents` describes, given the new
/// layer and all of them.
///
/// # Errors
/// `NameWithDigest`, `Layer`, `Stack`, `Store`, and those of `documents`.
pub(crate) fn make(
    into: CheckedStore<'_>,
    recipe: Recipe<'_>,
    progress: &dyn Progress,
    documents: impl FnOnce(&LeasedLayer, &[LeasedLayer]) -> Result<Documents>,
) -> Result<Loaded> {
    let title = title_of(recipe.name)?;
    let Recipe { name, below: mut leased, diff, label, layer } = recipe;
    let input = LayerInput { label, diff_id: None, blob: None, reader: diff };
    let unpacked = into.store.unpack(input, progress).map_err(|source| Error::Layer {
        image: title.clone(),
        layer: layer.to_owned(),
        source: Box::new(source),
    })?;
    let (layer, existed) = (unpacked.layer, unpacked.existed);
    let diff_id = *layer.diff_id();
    leased.push(layer.clone());
    let committed = documents(&layer, &leased).and_then(|(config, manifest)| {
        let new = NewImage {
            title: &title,
            names: name.map(std::slice::from_ref).unwrap_or_default(),
            pin: None,
            config: &config,
            manifest: Some(&manifest),
            verdict: None,
        };
        into.commit(&new, &leased)
    });
    match committed {
        Ok(id) => Ok(Loaded {
            id,
            references: name.into_iter().cloned().collect(),
            layers: vec![LoadedLayer { diff_id, existed }],
        }),
        Err(error) => {
            drop(leased);
            if !existed {
                discard(into.store, vec![layer]);
            }
            Err(error)
        }
    }
}
