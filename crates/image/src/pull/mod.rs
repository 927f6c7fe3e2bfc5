//! From a name to an image in the store.
//!
//! ```text
//! tag --> the origin says the digest --> a place that has it gives the document
//!     --> (index: the platform's manifest) --> config --> missing layers, several at once
//! ```
//!
//! Invariant: all that [`crate::load`] promises holds here too, for the same code verifies,
//! unpacks and commits.

mod remote;

use std::num::NonZeroUsize;

use strata_layer::{Event, Progress};
use strata_registry::{Reference, Registries};
use strata_tree::{BlobDigest, ImageId};
use strata_trust::TrustPolicy;

pub use remote::KnownDocuments;
pub(crate) use remote::Remote;

use crate::checked_store::CheckedStore;
use crate::error::Result;
use crate::found::FoundImage;
use crate::limits::SourceLimits;
use crate::load::{LoadOptions, LoadedLayer, load_one};
use crate::platform::Platform;

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
    pub limits: SourceLimits,
    /// Whom images are accepted from; without it from anybody.
    pub trust: Option<&'a TrustPolicy>,
    /// Called once it is known what the name stands for.
    pub on_found: Option<&'a dyn Fn()>,
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
    into: CheckedStore<'_>,
    registries: &Registries,
    reference: &Reference,
    options: &PullOptions<'_>,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let (store, places) = (into.store, registries.places(reference)?);
    let source = Remote::new(places, Some(store), reference, &options.limits);
    let top = source.top(reference, progress)?;
    let digest = top.digest;
    if let Some(on_found) = options.on_found {
        on_found();
    }
    let mut found = source.image(top, options.platform.as_ref())?;
    source.admit(options.trust, registries, reference, &mut found)?;
    let name = name_as_asked(&mut found, reference, digest);
    let id = found.config.id();
    let before = store.images().tags()?.into_iter().find(|(tag, _)| Some(tag) == name.as_ref());
    let newer = before.is_none_or(|(_, image)| image != id);
    let cpus = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = options.threads.or_else(|| NonZeroUsize::new(cpus().max(LAYERS_AT_ONCE)));
    let load = LoadOptions { threads, limits: options.limits.clone(), ..LoadOptions::default() };
    // The layers of an image that is there as a whole are not reported.
    let progress: &dyn Progress =
        if store.images().get(&id)?.is_some() { &Silent(progress) } else { progress };
    let loaded = load_one(into, &source, &found, &load, progress)?;
    Ok(Pulled { id: loaded.id, digest, layers: loaded.layers, newer })
}

/// Gives an image the name by which it was asked for, and the digest that this stood for; gives
/// what a store keeps of the name.
pub(crate) fn name_as_asked(
    found: &mut FoundImage,
    reference: &Reference,
    digest: BlobDigest,
) -> Option<String> {
    match reference.digest() {
        // As docker: a digest makes no tag, also beside one.
        Some(_) => {
            found.pin = Some(reference.clone());
            reference.store_pin()
        }
        None => {
            found.names.push(reference.clone());
            // What the name was pulled as, which of an index is not the manifest's digest.
            found.pin = Some(reference.with_digest(digest));
            reference.store_tag()
        }
    }
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
pub struct FetchedDocument {
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
    limits: &SourceLimits,
    progress: &dyn Progress,
) -> Result<FetchedDocument> {
    let places = registries.places(reference)?;
    let source = Remote::new(places, None, reference, limits);
    let top = source.top(reference, progress)?;
    let media_type = remote::media_type(&top);
    if platform.is_none() {
        return Ok(FetchedDocument { bytes: top.bytes, digest: top.digest, media_type });
    }
    let found = source.image(top, platform)?;
    let bytes = found.manifest.unwrap_or_default();
    let media_type = crate::oci::media_type_of(&bytes).unwrap_or(media_type);
    Ok(FetchedDocument { digest: crate::digest::sha256(&bytes), bytes, media_type })
}
