//! `index.json`: an OCI image layout, from its index down to a manifest for each image.
//!
//! The top index lists images by name; an entry may itself be an index, of one image for several
//! platforms, of which one is chosen: the one asked for, else the host's, else the only one.
//!
//! Invariants: every document below `index.json` is verified by size and digest before it is
//! parsed; a document that is an index and a manifest at once is refused (readers would disagree,
//! CVE-2021-41190); nesting ends at [`limits::INDEX_DEPTH`]. Attestations and other artifacts
//! that lie beside images are passed over. The first of several images for one platform counts, as
//! for containerd, docker and skopeo.

mod choices;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;
use strata_registry::or_default;
use strata_registry::{Reference, Tag};
use strata_tree::BlobDigest;

use crate::config::ImageConfig;
use crate::error::{Error, Result};
use crate::found::{FoundImage, FoundLayer, FoundRoom, Wanted, listed};
use crate::json::{self, Json};
use crate::limits;
use crate::media::MediaKind;
use crate::platform::{Platform, Rank};
use crate::source::{Blobs, ImageSource, blob_path, path_of};

pub(crate) use choices::choices;

const INDEX: &str = "index.json";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A pointer to a blob (OCI descriptor.md).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) urls: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: HashMap<String, Option<String>>,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    artifact_type: Option<String>,
}

impl Descriptor {
    /// The digest, once it and the size are possible ones.
    ///
    /// # Errors
    /// `Document`, naming `document`, the one that holds the descriptor.
    pub(crate) fn check(&self, label: &str, document: &str) -> Result<BlobDigest> {
        let bad = |why: String| Error::document(label, document, why);
        let digest = self.digest.parse().map_err(|e| bad(format!("descriptor: {e}")))?;
        if self.size < 0 {
            return Err(bad(format!("the descriptor of {digest} has a size of {}", self.size)));
        }
        Ok(digest)
    }

    /// The platform, if anything is said of it.
    fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref().filter(|platform| !platform.is_empty())
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key)?.as_deref().filter(|text| !text.is_empty())
    }

    /// What an index calls it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotation(REF_NAME).or_else(|| self.annotation(CONTAINERD_NAME))
    }

    /// All annotations that are texts.
    pub(crate) fn all_annotations(&self) -> BTreeMap<String, String> {
        let all = self.annotations.iter();
        all.filter_map(|(key, text)| Some((key.clone(), text.clone()?))).collect()
    }

    /// Whether this lies beside images without being one.
    fn is_artifact(&self) -> bool {
        self.annotations.contains_key(REFERENCE_TYPE)
            || self.platform().is_some_and(Platform::is_unknown)
            || self
                .artifact_type
                .as_deref()
                .is_some_and(|kind| !kind.is_empty() && MediaKind::of(kind) != MediaKind::Config)
    }
}

/// An index or a manifest: read as one type, so that a document that is both is seen.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

enum Parsed {
    Index(Vec<Descriptor>),
    Manifest { config: Box<Descriptor>, layers: Vec<Descriptor> },
}

fn parse(label: &str, name: &str, bytes: &[u8], said: MediaKind) -> Result<Parsed> {
    let bad = |why: String| Error::document(label, name, why);
    let document: Document = json::from_slice(bytes)
        .map_err(|e| bad(format!("neither an index nor a manifest: {e}")))?;
    sort_out(label, name, document, said)
}

fn sort_out(label: &str, name: &str, document: Document, said: MediaKind) -> Result<Parsed> {
    let bad = |why: String| Error::document(label, name, why);
    let own = MediaKind::of(&document.media_type);
    if [said, own].contains(&MediaKind::Schema1) || document.fs_layers.is_some() {
        return Err(bad(
            "docker's schema 1, which names no diff ids, is not read; make the image again with \
             a current tool"
                .to_owned(),
        ));
    }
    let (parsed, kind) = match (document.manifests, document.config, document.layers) {
        (Some(manifests), None, None) => (Parsed::Index(manifests), MediaKind::Index),
        (None, Some(config), layers) => {
            let layers = layers.unwrap_or_default();
            (Parsed::Manifest { config: Box::new(config), layers }, MediaKind::Manifest)
        }
        (Some(_), ..) => {
            return Err(bad("it is an index and a manifest at once".to_owned()));
        }
        // Go writes `null` for an empty list.
        (None, None, None) if [said, own].contains(&MediaKind::Index) => {
            (Parsed::Index(Vec::new()), MediaKind::Index)
        }
        (None, None, _) => {
            return Err(bad("it has neither manifests (an index) nor a config".to_owned()));
        }
    };
    for claim in [said, own] {
        if claim != MediaKind::Unsaid && claim != kind {
            return Err(bad(format!("it is said to be {claim:?}, and is {kind:?}")));
        }
    }
    Ok(parsed)
}

/// Reads `index.json`; `None` if there is none.
///
/// # Errors
/// `Document`, and those of [`ImageSource::document`].
pub(crate) fn read_index(source: &ImageSource) -> Result<Option<Vec<Descriptor>>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    const LAYOUT: &str = "oci-layout";

    let Some(bytes) = source.document(&path_of(INDEX))? else { return Ok(None) };
    if let Some(bytes) = source.document(&path_of(LAYOUT))? {
        let layout: Layout = Json::first(&bytes)
            .and_then(|document| document.read())
            .map_err(|e| Error::document(&source.label, LAYOUT, e.to_string()))?;
        if !layout.image_layout_version.starts_with("1.") {
            let why = format!("version {:?}; strata reads 1.x", layout.image_layout_version);
            return Err(Error::document(&source.label, LAYOUT, why));
        }
    }
    // No digest covers it, and readers take the first document there is.
    let document: Document = Json::first(&bytes)
        .and_then(|document| document.read())
        .map_err(|e| Error::document(&source.label, INDEX, format!("not an index: {e}")))?;
    let said = match document.config.is_some() {
        true => MediaKind::Unsaid,
        false => MediaKind::Index,
    };
    match sort_out(&source.label, INDEX, document, said)? {
        Parsed::Index(manifests) if manifests.len() as u64 > source.limits.images => {
            Err(Error::Limit {
                label: source.label.clone(),
                what: format!("the number of images, {},", manifests.len()),
                limit: source.limits.images,
                option: "--max-images",
            })
        }
        Parsed::Index(manifests) => Ok(Some(manifests)),
        Parsed::Manifest { .. } => {
            Err(Error::document(&source.label, INDEX, "it is a manifest, not an index"))
        }
    }
}

/// What a top index has of what is wanted.
#[derive(Default)]
pub(crate) struct ListedImages {
    pub(crate) images: Vec<FoundImage>,
    /// Something wanted that is no image.
    pub(crate) artifact: Option<String>,
}

/// Finds the wanted images of the top index; all names are added to `known`.
///
/// # Errors
/// `Missing`, `WrongDigest`, `WrongSize`, `Platform`, `Document`.
pub(crate) fn find(
    source: &ImageSource,
    wanted: &Wanted<'_>,
    index: Vec<Descriptor>,
    known: &mut BTreeSet<String>,
    room: &mut FoundRoom<'_>,
) -> Result<ListedImages> {
    let mut all: Vec<FoundImage> = Vec::new();
    let mut artifact = None;
    for (name, entries) in by_name(source, wanted, index, known)? {
        for entry in one_per_name(source, wanted, name.as_ref(), entries)? {
            let image = match resolve(source, wanted.platform, &entry, limits::INDEX_DEPTH)? {
                Resolved::Image(image) => image,
                Resolved::Artifact(what) => {
                    artifact = Some(what);
                    continue;
                }
            };
            let at = all.iter().position(|known| {
                known.config.id() == image.config.id() && known.manifest == image.manifest
            });
            let at = match at {
                Some(at) => at,
                None => {
                    room.take(&image)?;
                    all.push(*image);
                    all.len() - 1
                }
            };
            all[at].add_names(name.clone());
        }
    }
    Ok(ListedImages { images: all, artifact })
}

/// The configs of all images of the top index that are there, whatever their platform and name.
///
/// # Errors
/// Those of reading.
pub(crate) fn all_configs(
    source: &ImageSource,
    index: &[Descriptor],
) -> Result<HashSet<BlobDigest>> {
    let mut configs = HashSet::new();
    let mut left: Vec<_> = index.iter().map(|one| (one.clone(), limits::INDEX_DEPTH)).collect();
    let mut seen = HashSet::new();
    while let Some((entry, depth)) = left.pop() {
        let kind = MediaKind::of(&entry.media_type);
        // Damage is reported where the image is wanted.
        let Ok(digest) = entry.check(&source.label, INDEX) else { continue };
        if kind == MediaKind::Other || !seen.insert(digest) {
            continue;
        }
        let name = format!("manifest {digest}");
        let Some(bytes) = source.verified(&name, digest, entry.size)? else { continue };
        match parse(&source.label, &name, &bytes, kind) {
            Ok(Parsed::Index(entries)) if depth > 0 => {
                left.extend(entries.into_iter().map(|one| (one, depth - 1)));
            }
            Ok(Parsed::Manifest { config, .. }) => {
                configs.extend(config.digest.parse::<BlobDigest>())
            }
            Ok(Parsed::Index(_)) | Err(_) => {}
        }
    }
    Ok(configs)
}

type Group = (Option<Reference>, Vec<Descriptor>);

/// The wanted entries, those of one name together, in the order of the index.
fn by_name(
    source: &ImageSource,
    wanted: &Wanted<'_>,
    index: Vec<Descriptor>,
    known: &mut BTreeSet<String>,
) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for entry in index.into_iter().filter(|entry| !entry.is_artifact()) {
        entry.check(&source.label, INDEX)?;
        let (text, name) = name_of(&entry, wanted);
        match &name {
            Some(name) => drop(known.insert(name.familiar())),
            None => known.extend(text.map(str::to_owned)),
        }
        let keep = match text {
            Some(text) => {
                // Also by the tag alone, which is all that other tools go by.
                let tag = entry.annotation(REF_NAME);
                wanted.name(text, name.as_ref()) || tag.is_some_and(|tag| wanted.name(tag, None))
            }
            None => wanted.unnamed(),
        };
        if !keep {
            continue;
        }
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, entries)) if entries.iter().any(|one| one.digest == entry.digest) => {}
            Some((_, entries)) => entries.push(entry),
            None => groups.push((name, vec![entry])),
        }
    }
    Ok(groups)
}

/// What an entry is called: the text in the index, and the name that comes of it.
fn name_of<'a>(entry: &'a Descriptor, wanted: &Wanted<'_>) -> (Option<&'a str>, Option<Reference>) {
    if let Some(full) = entry.annotation(CONTAINERD_NAME)
        && let Ok(name) = full.parse()
    {
        return (Some(full), Some(name));
    }
    let Some(short) = entry.annotation(REF_NAME) else { return (None, None) };
    let name = if short.contains(['/', ':']) {
        short.parse().ok()
    } else if Tag::parse(short).is_ok() {
        wanted.spec.repository().and_then(|repo| format!("{repo}:{short}").parse().ok())
    } else {
        None
    };
    if name.is_none() {
        tracing::warn!("the name {short:?} is not a reference; its image gets no tag");
    }
    (Some(short), name)
}

/// Entries of the same name can only be platforms of one image; without a name they may also be
/// several images.
fn one_per_name(
    source: &ImageSource,
    wanted: &Wanted<'_>,
    name: Option<&Reference>,
    entries: Vec<Descriptor>,
) -> Result<Vec<Descriptor>> {
    if entries.len() < 2 || name.is_none() && entries.iter().all(|one| one.platform().is_none()) {
        return Ok(entries);
    }
    let best = choose(source, INDEX, wanted.platform, entries)?;
    match name {
        Some(name) if best.len() > 1 => {
            let why = format!("it gives the name {} to {} images", name.familiar(), best.len());
            Err(Error::document(&source.label, INDEX, why))
        }
        _ => Ok(best),
    }
}

/// The entries that serve the platform best: several only if they are equally good.
fn choose(
    source: &dyn Blobs,
    index: &str,
    platform: Option<&Platform>,
    entries: Vec<Descriptor>,
) -> Result<Vec<Descriptor>> {
    let host = Platform::host();
    let target = platform.unwrap_or(&host);
    let mut present = Vec::new();
    let mut absent = Vec::new();
    let mut offered = BTreeSet::new();
    let mut seen = HashSet::new();
    for entry in entries.into_iter().filter(|entry| !entry.is_artifact()) {
        let digest = entry.check(source.label(), index)?;
        if !seen.insert((digest, entry.platform().cloned())) {
            continue;
        }
        // Without a platform an entry may be for any, and comes last.
        let rank = entry.platform().map_or(Some(Rank::unsaid()), |own| own.serves(target));
        // `docker save` of one platform keeps the index of all.
        if source.offers(digest)? {
            offered.insert(entry.platform().map_or("unsaid".into(), Platform::to_string));
            present.push((rank, entry));
        } else if rank.is_some() {
            absent.push(digest);
        }
    }
    let best = present.iter().filter_map(|(rank, _)| rank.clone()).max();
    match best {
        Some(best) => Ok(present
            .into_iter()
            .filter(|(rank, _)| rank.as_ref() == Some(&best))
            .map(|(_, entry)| entry)
            .collect()),
        None if platform.is_none() && present.len() == 1 => {
            Ok(present.into_iter().map(|(_, entry)| entry).collect())
        }
        None => match absent.first() {
            Some(digest) => Err(Error::Missing {
                label: source.label().to_owned(),
                wanted_by: format!("{index}, for {target},"),
                path: blob_path(*digest).to_string(),
            }),
            None => Err(Error::Platform {
                label: format!("{}: {index}", source.label()),
                wanted: target.to_string(),
                available: listed(&offered.into_iter().collect::<Vec<_>>()),
            }),
        },
    }
}

enum Resolved {
    Image(Box<FoundImage>),
    Artifact(String),
}

/// Follows an entry down to its manifest.
fn resolve(
    source: &dyn Blobs,
    platform: Option<&Platform>,
    entry: &Descriptor,
    depth: usize,
) -> Result<Resolved> {
    let digest = entry.check(source.label(), INDEX)?;
    let name = format!("manifest {digest}");
    let kind = MediaKind::of(&entry.media_type);
    if kind == MediaKind::Other {
        return Ok(Resolved::Artifact(name));
    }
    let bytes = source.manifest(&name, digest, entry.size)?;
    let bytes = bytes.ok_or_else(|| missing(source, INDEX, digest))?;
    let document = Top { digest, kind, bytes };
    resolve_document(source, platform, document, depth)
}

/// An index or manifest, verified.
pub(crate) struct Top {
    pub(crate) digest: BlobDigest,
    /// What it is said to be.
    pub(crate) kind: MediaKind,
    pub(crate) bytes: Vec<u8>,
}

fn resolve_document(
    source: &dyn Blobs,
    platform: Option<&Platform>,
    document: Top,
    depth: usize,
) -> Result<Resolved> {
    let Top { digest, kind, bytes } = document;
    let name = format!("manifest {digest}");
    match parse(source.label(), &name, &bytes, kind)? {
        Parsed::Manifest { config, layers } => image(source, &name, bytes, &config, layers),
        Parsed::Index(_) if depth == 0 => {
            Err(Error::document(source.label(), &name, "indexes are nested too deeply"))
        }
        Parsed::Index(entries) => {
            let name = format!("index {digest}");
            let mut best = choose(source, &name, platform, entries)?.into_iter();
            match (best.next(), best.next()) {
                (Some(entry), other) => {
                    if let Some(other) = other.filter(|other| other.digest != entry.digest) {
                        let (label, digest) = (source.label(), &entry.digest);
                        tracing::warn!(
                            "{label}: {name} has several images for the same platform; {digest} \
                             is taken, as the first, and {} is not",
                            other.digest
                        );
                    }
                    resolve(source, platform, &entry, depth - 1)
                }
                (None, _) => Err(Error::document(source.label(), &name, "it lists no image")),
            }
        }
    }
}

/// The image of a document: of the platform if it is an index.
///
/// # Errors
/// As [`find`]; `Document` for an artifact that is no image.
pub(crate) fn image_of(
    source: &dyn Blobs,
    platform: Option<&Platform>,
    document: Top,
) -> Result<FoundImage> {
    match resolve_document(source, platform, document, limits::INDEX_DEPTH)? {
        Resolved::Image(image) => image.checked(),
        Resolved::Artifact(what) => Err(no_image(source.label(), &what)),
    }
}

/// The descriptors of a manifest: its config's and its layers', all possible ones.
///
/// # Errors
/// `Document` if it is no manifest.
pub(crate) fn manifest_parts(label: &str, bytes: &[u8]) -> Result<(Descriptor, Vec<Descriptor>)> {
    const NAME: &str = "its manifest";
    match parse(label, NAME, bytes, MediaKind::Unsaid)? {
        Parsed::Manifest { config, layers } => {
            for one in layers.iter().chain([&*config]) {
                one.check(label, NAME)?;
            }
            Ok((*config, layers))
        }
        Parsed::Index(_) => Err(Error::document(label, NAME, "it is an index, not a manifest")),
    }
}

/// What a manifest or index says of itself.
pub(crate) fn media_type_of(bytes: &[u8]) -> Option<String> {
    let document: Document = json::from_slice(bytes).ok()?;
    Some(document.media_type).filter(|text| !text.is_empty())
}

pub(crate) fn no_image(label: &str, what: &str) -> Error {
    Error::Artifact { label: label.to_owned(), document: what.to_owned() }
}

fn missing(source: &dyn Blobs, wanted_by: &str, digest: BlobDigest) -> Error {
    Error::Missing {
        label: source.label().to_owned(),
        wanted_by: wanted_by.to_owned(),
        path: blob_path(digest).to_string(),
    }
}

fn image(
    source: &dyn Blobs,
    name: &str,
    manifest: Vec<u8>,
    config: &Descriptor,
    layers: Vec<Descriptor>,
) -> Result<Resolved> {
    let is = |one: &Descriptor, kind| MediaKind::of(&one.media_type) == kind;
    let of_image = is(config, MediaKind::Config) || is(config, MediaKind::Unsaid);
    if !of_image || layers.iter().any(|layer| is(layer, MediaKind::Other)) {
        return Ok(Resolved::Artifact(name.to_owned()));
    }
    let digest = config.check(source.label(), name)?;
    let raw_config = source.config(&format!("config {digest}"), digest, config.size)?;
    let raw_config = raw_config.ok_or_else(|| missing(source, name, digest))?;
    let config =
        ImageConfig::parse_named(&raw_config, source.label(), &format!("config {digest}"))?;
    let layers = layers
        .into_iter()
        .map(|layer| {
            let digest = layer.check(source.label(), name)?;
            Ok(FoundLayer {
                path: blob_path(digest),
                blob: Some((digest, Some(layer.size))),
                kind: MediaKind::of(&layer.media_type),
                media_type: layer.media_type,
                urls: layer.urls,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let names = Vec::new();
    let manifest = Some(manifest);
    let found =
        FoundImage { names, pin: None, manifest, config, raw_config, layers, verdict: None };
    Ok(Resolved::Image(Box::new(found)))
}

#[cfg(test)]
mod tests;
