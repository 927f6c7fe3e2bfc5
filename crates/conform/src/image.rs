//! The image of a case: an OCI layout, and the same as an OCI archive and a docker archive.
//!
//! The layout has one image with the tag `case`, for the architecture of this machine. Dates are
//! those of 1970.
//!
//! Invariants: the same case gives the same bytes; the archives have the blobs of the layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::catalogue::Case;
use crate::tree::hex;
use crate::{Result, at, tarball};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The files of an image, by their names in its directory or archive.
pub type ImageParts = BTreeMap<String, Vec<u8>>;

/// The architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn put(parts: &mut ImageParts, bytes: &[u8], media_type: &str) -> Value {
    let digest = sha256(bytes);
    parts.insert(format!("blobs/sha256/{digest}"), bytes.to_vec());
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

fn config(case: &Case) -> Vec<u8> {
    let created = "1970-01-01T00:00:00Z";
    let diff_ids: Vec<String> =
        case.layers.iter().map(|layer| format!("sha256:{}", sha256(&layer.tar))).collect();
    let history: Vec<Value> = (0..case.layers.len())
        .map(|layer| json!({"created": created, "created_by": format!("layer {layer}")}))
        .collect();
    let document = json!({
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    document.to_string().into_bytes()
}

/// The image as an OCI layout.
#[must_use]
pub fn layout(case: &Case) -> ImageParts {
    let mut parts = ImageParts::new();
    let config = put(&mut parts, &config(case), CONFIG);
    let layers: Vec<Value> =
        case.layers.iter().map(|layer| put(&mut parts, &layer.blob, layer.media_type)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    let mut manifest = put(&mut parts, manifest.to_string().as_bytes(), MANIFEST);
    manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "case"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    parts.insert("index.json".to_owned(), index.to_string().into_bytes());
    parts.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    parts
}

/// The image as `docker save` writes it.
#[must_use]
pub fn docker(case: &Case) -> ImageParts {
    let mut parts = ImageParts::new();
    let config = config(case);
    let config_name = format!("{}.json", sha256(&config));
    parts.insert(config_name.clone(), config);
    let layers: Vec<String> = case
        .layers
        .iter()
        .map(|layer| {
            let name = format!("{}.tar", sha256(&layer.blob));
            parts.insert(name.clone(), layer.blob.clone());
            name
        })
        .collect();
    let tag = format!("strata-conform/{}:case", case.id);
    let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": layers}]);
    parts.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    parts
}

/// The same as one file.
#[must_use]
pub fn docker_archive(case: &Case) -> Vec<u8> {
    tarball::of_files(docker(case).iter())
}

/// Writes the files of an image below `dir`, which is made.
///
/// # Errors
/// If a file cannot be written.
pub fn write_parts(dir: &Path, parts: &ImageParts) -> Result<()> {
    for (name, bytes) in parts {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(dir);
        at(parent.display(), fs::create_dir_all(parent))?;
        at(path.display(), fs::write(&path, bytes))?;
    }
    Ok(())
}

/// A case as JSON: what it is, and what may come of it.
#[must_use]
pub fn described(case: &Case) -> Value {
    let trees: Vec<Value> = case
        .trees
        .iter()
        .map(|tree| tree.iter().map(crate::TreeEntry::to_json).collect())
        .collect();
    json!({
        "id": case.id,
        "class": case.class.name(),
        "spec": case.spec.as_ref().map(|(section, sentence)| {
            json!({"document": "layer.md", "section": section, "sentence": sentence})
        }),
        "why": case.why,
        "needs": case.needs.map(crate::catalogue::Need::name),
        "trees": trees,
        "may_refuse": case.may_refuse,
    })
}

/// Writes a case to `DIR/ID/`: `layout/`, `oci.tar`, `docker.tar` and `expected.json`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(dir: &Path, case: &Case) -> Result<()> {
    let dir = dir.join(&case.id);
    let layout = layout(case);
    write_parts(&dir.join("layout"), &layout)?;
    let mut expected = format!("{:#}", described(case));
    expected.push('\n');
    let files: [(&str, Vec<u8>); 3] = [
        ("oci.tar", tarball::of_files(layout.iter())),
        ("docker.tar", docker_archive(case)),
        ("expected.json", expected.into_bytes()),
    ];
    for (name, bytes) in files {
        at(dir.join(name).display(), fs::write(dir.join(name), bytes))?;
    }
    Ok(())
}
