//! Archives and layouts: their lists, manifests and configs, up to the images in them.
//!
//! Invariant: a source that opens can be asked for all that its images say of themselves.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use strata_image::{OpenSource, SourceLimits, SourceSpec};

use crate::kit::{in_memory, path_of, place};

/// Bounds that an input of some kilobytes can reach.
fn bounds() -> SourceLimits {
    SourceLimits {
        document_bytes: 64 << 10,
        members: 1000,
        archive_bytes: 1 << 20,
        images: 20,
        ..SourceLimits::default()
    }
}

/// Opens a source; gives the number of its images.
fn open(path: &Path) -> usize {
    let scratch = || Ok(in_memory(b""));
    let Ok(source) = OpenSource::open(&SourceSpec::path(path), None, &scratch, &bounds()) else {
        return 0;
    };
    for image in source.images() {
        let _ = (image.id(), image.names().len(), image.store_names(), image.title());
        let record = image.record();
        assert_eq!(record.layers, image.diff_ids(), "a record of other layers");
        for position in 0..image.diff_ids().len() {
            if let Ok(layer) = image.layer(position) {
                let mut reader = layer.reader;
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
            }
        }
    }
    source.images().len()
}

/// Any bytes as an archive.
pub(crate) fn archive(data: &[u8]) {
    let file = in_memory(data);
    open(&path_of(&file));
}

/// The directory of a layout whose other documents are right; one process has one.
#[allow(clippy::unwrap_used)]
fn layout() -> &'static Path {
    static LAYOUT: OnceLock<tempfile::TempDir> = OnceLock::new();
    LAYOUT
        .get_or_init(|| {
            let dir = place();
            fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
            let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
            fs::write(dir.path().join("oci-layout"), version).unwrap();
            dir
        })
        .path()
}

/// Writes a blob; what a descriptor says of it.
#[allow(clippy::unwrap_used)]
fn blob(bytes: &[u8], media_type: &str) -> serde_json::Value {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(layout().join("blobs/sha256").join(&hex), bytes).unwrap();
    serde_json::json!({
        "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len(),
    })
}

#[allow(clippy::unwrap_used)]
fn open_layout(manifest: &serde_json::Value) -> usize {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout().join("index.json"), index.to_string()).unwrap();
    let images = open(layout());
    // The blobs of one input are none of the next one's.
    for blob in fs::read_dir(layout().join("blobs/sha256")).unwrap() {
        fs::remove_file(blob.unwrap().path()).unwrap();
    }
    images
}

/// What a document can say of the layout's own blobs: `@CONFIG@` is the descriptor of a config,
/// `@LAYER@` of its one layer, `@MANIFEST@` of their manifest and `@INDEX@` of an index of it. With
/// `#` in place of the first `@` it is the digest alone.
fn filled(text: &[u8]) -> Vec<u8> {
    if !text.contains(&b'@') {
        return text.to_vec();
    }
    let index = "application/vnd.oci.image.index.v1+json";
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let json =
        |value: serde_json::Value, media_type| blob(value.to_string().as_bytes(), media_type);
    let layer = blob(&[0; 1024], "application/vnd.oci.image.layer.v1.tar");
    let config = json(
        serde_json::json!({
            "os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }),
        "application/vnd.oci.image.config.v1+json",
    );
    let whole = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let whole = json(whole, manifest);
    let list = json(serde_json::json!({"schemaVersion": 2, "manifests": [whole]}), index);
    let names = [("CONFIG", config), ("LAYER", layer), ("MANIFEST", whole), ("INDEX", list)];
    let mut words: Vec<(String, String)> = Vec::new();
    for (name, descriptor) in names {
        words.push((format!("#{name}@"), descriptor["digest"].as_str().unwrap_or("").to_owned()));
        words.push((format!("@{name}@"), descriptor.to_string()));
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.first() {
        match words.iter().find(|(word, _)| rest.starts_with(word.as_bytes())) {
            Some((word, value)) => {
                out.extend_from_slice(value.as_bytes());
                rest = &rest[word.len()..];
            }
            None => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
    out
}

/// Any bytes as a manifest, or an index: the first byte says. What they name may be there.
pub(crate) fn manifest(data: &[u8]) {
    images_of_manifest(data);
}

fn images_of_manifest(data: &[u8]) -> usize {
    let Some((kind, rest)) = data.split_first() else { return 0 };
    let rest = &filled(rest);
    let media_type = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ][usize::from(kind % 4)];
    open_layout(&blob(rest, media_type))
}

/// Any bytes as the config of an image with one empty layer.
pub(crate) fn config(data: &[u8]) {
    let mut tar = Vec::new();
    let _ = std::io::copy(&mut Cursor::new([0; 1024]), &mut tar);
    let layer = blob(&tar, "application/vnd.oci.image.layer.v1.tar");
    let config = blob(data, "application/vnd.oci.image.config.v1+json");
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest =
        blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    open_layout(&manifest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_begins_from_has_images() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/manifest");
        for name in ["own", "nested", "layers-twice", "by-digest"] {
            let images = images_of_manifest(&fs::read(corpus.join(name)).unwrap());
            assert_eq!(images, usize::from(matches!(name, "own" | "nested")), "{name}");
        }
    }
}
