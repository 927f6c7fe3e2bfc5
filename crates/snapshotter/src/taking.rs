//! [`UpperTaking`]: the files of an upper become those of a layer.
//!
//! ```text
//! hold, note  the layer that they are to become: durable before it is published
//! publish     files of the upper are files of the layer; the upper is as it was, but for that
//! settle      they have the modes and owners of a store's files: the upper is of no use any more
//! Commit      the row is a committed one's, and the note is gone, in one transaction
//! ```
//!
//! A note that is found later says that this was broken off. Without the layer nothing has
//! changed. With it, the snapshot is one that has the layer and an upper with nothing in it: it
//! shows what it showed, and can be committed.
//!
//! An upper that a mount shows is copied, and nothing is noted: through that mount its files could
//! be written for ever. Nobody has a mount of an upper that containerd commits, as a rule.
//!
//! Invariants: a snapshot is at each moment committed or as it was; a layer that a note names is
//! held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strata_tree::DiffId;
use stratafs::{Holds, LeasedLayer, OpenChain, Quiet, Store, is_shown_upper};

use crate::error::Result;
use crate::places::SnapshotPlaces;
use crate::state::{SnapshotId, State};

/// A moment of a commit at which a crash leaves a state of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitStep {
    /// The layer is held.
    Held,
    /// It is noted too, and not published yet.
    Noted,
    /// It is published and settled.
    Settled,
    /// The row is that of a committed snapshot.
    Recorded,
    /// Its names are let go; the upper is there still.
    Released,
}

/// Called at every such moment.
pub(crate) type CommitHook = Arc<dyn Fn(CommitStep) + Send + Sync>;

/// Takes uppers. See the module.
pub(crate) struct UpperTaking<'s> {
    pub(crate) store: &'s Store,
    pub(crate) places: &'s SnapshotPlaces,
    pub(crate) state: &'s Mutex<State>,
    pub(crate) holds: &'s Holds,
    pub(crate) on_step: Option<&'s CommitHook>,
}

impl UpperTaking<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, step: CommitStep) {
        if let Some(hook) = self.on_step {
            hook(step);
        }
    }

    /// Makes a layer of the upper of a snapshot above `chain`, if there is anything in it.
    pub(crate) fn take(&self, id: SnapshotId, chain: &[DiffId]) -> Result<Option<LeasedLayer>> {
        let chain = OpenChain::open(self.store, chain)?;
        let upper = self.places.upper(id);
        let unpacked = if is_shown_upper(&upper)? {
            chain.take_upper(self.store, &upper, None, &Quiet)?
        } else {
            let mut note = |layer: &DiffId| {
                let noted = hold_for(self.state, self.holds, &[*layer], |state| {
                    self.step(CommitStep::Held);
                    state.begin_take(id, layer)
                });
                noted.map_err(std::io::Error::other)?;
                self.step(CommitStep::Noted);
                Ok(())
            };
            chain.take_upper(self.store, &upper, Some(&mut note), &Quiet)?
        };
        self.step(CommitStep::Settled);
        Ok(unpacked.map(|unpacked| unpacked.layer))
    }

    /// Ends what was broken off. Where that fails, it is tried again before the snapshot is used.
    pub(crate) fn mend_all(&self) -> Result<()> {
        let begun = self.state().takes()?;
        for (id, layer) in begun {
            if let Err(error) = self.mend_one(id, &layer) {
                tracing::error!("a broken commit of snapshot {}: {error}", id.0);
            }
        }
        Ok(())
    }

    /// The same for one snapshot, after an error, and before its upper is shown or taken.
    pub(crate) fn mend(&self, id: SnapshotId) -> Result<()> {
        let begun = self.state().takes()?;
        let mut ours = begun.into_iter().filter(|(of, _)| *of == id);
        ours.try_for_each(|(id, layer)| self.mend_one(id, &layer))
    }

    fn mend_one(&self, id: SnapshotId, layer: &DiffId) -> Result<()> {
        let Some(row) = self.state().numbered(id)? else { return Ok(()) };
        let mut layers = row.layers;
        let leased = self.store.lease(layer)?;
        if let Some(leased) = &leased {
            leased.settle()?;
            self.places.empty_upper(id)?;
            layers.push(*layer);
        }
        let mut state = self.state();
        state.end_take(id, &layers)?;
        if leased.is_none() && !state.uses(layer)? {
            self.holds.remove([layer])?;
        }
        Ok(())
    }
}

/// Holds layers for what `write` puts into the record. Whoever calls has them leased, or they are
/// to be published yet.
pub(crate) fn hold_for<T>(
    state: &Mutex<State>,
    holds: &Holds,
    layers: &[DiffId],
    write: impl FnOnce(&mut State) -> Result<T>,
) -> Result<T> {
    // The disk is waited for before the record is locked.
    holds.add(layers)?;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    // They may have been let go since, with the last snapshot that had them.
    holds.add(layers)?;
    write(&mut state)
}

/// Holds none of these layers any more that no snapshot has. The note comes first: of what a crash
/// leaves held, the next start knows that nobody needs it.
pub(crate) fn let_go(state: &mut State, holds: &Holds, layers: &[DiffId]) -> Result<()> {
    for layer in layers {
        if !state.uses(layer)? {
            state.note_unneeded(layer)?;
            holds.remove([layer])?;
        }
    }
    Ok(())
}
