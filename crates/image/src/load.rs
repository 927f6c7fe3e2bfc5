//! From a source to images in a store.
//!
//! ```text
//! find the images (lists, manifests, configs: read and verified)
//! for each:  layers, several at a time: leased, or unpacked and verified by the store
//!            the caller's check that its layers merge (CheckedStore)
//!            config and manifest into blobs, then the image and its tags in one transaction
//! ```
//!
//! Invariants: all layers of an image are leased from the moment they are there until its commit,
//! so no removal comes in between; if anything fails nothing of that image is committed, and the
//! layers that it brought go again unless another image took them up; images of the same source
//! that were loaded before it stay.

use std::collections::HashMap;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use strata_content::threads::together;
use strata_layer::{Event, LayerInput, LeasedLayer, Progress, Store};
use strata_registry::Reference;
use strata_tree::{DiffId, ImageId};
use strata_trust::TrustPolicy;

use crate::beside::admit_files;
use crate::checked_store::{CheckedStore, NewImage};
use crate::error::{Error, Result};
use crate::find;
use crate::found::{self, FoundImage, FoundLayer, Wanted};
use crate::limits::SourceLimits;
use crate::media::MediaKind;
use crate::permits::{Permit, Permits};
use crate::platform::Platform;
use crate::source::{Blob, Blobs, ImageSource, check_size};
use crate::spec::SourceSpec;

/// How to load.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Take the images for this platform; without it the host's where there is a choice.
    pub platform: Option<Platform>,
    /// A further name for the image, which must then be the only one.
    pub name: Option<Reference>,
    /// Layers to read at the same time; without it one for each processor. Others may be waiting
    /// for the disk meanwhile, unless it is one: then they come one after the other, base first.
    pub threads: Option<NonZeroUsize>,
    /// What the source may make us read.
    pub limits: SourceLimits,
    /// Whom images are accepted from; without it from anybody.
    pub trust: Option<&'a TrustPolicy>,
    /// Called as soon as an image is committed, so that it is known even if a later one fails.
    pub on_loaded: Option<&'a dyn Fn(&Loaded)>,
}

/// An image that is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: ImageId,
    /// The names that it was given; empty for an image without one.
    pub references: Vec<Reference>,
    /// Its layers, base first.
    pub layers: Vec<LoadedLayer>,
}

/// A layer of such an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedLayer {
    /// The layer's id.
    pub diff_id: DiffId,
    /// The store had it before.
    pub existed: bool,
}

/// Loads the images of a source, one after another.
///
/// # Errors
/// What is wrong with the source, the first layer that fails, or an error of the store. Images
/// loaded before the one that the error names stay; of that one nothing does.
pub fn load(
    into: CheckedStore<'_>,
    spec: &SourceSpec,
    options: &LoadOptions<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    if let Some(name) = options.name.as_ref().filter(|name| name.digest().is_some()) {
        return Err(Error::NameWithDigest(name.to_string()));
    }
    let scratch = || Ok(into.store.scratch_file()?);
    let source = ImageSource::open(spec, &scratch, &options.limits)?;
    let wanted = Wanted { spec, platform: options.platform.as_ref() };
    let mut images = find::find(&source, &wanted)?;
    if let Some(name) = &options.name {
        match images.as_mut_slice() {
            [image] => image.add_names([name.clone()]),
            _ => {
                return Err(Error::OneName {
                    label: source.label,
                    count: images.len(),
                    name: name.familiar(),
                });
            }
        }
    }
    // All of them before the first layer.
    for image in &mut images {
        admit_files(options.trust, &source, spec, image)?;
    }
    let mut all = Vec::new();
    for image in &images {
        let loaded = load_one(into, &source, image, options, progress)?;
        if let Some(on_loaded) = options.on_loaded {
            on_loaded(&loaded);
        }
        all.push(loaded);
    }
    Ok(all)
}

/// Brings one image into the store.
///
/// # Errors
/// The first layer that fails, the error of the check, or one of the store: nothing of the image
/// stays.
pub(crate) fn load_one(
    into: CheckedStore<'_>,
    source: &dyn Blobs,
    image: &FoundImage,
    options: &LoadOptions<'_>,
    progress: &dyn Progress,
) -> Result<Loaded> {
    let run = Run::new(into.store, source, image, progress);
    let outcome = run.layers(options.threads);
    let fetched = run.fetched.into_inner().unwrap_or_else(PoisonError::into_inner);
    let committed = outcome.and_then(|()| {
        let mut leased = Vec::new();
        let mut layers = Vec::new();
        for diff_id in image.config.diff_ids() {
            let (layer, existed) =
                fetched.get(diff_id).ok_or(strata_layer::Error::NoLayer(*diff_id))?;
            leased.push(layer.clone());
            layers.push(LoadedLayer { diff_id: *diff_id, existed: *existed });
        }
        let new = NewImage {
            title: &image.title(),
            names: &image.names,
            pin: image.pin.as_ref(),
            config: &image.raw_config,
            manifest: image.manifest.as_deref(),
            verdict: image.verdict.as_ref(),
        };
        let id = into.commit(&new, &leased)?;
        Ok(Loaded { id, references: image.names.clone(), layers })
    });
    if committed.is_err() {
        // Only what this load brought, and only once nothing here leases it any more.
        let fresh = fetched.into_values().filter(|(_, existed)| !existed);
        discard(into.store, fresh.map(|(layer, _)| layer).collect());
    }
    committed
}

/// Removes what a failed load brought; what another image took up meanwhile stays.
pub(crate) fn discard(store: &Store, layers: Vec<LeasedLayer>) {
    // The failure itself is the better message; what could not be removed is left to gc.
    if let Err(error) = store.discard_unreferenced(layers) {
        tracing::warn!("layers of the failed load stay until `strata gc`: {error}");
    }
}

/// The layers of one image, being fetched.
struct Run<'a> {
    store: &'a Store,
    source: &'a dyn Blobs,
    image: &'a FoundImage,
    progress: &'a dyn Progress,
    /// The positions that count: of a layer that the image has twice, the first.
    positions: Vec<usize>,
    next: AtomicUsize,
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
    fetched: Mutex<HashMap<DiffId, (LeasedLayer, bool)>>,
}

impl<'a> Run<'a> {
    fn new(
        store: &'a Store,
        source: &'a dyn Blobs,
        image: &'a FoundImage,
        progress: &'a dyn Progress,
    ) -> Self {
        let ids = image.config.diff_ids();
        let mut first = HashMap::new();
        for (position, id) in ids.iter().enumerate() {
            first.entry(id).or_insert(position);
        }
        let mut positions: Vec<usize> = first.into_values().collect();
        positions.sort_unstable();
        Self {
            store,
            source,
            image,
            progress,
            positions,
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
            fetched: Mutex::default(),
        }
    }

    /// Fetches all layers; the first failure stops the others.
    fn layers(&self, threads: Option<NonZeroUsize>) -> Result<()> {
        let mut missing = self.lease_known()?;
        let threads = threads.or_else(|| std::thread::available_parallelism().ok());
        let threads = threads.map_or(1, NonZeroUsize::get);
        let slots = Permits::new(threads);
        // One layer after the other, base first, does the same each time.
        let mut workers = 1;
        if threads > 1 {
            // As many again wait for the disk.
            workers = (2 * threads).min(missing.len());
            // The largest first: the last that is being read should not be read alone for long.
            missing.sort_by_key(|position| {
                std::cmp::Reverse(self.image.layers[*position].blob.and_then(|(_, size)| size))
            });
        }
        together(workers.saturating_sub(1), || self.work(&missing, &slots));
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Leases the layers that the store has, base first; gives the positions of the others.
    fn lease_known(&self) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for &position in &self.positions {
            let diff_id = self.image.config.diff_ids()[position];
            let label = self.source.layer_label(&self.image.layers[position], &diff_id);
            match self.store.lease(&diff_id)? {
                Some(leased) => {
                    self.progress.event(&label, Event::Exists);
                    let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
                    fetched.insert(diff_id, (leased, true));
                }
                None => {
                    self.progress.event(&label, Event::Waiting);
                    missing.push(position);
                }
            }
        }
        Ok(missing)
    }

    fn work(&self, missing: &[usize], slots: &Permits) {
        loop {
            let slot = slots.take();
            // Asked after the wait: an input is not opened for nothing.
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&position) = missing.get(turn) else { return };
            let layer = &self.image.layers[position];
            let diff_id = self.image.config.diff_ids()[position];
            match self.fetch(position, layer, diff_id, slots, slot) {
                Ok(done) => {
                    let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
                    fetched.insert(diff_id, done);
                }
                Err(error) => {
                    let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                    // Those that were stopped because of the first are not the cause.
                    if !self.failed.swap(true, Ordering::Relaxed) {
                        *first = Some(error);
                    }
                }
            }
        }
    }

    fn fetch<'s>(
        &'s self,
        position: usize,
        layer: &FoundLayer,
        diff_id: DiffId,
        slots: &'s Permits,
        mut slot: Permit<'s>,
    ) -> Result<(LeasedLayer, bool)> {
        let label = self.source.layer_label(layer, &diff_id);
        loop {
            let blob = open_layer(self.source, self.image, position)?;
            let input = LayerInput {
                label: label.clone(),
                diff_id: Some(diff_id),
                blob: layer.blob.map(|(digest, _)| (digest, blob.size)),
                reader: Box::new(Watched { inner: blob.reader, failed: &self.failed, _slot: slot }),
            };
            let error = match self.store.unpack(input, self.progress) {
                Ok(unpacked) => return Ok((unpacked.layer, unpacked.existed)),
                Err(source) => refused(self.image, position, source),
            };
            if self.failed.load(Ordering::Relaxed) {
                return Err(error);
            }
            self.source.refused(layer, error)?;
            slot = slots.take();
        }
    }
}

/// The bytes of an image's layer, open; `position` counts from 0, the base.
///
/// # Errors
/// `NotALayer`, `WrongSize`, `Foreign` or `Missing` if they are not there, those of opening.
pub(crate) fn open_layer<'a>(
    source: &'a dyn Blobs,
    image: &FoundImage,
    position: usize,
) -> Result<Blob<'a>> {
    let layer = &image.layers[position];
    let name = layer_name(image, position);
    if layer.kind == MediaKind::EncryptedLayer {
        return Err(Error::NotALayer {
            image: image.title(),
            layer: name,
            why: "it is encrypted; decrypt the image first (skopeo copy --decryption-key)"
                .to_owned(),
        });
    }
    let Some(blob) = source.layer(layer)? else {
        if layer.kind == MediaKind::ForeignLayer || !layer.urls.is_empty() {
            let urls = found::listed(&layer.urls);
            return Err(Error::Foreign { image: image.title(), layer: name, urls });
        }
        return Err(Error::Missing {
            label: source.label().to_owned(),
            wanted_by: format!("image {}: {name}", image.title()),
            path: layer.path.to_string(),
        });
    };
    if let Some((_, Some(said))) = layer.blob {
        let what = format!("image {}: {name}", image.title());
        check_size(source.label(), &what, said, blob.size)?;
    }
    Ok(blob)
}

/// What is said where the bytes of a layer are not right.
pub(crate) fn refused(image: &FoundImage, position: usize, source: strata_layer::Error) -> Error {
    let (image, layer) = (image.title(), layer_name(image, position));
    Error::Layer { image, layer, source: Box::new(source) }
}

/// What a layer is called in errors: counted from 1, with the digest that the source has.
fn layer_name(image: &FoundImage, position: usize) -> String {
    let (layer, count) = (&image.layers[position], image.layers.len());
    let digest = match layer.blob {
        Some((digest, _)) => digest.to_string(),
        None => layer.path.to_string(),
    };
    format!("layer {} of {count} ({digest})", position + 1)
}

/// Stops a layer when another one has failed. Gone, with its slot, when it was read to its end:
/// what is still to be written needs the disk more than processors.
struct Watched<'a> {
    inner: Box<dyn Read + Send + 'a>,
    failed: &'a AtomicBool,
    _slot: Permit<'a>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped, as another layer of the image failed"));
        }
        self.inner.read(buffer)
    }
}
