//! `manifest.json`: the list that `docker save`, `podman save` and skopeo write.
//!
//! Each item names a config and its layers by path. Old docker writes `HEX.json` and
//! `ID/layer.tar` (repeated layers as links), podman and skopeo `HEX.json` and `HEX.tar`, docker
//! since 25 `blobs/sha256/HEX` for both, with an OCI index beside it.
//!
//! Invariants: below `blobs/sha256/` a name is a digest, and verified; a config that is called
//! `HEX.json` and has another digest is accepted with a warning, because no other reader looks at
//! the name. An image that stands in the list several times is one image with all its names.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use strata_registry::Reference;
use strata_registry::or_default;
use strata_tree::{BlobDigest, TreePath};

use crate::config::ImageConfig;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::found::{FoundImage, FoundLayer, FoundRoom, Wanted};
use crate::json::Json;
use crate::media::MediaKind;
use crate::oci::Descriptor;
use crate::source::{ImageSource, path_of};

const LIST: &str = "manifest.json";

/// One item of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerItem {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
    /// By diff id: where foreign layers come from.
    #[serde(default, deserialize_with = "or_default")]
    layer_sources: HashMap<String, Descriptor>,
}

impl DockerItem {
    /// How many layers it names.
    pub(crate) fn layer_count(&self) -> usize {
        self.layers.len()
    }
}

/// Reads the list; `None` if there is none.
///
/// # Errors
/// `Document`, and those of [`ImageSource::document`].
pub(crate) fn read_items(source: &ImageSource) -> Result<Option<Vec<DockerItem>>> {
    let Some(bytes) = source.document(&path_of(LIST))? else { return Ok(None) };
    let bad = |why: String| Error::document(&source.label, LIST, why);
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii_start();
    if start.starts_with(b"{") {
        return Err(bad(
            "it is one image's manifest (skopeo's dir: format?), not docker's list of images; \
             copy the image to oci: or docker-archive: first"
                .to_owned(),
        ));
    }
    // As docker reads it: no digest covers it, and the first document counts.
    let items: Option<Vec<DockerItem>> =
        Json::first(&bytes)
            .and_then(|document| document.read())
            .map_err(|e| bad(format!("not docker's list of images: {e}")))?;
    let items = items.unwrap_or_default();
    if items.len() as u64 > source.limits.images {
        return Err(Error::Limit {
            label: source.label.clone(),
            what: format!("the number of images, {},", items.len()),
            limit: source.limits.images,
            option: "--max-images",
        });
    }
    Ok(Some(items))
}

/// The wanted names of an item; every name of it is added to `known`.
///
/// # Errors
/// `Reference` for a name that breaks the grammar.
pub(crate) fn names(
    item: &DockerItem,
    wanted: &Wanted<'_>,
    known: &mut BTreeSet<String>,
) -> Result<Vec<Reference>> {
    let mut names = Vec::new();
    // Old dockers wrote this for an image without a name.
    for text in item.repo_tags.iter().filter(|text| !text.contains("<none>")) {
        let reference: Reference = text.parse()?;
        known.insert(reference.familiar());
        if wanted.name(text, Some(&reference)) {
            names.push(reference);
        }
    }
    Ok(names)
}

/// The digest that a path's last component is: `HEX` or `HEX.json`.
fn digest_in(path: &TreePath) -> Option<BlobDigest> {
    let (_, name) = path.split_last()?;
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    BlobDigest::from_hex(text.strip_suffix(".json").unwrap_or(text)).ok()
}

fn path(source: &ImageSource, text: &str) -> Result<TreePath> {
    TreePath::clamped(text.as_bytes())
        .map_err(|e| Error::document(&source.label, LIST, format!("path {text:?}: {e}")))
}

/// The digest of an item's config.
///
/// # Errors
/// `Missing`, and those of reading it.
pub(crate) fn config_digest(source: &ImageSource, item: &DockerItem) -> Result<BlobDigest> {
    Ok(sha256(&config_bytes(source, item)?))
}

/// Whether `path` is where a layout keeps what its digest names.
fn in_blobs(path: &TreePath) -> bool {
    path.as_bytes().starts_with(b"blobs/sha256/")
}

fn config_bytes(source: &ImageSource, item: &DockerItem) -> Result<Vec<u8>> {
    let path = path(source, &item.config)?;
    let bytes = source.document(&path)?.ok_or_else(|| Error::Missing {
        label: source.label.clone(),
        wanted_by: LIST.to_owned(),
        path: path.to_string(),
    })?;
    let actual = sha256(&bytes);
    match digest_in(&path) {
        Some(expected) if expected != actual && in_blobs(&path) => Err(Error::WrongDigest {
            label: source.label.clone(),
            document: format!("config {path}"),
            expected,
            actual,
        }),
        Some(expected) if expected != actual => {
            let label = &source.label;
            tracing::warn!("{label}: the config {path} is not what its name says; it is {actual}");
            Ok(bytes)
        }
        _ => Ok(bytes),
    }
}

/// Finds the wanted images of the list.
///
/// # Errors
/// `Missing`, `WrongDigest`, `Document`.
pub(crate) fn find(
    source: &ImageSource,
    wanted: &Wanted<'_>,
    items: &[&DockerItem],
    known: &mut BTreeSet<String>,
    room: &mut FoundRoom<'_>,
) -> Result<Vec<FoundImage>> {
    let mut all: Vec<FoundImage> = Vec::new();
    for item in items {
        let names = names(item, wanted, known)?;
        if names.is_empty() && !wanted.unnamed() {
            continue;
        }
        let raw_config = config_bytes(source, item)?;
        let config = ImageConfig::parse_named(
            &raw_config,
            &source.label,
            &format!("config {}", item.config),
        )?;
        if let Some(same) = all.iter_mut().find(|image| image.config.id() == config.id()) {
            same.add_names(names);
            continue;
        }
        let layers = item
            .layers
            .iter()
            .enumerate()
            .map(|(index, text)| {
                let diff_id = config.diff_ids().get(index).map(ToString::to_string);
                layer(source, text, diff_id.and_then(|id| item.layer_sources.get(&id)))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut image = FoundImage {
            names: Vec::new(),
            pin: None,
            manifest: None,
            config,
            raw_config,
            layers,
            verdict: None,
        };
        image.add_names(names);
        room.take(&image)?;
        all.push(image);
    }
    Ok(all)
}

fn layer(source: &ImageSource, text: &str, from: Option<&Descriptor>) -> Result<FoundLayer> {
    let path = path(source, text)?;
    // Only below blobs/ is the name the digest of the bytes; `HEX.tar` is the diff id, and the
    // directory of `ID/layer.tar` is no digest of anything that is here.
    let digest = if in_blobs(&path) { digest_in(&path) } else { None };
    let blob = digest.map(|digest| {
        let said = from.filter(|from| from.digest == digest.to_string());
        (digest, said.map(|from| from.size))
    });
    if let Some(from) = from {
        from.check(&source.label, LIST)?;
    }
    Ok(FoundLayer {
        path,
        blob,
        kind: from.map_or(MediaKind::Unsaid, |from| MediaKind::of(&from.media_type)),
        // Readers of docker archives ask the bytes.
        media_type: String::new(),
        urls: from.map(|from| from.urls.clone()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
