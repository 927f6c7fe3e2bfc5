//! Contents that running unpacks of this process have written and not yet published: each offers
//! them to the others, which link to them. One that is alone offers nothing, and there is a bound
//! on all offers; what another one writes once more is linked when it is published.
//!
//! Invariants: what is offered is at its path, because whoever moves it away withdraws it first and
//! a link is made under the lock; a stage whose contents are forgotten is kept open by none of
//! them, so that its lock ends with it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strata_tree::ContentDigest;

use crate::stage::StagePath;

/// Contents that are offered at a time, at most.
const MOST: usize = 1 << 16;

/// A file: the directory of its stage, and its path below that.
type Offer = (Arc<OwnedFd>, PathBuf);

/// All of them, by digest.
#[derive(Default)]
pub(crate) struct OfferedContents {
    contents: Mutex<HashMap<ContentDigest, Offer>>,
    unpacks: AtomicUsize,
}

/// An unpack that may take what others offer.
pub(crate) struct OfferTaker<'o>(&'o OfferedContents);

impl Drop for OfferTaker<'_> {
    fn drop(&mut self) {
        self.0.unpacks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OfferedContents {
    fn all(&self) -> MutexGuard<'_, HashMap<ContentDigest, Offer>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, as long as this lives, there is one more to offer something to.
    pub(crate) fn taker(&self) -> OfferTaker<'_> {
        self.unpacks.fetch_add(1, Ordering::Relaxed);
        OfferTaker(self)
    }

    /// Offers the file at `path` below `stage`, if there is another unpack.
    pub(crate) fn offer(&self, digest: ContentDigest, stage: &Arc<OwnedFd>, path: &StagePath) {
        if self.unpacks.load(Ordering::Relaxed) > 1 {
            let mut all = self.all();
            if all.len() < MOST {
                all.insert(digest, (Arc::clone(stage), path.path()));
            }
        }
    }

    /// Offers the file at `path` below `stage` no more: it is about to leave that path.
    pub(crate) fn withdraw(&self, digest: &ContentDigest, stage: &Arc<OwnedFd>, path: &Path) {
        let mut all = self.all();
        let is_it = |(dir, at): &Offer| Arc::ptr_eq(dir, stage) && at == path;
        if all.get(digest).is_some_and(is_it) {
            all.remove(digest);
        }
    }

    /// Hands over a file with those bytes, which stays at its path meanwhile; `None` if there is
    /// none.
    pub(crate) fn with<T>(
        &self,
        digest: &ContentDigest,
        take: impl FnOnce(BorrowedFd<'_>, &Path) -> T,
    ) -> Option<T> {
        self.all().get(digest).map(|(dir, path)| take(dir.as_fd(), path))
    }

    /// Offers none of a stage's contents any more.
    ///
    /// All of them: one that stayed would keep the stage's descriptor, and its lock.
    pub(crate) fn forget(&self, stage: &Arc<OwnedFd>) {
        self.all().retain(|_, (dir, _)| !Arc::ptr_eq(dir, stage));
    }
}
