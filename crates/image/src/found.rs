//! What the formats have in common: images found in a source, ready to be loaded.
//!
//! Invariants: a found image's config and manifest are verified against the digests that name
//! them; it has as many layers as diff ids; no layer's descriptor has a negative size. Layers
//! themselves are not read yet.

use std::collections::BTreeSet;

use strata_tree::{BlobDigest, TreePath};

use crate::config::ImageConfig;
use crate::docker;
use crate::error::{Error, Result};
use crate::media::MediaKind;
use crate::oci;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::SourceSpec;

/// One image of a source.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) names: Vec<Reference>,
    /// The repository and digest by which it was asked for, where that is all the name it has.
    pub(crate) pin: Option<Reference>,
    /// The manifest's bytes, if the format has one for each image.
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) config: ImageConfig,
    /// The config's bytes.
    pub(crate) raw_config: Vec<u8>,
    /// Base first.
    pub(crate) layers: Vec<FoundLayer>,
}

/// Where the bytes of a layer are.
#[derive(Debug, Clone)]
pub(crate) struct FoundLayer {
    pub(crate) path: TreePath,
    /// Digest and size in bytes of the stored bytes, where the format says them.
    pub(crate) blob: Option<(BlobDigest, Option<i64>)>,
    pub(crate) kind: MediaKind,
    /// Where a foreign layer could be fetched.
    pub(crate) urls: Vec<String>,
}

impl Found {
    /// What the image is called in messages: its first name, else its short id.
    pub(crate) fn title(&self) -> String {
        let name = self.names.first().or(self.pin.as_ref());
        name.map_or_else(|| self.config.id().short(), Reference::familiar)
    }

    /// Checks what must hold before a layer is read.
    ///
    /// # Errors
    /// `LayerCount`.
    pub(crate) fn checked(self) -> Result<Self> {
        let (layers, diff_ids) = (self.layers.len(), self.config.diff_ids().len());
        if layers != diff_ids {
            return Err(Error::LayerCount { image: self.title(), layers, diff_ids });
        }
        Ok(self)
    }

    pub(crate) fn add_names(&mut self, names: impl IntoIterator<Item = Reference>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

/// What of a source is wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) spec: &'a SourceSpec,
    pub(crate) platform: Option<&'a Platform>,
}

impl Wanted<'_> {
    /// Whether the image that the source calls `text` is wanted.
    pub(crate) fn name(&self, text: &str, reference: Option<&Reference>) -> bool {
        let Some(wanted) = self.spec.wanted() else { return true };
        text == wanted
            || reference.is_some() && wanted.parse::<Reference>().ok().as_ref() == reference
    }

    /// An image without any name is wanted only if all are.
    pub(crate) fn unnamed(&self) -> bool {
        self.spec.wanted().is_none()
    }
}

/// Finds the wanted images of a source, in the source's order.
///
/// # Errors
/// `NoFormat` if it holds none at all, `NoSuchName` or `Platform` if none of its images is
/// wanted, and everything that damaged documents lead to.
pub(crate) fn find(source: &Source, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
    let index = oci::read_index(source)?;
    let items = docker::read_items(source)?;
    let mut known = BTreeSet::new();
    let found = match (index, &items) {
        (Some(index), items) if !index.is_empty() || items.is_none() => {
            let mut found = oci::find(source, wanted, index, &mut known)?;
            // `docker save` writes both lists; only the older one has all tags.
            for item in items.iter().flatten() {
                let names = docker::names(item, wanted, &mut known)?;
                let config = docker::config_digest(source, item)?;
                for image in found.iter_mut().filter(|image| image.config.id() == config.into()) {
                    image.add_names(names.iter().cloned());
                }
            }
            found
        }
        (_, Some(items)) => docker::find(source, wanted, items, &mut known)?,
        (_, None) => return Err(no_format(source)),
    };
    if found.is_empty() {
        let label = source.label.clone();
        return Err(match wanted.spec.wanted() {
            Some(name) => Error::NoSuchName {
                label,
                wanted: name.to_owned(),
                available: listed(&known.into_iter().collect::<Vec<_>>()),
            },
            None => Error::Document {
                label,
                document: "its list of images".to_owned(),
                why: "it is empty".to_owned(),
            },
        });
    }
    let found = found.into_iter().map(Found::checked).collect::<Result<Vec<_>>>()?;
    for_platform(source, found, wanted.platform)
}

/// The one wanted image of a source.
///
/// # Errors
/// `Several`, and those of [`find`].
pub(crate) fn one(source: &Source, wanted: &Wanted<'_>) -> Result<Found> {
    let mut all = find(source, wanted)?;
    match (all.pop(), all.is_empty()) {
        (Some(found), true) => Ok(found),
        (last, _) => {
            all.extend(last);
            let names: Vec<String> = all.iter().map(Found::title).collect();
            Err(Error::Several { label: source.label.clone(), available: listed(&names) })
        }
    }
}

/// A platform that was asked for leaves out images for others, also where no index says so.
fn for_platform(
    source: &Source,
    found: Vec<Found>,
    platform: Option<&Platform>,
) -> Result<Vec<Found>> {
    let Some(platform) = platform else { return Ok(found) };
    let offered: Vec<_> = found.iter().map(|image| image.config.platform()).collect();
    let serving: Vec<_> = found
        .into_iter()
        .filter(|image| {
            let own = image.config.platform();
            own.os.is_empty() || own.serves(platform).is_some()
        })
        .collect();
    if serving.is_empty() && !offered.is_empty() {
        return Err(Error::Platform {
            label: source.label.clone(),
            wanted: platform.to_string(),
            available: listed(&offered),
        });
    }
    Ok(serving)
}

fn no_format(source: &Source) -> Error {
    let has = |path: &str| matches!(source.blob(&crate::source::path_of(path)), Ok(Some(_)));
    let hint = if has("oci-layout") {
        Some("it has an oci-layout file, but its index.json is missing")
    } else if has("version") {
        Some("it looks like skopeo's dir: format, which is not read; copy it to oci: first")
    } else if has("etc/passwd") || has("etc/os-release") || has("bin/sh") {
        Some("it looks like such a root file system")
    } else {
        None
    };
    Error::NoFormat { label: source.label.clone(), hint }
}

/// A list for messages.
pub(crate) fn listed<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        _ => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}
