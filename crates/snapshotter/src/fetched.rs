//! [`FetchedImages`]: images that were fetched for containerd, and go when containerd has none of
//! their snapshots any more. Their layers stay for a while, as those of all snapshots do.
//!
//! ```text
//! begin_fetch   which images the store has      durable before the fetch begins
//! strata pull   a program of its own            goes on if this one is killed
//! end_fetch     the image is new: it is ours    once a snapshot has its layers
//! ```
//!
//! Invariants: an image that was there before is never removed; one that a killed fetch brought is
//! found at the next start, or at a cleanup after the fetch has ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use stratafs::{DiffId, Holds, ImageId, Reference, Store};

use crate::error::Result;
use crate::remote::Fetcher;
use crate::state::State;

/// The images. See the module.
pub(crate) struct FetchedImages<'s> {
    pub(crate) store: &'s Store,
    pub(crate) state: &'s Mutex<State>,
    pub(crate) fetcher: &'s Fetcher,
    pub(crate) holds: &'s Holds,
}

impl FetchedImages<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches an image, which containerd asks for as `name`, notes it, and gives what `found` then
    /// says of it. Where `is_there` says that it came meanwhile, or it could not be had lately, it
    /// is not fetched; nor where too many are waited for.
    pub(crate) fn fetch(
        &self,
        image: &str,
        name: Option<&str>,
        is_there: impl Fn() -> bool,
        found: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let Some(_place) = self.fetcher.place() else {
            tracing::info!("{image} is left to containerd: others are being fetched");
            return Ok(false);
        };
        let _turn = self.fetcher.turn(image);
        if !is_there() && !self.fetcher.failed_lately(image) {
            let before: Vec<ImageId> =
                self.store.images().all()?.into_iter().map(|image| image.id).collect();
            self.state().begin_fetch(image, &before)?;
            self.fetcher.fetch(image);
        }
        let found = found()?;
        // Once a snapshot has its layer: until then a cleanup would remove it.
        if let (Some(new), Some(name)) = (self.settle(image)?, name) {
            self.name(&new, name)?;
        }
        Ok(found)
    }

    /// Gives a new image the name that it was asked for by, unless that is one of another image
    /// which was not fetched for containerd.
    fn name(&self, image: &ImageId, name: &str) -> Result<()> {
        let Some(name) = name.parse::<Reference>().ok().and_then(|name| name.store_tag()) else {
            return Ok(());
        };
        let mut tags = self.store.images().tags()?.into_iter();
        let taken = tags.find_map(|(tag, id)| (tag == name).then_some(id));
        if taken.is_none_or(|id| self.state().noted_images().is_ok_and(|all| all.contains(&id))) {
            self.store.images().tag(&name, image)?;
        }
        Ok(())
    }

    /// Ends fetches that nobody is at any more.
    pub(crate) fn settle_all(&self) -> Result<()> {
        let begun = self.state().fetches()?;
        for (image, _) in begun {
            if let Some(_turn) = self.fetcher.free(&image)
                && !Fetcher::is_running(&image)?
            {
                self.settle(&image)?;
            }
        }
        Ok(())
    }

    /// Ends a fetch; gives the image that it has brought, if that is new.
    fn settle(&self, image: &str) -> Result<Option<ImageId>> {
        let begun = self.state().fetches()?;
        let Some((_, before)) = begun.into_iter().find(|(name, _)| name == image) else {
            return Ok(None);
        };
        // A name that cannot be read was not fetched either.
        let name = image.parse::<Reference>().ok();
        let name = name.and_then(|name| match name.digest() {
            Some(_) => name.store_pin(),
            None => name.store_tag(),
        });
        let mut tags = self.store.images().tags()?.into_iter();
        let id = tags.find_map(|(tag, id)| (Some(tag) == name).then_some(id));
        let new = id.filter(|id| !before.contains(id));
        self.state().end_fetch(image, new.as_ref())?;
        Ok(new)
    }

    /// Removes those that containerd has no snapshot of any more.
    pub(crate) fn remove_unused(&self) -> Result<()> {
        self.settle_all()?;
        let noted = self.state().noted_images()?;
        for image in noted {
            let record = self.store.images().get(&image)?;
            let used = match &record {
                Some(record) => self.state().uses_any(&record.layers)?,
                None => false,
            };
            if used {
                continue;
            }
            if let Some(record) = &record {
                // The removal of an image leaves what is held.
                self.holds.add(&record.layers)?;
                let removed = self.store.images().remove(&image);
                self.let_go(&record.layers)?;
                match removed {
                    Ok(_) | Err(strata_layer::Error::NoImage(_)) => {}
                    // It is mounted: the next cleanup may find that it is not.
                    Err(strata_layer::Error::InUse { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            self.state().forget_image(&image)?;
        }
        Ok(())
    }

    /// Holds none of these layers any more that no snapshot has.
    fn let_go(&self, layers: &[DiffId]) -> Result<()> {
        let mut state = self.state();
        for layer in layers {
            if !state.uses(layer)? {
                state.note_unneeded(layer)?;
                self.holds.remove([layer])?;
            }
        }
        Ok(())
    }
}
