//! The layers of a store, measured.
//!
//! Invariants: each content is read once a pass, under one of its names; the largest first, so
//! that no processor is left with a large one at the end. Memory: 32 bytes a content.

use std::sync::{Mutex, PoisonError};

use strata_layer::{Error, IndexReader, IoContext, NamedContent, Result, Store};
use strata_tree::DiffId;

use super::{ChunkOptions, Cutter, Measured, measure};

enum Job {
    /// The layer at that position, as a whole.
    Layer(usize),
    Content(NamedContent),
}

/// Cuts every content of `layers`, and compresses every layer. Reads all of them: twice, if
/// they are to be compressed as a whole too.
///
/// `progress` is called, from several threads, with bytes just read and all that will be.
///
/// # Errors
/// `NoLayer` if one of them is not there, `Io` also if one is removed meanwhile.
pub fn measure_chunks(
    store: &Store,
    layers: &[DiffId],
    options: &ChunkOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Measured> {
    let mut records = Vec::new();
    for layer in layers {
        records.push(store.layer(layer)?.ok_or(Error::NoLayer(*layer))?);
    }
    let contents = store.reader().contents_of(layers)?;
    let bytes = contents.iter().map(|content| content.size).sum::<u64>();
    let mut jobs: Vec<(u64, Job)> = Vec::new();
    let files = contents.len() as u64;
    jobs.extend(contents.into_iter().map(|content| (content.size, Job::Content(content))));
    let mut all = bytes * options.passes(files, bytes);
    if options.compress {
        let layers = records.iter().enumerate();
        jobs.extend(layers.map(|(at, record)| (record.diff_size, Job::Layer(at))));
        all += records.iter().map(|record| record.diff_size).sum::<u64>();
    }
    // Stable: those of equal size as they were unpacked.
    jobs.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let packed = Mutex::new(vec![0; if options.compress { layers.len() } else { 0 }]);
    // A reader for each worker, kept from job to job.
    let spare = Mutex::new(Vec::new());
    let work = |(_, job): &(u64, Job), cutter: &mut Cutter<'_>| match job {
        Job::Layer(_) if !cutter.meter().is_first() => Ok(()),
        Job::Layer(at) => {
            let leased = store.lease(&layers[*at])?.ok_or(Error::NoLayer(layers[*at]))?;
            let mut packing = cutter.start_diff()?;
            leased.write_diff(&mut packing)?;
            let size = cutter.end_diff(packing)?;
            packed.lock().unwrap_or_else(PoisonError::into_inner)[*at] = size;
            Ok(())
        }
        Job::Content(content) => {
            let one = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = match one {
                Some(reader) => reader,
                None => store.another_reader()?,
            };
            let outcome = cut_content(&reader, content, cutter);
            spare.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            outcome
        }
    };
    let progress = |read| progress(read, all);
    let mut measured = measure(&jobs, (files, bytes), options, &progress, &work)?;
    measured.layers = packed.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(measured)
}

fn cut_content(
    reader: &IndexReader<'_>,
    content: &NamedContent,
    cutter: &mut Cutter<'_>,
) -> Result<()> {
    let (digest, what, mut file) = reader.open(content)?;
    cutter.content(&digest, content.size, &mut file).doing(|| format!("cannot read {what}"))
}
