//! `fsck --repair`, once the index is right: what is damaged is taken out, so that it can be
//! loaded again; what has a second copy is written again.
//!
//! Invariants: nothing that somebody leases or holds is taken away, it stays a problem; of what is
//! not damaged only garbage goes; a layer is taken out once, however much of it is damaged; images
//! of a damaged layer stay as long as the layer has to, for loading them again would find it, and
//! take it as it is.

use std::collections::BTreeMap;

use strata_tree::{DiffId, ImageId};

use super::check_files::mend_mode;
use super::dir::StoreDir;
use super::fsck_report::{FsckReport, Problem};
use super::gc::Collector;
use super::holds::Holds;
use super::images::Images;
use super::leases::LeasedLayer;
use super::listing::{Found, ImageList, Listing};
use super::removal::removal;
use super::sweep::remove_file_if_there;
use crate::error::{Error, Result};
use crate::index;
use crate::index::shared::SharedIndex;
use crate::lock::{Lock, Locked, lock_path};

/// What is said of a damaged layer that cannot go.
const STAYS: &str = "; it stays with its images, for a mount or an engine has it or one of them: \
                     repair once more when that has ended";

/// Mends a store.
pub(super) struct Mender<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
    report: FsckReport,
}

impl<'s> Mender<'s> {
    /// Of a store, what a check of it reported.
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex, report: FsckReport) -> Self {
        Self { dir, index, report }
    }

    fn images(&self) -> Images<'s> {
        Images::new(self.dir, self.index)
    }

    /// Mends what the report has; what is mended moves from its problems to `repaired`.
    pub(super) fn mend(mut self) -> Result<FsckReport> {
        let mut left = Vec::new();
        // One that is loaded again meanwhile is whole, and each attempt reads all of the index.
        let mut tried = BTreeMap::new();
        for mut problem in std::mem::take(&mut self.report.problems) {
            let done = match &mut problem {
                // The rebuild was to mend these.
                Problem::Index(_) => None,
                Problem::Layer { diff_id, what } => {
                    let out = match tried.get(diff_id) {
                        Some(out) => *out,
                        None => self.take_out(diff_id)?,
                    };
                    tried.insert(*diff_id, out);
                    if !out {
                        what.push_str(STAYS);
                    }
                    out.then_some("taken out; load it again")
                }
                Problem::Mode { diff_id, path, mode, .. } => {
                    match LeasedLayer::take(self.dir, self.index, diff_id) {
                        Ok(Some(leased)) => {
                            mend_mode(&leased, path, *mode)?;
                            Some("mended")
                        }
                        // Taken out, for another problem.
                        Ok(None) => Some("gone with its layer"),
                        Err(error) => return Err(error),
                    }
                }
                Problem::Image { id, .. } => match self.images().remove(id) {
                    Ok(_) | Err(Error::NoImage(_)) => Some("taken out; load it again"),
                    Err(error) if error.is_in_use() => None,
                    Err(error) => return Err(error),
                },
                Problem::Listing(_) => Some("written again from the index"),
                Problem::Hold { path, .. } => Holds::mend(path)?.then_some("written again"),
                Problem::Tree { path, .. } => {
                    remove_file_if_there(path)?;
                    Some("removed; it is compiled again when it is needed")
                }
            };
            match done {
                Some(done) => self.report.repaired.push(format!("{problem}: {done}")),
                None => left.push(problem),
            }
        }
        self.report.problems = left;
        self.mend_listing()?;
        let mut collector = Collector::new(self.dir, self.index);
        collector.orphans()?;
        for diff_id in collector.needed {
            let what = "has no row in the index, and stays, for a mount or an engine has it: load \
                        its image again, or repair once more when that has ended";
            self.report.layer_problem(&diff_id, what.to_owned());
        }
        for path in collector.report.orphans {
            self.report.repaired.push(format!("{}: removed, no image had it", path.display()));
        }
        self.report.notes.clear();
        Ok(self.report)
    }

    /// Removes a damaged layer with the images that need it; `false` if somebody has it or one of
    /// them: then nothing was done.
    fn take_out(&mut self, diff_id: &DiffId) -> Result<bool> {
        if self.dir.is_held(diff_id)? {
            return Ok(false);
        }
        let images = loop {
            let all = self.images().all()?.into_iter();
            let needing = all.filter(|image| image.layers.contains(diff_id));
            let images: Vec<ImageId> = needing.map(|image| image.id).collect();
            if images.is_empty() {
                break images;
            }
            match removal(self.dir, self.index, &images, &[]) {
                Ok(removal) if removal.in_use.is_empty() => break images,
                Ok(_) => return Ok(false),
                // Somebody was quicker with one of them; the others are left.
                Err(Error::NoImage(_)) => {}
                Err(error) => return Err(error),
            }
        };
        for image in images {
            match self.images().remove(&image) {
                Ok(_) => {
                    let what = "taken out, since a layer of it is damaged; load it again";
                    self.report.repaired.push(format!("image {image}: {what}"));
                }
                // Somebody was quicker.
                Err(Error::NoImage(_)) => {}
                Err(error) if error.is_in_use() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let record = index::find_layer(&self.index.lock().db, diff_id)?;
        if let Some(record) = record {
            return Collector::new(self.dir, self.index).collect(&record);
        }
        match lock_path(&self.dir.layer(diff_id), Lock::SoonExclusive)? {
            Locked::Busy => Ok(false),
            Locked::Held(_) | Locked::Absent => Ok(true),
        }
    }

    /// Writes `images.json` again if it is not that of the index.
    fn mend_listing(&self) -> Result<()> {
        let mut index = self.index.lock();
        let tx = index.write()?;
        let images = ImageList::of(&tx)?;
        let path = self.dir.listing();
        match Listing::read(&path)? {
            Found::Listing(listing) if listing.images == images => return Ok(()),
            Found::Absent if images == ImageList::default() => return Ok(()),
            Found::Listing(_) | Found::Absent | Found::Damaged(..) => {}
        }
        let state = images.state();
        self.dir.write_aside(&path, &Listing::new(images, state).text())
    }
}
