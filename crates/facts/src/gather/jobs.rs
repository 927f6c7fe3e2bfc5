//! What is to be read, and the threads that read it.
//!
//! ```text
//! Registry ──> Repository ──> Image ──┬─> Layer
//!              tags            Files ─┘    once for each diff id
//! ```
//! A job may leave further jobs, which come before all that waited. So a source is read to its end
//! before the next one begins, and few are open at a time: an image that waits for what another
//! makes of a layer does not keep its source open.
//!
//! Invariants: a layer is read by whoever claims it first, and where that fails by the next image
//! that has it in another blob or elsewhere, so that no image falls with the blobs of another, and
//! no bytes are read twice to fail twice; after a failure that ends the run nothing new is begun,
//! and what is being read is read to its end and kept.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use strata_content::threads::together;
use strata_image::{Error as ImageError, MediaKind, OpenSource, SourceSpec, UnloadedImage};
use strata_layer::{Event, ImageRecord, Ledger, Progress};
use strata_registry::{EndpointError, Error as RegistryError, Reference, Registries};
use strata_tree::{BlobDigest, DiffId};

use super::{FactSource, GatherOptions};
use crate::error::{Error, Result};

/// Something to be done. Each has its place: where it stands among the sources, for what two
/// images both say of one name counts in that order.
enum Job<'a> {
    Source(Place, FactSource),
    Repository(Place, Reference),
    /// A name; whether a registry listed it, not the user.
    Image(Place, Reference, bool),
    Layer(LayerToRead<'a>),
}

type Place = Vec<usize>;

/// A layer of an image, and where that image is.
struct LayerToRead<'a> {
    diff_id: DiffId,
    place: Place,
    title: String,
    at: ImageAt<'a>,
    /// Counted from the base.
    position: usize,
    /// `None` where the source does not say which bytes they are.
    bytes: Option<LayerBytes>,
}

/// Many images may wait, and little is held of those that are not open.
#[derive(Clone)]
enum ImageAt<'a> {
    /// One of the images of an open source.
    Open(Arc<OpenSource<'a>>, usize),
    /// One of those of files that can be opened again.
    Files(SourceSpec, usize),
    /// A registry, and the digest of its manifest.
    Registry(Reference),
}

/// Where the images of a source come from.
#[derive(Clone, Copy)]
enum ImageOrigin<'o> {
    Files(&'o SourceSpec),
    Registry(&'o Reference),
}

/// The bytes that images have for a layer: where those of two are equal, what is wrong with the
/// one's is wrong with the other's. Without a blob there are none to be opened.
#[derive(Clone, PartialEq, Eq, Hash)]
enum LayerBytes {
    /// A layout or archive.
    Files(String, Option<(BlobDigest, u64)>),
    /// A repository of a registry.
    Repository(String, Option<(BlobDigest, u64)>),
}

/// What became of a layer that was claimed.
enum LayerClaim<'a> {
    /// It is being read; these images have it too.
    Reading(VecDeque<LayerToRead<'a>>),
    /// The ledger has it.
    Held,
}

/// An image that was found.
pub(super) struct FoundFacts {
    pub(super) place: Place,
    pub(super) title: String,
    pub(super) record: ImageRecord,
    pub(super) names: Vec<String>,
}

/// What came of all jobs.
#[derive(Default)]
pub(super) struct Outcome {
    /// In the order of the sources.
    pub(super) images: Vec<FoundFacts>,
    pub(super) read: u64,
    pub(super) known: u64,
    pub(super) passed_over: Vec<(String, String)>,
    pub(super) failed: Vec<(String, String)>,
    /// Why a layer of an image could not be read from it; another image may have given it.
    pub(super) broken: HashMap<Place, String>,
}

struct State<'a> {
    /// The last is done first.
    jobs: Vec<Job<'a>>,
    /// Jobs that are being done, which may leave others.
    busy: usize,
    claimed: HashMap<DiffId, LayerClaim<'a>>,
    /// Bytes that are not the layer that images take them for, and why.
    bad: HashMap<(DiffId, LayerBytes), String>,
    outcome: Outcome,
    error: Option<Error>,
}

impl<'a> State<'a> {
    /// Claims a layer; says whether nobody had claimed it. While another image's is being read,
    /// this one waits for its turn if `waits`; with bytes that are known to be bad none comes.
    fn claim(&mut self, layer: LayerToRead<'a>, waits: bool) -> bool {
        if matches!(self.claimed.get(&layer.diff_id), Some(LayerClaim::Held)) || self.is_bad(&layer)
        {
            return false;
        }
        match self.claimed.get_mut(&layer.diff_id) {
            Some(LayerClaim::Reading(waiting)) if waits => waiting.push_back(layer),
            Some(LayerClaim::Reading(_) | LayerClaim::Held) => {}
            None => {
                self.claimed.insert(layer.diff_id, LayerClaim::Reading(VecDeque::new()));
                return true;
            }
        }
        false
    }

    /// Whether the bytes of a layer were read for another image and are wrong. Then its image is
    /// broken too.
    fn is_bad(&mut self, layer: &LayerToRead<'a>) -> bool {
        let Some(bytes) = layer.bytes.clone() else { return false };
        let Some(why) = self.bad.get(&(layer.diff_id, bytes)) else { return false };
        self.outcome.broken.entry(layer.place.clone()).or_insert_with(|| why.clone());
        true
    }

    /// A layer of an image could not be read: the next image that has other bytes of it is to give
    /// it.
    fn give_on(&mut self, layer: &LayerToRead<'a>, why: String) {
        self.outcome.broken.entry(layer.place.clone()).or_insert(why);
        loop {
            let next = match self.claimed.get_mut(&layer.diff_id) {
                Some(LayerClaim::Reading(waiting)) => waiting.pop_front(),
                Some(LayerClaim::Held) | None => None,
            };
            match next {
                Some(next) if self.is_bad(&next) => {}
                Some(next) => return self.jobs.push(Job::Layer(next)),
                None => {
                    self.claimed.remove(&layer.diff_id);
                    return;
                }
            }
        }
    }
}

/// All of it.
pub(super) struct Run<'a> {
    ledger: &'a Ledger,
    registries: &'a Registries,
    scratch: &'a (dyn Fn() -> strata_image::Result<File> + Sync),
    options: &'a GatherOptions,
    progress: &'a dyn Progress,
    state: Mutex<State<'a>>,
    changed: Condvar,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        ledger: &'a Ledger,
        registries: &'a Registries,
        scratch: &'a (dyn Fn() -> strata_image::Result<File> + Sync),
        options: &'a GatherOptions,
        progress: &'a dyn Progress,
    ) -> Self {
        let state = Mutex::new(State {
            jobs: Vec::new(),
            busy: 0,
            claimed: HashMap::new(),
            bad: HashMap::new(),
            outcome: Outcome::default(),
            error: None,
        });
        Self { ledger, registries, scratch, options, progress, state, changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads everything.
    pub(super) fn all(self, sources: &[FactSource]) -> Result<Outcome> {
        let jobs = sources.iter().enumerate();
        self.add(jobs.map(|(at, source)| Job::Source(vec![at], source.clone())).collect());
        together(self.options.at_once.get() - 1, || self.work());
        let State { error, mut outcome, .. } =
            self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error {
            return Err(error);
        }
        outcome.images.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(outcome)
    }

    /// Adds jobs; the first of them is done first.
    fn add(&self, jobs: Vec<Job<'a>>) {
        self.state().jobs.extend(jobs.into_iter().rev());
        self.changed.notify_all();
    }

    /// The next job; `None` when there is none and none can come.
    fn next(&self) -> Option<Job<'a>> {
        let mut state = self.state();
        loop {
            if state.error.is_some() {
                return None;
            }
            if let Some(job) = state.jobs.pop() {
                state.busy += 1;
                return Some(job);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            let outcome = self.one(&job);
            let mut state = self.state();
            state.busy -= 1;
            match outcome {
                Ok(()) => {
                    if let Job::Layer(layer) = &job {
                        state.claimed.insert(layer.diff_id, LayerClaim::Held);
                    }
                }
                Err(why) if is_no_image(&job, &why) => {
                    state.outcome.passed_over.push((title(&job), why.to_string()));
                }
                Err(why) if self.options.keep_going && is_of_an_image(&why) => match &job {
                    Job::Layer(layer) => state.give_on(layer, chain(&why)),
                    Job::Source(..) | Job::Repository(..) | Job::Image(..) => {
                        state.outcome.failed.push((title(&job), chain(&why)));
                    }
                },
                Err(why) => {
                    state.error.get_or_insert(why);
                }
            }
            self.changed.notify_all();
        }
    }

    fn one(&self, job: &Job<'a>) -> Result<()> {
        match job {
            Job::Source(place, FactSource::Files(spec)) => {
                self.found(place, self.open(spec)?, ImageOrigin::Files(spec))
            }
            Job::Source(place, FactSource::Image(reference)) => {
                self.add(vec![Job::Image(place.clone(), reference.clone(), false)]);
                Ok(())
            }
            Job::Source(place, FactSource::Registry { host, prefix }) => {
                let found = self.registries.repositories(host, prefix.as_deref());
                let all = found.map_err(ImageError::from)?.into_iter().enumerate();
                self.add(all.map(|(at, one)| Job::Repository(below(place, at), one)).collect());
                Ok(())
            }
            Job::Repository(place, reference) => {
                let tags = self.registries.tags(reference).map_err(ImageError::from)?;
                let mut jobs = Vec::new();
                for (at, tag) in tags.iter().enumerate() {
                    let name = format!(
                        "{}/{}:{}",
                        reference.domain().as_str(),
                        reference.repository().as_str(),
                        tag.as_str()
                    );
                    let name = name.parse().map_err(|source| Error::Name { name, source })?;
                    jobs.push(Job::Image(below(place, at), name, true));
                }
                self.add(jobs);
                Ok(())
            }
            Job::Image(place, reference, _) => {
                self.found(place, self.fetch(reference)?, ImageOrigin::Registry(reference))
            }
            Job::Layer(layer) => self.layer(layer),
        }
    }

    fn open(&self, spec: &SourceSpec) -> Result<OpenSource<'a>> {
        let (platform, limits) = (self.options.platform.as_ref(), &self.options.limits);
        Ok(OpenSource::open(spec, platform, &self.scratch, limits)?)
    }

    fn fetch(&self, reference: &Reference) -> Result<OpenSource<'a>> {
        let (platform, limits) = (self.options.platform.as_ref(), &self.options.limits);
        let (from, known) = (self.registries, self.ledger);
        Ok(OpenSource::fetch(from, reference, known, platform, limits, self.progress)?)
    }

    /// Notes the images of a source, and claims the layers that nobody has claimed.
    fn found(&self, place: &Place, opened: OpenSource<'a>, origin: ImageOrigin<'_>) -> Result<()> {
        let (opened, keep_going) = (Arc::new(opened), self.options.keep_going);
        let can_reopen = match origin {
            ImageOrigin::Files(spec) => can_reopen(spec),
            ImageOrigin::Registry(_) => true,
        };
        let mut jobs = Vec::new();
        for (at, image) in opened.images().enumerate() {
            let record = image.record();
            self.ledger.keep_document(&BlobDigest::from(record.id), image.raw_config())?;
            let (title, names, place) = (image.title(), image.store_names(), below(place, at));
            let open = ImageAt::Open(Arc::clone(&opened), at);
            let again = match (origin, record.manifest) {
                (ImageOrigin::Files(spec), _) if can_reopen => ImageAt::Files(spec.clone(), at),
                (ImageOrigin::Registry(name), Some(manifest)) => {
                    ImageAt::Registry(name.with_digest(manifest))
                }
                (ImageOrigin::Files(_) | ImageOrigin::Registry(_), _) => open.clone(),
            };
            let mut own = HashSet::new();
            for (position, layer) in record.layers.iter().enumerate() {
                // Of a layer that an image has twice, the first counts.
                if !own.insert(*layer) {
                    continue;
                }
                let bytes = keep_going.then(|| layer_bytes(origin, image, position)).flatten();
                let to_read = |at: &ImageAt<'a>| LayerToRead {
                    diff_id: *layer,
                    place: place.clone(),
                    title: title.clone(),
                    at: at.clone(),
                    position,
                    bytes: bytes.clone(),
                };
                if !self.state().claim(to_read(&again), keep_going) {
                    continue;
                }
                if self.ledger.has(layer)? {
                    let mut state = self.state();
                    state.claimed.insert(*layer, LayerClaim::Held);
                    state.outcome.known += 1;
                    drop(state);
                    self.progress.event(&layer.short(), Event::Exists);
                    continue;
                }
                jobs.push(Job::Layer(to_read(&open)));
            }
            self.state().outcome.images.push(FoundFacts { place, title, record, names });
        }
        self.add(jobs);
        Ok(())
    }

    /// Reads a layer from its image, which is opened again if it had to wait.
    fn layer(&self, layer: &LayerToRead<'a>) -> Result<()> {
        let reopened;
        let image = match &layer.at {
            ImageAt::Open(source, at) => source.image(*at),
            ImageAt::Files(spec, at) => {
                reopened = self.open(spec)?;
                // Somebody may have written another file in its place.
                let has_it = |image: &UnloadedImage<'_>| {
                    image.diff_ids().get(layer.position) == Some(&layer.diff_id)
                };
                let image = reopened.images().nth(*at).filter(has_it);
                image.ok_or_else(|| Error::Changed(spec.label()))?
            }
            ImageAt::Registry(reference) => {
                reopened = self.fetch(reference)?;
                reopened.image(0)
            }
        };
        let read = self.read(image, layer.position);
        if let (Err(why), Some(bytes)) = (&read, &layer.bytes)
            && is_of_an_image(why)
        {
            self.state().bad.insert((layer.diff_id, bytes.clone()), chain(why));
        }
        read
    }

    /// Reads a layer into the ledger, from another place where the first one gave wrong bytes.
    fn read(&self, image: UnloadedImage<'_>, position: usize) -> Result<()> {
        loop {
            let input = image.layer(position)?;
            match self.ledger.read(input, &self.options.layer_limits, self.progress) {
                Ok(_) => {
                    self.state().outcome.read += 1;
                    return Ok(());
                }
                Err(error @ (strata_layer::Error::Sqlite(_) | strata_layer::Error::Full)) => {
                    return Err(error.into());
                }
                Err(error) => image.elsewhere(position, error)?,
            }
        }
    }
}

/// Whether files can be opened a second time: they are no pipe, and not the standard input.
fn can_reopen(spec: &SourceSpec) -> bool {
    let found = spec.file().and_then(|path| fs::metadata(path).ok());
    found.is_some_and(|found| found.is_file() || found.is_dir())
}

/// The bytes of a layer of an image that is open and of which nothing is being read.
fn layer_bytes(
    origin: ImageOrigin<'_>,
    image: UnloadedImage<'_>,
    position: usize,
) -> Option<LayerBytes> {
    // A registry would be asked whether it has a foreign one.
    let is_foreign = MediaKind::of(image.media_type(position)) == MediaKind::ForeignLayer;
    if is_foreign && matches!(origin, ImageOrigin::Registry(_)) {
        return None;
    }
    let blob = match image.layer(position) {
        Ok(input) => Some(input.blob?),
        Err(_) => None,
    };
    Some(match origin {
        ImageOrigin::Files(spec) => LayerBytes::Files(spec.label(), blob),
        ImageOrigin::Registry(name) => LayerBytes::Repository(name.familiar_name(), blob),
    })
}

fn below(place: &Place, at: usize) -> Place {
    [place.as_slice(), &[at]].concat()
}

/// What a job is called in messages.
fn title(job: &Job<'_>) -> String {
    match job {
        Job::Source(_, FactSource::Files(spec)) => spec.label(),
        Job::Source(_, FactSource::Registry { host, .. }) => host.clone(),
        Job::Source(_, FactSource::Image(reference)) | Job::Image(_, reference, _) => {
            reference.familiar()
        }
        Job::Repository(_, reference) => reference.familiar_name(),
        Job::Layer(layer) => layer.title.clone(),
    }
}

/// Whether there is nothing wrong with what a registry lists, but no image of ours: an artifact,
/// another platform, a repository whose tags were all removed.
fn is_no_image(job: &Job<'_>, why: &Error) -> bool {
    match (job, why) {
        (Job::Image(_, _, true), Error::Image(why)) => why.is_no_image(),
        (Job::Repository(..), Error::Image(ImageError::Registry(RegistryError::Refused(why)))) => {
            matches!(why.decisive(), Some(EndpointError::NotFound(_)))
        }
        _ => false,
    }
}

/// Whether an image is the cause, or its registry; not the disk here, and not that this process or
/// the system has too many files open, which any image would meet.
fn is_of_an_image(why: &Error) -> bool {
    let mut cause = std::error::Error::source(why);
    while let Some(next) = cause {
        let code = next.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| {
            matches!(Errno::from_raw_os_error(code), Errno::MFILE | Errno::NFILE)
        }) {
            return false;
        }
        cause = next.source();
    }
    matches!(why, Error::Image(_) | Error::Changed(_))
}

/// An error with its causes.
fn chain(why: &Error) -> String {
    let mut text = why.to_string();
    let mut cause = std::error::Error::source(why);
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}
