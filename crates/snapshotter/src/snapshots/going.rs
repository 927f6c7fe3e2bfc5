//! What goes: with a snapshot, a while after the last one that needed it, and what a crash left.
//!
//! Invariants: a layer is let go when no row has it, under the lock of the record; what cannot be
//! taken away of a snapshot that is gone from the record is no failure of the call, nor of a start.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use strata_tree::DiffId;
use stratafs::{Store, chain_id};

use super::Snapshots;
use crate::error::Result;
use crate::labels;
use crate::naming;
use crate::state::{SnapshotId, SnapshotKind, SnapshotRow};
use crate::taking::{CommitStep, let_go};

impl Snapshots {
    /// Brings disk and record together, and mounts again what snapshots need.
    pub(super) fn mend(&self) -> Result<()> {
        self.taking().mend_all()?;
        let all = self.state().all()?;
        let takes = self.state().takes()?;
        let mut needed: BTreeSet<DiffId> = all.iter().flat_map(|one| one.layers.clone()).collect();
        needed.extend(takes.iter().map(|(_, layer)| *layer));
        self.holds.add(&needed)?;
        let unneeded: Vec<DiffId> = self.holds.layers()?.difference(&needed).copied().collect();
        later(let_go(&mut self.state(), &self.holds, &unneeded));
        let uppers = all.iter().filter(|one| one.kind != SnapshotKind::Committed).map(|one| one.id);
        let uppers: HashSet<SnapshotId> = uppers.collect();
        for number in self.places.numbers()? {
            if !uppers.contains(&number) {
                later(self.places.remove_upper(number));
            }
        }
        for one in all.iter().filter(|one| one.kind != SnapshotKind::Committed) {
            let chain = self.state().chain(&one.name)?;
            // One that cannot be shown must not keep the others from it.
            if let Err(error) = self.places.show_again(&self.store, one, &chain) {
                tracing::error!("snapshot {}: {error}", one.name);
            }
        }
        naming::name_all(&self.state(), &self.holds)?;
        later(self.places.hide_unused());
        self.fetched().settle_all()
    }

    /// Removes what was compiled of a chain that a layer was unpacked above, or that is no more,
    /// unless a snapshot is above it now.
    fn drop_derived(&self, chain: &[DiffId]) -> Result<()> {
        match chain_id(chain) {
            Some(id) if !self.places.are_shown(chain) => Ok(self.store.drop_derived(&id)?),
            Some(_) | None => Ok(()),
        }
    }

    /// Removes a snapshot.
    pub(crate) fn remove(&self, key: &str) -> Result<()> {
        let _alone = self.keys.lock(key);
        self.forget(key)
    }

    pub(super) fn forget(&self, key: &str) -> Result<()> {
        let (removed, chain) = {
            let mut state = self.state();
            let chain = state.chain(key)?;
            let removed = state.remove(key)?;
            // Still under the lock: nobody can hold them for a new row meanwhile.
            later(let_go(&mut state, &self.holds, &removed.layers));
            (removed, chain)
        };
        later(self.places.release(removed.id, self.keeps()));
        if removed.kind == SnapshotKind::Committed {
            later(self.places.hide_names(&chain).and_then(|()| self.drop_derived(&chain)));
        }
        later(self.places.remove_upper(removed.id));
        Ok(())
    }

    /// Takes away what was there to write a snapshot that is committed now, as `name`: of `layers`
    /// above those below it.
    pub(super) fn leave(
        &self,
        active: &SnapshotRow,
        (name, below, layers): (&str, &[DiffId], &[DiffId]),
    ) {
        if let Some(chain) = labels::unpacked_chain(&active.name, name)
            && let Err(error) = self.state().note_chain(chain, below, layers)
        {
            tracing::warn!("{chain} will be unpacked again when it is wanted: {error}");
        }
        let unpack = labels::is_unpack(&active.name);
        let released = self.places.release(active.id, !unpack && self.keeps());
        self.step(CommitStep::Released);
        // What was compiled for nothing but this unpack.
        later(released.and_then(|mounted| match mounted && unpack {
            true => self.drop_derived(below),
            false => Ok(()),
        }));
        later(self.places.remove_upper(active.id));
    }

    /// Removes layers from the store that no snapshot has had for a while and nobody else needs: at
    /// once, if the disk is nearly full. Until then a pull finds them.
    pub(crate) fn cleanup(&self) -> Result<()> {
        self.freeing(|| self.fetched().remove_unused(self.kept_now()?))?;
        let kept = self.kept_now()?;
        self.places.hide_idle(kept)?;
        let unneeded = self.state().unneeded(kept)?;
        let mut going = Vec::new();
        for layer in unneeded {
            let mut state = self.state();
            // A later snapshot may have it.
            if state.uses(&layer)? {
                state.forget_unneeded(&layer)?;
            } else {
                state.forget_chains(&layer)?;
                going.push(layer);
            }
        }
        naming::name_all(&self.state(), &self.holds)?;
        self.freeing(|| {
            let mut leased = Vec::new();
            for layer in &going {
                leased.extend(self.store.lease(layer)?);
            }
            Ok(self.store.discard_unreferenced(leased)?)
        })?;
        self.forget_gone(&going)
    }

    /// How long what nobody needs stays, as full as the disk is.
    fn kept_now(&self) -> Result<Duration> {
        Ok(if self.places.is_nearly_full()? { Duration::ZERO } else { self.kept })
    }

    /// Forgets layers that are gone, and those that go with an image of the store. What somebody
    /// uses just now is left for the next cleanup, as is what goes with an image that was fetched
    /// for containerd: by its layers that image is known to be removed.
    fn forget_gone(&self, going: &[DiffId]) -> Result<()> {
        if going.is_empty() {
            return Ok(());
        }
        let fetched = self.state().noted_images()?;
        let images = self.store.images().all()?.into_iter();
        let images = images.filter(|image| !fetched.contains(&image.id));
        let of_images: HashSet<DiffId> = images.flat_map(|image| image.layers).collect();
        for layer in going {
            let mut state = self.state();
            if of_images.contains(layer) || self.store.layer(layer)?.is_none() {
                state.forget_unneeded(layer)?;
            }
        }
        Ok(())
    }

    /// Removes something; once more where the disk was full and room could be made.
    fn freeing(&self, remove: impl Fn() -> Result<()>) -> Result<()> {
        match remove() {
            Err(error) if error.is_full() => match Store::shed(self.store.root()) {
                Ok(1..) => remove(),
                Ok(0) | Err(_) => Err(error),
            },
            done => done,
        }
    }
}

/// What could not be taken away now, the next start takes.
fn later<T>(taken: Result<T>) {
    if let Err(error) = taken {
        tracing::error!("until the next start something stays that nobody needs: {error}");
    }
}
