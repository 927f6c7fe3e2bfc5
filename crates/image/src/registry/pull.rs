//! From a name to an image in the store.
//!
//! ```text
//! tag --> the origin says the digest --> whoever has it gives the document
//!     --> (index: the platform's manifest) --> config --> missing layers, several at once
//! ```
//!
//! Invariants: what a mirror gives has the digest that the user or the origin named; only where
//! the origin does not answer a mirror's word for a tag is taken, with a warning. What the store
//! has is not fetched again. All that [`crate::load`] promises holds here too: the same code
//! verifies, unpacks and commits.

use std::io::Read;
use std::num::NonZeroUsize;

use strata_layer::{Event, Progress, Store};
use strata_tree::{BlobDigest, DiffId, ImageId};

use super::Registries;
use super::client::{FetchedManifest, ManifestName};
use super::error::{Refusal, RegistryError};
use super::places::Places;
use crate::error::{Error, Result};
use crate::found::FoundLayer;
use crate::limits::Limits;
use crate::load::{ChainCheck, LoadOptions, LoadedLayer, load_one};
use crate::media::MediaKind;
use crate::oci::{Top, image_of};
use crate::platform::Platform;
use crate::reference::{Reference, Tag};
use crate::source::{Blob, Blobs, check_digest, check_size};

/// Layers that are fetched at once if nothing else is said, as docker does.
const LAYERS_AT_ONCE: usize = 3;

/// How to pull.
#[derive(Default)]
pub struct PullOptions<'a> {
    /// The platform; without it the host's.
    pub platform: Option<Platform>,
    /// Layers to fetch and unpack at the same time; without it three, or one a processor.
    pub threads: Option<NonZeroUsize>,
    /// What registries may make us read.
    pub limits: Limits,
    /// Called before the image is committed; refuses it.
    pub chain_check: Option<&'a ChainCheck<'a>>,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its id.
    pub id: ImageId,
    /// The digest that the name stood for: an index's, or the manifest's.
    pub digest: BlobDigest,
    /// Its layers, base first.
    pub layers: Vec<LoadedLayer>,
    /// The name means something else now than before, or is new.
    pub newer: bool,
}

/// Brings the image of a name into the store.
///
/// # Errors
/// `Registry`, and everything that [`crate::load`] refuses. Then nothing of the image stays.
pub fn pull(
    store: &Store,
    registries: &Registries,
    reference: &Reference,
    options: &PullOptions<'_>,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let places = registries.places(reference)?;
    let source = Remote::new(places, Some(store), reference, &options.limits);
    let top = source.top(reference, progress)?;
    let digest = top.digest;
    let host = Platform::host();
    let platform = options.platform.as_ref().unwrap_or(&host);
    let document = Top { digest, kind: MediaKind::of(&top.media_type), bytes: top.bytes };
    let mut found = image_of(&source, Some(platform), document)?;
    if let Some(platform) = &options.platform {
        check_platform(&source, &found.config.platform(), platform)?;
    }
    let name = match reference.digest() {
        // As docker: a digest makes no tag, also beside one.
        Some(_) => {
            found.pin = Some(reference.clone());
            reference.store_pin()
        }
        None => {
            found.names.push(reference.clone());
            reference.store_tag()
        }
    };
    let id = found.config.id();
    let before = store.tags()?.into_iter().find(|(tag, _)| Some(tag) == name.as_ref());
    let newer = before.is_none_or(|(_, image)| image != id);
    let cpus = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = options.threads.or_else(|| NonZeroUsize::new(cpus().max(LAYERS_AT_ONCE)));
    let load = LoadOptions {
        threads,
        limits: options.limits.clone(),
        chain_check: options.chain_check,
        ..LoadOptions::default()
    };
    // An image that is there as a whole is not told of layer by layer.
    let progress: &dyn Progress =
        if store.image(&id)?.is_some() { &Silent(progress) } else { progress };
    let loaded = load_one(store, &source, &found, &load, progress)?;
    Ok(Pulled { id: loaded.id, digest, layers: loaded.layers, newer })
}

/// An image without an index says in its config alone what it is for.
fn check_platform(source: &Remote<'_>, own: &Platform, wanted: &Platform) -> Result<()> {
    if own.os.is_empty() || own.serves(wanted).is_some() {
        return Ok(());
    }
    Err(Error::Platform {
        label: source.label.clone(),
        wanted: wanted.to_string(),
        available: own.to_string(),
    })
}

/// Passes on nothing but warnings.
struct Silent<'a>(&'a dyn Progress);

impl Progress for Silent<'_> {
    fn event(&self, _: &str, _: Event) {}

    fn warning(&self, layer: &str, text: &str) {
        self.0.warning(layer, text);
    }
}

/// A manifest or index, as a registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: BlobDigest,
    /// What it is.
    pub media_type: String,
}

/// Fetches what a name stands for, or the manifest of one platform of it.
///
/// # Errors
/// `Registry`; with a platform also what the documents are refused for.
pub fn fetch_document(
    registries: &Registries,
    reference: &Reference,
    platform: Option<&Platform>,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<Document> {
    let places = registries.places(reference)?;
    let source = Remote::new(places, None, reference, limits);
    let top = source.top(reference, progress)?;
    let FetchedManifest { bytes, media_type, digest } = top;
    let Some(platform) = platform else { return Ok(Document { bytes, digest, media_type }) };
    let document = Top { digest, kind: MediaKind::of(&media_type), bytes };
    let found = image_of(&source, Some(platform), document)?;
    check_platform(&source, &found.config.platform(), platform)?;
    let bytes = found.manifest.unwrap_or_default();
    let media_type = crate::oci::media_type_of(&bytes).unwrap_or(media_type);
    Ok(Document { digest: crate::source::sha256(&bytes), bytes, media_type })
}

/// The places of one image as a source of documents and layers.
pub(super) struct Remote<'a> {
    places: Places,
    store: Option<&'a Store>,
    label: String,
    limits: Limits,
}

impl<'a> Remote<'a> {
    pub(super) fn new(
        places: Places,
        store: Option<&'a Store>,
        reference: &Reference,
        limits: &Limits,
    ) -> Self {
        Self { places, store, label: reference.familiar(), limits: limits.clone() }
    }

    /// The document that the name stands for.
    pub(super) fn top(
        &self,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<FetchedManifest> {
        let what = self.label.as_str();
        let most = self.limits.document_bytes;
        let by_digest = |digest| {
            let name = ManifestName::Digest(digest);
            self.places.first(what, |client| client.manifest(&name, most))
        };
        if let Some(digest) = reference.digest() {
            return Ok(by_digest(digest)?);
        }
        let tag = reference.tag().map_or("latest", Tag::as_str);
        let name = ManifestName::Tag(tag.to_owned());
        let origin = self.places.origin().filter(|_| self.places.has_mirrors());
        if let Some(origin) = origin.filter(|origin| !self.places.is_down(origin)) {
            match self.places.ask(origin, |client| client.manifest_head(&name)) {
                Ok(head) => {
                    if let Some(digest) = head.digest {
                        return Ok(by_digest(digest)?);
                    }
                    // It does not say; then the document itself has to come from there.
                    let found = self.places.ask(origin, |client| client.manifest(&name, most));
                    return found.map_err(|why| self.only(origin.label(), why));
                }
                Err(why @ Refusal::NotFound(_)) => return Err(self.only(origin.label(), why)),
                Err(why) => tracing::debug!("{what}: {}: {why}", origin.label()),
            }
        }
        self.places
            .first(what, |client| {
                let found = client.manifest(&name, most)?;
                if !client.endpoint.is_origin {
                    let text = format!(
                        "{what}: the registry itself did not answer; {} says that the tag is {}",
                        client.endpoint.host, found.digest
                    );
                    progress.warning("", &text);
                }
                Ok(found)
            })
            .map_err(Error::from)
    }

    fn only(&self, endpoint: String, why: Refusal) -> Error {
        Box::new(RegistryError::one(self.label.as_str(), endpoint, why)).into()
    }

    /// What the store has under that digest.
    fn known(&self, digest: BlobDigest) -> Result<Option<Vec<u8>>> {
        let Some(store) = self.store else { return Ok(None) };
        match store.blob(&digest) {
            Ok(bytes) => Ok(Some(bytes)),
            // Fetched anew; a damaged one is replaced when the image is committed or by fsck.
            Err(strata_layer::Error::NoBlob(_) | strata_layer::Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn within_limit(&self, what: &str, size: i64) -> Result<u64> {
        match u64::try_from(size) {
            Ok(size) if size <= self.limits.document_bytes => Ok(size),
            _ => Err(Error::Limit {
                label: self.label.clone(),
                what: format!("the size of {what}, {size} bytes,"),
                limit: self.limits.document_bytes,
                option: "--max-manifest-bytes",
            }),
        }
    }
}

impl Blobs for Remote<'_> {
    fn label(&self) -> &str {
        &self.label
    }

    fn offers(&self, _: BlobDigest) -> Result<bool> {
        // What an index lists is taken to be there until it is asked for.
        Ok(true)
    }

    fn manifest(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>> {
        let most = self.within_limit(what, size)?;
        let bytes = match self.known(digest)? {
            Some(bytes) => bytes,
            None => {
                let name = ManifestName::Digest(digest);
                let what = format!("{}: {what}", self.label);
                self.places.first(&what, |client| client.manifest(&name, most))?.bytes
            }
        };
        check_size(&self.label, what, size, bytes.len() as u64)?;
        Ok(Some(bytes))
    }

    fn config(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>> {
        let most = self.within_limit(what, size)?;
        if let Some(bytes) = self.known(digest)? {
            check_size(&self.label, what, size, bytes.len() as u64)?;
            return Ok(Some(bytes));
        }
        loop {
            let mut bytes = Vec::new();
            if self.places.blob(digest, most).read_to_end(&mut bytes).is_err() {
                let mut error = self.places.failures(digest);
                error.what = format!("{}: {what}", self.label);
                return Err(error.into());
            }
            match check_digest(&self.label, what, digest, &bytes) {
                Ok(()) => return Ok(Some(bytes)),
                Err(error) if self.places.wrong(digest, "its digest is another") => {
                    tracing::debug!("{error}; another place is asked");
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn layer(&self, layer: &FoundLayer) -> Result<Option<Blob<'_>>> {
        let Some((digest, Some(size))) = layer.blob else { return Ok(None) };
        let size = size.unsigned_abs();
        if layer.kind == MediaKind::ForeignLayer {
            // Registries may have it all the same.
            let head = self.places.first(&self.label, |client| client.blob_head(digest));
            match head {
                Ok(_) => {}
                Err(error) if matches!(error.decisive(), Some(Refusal::NotFound(_))) => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(Blob::new(size, Box::new(self.places.blob(digest, size)))))
    }

    fn layer_label(&self, layer: &FoundLayer, diff_id: &DiffId) -> String {
        layer.blob.map_or_else(|| diff_id.short(), |(digest, _)| digest.short())
    }

    fn refused(&self, layer: &FoundLayer, error: Error) -> Result<()> {
        use strata_layer::Error as Layer;
        let Error::Layer { source, .. } = &error else { return Err(error) };
        // With the right blob and the wrong diff id it is the image that is wrong.
        let by_content = matches!(
            **source,
            Layer::Diff(_) | Layer::WrongBlob { .. } | Layer::Rule { .. } | Layer::Limit { .. }
        );
        let Some((digest, _)) = layer.blob.filter(|_| by_content) else { return Err(error) };
        if self.places.wrong(digest, &source.to_string()) {
            tracing::debug!("{error}; another place is asked");
            return Ok(());
        }
        if !self.places.has_mirrors() {
            return Err(error);
        }
        let mut all = self.places.failures(digest);
        all.what = format!("{}: layer {digest}", self.label);
        Err(all.into())
    }
}
