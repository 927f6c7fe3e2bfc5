//! Small image layouts, made by hand so that each may be wrong in its own way.
//!
//! Invariant: what a test does not break on purpose is right: digests, sizes, diff ids.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::digest;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A tar with these files.
pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A directory that becomes an OCI layout or a docker archive.
pub struct Layout {
    dir: tempfile::TempDir,
    root: PathBuf,
}

impl Layout {
    /// An empty one; the directory's base name is `name`.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("layout").join(name);
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::create_dir(dir.path().join("archives")).unwrap();
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir, root }
    }

    /// The layout's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file below the root.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes `index.json` with these entries.
    pub fn index(&self, entries: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.write("index.json", index.to_string());
    }

    /// Stores a blob; gives its descriptor.
    pub fn blob(&self, media_type: &str, bytes: impl AsRef<[u8]>) -> Value {
        let bytes = bytes.as_ref();
        let digest = digest(bytes);
        self.write(&format!("blobs/sha256/{}", &digest[7..]), bytes);
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Removes the blob of a descriptor.
    pub fn remove(&self, descriptor: &Value) {
        fs::remove_file(self.blob_path(descriptor)).unwrap();
    }

    /// Where the blob of a descriptor is.
    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.root().join("blobs/sha256").join(&digest[7..])
    }

    /// Stores the config of an image of these uncompressed layers.
    pub fn config(&self, layers: &[&[u8]], platform: &str) -> Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "created": "2024-01-02T03:04:05Z",
            "os": os,
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        self.blob(CONFIG, config.to_string())
    }

    /// Stores the manifest of a config and layers, all given as descriptors.
    pub fn manifest(&self, config: &Value, layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        self.blob(MANIFEST, manifest.to_string())
    }

    /// Stores a whole image of uncompressed layers; gives the manifest's descriptor.
    pub fn image(&self, layers: &[&[u8]], platform: &str) -> Value {
        let config = self.config(layers, platform);
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(LAYER, layer)).collect();
        self.manifest(&config, &layers)
    }

    /// The same bytes as one tar.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all(".", self.root()).unwrap();
        tar.into_inner().unwrap()
    }

    /// Writes an archive into a file of this name.
    pub fn tar_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("archives").join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// A descriptor with a further field.
pub fn with(descriptor: &Value, key: &str, value: Value) -> Value {
    let mut changed = descriptor.clone();
    changed[key] = value;
    changed
}

/// A descriptor with `org.opencontainers.image.ref.name`.
pub fn named(descriptor: &Value, name: &str) -> Value {
    with(descriptor, "annotations", json!({"org.opencontainers.image.ref.name": name}))
}

/// A descriptor with a platform.
pub fn on(descriptor: &Value, platform: &str) -> Value {
    let mut parts = platform.split('/');
    let mut value = json!({"os": parts.next(), "architecture": parts.next()});
    if let Some(variant) = parts.next() {
        value["variant"] = json!(variant);
    }
    with(descriptor, "platform", value)
}
