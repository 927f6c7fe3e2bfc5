//! An OCI image layout with plain tars as layers.
//!
//! Invariant: every digest and size is right, so whatever is refused is refused for its members.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Writes a layout with one image, tagged `1`.
pub(crate) fn write(dir: &Path, layers: &[Vec<u8>]) {
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(dir.join("blobs/sha256").join(&hex), bytes).unwrap();
        json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{hex}"),
            "size": bytes.len(),
        })
    };
    let document = |value: Value, media_type| put(value.to_string().as_bytes(), media_type);
    let layers: Vec<Value> = layers.iter().map(|tar| put(tar, "layer.v1.tar")).collect();
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": document(config, "config.v1+json"),
        "layers": layers,
    });
    let mut manifest = document(manifest, "manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "test:1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
