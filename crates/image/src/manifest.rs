//! Manifests that are made here.
//!
//! Invariant: the same config and layers give the same bytes.

use serde_json::{Value, json};
use strata_tree::BlobDigest;

use crate::digest::sha256;
use crate::media::{OCI_CONFIG, OCI_MANIFEST};

/// A layer as a manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) media_type: String,
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
}

/// The OCI manifest of a config and layers, base first.
pub(crate) fn new_manifest(config: &[u8], layers: &[Described]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": layer.media_type,
                "digest": layer.digest.to_string(),
                "size": layer.size,
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": sha256(config).to_string(),
            "size": config.len(),
        },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}
