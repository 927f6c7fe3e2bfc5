//! An image on top of another: one more layer, one more step of history.
//!
//! Invariants: everything that the base's config says is kept, known here or not; the manifest
//! describes every layer as it is, the tar itself, uncompressed.

use std::io::Read;

use jiff::Timestamp;
use serde_json::json;
use strata_layer::{ImageRecord, LeasedLayer, Progress, Store};
use strata_registry::Reference;
use strata_tree::BlobDigest;

use crate::change::{self, ConfigChange};
use crate::checked_store::CheckedStore;
use crate::error::{Error, Result};
use crate::json::Json;
use crate::load::Loaded;
use crate::manifest::{Described, new_manifest};
use crate::media::OCI_LAYER;
use crate::new_image::{self, Documents, Recipe};

/// How to derive.
#[derive(Default)]
pub struct DeriveOptions {
    /// The creation time, written in whole seconds; without it, now.
    pub created: Option<Timestamp>,
    /// Who made it.
    pub author: Option<String>,
    /// A remark for the history.
    pub message: Option<String>,
    /// What it says of a container otherwise than its base.
    pub changes: Vec<ConfigChange>,
    /// What made it, for the history.
    pub created_by: String,
}

/// Makes an image of `base` and one layer more, whose diff is read from `diff`, and names it if
/// there is a name.
///
/// # Errors
/// `NameWithDigest`, `Layer` for what is wrong with the diff, `Document` if the base's config
/// cannot be continued, `Stack`, `Store`. After each of them the store is as before.
pub fn derive(
    into: CheckedStore<'_>,
    base: &ImageRecord,
    diff: Box<dyn Read + Send + '_>,
    name: Option<&Reference>,
    options: &DeriveOptions,
    progress: &dyn Progress,
) -> Result<Loaded> {
    let label = new_image::title_of(name)?;
    let (_, below) = into.store.lease_image(&base.id)?;
    let recipe = Recipe { name, below, diff, label, layer: "its new layer" };
    new_image::make(into, recipe, progress, |_, leased| {
        documents(into.store, base, leased, options)
    })
}

fn documents(
    store: &Store,
    base: &ImageRecord,
    leased: &[LeasedLayer],
    options: &DeriveOptions,
) -> Result<Documents> {
    let what = format!("config {}", base.id);
    let wrong = |why: String| Error::document("the store", &what, why);
    let raw = store.blob(&BlobDigest::from(base.id))?;
    let mut config = Json::parse(&raw).map_err(|e| wrong(format!("not an image config: {e}")))?;
    let created = new_image::created(options.created);
    let mut step = json!({ "created": created, "created_by": options.created_by });
    for (key, value) in [("author", &options.author), ("comment", &options.message)] {
        if let Some(value) = value {
            step[key] = json!(value);
        }
    }
    if !config.is_object() {
        return Err(wrong("not an image config: no object".to_owned()));
    }
    config.set("created", Json::text(created));
    if let Some(author) = &options.author {
        config.set("author", Json::text(author.as_str()));
    }
    if change::apply(&mut config, &options.changes).is_none() {
        return Err(wrong("what it says of a container is no object".to_owned()));
    }
    // Go writes `null` for an empty list.
    if config.get_mut("history").is_none_or(|history| history.is_null()) {
        config.set("history", json!([]).into());
    }
    match config.get_mut("history").and_then(Json::list_mut) {
        Some(steps) => steps.push(step.into()),
        None => return Err(wrong("its history is no list".to_owned())),
    }
    let diff_ids: Vec<String> = leased.iter().map(|layer| layer.diff_id().to_string()).collect();
    config.set("rootfs", json!({ "type": "layers", "diff_ids": diff_ids }).into());
    let config = config.to_bytes();
    let manifest = manifest_of(store, &config, leased)?;
    Ok((config, manifest))
}

/// The manifest of an image whose layers are plain tars.
pub(crate) fn manifest_of(store: &Store, config: &[u8], leased: &[LeasedLayer]) -> Result<Vec<u8>> {
    let mut layers = Vec::new();
    for layer in leased {
        let diff_id = *layer.diff_id();
        let size = store.layer(&diff_id)?.ok_or(strata_layer::Error::NoLayer(diff_id))?.diff_size;
        let digest = BlobDigest::from_bytes(*diff_id.as_bytes());
        layers.push(Described { media_type: OCI_LAYER.to_owned(), digest, size });
    }
    Ok(new_manifest(config, &layers))
}
