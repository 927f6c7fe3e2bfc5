//! An image that is copied out: its documents, and a reader for each of its blobs.
//!
//! Invariants: manifest, config and layers belong together, by digest and size; a reader can be
//! had as often as it is needed, and fails at its end if its bytes were not those of the digest.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use strata_layer::{ImageRecord, Store};
use strata_registry::Reference;
use strata_tree::{BlobDigest, DiffId, ImageId};

use crate::beside::Companions;
use crate::error::{Error, Result};
use crate::found::{FoundImage, FoundLayer};
use crate::limits::SourceLimits;
use crate::manifest::{Described, new_manifest};
use crate::media::{MediaKind, OCI_LAYER, OCI_MANIFEST};
use crate::oci::media_type_of;
use crate::pack::{LayerPacking, pack_from, repacked};
use crate::push::{PushEvent, PushListener};
use crate::source::Blobs;
use crate::spool;

/// What an image is to be made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerForm {
    /// The blobs and the manifest that it has.
    AsItIs,
    /// The diffs themselves.
    Plain,
    /// The diffs, packed.
    Packed(LayerPacking),
}

/// The image.
pub(crate) struct Outbound<'a> {
    pub(crate) id: ImageId,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: String,
    /// Base first; one that the image has twice is here twice.
    pub(crate) layers: Vec<OutLayer<'a>>,
    pub(crate) names: Vec<Reference>,
    /// What goes along.
    pub(crate) beside: Option<Companions<'a>>,
}

type Open<'a> = dyn Fn() -> Result<Box<dyn Read + Send + 'a>> + Send + Sync + 'a;

/// A layer's blob.
pub(crate) struct OutLayer<'a> {
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
    /// It is foreign, and stays where its urls say.
    pub(crate) foreign: bool,
    /// Gives its bytes, from the beginning.
    pub(crate) open: Box<Open<'a>>,
}

/// Whether an image can go out as it is: it has a manifest, which describes every blob.
pub(crate) fn is_whole(found: &FoundImage) -> bool {
    let described = |layer: &FoundLayer| matches!(layer.blob, Some((_, Some(_))));
    found.manifest.is_some() && found.layers.iter().all(described)
}

/// An image that a source has.
///
/// # Errors
/// Those of reading layers, which only another form than `AsItIs` does here.
pub(crate) fn of_found<'a>(
    store: &Store,
    source: &'a dyn Blobs,
    found: &FoundImage,
    names: Vec<Reference>,
    form: LayerForm,
    limits: &SourceLimits,
) -> Result<Outbound<'a>> {
    let title = found.title();
    let (id, config) = (found.config.id(), found.raw_config.clone());
    if form == LayerForm::AsItIs
        && let Some(manifest) = &found.manifest
    {
        let layers = found.layers.iter().filter_map(|layer| as_it_is(source, layer, &title));
        let media_type = media_type_of(manifest).unwrap_or_else(|| OCI_MANIFEST.to_owned());
        let (manifest, layers) = (manifest.clone(), layers.collect());
        return Ok(Outbound { id, config, manifest, media_type, layers, names, beside: None });
    }
    let packing = match form {
        LayerForm::Packed(packing) => packing,
        LayerForm::AsItIs | LayerForm::Plain => LayerPacking::Plain,
    };
    let (mut layers, mut described) = (Vec::new(), Vec::new());
    for (layer, diff_id) in found.layers.iter().zip(found.config.diff_ids()) {
        let plain = diff(store, source, layer, diff_id, &title, limits)?;
        let what = format!("packing layer {diff_id}");
        let packed = match packing {
            LayerPacking::Plain => (BlobDigest::from_bytes(*diff_id.as_bytes()), plain.1, plain.0),
            packing => {
                let packed = pack_from(store, packing, &what, &mut |out: &mut dyn Write| {
                    let mut reader = At { file: &plain.0, offset: 0 };
                    let copied = io::copy(&mut reader, out);
                    copied.map(|_| ()).map_err(|error| Error::io(what.as_str(), error))
                })?;
                packed.into_parts()
            }
        };
        let (digest, size, file) = packed;
        described.push(Described { media_type: repacked(OCI_LAYER, Some(packing)), digest, size });
        let open = move || {
            let file = file.try_clone().map_err(|error| Error::io("reading a layer", error))?;
            Ok(Box::new(At { file, offset: 0 }) as Box<dyn Read + Send>)
        };
        layers.push(OutLayer { digest, size, foreign: false, open: Box::new(open) });
    }
    let manifest = new_manifest(&config, &described);
    let media_type = OCI_MANIFEST.to_owned();
    Ok(Outbound { id, config, manifest, media_type, layers, names, beside: None })
}

fn as_it_is<'a>(source: &'a dyn Blobs, layer: &FoundLayer, title: &str) -> Option<OutLayer<'a>> {
    let (digest, size) = layer.blob?;
    let size = size?.unsigned_abs();
    let foreign = layer.kind == MediaKind::ForeignLayer;
    let (layer, title) = (layer.clone(), title.to_owned());
    let open = move || {
        let blob = source.layer(&layer)?.ok_or_else(|| absent(source, &layer, &title))?;
        let checked = Checked { inner: blob.reader, hasher: Sha256::new(), size: 0, digest };
        Ok(Box::new(checked) as Box<dyn Read + Send + 'a>)
    };
    Some(OutLayer { digest, size, foreign, open: Box::new(open) })
}

fn absent(source: &dyn Blobs, layer: &FoundLayer, title: &str) -> Error {
    Error::Missing {
        label: source.label().to_owned(),
        wanted_by: format!("image {title}"),
        path: layer.path.to_string(),
    }
}

/// The diff of a layer in a scratch file, checked, and its size in bytes.
fn diff(
    store: &Store,
    source: &dyn Blobs,
    layer: &FoundLayer,
    diff_id: &DiffId,
    title: &str,
    limits: &SourceLimits,
) -> Result<(File, u64)> {
    let label = format!("layer {diff_id} of {title}");
    let blob = source.layer(layer)?.ok_or_else(|| absent(source, layer, title))?;
    let scratch = || Ok(store.scratch_file()?);
    let file = spool::spool(blob.reader, &label, &scratch, limits)?;
    let reading = |error| Error::io(format!("reading {label}"), error);
    let mut reader = At { file: &file, offset: 0 };
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer).map_err(reading)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    let actual = DiffId::from_bytes(hasher.finalize().into());
    if actual != *diff_id {
        let why = format!("its diff is {actual}, the config says {diff_id}");
        return Err(Error::document(source.label(), &label, why));
    }
    Ok((file, size))
}

/// An image of the store, as plain diffs.
///
/// # Errors
/// `Store`.
pub(crate) fn of_store<'a>(
    store: &'a Store,
    image: &ImageRecord,
    text: &str,
) -> Result<Outbound<'a>> {
    let (_, leased) = store.lease_image(&image.id)?;
    let config = store.blob(&image.id.into())?;
    let manifest = crate::derive::manifest_of(store, &config, &leased)?;
    let mut layers = Vec::new();
    for layer in leased {
        let diff_id = *layer.diff_id();
        let size = store.layer(&diff_id)?.ok_or(strata_layer::Error::NoLayer(diff_id))?.diff_size;
        let digest = BlobDigest::from_bytes(*diff_id.as_bytes());
        let open = move || {
            let mut file = store.scratch_file()?;
            layer.write_diff(&mut file)?;
            let inner = At { file, offset: 0 };
            let checked = Checked { inner, hasher: Sha256::new(), size: 0, digest };
            Ok(Box::new(checked) as Box<dyn Read + Send + 'a>)
        };
        layers.push(OutLayer { digest, size, foreign: false, open: Box::new(open) });
    }
    let tag = text.parse::<Reference>().ok().filter(|name| name.digest().is_none());
    let known = store.images().tags()?;
    let is_name = |name: &Reference| {
        let tag = name.store_tag();
        known.iter().any(|(known, id)| *id == image.id && Some(known) == tag.as_ref())
    };
    let names = tag.filter(is_name).into_iter().collect();
    let media_type = OCI_MANIFEST.to_owned();
    Ok(Outbound { id: image.id, config, manifest, media_type, layers, names, beside: None })
}

/// A file, read with `pread`.
struct At<F> {
    file: F,
    offset: u64,
}

impl<F: std::borrow::Borrow<File>> Read for At<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.borrow().read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Fails at the end if the bytes were others.
struct Checked<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
    digest: BlobDigest,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let actual = BlobDigest::from_bytes(self.hasher.clone().finalize().into());
        if actual == self.digest {
            return Ok(0);
        }
        let (digest, size) = (self.digest, self.size);
        Err(io::Error::other(format!("blob {digest} is {actual} ({size} bytes)")))
    }
}

/// What an image is called in a file: the tag that OCI layouts know, and the whole name.
pub(super) fn called(names: &[Reference], name: Option<&str>) -> Vec<(String, Option<Reference>)> {
    match name {
        // As skopeo does: the text as it is.
        Some(text) => vec![(text.to_owned(), text.parse().ok().filter(|_| text.contains(':')))],
        None => names
            .iter()
            .filter_map(|name| Some((name.tag()?.as_str().to_owned(), Some(name.clone()))))
            .collect(),
    }
}

/// Reports all layers, each once, before the first is copied.
pub(super) fn prepare<'o, 'a>(
    outbound: &'o Outbound<'a>,
    listen: &PushListener<'_>,
) -> Vec<&'o OutLayer<'a>> {
    let mut todo: Vec<&OutLayer<'_>> = Vec::new();
    for layer in &outbound.layers {
        if !todo.iter().any(|known| known.digest == layer.digest) {
            listen(&layer.digest.short(), PushEvent::Preparing);
            todo.push(layer);
        }
    }
    todo
}

/// Where a layout keeps a blob.
pub(super) fn blob_name(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
