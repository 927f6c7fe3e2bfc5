//! Where the bodies of a layer go while its tar is read: into a stage, or nowhere.
//!
//! ```text
//! Staging     a load: written into the stage, or linked to a file that already has those bytes
//!             (this layer's, another layer's that is being unpacked, one of the index)
//! Discarded   fsck, rebuild, inspect: only the books are kept, so that rows are derived again
//! ```
//!
//! A [`Staging`] that was given files takes those in place of bytes that are to be written.
//!
//! Invariants: with [`Discarded`] nothing is written, and each content of a layer is there once;
//! with [`Staging`] a file that is offered to other unpacks is at the path at which it is offered.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::OFlags;
use strata_diff::stream::data;
use strata_tree::{ContentDigest, TreePath};

use crate::early_sync::EarlySync;
use crate::error::{Error, IoContext, Result};
use crate::given::GivenFiles;
use crate::index::Index;
use crate::index::contents::Sources;
use crate::offered::{OfferTaker, OfferedContents};
use crate::read_ahead::ReadAhead;
use crate::stage::{Linked, Stage, StagePath, open_beneath};
use crate::write_behind::{WriteBehind, WriteTicket};

/// What a new name was linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkedTo {
    /// To the layer's own file.
    Own,
    /// To a file of another layer: that of this row, or of a layer that is being unpacked.
    Other(Option<i64>),
    /// To none: the bytes were shared by reflink, so the name has an inode of its own.
    Cloned,
    /// To none: the bytes are still to be written.
    Nothing,
}

/// Takes the bodies of a layer.
pub(crate) trait BodyTarget {
    /// A body too large for memory, on its way.
    type Large;

    /// The number of a shadow that nothing else uses.
    fn unused_shadow(&mut self) -> u64;

    /// Makes a directory at an image path.
    fn make_dir(&mut self, path: &TreePath) -> Result<()>;

    /// Removes an empty directory at an image path.
    fn remove_dir(&mut self, path: &TreePath) -> Result<()>;

    /// Writes a body whole.
    fn write(&mut self, place: &StagePath, bytes: &[u8]) -> Result<()>;

    /// Begins a body of that size, too large for memory, that may come to that place.
    fn begin_large(&mut self, place: &StagePath, size: u64) -> Result<Self::Large>;

    /// Writes a part of it.
    fn write_part(large: &Self::Large, bytes: &[u8], at: u64) -> Result<()>;

    /// Ends its bytes.
    fn end_large(large: &Self::Large, size: u64) -> Result<()>;

    /// Gives it its place, or drops it if there is none for it.
    fn place_large(&mut self, large: Self::Large, place: Option<&StagePath>) -> Result<()>;

    /// Moves a body.
    fn rename(&mut self, from: &StagePath, to: &StagePath) -> Result<()>;

    /// Removes a body.
    fn remove(&mut self, place: &StagePath) -> Result<()>;

    /// Copies one of the layer's own bodies, where a link is not to be had.
    fn copy_own(&mut self, from: &StagePath, to: &StagePath) -> Result<()>;

    /// Links `place` to a file with those bytes, if there is one that takes a further link; `own`
    /// is the layer's, if it has one.
    fn link(
        &mut self,
        digest: &ContentDigest,
        own: Option<&StagePath>,
        place: &StagePath,
    ) -> Result<LinkedTo>;

    /// Offers a body to other unpacks.
    fn offer(&mut self, digest: ContentDigest, place: &StagePath);

    /// Offers the body at `place` to other unpacks no more: it is about to leave that path.
    fn withdraw(&mut self, digest: &ContentDigest, place: &StagePath);
}

/// A body that is still being written: it is offered to other unpacks afterwards.
struct UnwrittenBody {
    ticket: WriteTicket,
    place: StagePath,
}

/// Bodies go into a stage.
pub(crate) struct Staging<'s> {
    behind: WriteBehind,
    /// Bodies of the last batches, by what they hold.
    unwritten: HashMap<ContentDigest, UnwrittenBody>,
    /// The last body that was written, until its digest is known.
    last: Option<UnwrittenBody>,
    stage: Stage,
    /// The same directory, for other unpacks to link from.
    shared: Arc<OwnedFd>,
    index: Index,
    sources: Sources,
    ahead: ReadAhead,
    early: EarlySync,
    store: BorrowedFd<'s>,
    offered: &'s OfferedContents,
    _taker: OfferTaker<'s>,
    given: Option<&'s GivenFiles>,
}

/// A body too large for memory, on its way into a stage.
pub(crate) enum LargeBody {
    /// Written aside.
    Written(StagePath, File),
    /// There is a file with it, of that many bytes, to be taken.
    Given(u64),
}

impl<'s> Staging<'s> {
    /// `index` is a connection of its own, `store` the store's directory.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn new(
        stage: Stage,
        index: Index,
        store: BorrowedFd<'s>,
        offered: &'s OfferedContents,
        given: Option<&'s GivenFiles>,
    ) -> Result<Self> {
        let shared = stage.root().try_clone_to_owned();
        let shared = Arc::new(shared.doing(|| "cannot duplicate a descriptor".into())?);
        let (sources, ahead, early) = (Sources::default(), ReadAhead::new(), EarlySync::new());
        let (behind, unwritten, last) = (WriteBehind::default(), HashMap::new(), None);
        let _taker = offered.taker();
        Ok(Self {
            behind,
            unwritten,
            last,
            stage,
            shared,
            index,
            sources,
            ahead,
            early,
            store,
            offered,
            _taker,
            given,
        })
    }

    /// The directory that its contents are offered with.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.shared)
    }

    /// Takes the file that was given for that place, if there is one that takes a further name.
    fn take(&mut self, place: &StagePath, size: u64) -> Result<bool> {
        let StagePath::Diff(path) = place else { return Ok(false) };
        let Some(given) = self.given else { return Ok(false) };
        let Some((dir, source)) = given.get(path, size) else { return Ok(false) };
        match self.stage.link(dir, &source, place)? {
            Linked::Yes => given.took(path),
            Linked::Cloned => {}
            Linked::No => return Ok(false),
        }
        Ok(true)
    }

    /// Copies the file that was given for that place.
    fn copy_given(&mut self, place: &StagePath, size: u64) -> Result<()> {
        let source = match (place, self.given) {
            (StagePath::Diff(path), Some(given)) => given.get(path, size),
            _ => None,
        };
        let Some((dir, path)) = source else {
            return Err(Error::damaged("a file that was given", "it is not there"));
        };
        let from = open_beneath(dir, &path, OFlags::RDONLY).doing(doing)?;
        self.stage.copy_from(File::from(from), place)
    }

    /// Offers what has been written meanwhile.
    fn offer_written(&mut self) {
        let written = self.behind.written();
        let (offered, shared) = (self.offered, &self.shared);
        self.unwritten.retain(|digest, body| {
            let waits = body.ticket > written;
            if !waits {
                offered.offer(*digest, shared, &body.place);
            }
            waits
        });
    }

    /// The stage, with all that was put there.
    ///
    /// # Errors
    /// `Io` for what could not be written.
    pub(crate) fn into_stage(mut self) -> Result<Stage> {
        self.behind.settle()?;
        Ok(self.stage)
    }
}

fn doing() -> String {
    "cannot write a file of the layer".to_owned()
}

impl BodyTarget for Staging<'_> {
    type Large = LargeBody;

    fn unused_shadow(&mut self) -> u64 {
        self.stage.unused_shadow()
    }

    fn make_dir(&mut self, path: &TreePath) -> Result<()> {
        self.stage.make_dir(path)
    }

    fn remove_dir(&mut self, path: &TreePath) -> Result<()> {
        self.stage.remove_dir(path)
    }

    fn write(&mut self, place: &StagePath, bytes: &[u8]) -> Result<()> {
        match self.take(place, bytes.len() as u64)? {
            true => Ok(()),
            false => {
                self.early.wrote(self.stage.root(), bytes.len() as u64);
                let file = self.stage.create_body(place)?;
                if bytes.is_empty() {
                    return Ok(());
                }
                let before = self.behind.written();
                let ticket = self.behind.add(file, place.path(), bytes)?;
                self.last = Some(UnwrittenBody { ticket, place: place.clone() });
                if self.behind.written() > before {
                    self.offer_written();
                }
                Ok(())
            }
        }
    }

    fn begin_large(&mut self, place: &StagePath, size: u64) -> Result<Self::Large> {
        let given = match (place, self.given) {
            (StagePath::Diff(path), Some(given)) => given.get(path, size).is_some(),
            _ => false,
        };
        if given {
            return Ok(LargeBody::Given(size));
        }
        self.early.wrote(self.stage.root(), size);
        let (place, file) = self.stage.temporary()?;
        Ok(LargeBody::Written(place, file))
    }

    fn write_part(large: &Self::Large, bytes: &[u8], at: u64) -> Result<()> {
        let LargeBody::Written(_, file) = large else { return Ok(()) };
        for (from, part) in data(bytes) {
            file.write_all_at(part, at + from as u64).doing(doing)?;
        }
        Ok(())
    }

    fn end_large(large: &Self::Large, size: u64) -> Result<()> {
        let LargeBody::Written(_, file) = large else { return Ok(()) };
        file.set_len(size).doing(doing)
    }

    fn place_large(&mut self, large: Self::Large, place: Option<&StagePath>) -> Result<()> {
        match (large, place) {
            (LargeBody::Written(temporary, _), Some(place)) => self.stage.rename(&temporary, place),
            (LargeBody::Written(temporary, _), None) => self.stage.remove(&temporary),
            (LargeBody::Given(size), Some(place)) => match self.take(place, size)? {
                true => Ok(()),
                false => self.copy_given(place, size),
            },
            (LargeBody::Given(_), None) => Ok(()),
        }
    }

    fn rename(&mut self, from: &StagePath, to: &StagePath) -> Result<()> {
        self.stage.rename(from, to)
    }

    fn remove(&mut self, place: &StagePath) -> Result<()> {
        self.stage.remove(place)
    }

    fn copy_own(&mut self, from: &StagePath, to: &StagePath) -> Result<()> {
        self.behind.settle()?;
        self.stage.copy_own(from, to)
    }

    fn link(
        &mut self,
        digest: &ContentDigest,
        own: Option<&StagePath>,
        place: &StagePath,
    ) -> Result<LinkedTo> {
        if let Some(own) = own {
            let behind = &mut self.behind;
            return Ok(match self.stage.link_own(own, place, || behind.settle())? {
                Linked::Yes => LinkedTo::Own,
                Linked::No => LinkedTo::Nothing,
                Linked::Cloned => LinkedTo::Cloned,
            });
        }
        let stage = &mut self.stage;
        match self.offered.with(digest, |dir, path| stage.link(dir, path, place)).transpose()? {
            Some(Linked::Yes) => return Ok(LinkedTo::Other(None)),
            Some(Linked::Cloned) => return Ok(LinkedTo::Cloned),
            Some(Linked::No) | None => {}
        }
        self.index.read_on()?;
        let Some(source) = self.sources.find(&self.index.db, digest)? else {
            return Ok(LinkedTo::Nothing);
        };
        if let Some(layer) = source.elsewhere {
            self.ahead.found_in(self.store, layer);
        }
        Ok(match stage.link(self.store, &source.path, place)? {
            Linked::Yes => LinkedTo::Other(Some(source.id)),
            Linked::Cloned => LinkedTo::Cloned,
            Linked::No => LinkedTo::Nothing,
        })
    }

    fn offer(&mut self, digest: ContentDigest, place: &StagePath) {
        if let Some(body) = self.last.take_if(|body| body.place == *place) {
            self.unwritten.insert(digest, body);
            return;
        }
        // Until the layer is published a file that was taken may go back to where it was.
        if let (StagePath::Diff(path), Some(given)) = (place, self.given)
            && given.has_taken(path)
        {
            return;
        }
        self.offered.offer(digest, &self.shared, place);
    }

    fn withdraw(&mut self, digest: &ContentDigest, place: &StagePath) {
        if self.unwritten.get(digest).is_some_and(|body| body.place == *place) {
            self.unwritten.remove(digest);
            return;
        }
        self.offered.withdraw(digest, &self.shared, &place.path());
    }
}

/// Bodies go nowhere.
pub(crate) struct Discarded;

impl BodyTarget for Discarded {
    type Large = ();

    fn unused_shadow(&mut self) -> u64 {
        0
    }

    fn make_dir(&mut self, _: &TreePath) -> Result<()> {
        Ok(())
    }

    fn remove_dir(&mut self, _: &TreePath) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &StagePath, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn begin_large(&mut self, _: &StagePath, _: u64) -> Result<()> {
        Ok(())
    }

    fn write_part((): &(), _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }

    fn end_large((): &(), _: u64) -> Result<()> {
        Ok(())
    }

    fn place_large(&mut self, (): (), _: Option<&StagePath>) -> Result<()> {
        Ok(())
    }

    fn rename(&mut self, _: &StagePath, _: &StagePath) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &StagePath) -> Result<()> {
        Ok(())
    }

    fn copy_own(&mut self, _: &StagePath, _: &StagePath) -> Result<()> {
        Ok(())
    }

    fn link(
        &mut self,
        _: &ContentDigest,
        own: Option<&StagePath>,
        _: &StagePath,
    ) -> Result<LinkedTo> {
        Ok(if own.is_some() { LinkedTo::Own } else { LinkedTo::Nothing })
    }

    fn offer(&mut self, _: ContentDigest, _: &StagePath) {}

    fn withdraw(&mut self, _: &ContentDigest, _: &StagePath) {}
}
