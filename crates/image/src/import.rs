//! A plain tar becomes an image of one layer.
//!
//! Invariant: config and manifest depend on nothing but the tar's bytes and the options, so the
//! same tar with the same creation time gives the same image id everywhere.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use strata_layer::Progress;
use strata_registry::Reference;

use crate::change::{self, ConfigChange};
use crate::checked_store::CheckedStore;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::json::Json;
use crate::load::Loaded;
use crate::media::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::new_image::{self, Documents, Recipe};
use crate::platform::Platform;
use crate::spec::SourcePlace;
use crate::spool::{self, OpenedPlace};

/// How to import.
#[derive(Default)]
pub struct ImportOptions {
    /// The creation time in the config, written in whole seconds; without it, now.
    pub created: Option<Timestamp>,
    /// What the image runs on; without it the host's platform.
    pub platform: Option<Platform>,
    /// A remark for the history.
    pub message: Option<String>,
    /// What the image says of a container.
    pub changes: Vec<ConfigChange>,
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    config: Empty,
    rootfs: Rootfs,
    history: [HistoryEntry<'a>; 1],
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Rootfs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [String; 1],
}

#[derive(Serialize)]
struct HistoryEntry<'a> {
    created: &'a str,
    created_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Pointer,
    layers: [Pointer; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pointer {
    media_type: &'static str,
    digest: String,
    size: u64,
}

/// Imports a tar, plain or compressed (gzip, zstd, xz, bzip2), from a file, a pipe or (`-`)
/// standard input.
///
/// # Errors
/// `WrongKind` for a directory, `NameWithDigest`, `Layer` for what is wrong with the tar,
/// `Stack`, `Store`. After each of them the store is as before.
pub fn import(
    into: CheckedStore<'_>,
    tar: &Path,
    name: Option<&Reference>,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<Loaded> {
    new_image::title_of(name)?;
    let place = if tar == "-" { SourcePlace::Stdin } else { SourcePlace::Path(tar.to_owned()) };
    let label = place.label();
    let OpenedPlace::Stream(file) = spool::open(&place)? else {
        return Err(Error::WrongKind(tar.to_owned()));
    };
    let (diff, layer) = (Box::new(file), "its only layer");
    let recipe = Recipe { name, below: Vec::new(), diff, label, layer };
    new_image::make(into, recipe, progress, |layer, _| {
        let diff_id = *layer.diff_id();
        let record = into.store.layer(&diff_id)?;
        let size = record.ok_or(strata_layer::Error::NoLayer(diff_id))?.diff_size;
        documents(&diff_id.to_string(), size, options)
    })
}

/// The config and the manifest of a one-layer image.
fn documents(diff_id: &str, size: u64, options: &ImportOptions) -> Result<Documents> {
    let created = new_image::created(options.created);
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let config = Config {
        created: &created,
        architecture: &platform.architecture,
        os: &platform.os,
        variant: platform.variant.as_deref(),
        config: Empty {},
        rootfs: Rootfs { kind: "layers", diff_ids: [diff_id.to_owned()] },
        history: [HistoryEntry {
            created: &created,
            created_by: "strata import",
            comment: options.message.as_deref(),
        }],
    };
    let mut config = json(&config)?;
    if !options.changes.is_empty() {
        let wrong = |why| Error::document("the new image", "config", why);
        let mut read = Json::parse(&config).map_err(|fault| wrong(fault.to_string()))?;
        if change::apply(&mut read, &options.changes).is_none() {
            return Err(wrong("what it says of a container is no object".to_owned()));
        }
        config = read.to_bytes();
    }
    let pointer = |media_type, digest, size| Pointer { media_type, digest, size };
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: pointer(OCI_CONFIG, sha256(&config).to_string(), config.len() as u64),
        // The layer is described as it is: the tar itself, uncompressed.
        layers: [pointer(OCI_LAYER, diff_id.to_owned(), size)],
    };
    let manifest = json(&manifest)?;
    Ok((config, manifest))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::io("writing the config", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ImageConfig;
    use strata_tree::DiffId;

    #[test]
    fn documents_depend_on_the_options_alone() {
        let id = DiffId::from_bytes([7; 32]);
        let options = ImportOptions {
            created: Some("2024-01-02T03:04:05.6Z".parse().unwrap()),
            platform: Some("linux/arm64/v8".parse().unwrap()),
            message: Some("from a tar".to_owned()),
            changes: Vec::new(),
        };
        let (config, manifest) = documents(&id.to_string(), 10240, &options).unwrap();
        assert_eq!(
            String::from_utf8(config.clone()).unwrap(),
            format!(
                "{{\"created\":\"2024-01-02T03:04:05Z\",\"architecture\":\"arm64\",\
                 \"os\":\"linux\",\"variant\":\"v8\",\"config\":{{}},\"rootfs\":{{\"type\":\
                 \"layers\",\"diff_ids\":[\"{id}\"]}},\"history\":[{{\"created\":\
                 \"2024-01-02T03:04:05Z\",\"created_by\":\"strata import\",\"comment\":\
                 \"from a tar\"}}]}}"
            )
        );
        let read = ImageConfig::parse(&config).unwrap();
        assert_eq!(read.diff_ids(), [id]);
        let manifest = String::from_utf8(manifest).unwrap();
        assert!(manifest.contains(&sha256(&config).to_string()), "{manifest}");
        assert!(manifest.contains("\"size\":10240"), "{manifest}");
        assert_eq!(documents(&id.to_string(), 10240, &options).unwrap().0, config);
    }
}
