//! Manifests that are made here.
//!
//! Invariant: the same config and layers give the same bytes.

use serde_json::{Value, json};
use strata_tree::BlobDigest;

use crate::digest::sha256;
use crate::json::Json;
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

/// What annotations of a layer begin with that say where what is in its blob: of another blob
/// they are wrong, and those who fetch it in parts go by them.
const OF_THE_BLOB: [&str; 3] = [
    "io.github.containers.zstd-chunked.",
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
];

/// Makes a manifest's entry of a layer that of another blob with the same diff: what only the old
/// blob was is not said of the new one.
pub(crate) fn set_blob(entry: &mut Json, blob: &Described) {
    let of_the_old = |key: &str| ["data", "urls"].iter().any(|name| key.eq_ignore_ascii_case(name));
    entry.retain(|key| !of_the_old(key));
    if let Some(annotations) = entry.get_mut("annotations") {
        annotations.retain(|key| !OF_THE_BLOB.iter().any(|start| key.starts_with(start)));
    }
    entry.set("digest", Json::text(blob.digest.to_string()));
    entry.set("size", Json::number(blob.size));
    entry.set("mediaType", Json::text(blob.media_type.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_blob_is_not_described_as_the_old_one() {
        let old = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "digest": "sha256:00",
            "size": 1,
            "urls": ["https://a.io/b"],
            "Data": "AA==",
            "annotations": {
                "io.github.containers.zstd-chunked.manifest-position": "1:2:3:1",
                "containerd.io/snapshot/stargz/toc.digest": "sha256:11",
                "io.containers.estargz.uncompressed-size": "7",
                "org.example.kept": "yes",
            },
        });
        let mut entry = Json::from(old);
        let digest = sha256(b"new");
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned();
        set_blob(&mut entry, &Described { media_type: media_type.clone(), digest, size: 9 });
        let expected = json!({
            "mediaType": media_type,
            "digest": digest.to_string(),
            "size": 9,
            "annotations": { "org.example.kept": "yes" },
        });
        assert_eq!(entry.to_value(), expected);
    }
}
