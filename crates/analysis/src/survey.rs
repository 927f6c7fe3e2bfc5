//! What is in sources, without loading any of it.
//!
//! ```text
//! sources ── found images ── each distinct layer once: read, verified, forgotten
//!                                 │
//!                        Sharing, as a store has it      and, asked for, chunks: read again
//! ```
//!
//! Invariants: no store is written; what is refused is what a load refuses (but for stacks that do
//! not merge, which need the store). A layer that several images or sources have is read once.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use strata_content::threads::together;
use strata_image::{Error, OpenSource, Platform, Result, SourceLimits, SourceSpec, UnloadedImage};
use strata_layer::{ImageRecord, Limits as LayerLimits, Progress, Sharing};
use strata_registry::Reference;
use strata_tree::{ContentDigest, DiffId};

use crate::reuse::chunks::{ChunkOptions, Measured, measure};
use crate::reuse::{SurveyedLayer, cut_layer, sharing_of, survey_layer};

/// How to read sources.
#[derive(Debug, Clone, Default)]
pub struct SurveyOptions {
    /// Reads the images for this platform; without it the host's where there is a choice.
    pub platform: Option<Platform>,
    /// What the sources may make us read.
    pub limits: SourceLimits,
    /// What their layers may ask for.
    pub layer_limits: LayerLimits,
}

/// An image of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedImage {
    /// Its names there.
    pub references: Vec<Reference>,
    /// Its id and layers.
    pub record: ImageRecord,
}

/// Where a layer is: source, image in it, layer of that.
type At = (usize, usize, usize);

/// Sources that were read; they stay open.
#[derive(Debug)]
pub struct Survey {
    sources: Vec<OpenSource<'static>>,
    positions: Vec<At>,
    images: Vec<SurveyedImage>,
    layers: Vec<SurveyedLayer>,
    layer_limits: LayerLimits,
}

impl Survey {
    /// Reads the images of `specs` and all their layers, several at a time. `scratch` gives files
    /// for archives that are compressed or come through a pipe.
    ///
    /// # Errors
    /// As [`strata_image::load`] for the first source, image or layer that is not right.
    pub fn read(
        specs: &[SourceSpec],
        scratch: &dyn Fn() -> Result<File>,
        options: &SurveyOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut sources = Vec::new();
        for spec in specs {
            let platform = options.platform.as_ref();
            sources.push(OpenSource::open(spec, platform, scratch, &options.limits)?);
        }
        let mut images: Vec<SurveyedImage> = Vec::new();
        let mut positions: Vec<At> = Vec::new();
        let mut known: HashSet<DiffId> = HashSet::new();
        for (s, source) in sources.iter().enumerate() {
            for (i, image) in source.images().enumerate() {
                let (id, diff_ids) = (image.id(), image.diff_ids());
                for (l, diff_id) in diff_ids.iter().enumerate() {
                    if known.insert(*diff_id) {
                        positions.push((s, i, l));
                    }
                }
                match images.iter_mut().find(|other| other.record.id == id) {
                    Some(same) => {
                        let new = image.names().iter().filter(|n| !same.references.contains(n));
                        let new: Vec<_> = new.cloned().collect();
                        same.references.extend(new);
                    }
                    None => images.push(SurveyedImage {
                        references: image.names().to_vec(),
                        record: ImageRecord { id, manifest: None, layers: diff_ids.to_vec() },
                    }),
                }
            }
        }
        let layer_limits = options.layer_limits;
        let mut survey = Self { sources, positions, images, layers: Vec::new(), layer_limits };
        survey.layers = survey.read_layers(progress)?;
        Ok(survey)
    }

    /// The images, in the order of the sources; one that several sources have is one.
    pub fn images(&self) -> &[SurveyedImage] {
        &self.images
    }

    /// Their layers, each once.
    pub fn layers(&self) -> &[SurveyedLayer] {
        &self.layers
    }

    /// Who holds which contents.
    pub fn sharing(&self) -> Sharing {
        sharing_of(self.layers.iter().map(|layer| layer.contents.clone()))
    }

    /// Reads all layers again to measure chunks of their contents, and the layers compressed;
    /// `Measured::layers` is in the order of [`Survey::layers`]. `progress` is called, from
    /// several threads, with bytes just read and all that will be.
    ///
    /// # Errors
    /// As [`Survey::read`], for sources that have changed meanwhile.
    pub fn measure(
        &self,
        options: &ChunkOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Measured> {
        // Each content is cut where it comes first.
        let mut first: HashMap<ContentDigest, u64> = HashMap::new();
        let jobs: Vec<(usize, HashMap<u64, ContentDigest>)> = self
            .layers
            .iter()
            .enumerate()
            .map(|(at, layer)| {
                let mut wanted = HashMap::new();
                for (digest, size) in &layer.contents.contents {
                    if first.insert(*digest, *size).is_none() {
                        wanted.insert(layer.members[digest], *digest);
                    }
                }
                (at, wanted)
            })
            .collect();
        let (files, bytes) = (first.len() as u64, first.values().sum::<u64>());
        let mut all = bytes * options.passes(files, bytes);
        if options.compress {
            all += self.layers.iter().map(|layer| layer.diff_size).sum::<u64>();
        }
        let packed = Mutex::new(vec![0; if options.compress { self.layers.len() } else { 0 }]);
        // The store's error does not say which image it was.
        let told: Mutex<Option<Error>> = Mutex::new(None);
        let progress = |read| progress(read, all);
        let outcome =
            measure(&jobs, (files, bytes), options, &progress, &|(at, wanted), cutter| {
                let whole = options.compress && cutter.meter().is_first();
                if !whole && wanted.is_empty() {
                    return Ok(());
                }
                let (image, position) = self.layer_at(*at);
                let input = image.layer(position).map_err(|error| {
                    let text = std::io::Error::other(error.to_string());
                    told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    strata_layer::Error::io("cannot read a layer", text)
                })?;
                let size = cut_layer(input, &self.layer_limits, wanted, whole, cutter)?;
                if whole {
                    packed.lock().unwrap_or_else(PoisonError::into_inner)[*at] = size;
                }
                Ok(())
            });
        if let Some(error) = told.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut measured = outcome?;
        measured.layers = packed.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(measured)
    }

    /// The image that has a layer, and its position there.
    fn layer_at(&self, at: usize) -> (UnloadedImage<'_>, usize) {
        let (source, image, layer) = self.positions[at];
        (self.sources[source].image(image), layer)
    }

    /// Reads every layer once; the first failure stops the others before their next layer.
    fn read_layers(&self, progress: &dyn Progress) -> Result<Vec<SurveyedLayer>> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let read: Mutex<Vec<Option<SurveyedLayer>>> = Mutex::new(vec![None; self.positions.len()]);
        let first: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= self.positions.len() {
                    return;
                }
                let (image, position) = self.layer_at(at);
                let layer = image.layer(position).and_then(|input| {
                    survey_layer(input, &self.layer_limits, progress)
                        .map_err(|error| image.refused(position, error))
                });
                match layer {
                    Ok(layer) => {
                        read.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(layer);
                    }
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        together(workers.min(self.positions.len()).saturating_sub(1), work);
        match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                let read = read.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok(read.into_iter().flatten().collect())
            }
        }
    }
}
