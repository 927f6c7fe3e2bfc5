//! The last steps of an unpack: into the index and into `layers/`, in an order that survives a
//! crash at any point.
//!
//! Another process may have published some of the same contents since ours were written. Under
//! the index's write lock nobody can any more, so here the two meet: our names become links to
//! the published inode.
//!
//! Invariant: at commit, each digest of the layer has one inode in the store, unless the file
//! system allows that inode no further link.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::CWD;
use rustix::io::Errno;
use strata_diff::stream::StreamFacts;
use strata_tree::{ContentDigest, rename_new};

use super::dir::StoreDir;
use super::leases::LeasedLayer;
use super::steps::Step;
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

/// A content of the stage.
struct StagedContent<'b> {
    built: &'b Built,
    content: &'b LocalContent,
    /// Its names, by row.
    names: &'b [(LocalId, usize)],
}

impl StagedContent<'_> {
    fn places(&self) -> impl Iterator<Item = StagePath> {
        self.names.iter().map(|(_, row)| StagePath::Diff(self.built.path_of(*row)))
    }

    /// Measures the content at the first of its names.
    fn measure(&self, stage: &mut Stage) -> Result<u64> {
        let space = self.places().next().map(|place| stage.space(&place)).transpose()?.flatten();
        Ok(space.unwrap_or_default().blocks)
    }
}

/// The contents that a stage brings. There may be millions: of each there are its names.
struct StagedContents<'b> {
    built: &'b Built,
    names: Vec<(LocalId, usize)>,
    /// Digests that more than one of them have.
    repeated: HashSet<ContentDigest>,
}

impl<'b> StagedContents<'b> {
    fn new(built: &'b Built) -> Self {
        Self { built, names: built.names_by_local(), repeated: repeated(&built.locals) }
    }

    /// The blocks of 512 bytes that each takes which the index had not: those are as a rule new,
    /// and measured here, where no other writer has to wait for it.
    fn measure(&self, stage: &mut Stage) -> Result<Vec<Option<u64>>> {
        let measured = |staged: StagedContent<'_>| match staged.content.known {
            None => staged.measure(stage).map(Some),
            Some(_) => Ok(None),
        };
        self.each().map(measured).collect()
    }

    fn each(&self) -> impl Iterator<Item = StagedContent<'_>> {
        let mut rest = &self.names[..];
        self.built.locals.iter().enumerate().map(move |(at, content)| {
            let (names, others) =
                rest.split_at(rest.partition_point(|(local, _)| local.index() <= at));
            rest = others;
            StagedContent { built: self.built, content, names }
        })
    }
}

fn repeated(locals: &[LocalContent]) -> HashSet<ContentDigest> {
    let mut order: Vec<u32> = (0..locals.len()).filter_map(|at| u32::try_from(at).ok()).collect();
    let digest = |at: u32| &locals[at as usize].digest;
    order.sort_unstable_by_key(|at| digest(*at));
    let pairs = order.windows(2).filter(|pair| digest(pair[0]) == digest(pair[1]));
    pairs.map(|pair| *digest(pair[0])).collect()
}

/// Contents of a stage on their way into the index.
struct NewContents<'p> {
    db: &'p Connection,
    /// The store's directory.
    store: BorrowedFd<'p>,
    stage: &'p mut Stage,
    added: NewHolder,
    /// A name changed its inode.
    relinked: bool,
}

impl NewContents<'_> {
    /// Gives each content its row; `blocks` are those that were measured.
    fn add_all(
        &mut self,
        all: &StagedContents<'_>,
        blocks: &[Option<u64>],
    ) -> Result<Vec<Option<i64>>> {
        let mut ids = Vec::with_capacity(blocks.len());
        let mut ours = HashMap::new();
        for (staged, blocks) in all.each().zip(blocks) {
            // Contents that only replaced members had are in headers.zst and nowhere else.
            if staged.names.is_empty() {
                ids.push(None);
                continue;
            }
            let digest = staged.content.digest;
            let id = match ours.get_mut(&digest) {
                // A further copy of ours: the one before it has all the names that it can have.
                Some(copy) => {
                    *copy += 1;
                    self.insert(&staged, *blocks, *copy)?
                }
                None => match self.reconcile(&staged)? {
                    Reconciled::Known(id) => {
                        self.added.note_known(id);
                        id
                    }
                    Reconciled::Copy(copy) => {
                        if all.repeated.contains(&digest) {
                            ours.insert(digest, copy);
                        }
                        self.insert(&staged, *blocks, copy)?
                    }
                },
            };
            ids.push(Some(id));
        }
        Ok(ids)
    }

    /// Finds the row of one content.
    fn reconcile(&mut self, staged: &StagedContent<'_>) -> Result<Reconciled> {
        let content = staged.content;
        if let Some(known) = content.known
            && contents::exists(self.db, known)?
        {
            return Ok(Reconciled::Known(known));
        }
        let Some(source) = Sources::default().find(self.db, &content.digest)? else {
            return Ok(Reconciled::Copy(0));
        };
        if let Some(first) = staged.places().next()
            && self.same_inode(&source.path, &first)?
        {
            return Ok(Reconciled::Known(source.id));
        }
        for place in staged.places() {
            if !self.stage.relink(self.store, &source.path, &place)? {
                // No further link to be had: from here on ours is the copy to link to. Names that
                // were moved already go back to one inode.
                if let Some(last) = staged.places().last() {
                    self.stage.relink_own(&last, staged.places())?;
                }
                return Ok(Reconciled::Copy(source.copy + 1));
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
    fn insert(
        &mut self,
        staged: &StagedContent<'_>,
        blocks: Option<u64>,
        copy: i64,
    ) -> Result<i64> {
        let blocks = blocks.map_or_else(|| staged.measure(self.stage), Ok)?;
        let StagedContent { content, .. } = staged;
        self.added.note_new(content.size, blocks);
        let own = self.added.own;
        contents::insert(self.db, &content.digest, copy, content.size, blocks, own)
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
    let frame = frame(stage.root(), &built.finished.rows)?;
    let staged = StagedContents::new(built);
    let blocks = staged.measure(&mut stage)?;
    let by_row = built.locals_by_row();
    let record = LayerRecord {
        id: 0,
        diff_id,
        diff_size: facts.diff_size,
        headers_size,
        entries: built.finished.rows.len() as u64 - 1,
        apparent: built.apparent(),
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
    let mut new =
        NewContents { db: &tx, store: dir.fd(), stage: &mut stage, added, relinked: false };
    let ids = new.add_all(&staged, &blocks)?;
    let NewContents { added, relinked, .. } = new;
    rows::insert(&tx, layer, &built.finished.rows, |row| {
        by_row[row].and_then(|local| ids[local.index()])
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
    tx.commit()?;
    drop(index);
    dir.step(Step::LayerCommitted);
    flock(&lock, Lock::Shared).doing(|| format!("cannot lock {}", target.display()))?;
    Ok(Unpacked { layer: LeasedLayer::new(diff_id, lock), existed: false })
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
