//! The layers of a store, measured.
//!
//! Invariants: each content is read once a pass, under one of its names; the largest first, so
//! that no processor is left with a large one at the end. Memory: 32 bytes a content.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use strata_tree::{ContentDigest, DiffId};

use super::{ChunkOptions, Cutter, Measured, measure};
use crate::error::{Error, IoContext, Result};
use crate::index::{Index, contents};
use crate::stage::open_beneath;
use crate::store::{Store, layer_path};

/// A content under one of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    size: u64,
    layer: i64,
    node: i64,
    content: i64,
}

enum Job {
    /// The layer at that position, as a whole.
    Layer(usize),
    Content(Place),
}

impl Store {
    /// Cuts every content of `layers`, and compresses every layer. Reads all of them: twice, if
    /// they are to be compressed as a whole too.
    ///
    /// `progress` is called, from several threads, with bytes just read and all that will be.
    ///
    /// # Errors
    /// `NoLayer` if one of them is not there, `Io` also if one is removed meanwhile.
    pub fn measure_chunks(
        &self,
        layers: &[DiffId],
        options: &ChunkOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Measured> {
        let mut records = Vec::new();
        for layer in layers {
            records.push(self.layer(layer)?.ok_or(Error::NoLayer(*layer))?);
        }
        let places = self.places(records.iter().map(|record| record.id))?;
        let bytes = places.iter().map(|place| place.size).sum::<u64>();
        let mut jobs: Vec<(u64, Job)> = Vec::new();
        let files = places.len() as u64;
        jobs.extend(places.into_iter().map(|place| (place.size, Job::Content(place))));
        let mut all = bytes * options.passes(files, bytes);
        if options.compress {
            let layers = records.iter().enumerate();
            jobs.extend(layers.map(|(at, record)| (record.diff_size, Job::Layer(at))));
            all += records.iter().map(|record| record.diff_size).sum::<u64>();
        }
        // Stable: those of equal size as they were unpacked.
        jobs.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        let packed = Mutex::new(vec![0; if options.compress { layers.len() } else { 0 }]);
        // An index connection for each worker, kept from job to job.
        let spare = Mutex::new(Vec::new());
        let work = |(_, job): &(u64, Job), cutter: &mut Cutter<'_>| match job {
            Job::Layer(_) if !cutter.meter().is_first() => Ok(()),
            Job::Layer(at) => {
                let held = self.hold(&layers[*at])?.ok_or(Error::NoLayer(layers[*at]))?;
                let mut packing = cutter.start_diff()?;
                self.write_diff(&held, &mut packing)?;
                let size = cutter.end_diff(packing)?;
                packed.lock().unwrap_or_else(PoisonError::into_inner)[*at] = size;
                Ok(())
            }
            Job::Content(place) => {
                let one = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let index = match one {
                    Some(index) => index,
                    None => self.another_index()?,
                };
                let outcome = self.cut_content(&index, place, cutter);
                spare.lock().unwrap_or_else(PoisonError::into_inner).push(index);
                outcome
            }
        };
        let progress = |read| progress(read, all);
        let mut measured = measure(&jobs, (files, bytes), options, &progress, &work)?;
        measured.layers = packed.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(measured)
    }

    /// One name of every content of those layers, in the order in which they were unpacked.
    fn places(&self, layers: impl Iterator<Item = i64>) -> Result<Vec<Place>> {
        let index = self.index();
        let mut statement = index.db.prepare(
            "SELECT node, content, contents.size FROM entries
             JOIN contents ON contents.id = entries.content
             WHERE layer = ?1 AND content IS NOT NULL ORDER BY node",
        )?;
        let (mut seen, mut places) = (HashSet::new(), Vec::new());
        for layer in layers {
            let mut rows = statement.query([layer])?;
            while let Some(row) = rows.next()? {
                let (node, content) = (row.get(0)?, row.get(1)?);
                if seen.insert(content) {
                    let size = row.get::<_, i64>(2)? as u64;
                    places.push(Place { size, layer, node, content });
                }
            }
        }
        Ok(places)
    }

    fn cut_content(&self, index: &Index, place: &Place, cutter: &mut Cutter<'_>) -> Result<()> {
        let gone = || Error::damaged("a layer", "it was removed while it was read; try again");
        let found = index
            .db
            .prepare_cached(
                "SELECT layers.diff_id, contents.digest, parent, name FROM entries
                 JOIN layers ON layers.id = entries.layer
                 JOIN contents ON contents.id = entries.content
                 WHERE entries.layer = ?1 AND node = ?2 AND content = ?3",
            )?
            .query_row((place.layer, place.node, place.content), |row| {
                let digest = ContentDigest::from_bytes(row.get(1)?);
                let name: Vec<u8> = row.get(3)?;
                Ok((DiffId::from_bytes(row.get(0)?), digest, row.get::<_, i64>(2)?, name))
            });
        let (diff_id, digest, parent, name) = match found {
            Err(rusqlite::Error::QueryReturnedNoRows) => return Err(gone()),
            found => found?,
        };
        let path = contents::path_of(&index.db, place.layer, parent, &name)?;
        let below = layer_path(&diff_id).join("diff").join(path.as_os_str());
        let doing = || format!("cannot read {path} of layer {diff_id}");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let file = open_beneath(self.root_fd(), &below, flags).doing(doing)?;
        cutter.content(&digest, place.size, &mut std::fs::File::from(file)).doing(doing)
    }
}
