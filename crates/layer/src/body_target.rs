//! Where the bodies of a layer go while its tar is read: into a stage, or nowhere.
//!
//! ```text
//! Staging     a load: written into the stage, or linked to a file that already has those bytes
//!             (this layer's, another layer's that is being unpacked, one of the index)
//! Discarded   fsck, rebuild, inspect: only the books are kept, so that rows are derived again
//! ```
//!
//! Invariants: with [`Discarded`] nothing is written, and each content of a layer is there once;
//! with [`Staging`] a file that is offered to other unpacks is at the path at which it is offered.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use strata_diff::stream::data;
use strata_tree::{ContentDigest, TreePath};

use crate::error::{IoContext, Result};
use crate::index::Index;
use crate::index::contents::Sources;
use crate::offered::OfferedContents;
use crate::read_ahead::ReadAhead;
use crate::stage::{Linked, Stage, StagePath};

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

    /// A place without an image path that nothing else uses.
    fn unused_shadow(&mut self) -> StagePath;

    /// Makes a directory at an image path.
    fn make_dir(&mut self, path: &TreePath) -> Result<()>;

    /// Removes an empty directory at an image path.
    fn remove_dir(&mut self, path: &TreePath) -> Result<()>;

    /// Writes a body whole.
    fn write(&mut self, place: &StagePath, bytes: &[u8]) -> Result<()>;

    /// Begins a body too large for memory.
    fn begin_large(&mut self) -> Result<Self::Large>;

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
    fn offer(&self, digest: ContentDigest, place: &StagePath);

    /// Offers the body at `place` to other unpacks no more: it is about to leave that path.
    fn withdraw(&self, digest: &ContentDigest, place: &StagePath);
}

/// Bodies go into a stage.
pub(crate) struct Staging<'s> {
    stage: Stage,
    /// The same directory, for other unpacks to link from.
    shared: Arc<OwnedFd>,
    index: Index,
    sources: Sources,
    ahead: ReadAhead,
    store: BorrowedFd<'s>,
    offered: &'s OfferedContents,
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
    ) -> Result<Self> {
        let shared = stage.root().try_clone_to_owned();
        let shared = Arc::new(shared.doing(|| "cannot duplicate a descriptor".into())?);
        let (sources, ahead) = (Sources::default(), ReadAhead::new());
        Ok(Self { stage, shared, index, sources, ahead, store, offered })
    }

    /// The directory that its contents are offered with.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.shared)
    }

    /// The stage, with all that was put there.
    pub(crate) fn into_stage(self) -> Stage {
        self.stage
    }
}

fn doing() -> String {
    "cannot write a file of the layer".to_owned()
}

impl BodyTarget for Staging<'_> {
    type Large = (StagePath, File);

    fn unused_shadow(&mut self) -> StagePath {
        self.stage.unused_shadow()
    }

    fn make_dir(&mut self, path: &TreePath) -> Result<()> {
        self.stage.make_dir(path)
    }

    fn remove_dir(&mut self, path: &TreePath) -> Result<()> {
        self.stage.remove_dir(path)
    }

    fn write(&mut self, place: &StagePath, bytes: &[u8]) -> Result<()> {
        self.stage.write(place, bytes)
    }

    fn begin_large(&mut self) -> Result<Self::Large> {
        self.stage.temporary()
    }

    fn write_part((_, file): &Self::Large, bytes: &[u8], at: u64) -> Result<()> {
        for (from, part) in data(bytes) {
            file.write_all_at(part, at + from as u64).doing(doing)?;
        }
        Ok(())
    }

    fn end_large((_, file): &Self::Large, size: u64) -> Result<()> {
        file.set_len(size).doing(doing)
    }

    fn place_large(&mut self, large: Self::Large, place: Option<&StagePath>) -> Result<()> {
        let (temporary, _file) = large;
        match place {
            Some(place) => self.stage.rename(&temporary, place),
            None => self.stage.remove(&temporary),
        }
    }

    fn rename(&mut self, from: &StagePath, to: &StagePath) -> Result<()> {
        self.stage.rename(from, to)
    }

    fn remove(&mut self, place: &StagePath) -> Result<()> {
        self.stage.remove(place)
    }

    fn copy_own(&mut self, from: &StagePath, to: &StagePath) -> Result<()> {
        self.stage.copy_own(from, to)
    }

    fn link(
        &mut self,
        digest: &ContentDigest,
        own: Option<&StagePath>,
        place: &StagePath,
    ) -> Result<LinkedTo> {
        if let Some(own) = own {
            return Ok(match self.stage.link_own(own, place)? {
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

    fn offer(&self, digest: ContentDigest, place: &StagePath) {
        self.offered.offer(digest, &self.shared, place.path());
    }

    fn withdraw(&self, digest: &ContentDigest, place: &StagePath) {
        self.offered.withdraw(digest, &self.shared, &place.path());
    }
}

/// Bodies go nowhere.
pub(crate) struct Discarded;

impl BodyTarget for Discarded {
    type Large = ();

    fn unused_shadow(&mut self) -> StagePath {
        StagePath::Shadow(0)
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

    fn begin_large(&mut self) -> Result<()> {
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

    fn offer(&self, _: ContentDigest, _: &StagePath) {}

    fn withdraw(&self, _: &ContentDigest, _: &StagePath) {}
}
