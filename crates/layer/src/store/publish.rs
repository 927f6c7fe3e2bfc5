//! The last steps of an unpack: into the index and into `layers/`, in an order that survives a
//! crash at any point.
//!
//! Another process may have published some of the same contents since ours were written. Under
//! the index's write lock nobody can any more, so here the two meet: our names become links to
//! the published inode.
//!
//! Invariant: at commit, each digest of the layer has one inode in the store, unless the file
//! system allows that inode no further link.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use rustix::fs::CWD;
use rustix::io::Errno;
use strata_diff::record;
use strata_diff::spill::{Spill, SpillSpace};
use strata_diff::stream::StreamFacts;
use strata_tree::rename_new;

use super::dir::StoreDir;
use super::leases::LeasedLayer;
use super::steps::Step;
use super::sweep::remove_all;
use crate::build::{Built, LocalContent, LocalId};
use crate::error::{Error, IoContext, Result};
use crate::index::contents::Sources;
use crate::index::holders::NewHolder;
use crate::index::shared::SharedIndex;
use crate::index::{self, LayerRecord, contents, rows};
use crate::lock::{Lock, Locked, flock, lock_path};
use crate::measure::frame;
use crate::stage::{Stage, StagePath, open_beneath, sync_filesystem};

/// A layer that is in the store.
#[derive(Debug)]
pub struct Unpacked {
    /// The layer, leased.
    pub layer: LeasedLayer,
    /// It was there before; the input was not read.
    pub existed: bool,
}

/// What a content of a stage turned out to be.
enum Reconciled {
    /// That row's.
    Known(i64),
    /// The copy of that number, for which there is no row yet.
    Copy(i64),
}

record! {
    /// What is found out of a content of the stage.
    struct StagedRecord {
        /// The row of its first name.
        name: u32,
        /// Blocks of 512 bytes that it takes, if that was measured.
        blocks: u64,
        /// Its row, if it has one.
        id: i64,
        /// Which copy it is of its digest, if it is one that this layer has brought.
        copy: i64,
    }
}

/// No row of a layer, none of the index, no blocks, no copy.
const NO_NAME: u32 = u32::MAX;
const NO_ID: i64 = 0;
const UNMEASURED: u64 = u64::MAX;
const NO_COPY: i64 = -1;

/// The contents that a stage brings, each with its names. There may be millions.
struct StagedContents<'b> {
    built: &'b Built,
    all: Spill<StagedRecord>,
    /// Of each row the next one of the same content.
    next: Spill<u32>,
}

impl<'b> StagedContents<'b> {
    fn new(built: &'b Built, scratch: &Arc<SpillSpace>) -> Result<Self> {
        let (locals, rows) = (built.books.locals.count(), built.rows.count());
        let none = StagedRecord { name: NO_NAME, blocks: UNMEASURED, id: NO_ID, copy: NO_COPY };
        let mut all = Spill::filled(scratch, 6, locals, none);
        let mut next = Spill::filled(scratch, 4, rows, NO_NAME);
        // From behind, so that the names of each come in their order.
        for row in (0..rows).rev() {
            let Some(local) = built.local_of(row)? else { continue };
            let after = all
                .update(local.index(), |staged| std::mem::replace(&mut staged.name, row as u32))?;
            next.set(row, after)?;
        }
        Ok(Self { built, all, next })
    }

    /// Where the names of a content are.
    fn places(&self, local: LocalId) -> Result<impl Iterator<Item = Result<StagePath>>> {
        let mut row = self.all.get(local.index())?.name;
        Ok(std::iter::from_fn(move || {
            let at = (row != NO_NAME).then_some(u64::from(row))?;
            let next = self.next.get(at);
            // After an error nothing more comes.
            row = next.as_ref().copied().unwrap_or(NO_NAME);
            Some(next.and_then(|_| self.built.rows.path(at)).map(StagePath::Diff))
        })
        .map(|place| Ok(place?)))
    }

    fn first_place(&self, local: LocalId) -> Result<Option<StagePath>> {
        self.places(local)?.next().transpose()
    }

    /// Measures a content at the first of its names: blocks of 512 bytes.
    fn measured(&self, local: LocalId, stage: &mut Stage) -> Result<u64> {
        let space = self.first_place(local)?.map(|place| stage.space(&place)).transpose()?;
        Ok(space.flatten().unwrap_or_default().blocks)
    }

    /// Measures what the index had not: those are as a rule new, and measured here, where no other
    /// writer has to wait for it.
    fn measure(&mut self, stage: &mut Stage) -> Result<()> {
        for local in self.built.books.locals.ids() {
            let local = local?;
            if self.built.books.locals.get(local)?.known.is_none() {
                let blocks = self.measured(local, stage)?;
                self.all.update(local.index(), |staged| staged.blocks = blocks)?;
            }
        }
        Ok(())
    }

    /// The row of a content in the index.
    fn id(&self, local: LocalId) -> Result<Option<i64>> {
        let id = self.all.get(local.index())?.id;
        Ok((id != NO_ID).then_some(id))
    }
}

/// Contents of a stage on their way into the index.
struct NewContents<'p, 'b> {
    db: &'p Connection,
    /// The store's directory.
    store: BorrowedFd<'p>,
    stage: &'p mut Stage,
    staged: &'p mut StagedContents<'b>,
    added: NewHolder,
    /// A name changed its inode.
    relinked: bool,
}

impl NewContents<'_, '_> {
    /// Gives each content its row.
    fn add_all(&mut self) -> Result<()> {
        let built = self.staged.built;
        for local in built.books.locals.ids() {
            let local = local?;
            let before = match built.books.locals.before(local)? {
                Some(before) => self.staged.all.get(before.index())?.copy,
                None => NO_COPY,
            };
            // Contents that only replaced members had are in headers.zst and nowhere else.
            let (id, copy) = match self.staged.all.get(local.index())?.name {
                NO_NAME => (NO_ID, before),
                // A further copy of ours: the one before it has all the names that it can have.
                _ if before != NO_COPY => {
                    let copy = before.saturating_add(1);
                    (self.insert(local, copy)?, copy)
                }
                _ => match self.reconcile(local)? {
                    Reconciled::Known(id) => {
                        self.added.note_known(self.db, id)?;
                        (id, NO_COPY)
                    }
                    Reconciled::Copy(copy) => (self.insert(local, copy)?, copy),
                },
            };
            self.staged.all.update(local.index(), |staged| {
                (staged.id, staged.copy) = (id, copy);
            })?;
        }
        Ok(())
    }

    /// Finds the row of one content.
    fn reconcile(&mut self, local: LocalId) -> Result<Reconciled> {
        let content = self.staged.built.books.locals.get(local)?;
        if let Some(known) = content.known
            && contents::exists(self.db, known)?
        {
            return Ok(Reconciled::Known(known));
        }
        let Some(source) = Sources::default().find(self.db, &content.digest)? else {
            return Ok(Reconciled::Copy(0));
        };
        if let Some(first) = self.staged.first_place(local)?
            && self.same_inode(&source.path, &first)?
        {
            return Ok(Reconciled::Known(source.id));
        }
        for place in self.staged.places(local)? {
            if !self.stage.relink(self.store, &source.path, &place?)? {
                // No further link to be had: from here on ours is the copy to link to. Names that
                // were moved already go back to one inode.
                if let Some(last) = self.staged.places(local)?.last().transpose()? {
                    self.stage.relink_own(&last, self.staged.places(local)?)?;
                }
                return Ok(Reconciled::Copy(source.copy.saturating_add(1)));
            }
            self.relinked = true;
        }
        Ok(Reconciled::Known(source.id))
    }

    fn same_inode(&self, source: &Path, place: &StagePath) -> Result<bool> {
        let flags = rustix::fs::OFlags::RDONLY;
        let Ok(theirs) = open_beneath(self.store, source, flags) else {
            return Ok(false);
        };
        let ours = self.stage.open(place)?;
        let doing = || format!("cannot stat {}", place.path().display());
        let stat = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).doing(doing);
        let (ours, theirs) = (stat(&ours)?, stat(&theirs)?);
        Ok((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino))
    }

    /// Adds a content to the index, which nobody else has done.
    fn insert(&mut self, local: LocalId, copy: i64) -> Result<i64> {
        let blocks = match self.staged.all.get(local.index())?.blocks {
            UNMEASURED => self.staged.measured(local, self.stage)?,
            blocks => blocks,
        };
        let LocalContent { digest, size, .. } = self.staged.built.books.locals.get(local)?;
        self.added.note_new(size, blocks);
        contents::insert(self.db, &digest, copy, size, blocks, self.added.own)
    }
}

/// Publishes the layer in `stage`, which is synced; or finds that another was faster.
pub(super) fn publish(
    dir: &StoreDir,
    shared: &SharedIndex,
    facts: &StreamFacts,
    headers_size: u64,
    built: &Built,
    mut stage: Stage,
) -> Result<Unpacked> {
    let diff_id = facts.diff_id;
    // The stage is synced, so what is in it takes now what it will take.
    let frame = frame(stage.root(), built.directories())?;
    let mut staged = StagedContents::new(built, &built.books.scratch)?;
    staged.measure(&mut stage)?;
    let record = LayerRecord {
        id: 0,
        diff_id,
        diff_size: facts.diff_size,
        headers_size,
        entries: built.rows.count() - 1,
        apparent: built.rows.apparent()?,
        headers_blocks: frame.headers.blocks,
        directories: frame.directories,
    };
    let mut index = shared.lock();
    let tx = index.write()?;
    if index::find_layer(&tx, &diff_id)?.is_some() {
        // An import of the same tar was faster.
        drop(tx);
        drop(index);
        let layer = LeasedLayer::take(dir, shared, &diff_id)?.ok_or(Error::NoLayer(diff_id))?;
        return Ok(Unpacked { layer, existed: true });
    }
    let layer = index::insert_layer(&tx, &record)?;
    let added = NewHolder::new(&tx, layer)?;
    let mut new = NewContents {
        db: &tx,
        store: dir.fd(),
        stage: &mut stage,
        staged: &mut staged,
        added,
        relinked: false,
    };
    new.add_all()?;
    let NewContents { added, relinked, .. } = new;
    rows::insert(&tx, layer, built.rows.count(), |row| {
        let local = built.local_of(row)?;
        let id = local.map(|local| staged.id(local)).transpose()?.flatten();
        Ok((built.row(row)?, id))
    })?;
    added.settle(&tx)?;
    if relinked {
        sync_filesystem(stage.root())?;
    }
    dir.step(Step::Reconciled);
    let from = stage.path().to_owned();
    let target = dir.layer(&diff_id);
    move_into_place(dir, &from, &target)?;
    dir.step(Step::Renamed);
    let lock = stage.keep()?;
    let synced = dir.sync_layers();
    synced.doing(|| format!("cannot sync the directory of {}", target.display()))?;
    dir.step(Step::ParentSynced);
    if let Err(error) = tx.commit() {
        // Elsewhere than on a full disk the log may have all of it, and then it counts.
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            withdraw(dir, &target);
        }
        return Err(error.into());
    }
    drop(index);
    dir.step(Step::LayerCommitted);
    flock(&lock, Lock::Shared).doing(|| format!("cannot lock {}", target.display()))?;
    Ok(Unpacked { layer: LeasedLayer::new(diff_id, lock), existed: false })
}

/// Takes away a layer that is in its place, locked by us, and has not come into the index: what it
/// takes is what the full disk has too little of.
fn withdraw(store: &StoreDir, target: &Path) {
    if let Err(error) = store.move_to_trash(target).and_then(|trashed| remove_all(&trashed)) {
        tracing::warn!("{} stays until `strata gc`: {error}", target.display());
    }
}

/// Renames the stage to `layers/<diff id>`; what a crash left there is moved away.
///
/// The index does not have that layer and we hold the index's write lock, so what lies there
/// is nobody's. Waiting for the lock lets a removal that has just begun come to its end; it
/// moves by path, and must not move ours.
fn move_into_place(store: &StoreDir, from: &Path, target: &Path) -> Result<()> {
    loop {
        match rename_new((CWD, from), (CWD, target)) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => {
                return Err(error).doing(|| format!("cannot publish {}", target.display()));
            }
        }
        let lock = lock_path(target, Lock::Shared)?;
        if matches!(lock, Locked::Held(_)) || target.is_symlink() {
            store.move_to_trash(target)?;
        }
    }
}
