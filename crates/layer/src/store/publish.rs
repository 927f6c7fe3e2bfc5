//! The last steps of an unpack: into the index and into `layers/`, in an order that survives a
//! crash at any point.
//!
//! Another process may have published some of the same contents since ours were written. Under
//! the index's write lock nobody can any more, so here the two meet: our names become links to
//! the published inode.
//!
//! Invariant: at commit, each digest of the layer has one inode in the store, unless the file
//! system allows that inode no further link.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;
use rustix::fs::CWD;
use rustix::io::Errno;
use strata_tree::{TreePath, rename_new};

use super::{LeasedLayer, Step, Store, Unpacked, layer_path};
use crate::build::{Built, LocalContent};
use crate::error::{Error, IoContext, Result};
use crate::index::contents::Sources;
use crate::index::holders::NewHolder;
use crate::index::{self, LayerRecord, contents, rows};
use crate::lock::{Lock, Locked, flock, lock_path};
use crate::measure::frame;
use crate::stage::{Place, Stage, open_beneath, sync_filesystem};
use strata_diff::stream::StreamFacts;

/// What a content of a stage turned out to be.
enum Reconciled {
    /// That row's.
    Known(i64),
    /// The copy of that number, for which there is no row yet.
    Copy(i64),
}

/// A content of the stage.
struct StagedContent<'b> {
    content: &'b LocalContent,
    /// Its names.
    paths: Vec<&'b TreePath>,
    /// Blocks of 512 bytes that it takes, once it is measured.
    blocks: Option<u64>,
}

impl<'b> StagedContent<'b> {
    /// All that a layer has. Those that the index had not are as a rule new, and measured: here
    /// no other writer has to wait for it.
    fn all(built: &'b Built, stage: &mut Stage) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(built.locals.len());
        for (content, paths) in built.locals.iter().zip(built.paths_by_local()) {
            let mut staged = Self { content, paths, blocks: None };
            if content.known.is_none() {
                staged.blocks = Some(staged.measure(stage)?);
            }
            all.push(staged);
        }
        Ok(all)
    }

    /// Measures the content at the first of its names.
    fn measure(&self, stage: &mut Stage) -> Result<u64> {
        let place = self.paths.first().map(|path| Place::Diff((*path).clone()));
        let space = place.map(|place| stage.space(&place)).transpose()?.flatten();
        Ok(space.unwrap_or_default().blocks)
    }

    /// Adds it to the index, which nobody else has done.
    fn insert(
        &self,
        db: &Connection,
        added: &mut NewHolder,
        copy: i64,
        stage: &mut Stage,
    ) -> Result<i64> {
        let blocks = self.blocks.map_or_else(|| self.measure(stage), Ok)?;
        added.note_new(self.content.size, blocks);
        contents::insert(db, &self.content.digest, copy, self.content.size, blocks, added.own)
    }
}

impl Store {
    pub(super) fn publish(
        &self,
        facts: &StreamFacts,
        headers_size: u64,
        built: &Built,
        mut stage: Stage,
    ) -> Result<Unpacked> {
        let diff_id = facts.diff_id;
        // The stage is synced, so what is in it takes now what it will take.
        let frame = frame(stage.root(), &built.finished.rows)?;
        let staged = StagedContent::all(built, &mut stage)?;
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
        let mut index = self.index();
        let tx = index.write()?;
        if index::find_layer(&tx, &diff_id)?.is_some() {
            // An import of the same tar was faster.
            drop(tx);
            drop(index);
            let layer = self.lease(&diff_id)?.ok_or(Error::NoLayer(diff_id))?;
            return Ok(Unpacked { layer, existed: true });
        }
        let layer = index::insert_layer(&tx, &record)?;
        let mut added = NewHolder::new(&tx, layer)?;
        let mut relinked = false;
        let ids = self.add_contents(&tx, &mut added, &staged, &mut stage, &mut relinked)?;
        rows::insert(&tx, layer, &built.finished.rows, |row| by_row[row].and_then(|at| ids[at]))?;
        added.settle(&tx)?;
        if relinked {
            sync_filesystem(stage.root())?;
        }
        self.step(Step::Reconciled);
        let from = stage.path().to_owned();
        let target = self.root.join(layer_path(&diff_id));
        self.move_into_place(&from, &target)?;
        self.step(Step::Renamed);
        let dir = stage.keep()?;
        let layers = std::fs::File::open(self.root.join("layers"));
        let synced = layers.and_then(|layers| layers.sync_all());
        synced.doing(|| format!("cannot sync the directory of {}", target.display()))?;
        self.step(Step::ParentSynced);
        tx.commit()?;
        drop(index);
        self.step(Step::LayerCommitted);
        flock(&dir, Lock::Shared).doing(|| format!("cannot lock {}", target.display()))?;
        let layer = LeasedLayer { diff_id, dir: Arc::new(dir) };
        Ok(Unpacked { layer, existed: false })
    }

    /// Gives each content its row; `relinked` becomes true if a name changed its inode.
    fn add_contents(
        &self,
        db: &Connection,
        added: &mut NewHolder,
        all: &[StagedContent<'_>],
        stage: &mut Stage,
        relinked: &mut bool,
    ) -> Result<Vec<Option<i64>>> {
        let mut ids = Vec::with_capacity(all.len());
        let mut ours = HashMap::new();
        for staged in all {
            // Contents that only replaced members had are in headers.zst and nowhere else.
            if staged.paths.is_empty() {
                ids.push(None);
                continue;
            }
            let digest = staged.content.digest;
            let id = match ours.get_mut(&digest) {
                // A further copy of ours: the one before it has all the names that it can have.
                Some(copy) => {
                    *copy += 1;
                    staged.insert(db, added, *copy, stage)?
                }
                None => match self.reconcile(db, staged, stage, relinked)? {
                    Reconciled::Known(id) => {
                        added.note_known(id);
                        id
                    }
                    Reconciled::Copy(copy) => {
                        ours.insert(digest, copy);
                        staged.insert(db, added, copy, stage)?
                    }
                },
            };
            ids.push(Some(id));
        }
        Ok(ids)
    }

    /// Finds the row of one content.
    fn reconcile(
        &self,
        db: &Connection,
        staged: &StagedContent<'_>,
        stage: &mut Stage,
        relinked: &mut bool,
    ) -> Result<Reconciled> {
        let StagedContent { content, paths, .. } = staged;
        if let Some(known) = content.known
            && contents::exists(db, known)?
        {
            return Ok(Reconciled::Known(known));
        }
        let Some(source) = Sources::default().find(db, &content.digest)? else {
            return Ok(Reconciled::Copy(0));
        };
        if let Some(first) = paths.first()
            && self.same_inode(&source.path, stage, first)?
        {
            return Ok(Reconciled::Known(source.id));
        }
        for path in paths {
            let place = Place::Diff((*path).clone());
            if !stage.relink(self.root_fd.as_fd(), &source.path, &place)? {
                // No further link to be had: from here on ours is the copy to link to. Names that
                // were moved already go back to one inode.
                if let Some(last) = paths.last() {
                    let last = Place::Diff((*last).clone());
                    stage.relink_own(&last, paths)?;
                }
                return Ok(Reconciled::Copy(source.copy + 1));
            }
            *relinked = true;
        }
        Ok(Reconciled::Known(source.id))
    }

    fn same_inode(&self, source: &Path, stage: &Stage, path: &TreePath) -> Result<bool> {
        let flags = rustix::fs::OFlags::RDONLY;
        let Ok(theirs) = open_beneath(self.root_fd.as_fd(), source, flags) else {
            return Ok(false);
        };
        let ours = stage.open(&Place::Diff(path.clone()))?;
        let stat =
            |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).doing(|| format!("cannot stat {path}"));
        let (ours, theirs) = (stat(&ours)?, stat(&theirs)?);
        Ok((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino))
    }

    /// Renames the stage to `layers/<diff id>`; what a crash left there is moved away.
    ///
    /// The index does not have that layer and we hold the index's write lock, so what lies there
    /// is nobody's. Waiting for the lock lets a removal that has just begun come to its end; it
    /// moves by path, and must not move ours.
    fn move_into_place(&self, from: &Path, target: &Path) -> Result<()> {
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
                self.trash(target)?;
            }
        }
    }

    /// Takes the contents of one stage out of those that running unpacks may link from.
    ///
    /// All of them: one that stayed would keep the stage's descriptor, and its lock.
    pub(super) fn forget_staged(&self, stage: &Arc<OwnedFd>) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.retain(|_, (dir, _)| !Arc::ptr_eq(dir, stage));
    }
}
