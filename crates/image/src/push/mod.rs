//! From an image in the store to a registry.
//!
//! ```text
//! each layer: is the blob that it came as there?  -> Exists    (if it is that layer: see below)
//!             is it in another repository there?  -> Mounted
//!             pack it; is that blob there?        -> Exists, else upload -> Pushed
//! then the config, then the manifest under its tag
//! ```
//!
//! Invariants: the manifest is put last, so that a tag never names what is not there; if every
//! layer is there as the blob that the stored manifest names, that manifest is put byte for
//! byte, else a new one that names the new blobs and keeps all else; which blob a layer is, is
//! known ([`LayerBlobs`]) or found out by reading the blob, and never believed of a manifest.
//!
//! [`LayerBlobs`]: strata_layer::LayerBlobs

use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use strata_content::threads::together;
use strata_diff::tar::DiffError;
use strata_diff::{Limits, stream};
use strata_layer::{ImageRecord, LeasedLayer, Store};
use strata_registry::{
    Attempt, Client, EndpointError, ManifestName, Mount, Outgoing, Reference, Registries,
    RegistryError, Tag,
};
use strata_tree::{BlobDigest, DiffId};

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::json::{self, Json};
use crate::manifest::{Described, new_manifest, set_blob};
use crate::media::{self, MediaKind};
use crate::oci::{manifest_parts, media_type_of};
use crate::pack::{LayerPacking, pack, packing_of, repacked};

/// Layers that are sent at once if nothing else is said, as docker does.
pub(crate) const LAYERS_AT_ONCE: usize = 5;

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// How layers are packed that are not there yet; without it as they came, else gzip.
    pub packing: Option<LayerPacking>,
    /// Layers at the same time; without it five.
    pub threads: Option<NonZeroUsize>,
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushEvent<'a> {
    /// It waits for its turn.
    Preparing,
    /// The repository has it.
    Exists,
    /// The registry has it, in this other repository.
    Mounted(&'a str),
    /// It is foreign, and stays where its urls say.
    Skipped,
    /// It is being sent.
    Sending {
        /// Bytes sent.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is there now.
    Pushed,
}

/// Listens; called from several threads with the short diff id.
pub type PushListener<'a> = dyn Fn(&str, PushEvent<'_>) + Sync + 'a;

/// What was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
    /// It is the manifest that the image came with.
    pub exact: bool,
}

/// Pushes an image under a name with a tag.
///
/// # Errors
/// `NameWithDigest`; `Registry`; `Store` if the image is gone or damaged.
pub fn push(
    store: &Store,
    registries: &Registries,
    image: &ImageRecord,
    reference: &Reference,
    options: &PushOptions,
    listen: &PushListener<'_>,
) -> Result<Pushed> {
    let tag = reference.tag().filter(|_| reference.digest().is_none()).map(Tag::as_str);
    let Some(tag) = tag else { return Err(Error::NameWithDigest(reference.to_string())) };
    let (_config, leased) = store.lease_image(&image.id)?;
    let client = registries.to_push(reference)?;
    let told = |why| said(reference, &client, why);
    let origin = Origin::read(store, image);
    let known: HashSet<_> = store.layer_blobs().all()?.into_iter().collect();
    let push = Push {
        store,
        registries,
        client: &client,
        options,
        listen,
        reference,
        origin: origin.as_ref(),
        elsewhere: elsewhere(store, reference, &known)?,
        known,
    };
    let blobs = push.layers(&leased)?;

    let config = store.blob(&image.id.into())?;
    client.put_small(image.id.into(), &config).map_err(told)?;
    let (bytes, media_type, exact) = match &origin {
        Some(origin) => origin.manifest(image, &blobs)?,
        None => {
            let layers = image.layers.iter().filter_map(|diff_id| blobs.get(&(*diff_id, None)));
            let layers = layers.map(|blob| Described {
                media_type: repacked(media::OCI_LAYER, blob.packing),
                digest: blob.digest,
                size: blob.size,
            });
            let bytes = new_manifest(&config, &layers.collect::<Vec<_>>());
            (bytes, media::OCI_MANIFEST.to_owned(), false)
        }
    };
    client.put_manifest(&ManifestName::Tag(tag.to_owned()), &media_type, &bytes).map_err(told)?;
    Ok(Pushed { digest: sha256(&bytes), size: bytes.len() as u64, exact })
}

pub(crate) fn said(reference: &Reference, client: &Client, why: EndpointError) -> Error {
    RegistryError::one(reference.familiar(), client.label(), why).into()
}

/// Calls `act` for every item, for several at once; the first failure stops the others.
///
/// # Errors
/// The first.
pub(crate) fn at_once<I: Sync, T: Send>(
    threads: usize,
    items: &[I],
    act: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let error = Mutex::new(None);
    let done = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            match act(item) {
                Ok(one) => done.lock().unwrap_or_else(PoisonError::into_inner).push(one),
                Err(why) => {
                    failed.store(true, Ordering::Relaxed);
                    let mut first = error.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(why);
                }
            }
        }
    };
    together(threads.min(items.len()).saturating_sub(1), work);
    match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// A layer as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    digest: BlobDigest,
    size: u64,
    /// How it was packed here; `None` if it is the blob that it came as.
    packing: Option<LayerPacking>,
}

/// The blobs of an image: by the layer, and the blob that the stored manifest says it is. One
/// layer may be two blobs of an image, as the empty one often is.
type Blobs = HashMap<(DiffId, Option<BlobDigest>), Blob>;

/// Pairs that are known to be so: a blob, its size, its layer.
type KnownBlobs = HashSet<(BlobDigest, u64, DiffId)>;

/// The manifest that the image came with.
struct Origin {
    bytes: Vec<u8>,
    /// Base first, one for each layer of the image.
    layers: Vec<OriginLayer>,
}

#[derive(Debug, Clone)]
struct OriginLayer {
    digest: BlobDigest,
    size: u64,
    media_type: String,
    kind: MediaKind,
}

impl Origin {
    /// That of an image, if it has one that fits it.
    fn read(store: &Store, image: &ImageRecord) -> Option<Self> {
        let bytes = store.blob(&image.manifest?).ok()?;
        let (config, descriptors) = manifest_parts("the store", &bytes).ok()?;
        if config.digest != image.id.to_string() || descriptors.len() != image.layers.len() {
            return None;
        }
        let layers = descriptors.into_iter().map(|one| {
            Some(OriginLayer {
                digest: one.digest.parse().ok()?,
                size: u64::try_from(one.size).ok()?,
                kind: MediaKind::of(&one.media_type),
                media_type: one.media_type,
            })
        });
        Some(Self { bytes, layers: layers.collect::<Option<_>>()? })
    }

    /// The manifest for these blobs, its media type, and whether it is the one that came.
    fn manifest(&self, image: &ImageRecord, blobs: &Blobs) -> Result<(Vec<u8>, String, bool)> {
        let own = media_type_of(&self.bytes).unwrap_or_else(|| media::OCI_MANIFEST.to_owned());
        let wrong = |error: json::JsonFault| {
            Error::document("the store", "its manifest", error.to_string())
        };
        let mut manifest = Json::parse(&self.bytes).map_err(wrong)?;
        let mut exact = true;
        let entries = manifest.get_mut("layers").and_then(Json::list_mut);
        let layers = image.layers.iter().zip(&self.layers);
        for (entry, (diff_id, was)) in entries.into_iter().flatten().zip(layers) {
            let Some(blob) = blobs.get(&(*diff_id, Some(was.digest))) else { continue };
            if (blob.digest, blob.size) == (was.digest, was.size) {
                continue;
            }
            exact = false;
            let media_type = repacked(&was.media_type, blob.packing);
            set_blob(entry, &Described { media_type, digest: blob.digest, size: blob.size });
        }
        match exact {
            true => Ok((self.bytes.clone(), own, true)),
            // In one order of keys, so that the same image has one digest wherever it came from.
            false => Ok((manifest.to_value().to_string().into_bytes(), own, false)),
        }
    }
}

/// Where else on that registry layers may lie: by diff id, the repository and the blob.
type Elsewhere = HashMap<DiffId, Vec<(String, BlobDigest, u64, String)>>;

fn elsewhere(store: &Store, reference: &Reference, known: &KnownBlobs) -> Result<Elsewhere> {
    let mut found = Elsewhere::new();
    for (tag, id) in store.images().tags()? {
        let Ok(name) = tag.parse::<Reference>() else { continue };
        if name.domain() != reference.domain() || name.repository() == reference.repository() {
            continue;
        }
        let Some(image) = store.images().get(&id)? else { continue };
        let Some(origin) = Origin::read(store, &image) else { continue };
        for (diff_id, layer) in image.layers.iter().copied().zip(origin.layers) {
            let is_known = known.contains(&(layer.digest, layer.size, diff_id));
            if layer.kind == MediaKind::ForeignLayer || !is_known {
                continue;
            }
            let repository = name.repository().as_str().to_owned();
            let all = found.entry(diff_id).or_default();
            // An image has several names in one repository, digests among them.
            if !all
                .iter()
                .any(|(known, digest, ..)| (known, *digest) == (&repository, layer.digest))
            {
                all.push((repository, layer.digest, layer.size, layer.media_type));
            }
        }
    }
    Ok(found)
}

struct Push<'a> {
    store: &'a Store,
    registries: &'a Registries,
    client: &'a Client,
    options: &'a PushOptions,
    listen: &'a PushListener<'a>,
    reference: &'a Reference,
    origin: Option<&'a Origin>,
    elsewhere: Elsewhere,
    known: KnownBlobs,
}

impl Push<'_> {
    fn said(&self, why: EndpointError) -> Error {
        said(self.reference, self.client, why)
    }

    fn layers(&self, leased: &[LeasedLayer]) -> Result<Blobs> {
        // Docker tells of the top one first.
        let mut todo: Vec<(&LeasedLayer, Option<&OriginLayer>)> = Vec::new();
        let mut seen = HashSet::new();
        for (position, layer) in leased.iter().enumerate().rev() {
            let was = self.origin.and_then(|origin| origin.layers.get(position));
            if seen.insert((layer.diff_id(), was.map(|was| was.digest))) {
                (self.listen)(&layer.diff_id().short(), PushEvent::Preparing);
                todo.push((layer, was));
            }
        }
        let threads = self.options.threads.map_or(LAYERS_AT_ONCE, NonZeroUsize::get);
        let blobs = at_once(threads, &todo, |(layer, was)| {
            Ok(((*layer.diff_id(), was.map(|was| was.digest)), self.layer(layer, *was)?))
        })?;
        Ok(blobs.into_iter().collect())
    }

    /// Whether a blob that the target has is that layer. What is not known is read: only a blob
    /// that another image's layer came as, or one of a store that was filled without noting it.
    ///
    /// # Errors
    /// `Registry` if it cannot be read to its end, which tells nothing of it.
    fn is_that_layer(&self, was: &OriginLayer, diff_id: &DiffId) -> Result<bool> {
        if self.known.contains(&(was.digest, was.size, *diff_id)) {
            return Ok(true);
        }
        let places = self.registries.places(self.reference)?;
        let broken = AtomicBool::new(false);
        let blob = UntilBroken { inner: places.blob(was.digest, was.size), broken: &broken };
        let label = diff_id.short();
        let diff_size = self.store.layer(diff_id)?.map_or(0, |record| record.diff_size);
        let limits = Limits { layer_bytes: diff_size, ..Limits::NONE };
        let read = stream::decompress(Box::new(blob), &label, &limits, &|_| (), |tar| {
            let layer = label.clone();
            io::copy(tar, &mut io::sink()).map_err(|source| DiffError::Read {
                layer,
                offset: 0,
                source,
            })
        });
        let mut failures = places.failures(was.digest);
        let unheard = |attempt: &Attempt| !matches!(attempt.why, EndpointError::Wrong(_));
        if broken.into_inner() && failures.attempts.iter().any(unheard) {
            failures.what = format!("{}: layer {}", self.reference.familiar(), was.digest);
            return Err(failures.into());
        }
        let is = read.as_ref().is_ok_and(|(_, facts)| {
            (facts.blob, facts.blob_size, facts.diff_id) == (was.digest, was.size, *diff_id)
        });
        if is && self.store.read_only().is_none() {
            self.store.layer_blobs().remember(diff_id, &was.digest, was.size)?;
        }
        if !is {
            let why = read.err().map_or("it is another one".to_owned(), |error| error.to_string());
            tracing::warn!(
                "the manifest says that layer {diff_id} is blob {}, which it is not ({why}): the \
                 layer is packed",
                was.digest
            );
        }
        Ok(is)
    }

    fn layer(&self, layer: &LeasedLayer, was: Option<&OriginLayer>) -> Result<Blob> {
        let diff_id = layer.diff_id();
        let label = diff_id.short();
        if let Some(was) = was {
            let blob = Blob { digest: was.digest, size: was.size, packing: None };
            if was.kind == MediaKind::ForeignLayer {
                (self.listen)(&label, PushEvent::Skipped);
                return Ok(blob);
            }
            if self.has(was.digest)? && self.is_that_layer(was, diff_id)? {
                (self.listen)(&label, PushEvent::Exists);
                return Ok(blob);
            }
        }
        let mut begun = None;
        for (repository, digest, size, media_type) in
            self.elsewhere.get(diff_id).into_iter().flatten()
        {
            match self.client.mount(*digest, repository) {
                Some(Mount::Done) => {
                    (self.listen)(&label, PushEvent::Mounted(repository));
                    let same = was.is_some_and(|was| was.digest == *digest);
                    let packing = (!same).then(|| packing_of(media_type));
                    return Ok(Blob { digest: *digest, size: *size, packing });
                }
                Some(Mount::Upload(at)) => {
                    begun = Some(at);
                    break;
                }
                // Not to be had from there; then the bytes are sent.
                None => {}
            }
        }
        let claimed = was.map(|was| packing_of(&was.media_type));
        let packing = self.options.packing.or(claimed).unwrap_or_default();
        let packed = pack(self.store, layer, packing)?;
        let same = was.is_some_and(|was| was.digest == packed.digest);
        let blob =
            Blob { digest: packed.digest, size: packed.size, packing: (!same).then_some(packing) };
        // It is known by that digest from now on, to all who read the manifest.
        if self.store.read_only().is_none() {
            self.store.layer_blobs().remember(diff_id, &packed.digest, packed.size)?;
        }
        // With the same digest the answer is known.
        if !same && self.has(packed.digest)? {
            (self.listen)(&label, PushEvent::Exists);
            return Ok(blob);
        }
        let total = packed.size;
        let sent = |bytes| (self.listen)(&label, PushEvent::Sending { bytes, total });
        let open = |offset| Ok(packed.open(offset));
        let outgoing =
            Outgoing { digest: packed.digest, size: packed.size, open: &open, sent: &sent };
        self.client.upload(&outgoing, begun).map_err(|why| self.said(why))?;
        (self.listen)(&label, PushEvent::Pushed);
        Ok(blob)
    }

    fn has(&self, digest: BlobDigest) -> Result<bool> {
        self.client.has(digest).map_err(|why| self.said(why))
    }
}

/// A blob whose reader tells that there is no more of it to be had.
struct UntilBroken<'a, R> {
    inner: R,
    broken: &'a AtomicBool,
}

impl<R: io::Read> io::Read for UntilBroken<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        if read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            self.broken.store(true, Ordering::Relaxed);
        }
        read
    }
}
