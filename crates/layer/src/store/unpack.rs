//! From a compressed stream to a layer in the store.
//!
//! Invariants: blob digest, blob size and diff id are verified before anything is published; on
//! any error the stage and everything in it is gone. One diff id is unpacked by one process at a
//! time, others wait and find it there.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use strata_tree::{BlobDigest, DiffId};

use super::{LeasedLayer, Step, Store};
use crate::build::{Build, Disk};
use crate::error::{Error, IoContext, Result};
use crate::index::Index;
use crate::index::contents::Sources;
use crate::lock::{Lock, flock, still_there};
use crate::progress::{Event, Progress};
use crate::read_ahead::ReadAhead;
use crate::stage::{Stage, sync_filesystem};
use strata_diff::headers::{Keeper, StreamWriter};
use strata_diff::stream;
use strata_diff::tar::DiffReader;

/// A layer to unpack.
pub struct LayerInput<'a> {
    /// How errors and progress call it.
    pub label: String,
    /// What the uncompressed tar must be, if that is known.
    pub diff_id: Option<DiffId>,
    /// What the bytes of `reader` must be: digest and size in bytes, if that is known.
    pub blob: Option<(BlobDigest, u64)>,
    /// The layer, compressed or not.
    pub reader: Box<dyn Read + Send + 'a>,
}

/// A layer that is in the store.
#[derive(Debug)]
pub struct Unpacked {
    /// The layer, leased.
    pub layer: LeasedLayer,
    /// It was there before; the input was not read.
    pub existed: bool,
}

impl Store {
    /// Unpacks a layer, verifies it, and publishes it, durably; or finds that it is there.
    ///
    /// # Errors
    /// `WrongBlob`, `WrongDiffId`, `Diff`, `Rule`, `Limit`: the input; `Io`, `Sqlite`: the store.
    /// After each of them the store is as before.
    pub fn unpack(&self, input: LayerInput<'_>, progress: &dyn Progress) -> Result<Unpacked> {
        let label = input.label.clone();
        progress.event(&label, Event::Waiting);
        let _turn = match &input.diff_id {
            Some(diff_id) => {
                let turn = self.take_turn(diff_id)?;
                if let Some(layer) = self.lease(diff_id)? {
                    progress.event(&label, Event::Exists);
                    return Ok(Unpacked { layer, existed: true });
                }
                Some(turn)
            }
            None => None,
        };
        progress.event(&label, Event::Started { total: input.blob.map(|(_, size)| size) });
        let unpacked = self.unpack_now(input, progress)?;
        progress.event(&label, Event::Done);
        Ok(unpacked)
    }

    fn unpack_now(&self, input: LayerInput<'_>, progress: &dyn Progress) -> Result<Unpacked> {
        let LayerInput { label, diff_id, blob, reader } = input;
        let token = diff_id.map_or_else(|| "import".to_owned(), |diff_id| diff_id.hex());
        let stage = Stage::new(&self.root.join("staging"), &token)?;
        let shared = stage.root().try_clone_to_owned();
        let shared = Arc::new(shared.doing(|| "cannot duplicate a descriptor".into())?);
        let disk = Disk {
            shared: Arc::clone(&shared),
            stage,
            index: Index::open_existing(&self.root.join("index.db"))?,
            sources: Sources::default(),
            ahead: ReadAhead::new(),
            store_root: &self.root_fd,
            staged: &self.staged,
        };
        let mut build = Build::new(&label, self.options.limits, Some(disk));
        let filled = self.fill(&mut build, &label, reader, progress).and_then(|filled| {
            verify(&label, &filled.0, blob, diff_id)?;
            Ok(filled)
        });
        let published = filled.and_then(|(facts, keeper)| {
            let (built, disk) = build.finish()?;
            for warning in &built.finished.warnings {
                progress.warning(&label, warning);
            }
            self.step(Step::BodiesWritten);
            let (Some(mut stage), Some(stream)) = (disk.map(|disk| disk.stage), keeper.0) else {
                return Err(Error::damaged("the stage", "it was not written"));
            };
            let headers_size = built.write_headers(&mut stage, stream)?;
            stage.drop_shadows()?;
            self.step(Step::Staged);
            sync_filesystem(stage.root())?;
            self.step(Step::Synced);
            self.publish(&facts, headers_size, &built, stage)
        });
        // Published or gone: from here on the index, or nobody, has these contents.
        self.forget_staged(&shared);
        published
    }

    /// Reads the whole input into the stage.
    fn fill(
        &self,
        build: &mut Build<'_>,
        label: &str,
        reader: Box<dyn Read + Send + '_>,
        progress: &dyn Progress,
    ) -> Result<(stream::StreamFacts, Keeper)> {
        let keeper = Keeper(Some(StreamWriter::new(self.scratch_file()?)?));
        let limits = &self.options.limits;
        let report = |bytes| progress.event(label, Event::Read { bytes });
        let (keeper, facts) = stream::decompress(reader, label, limits, &report, |tar| {
            let mut reader = DiffReader::new(tar, label.to_owned(), *limits, keeper);
            build.read(&mut reader)?;
            let (_, keeper) = reader.finish()?;
            Ok::<_, Error>(keeper)
        })?;
        Ok((facts, keeper))
    }

    /// Waits until no other process unpacks that diff id.
    fn take_turn(&self, diff_id: &DiffId) -> Result<Turn> {
        let path = self.root.join("staging").join(format!("{}.turn", diff_id.hex()));
        loop {
            let file = std::fs::File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .doing(|| format!("cannot make {}", path.display()))?;
            flock(&file, Lock::Exclusive).doing(|| format!("cannot lock {}", path.display()))?;
            if still_there(&file, &path)? {
                return Ok(Turn { path, _lock: file });
            }
        }
    }
}

/// The right to unpack one diff id. Its file goes while the lock is still held, so whoever waits
/// for the lock sees that the file is gone and makes a new one.
struct Turn {
    path: PathBuf,
    _lock: std::fs::File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Compares what was read with what was to be read.
///
/// # Errors
/// `WrongBlob`, `WrongDiffId`.
pub(crate) fn verify(
    label: &str,
    facts: &stream::StreamFacts,
    blob: Option<(BlobDigest, u64)>,
    diff_id: Option<DiffId>,
) -> Result<()> {
    if let Some((expected, expected_size)) = blob
        && (facts.blob, facts.blob_size) != (expected, expected_size)
    {
        return Err(Error::WrongBlob {
            layer: label.to_owned(),
            expected,
            expected_size,
            actual: facts.blob,
            actual_size: facts.blob_size,
        });
    }
    match diff_id {
        Some(expected) if expected != facts.diff_id => {
            Err(Error::WrongDiffId { layer: label.to_owned(), expected, actual: facts.diff_id })
        }
        Some(_) | None => Ok(()),
    }
}
