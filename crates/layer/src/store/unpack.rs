//! From a compressed stream to a layer in the store.
//!
//! Invariants: blob digest, blob size and diff id are verified before anything is published; on
//! any error the stage and everything in it is gone. One diff id is unpacked by one process at a
//! time, others wait and find it there.

use std::io::Read;
use std::path::PathBuf;

use strata_diff::headers::{Keeper, StreamWriter};
use strata_diff::tar::DiffReader;
use strata_diff::{Limits, stream};
use strata_tree::{BlobDigest, DiffId};

use super::Store;
use super::dir::StoreDir;
use super::layer_blobs::LayerBlobs;
use super::leases::LeasedLayer;
use super::publish::{Unpacked, publish};
use super::steps::Step;
use super::verity::Verity;
use crate::body_target::Staging;
use crate::build::Build;
use crate::error::{Error, IoContext, Result};
use crate::given::GivenFiles;
use crate::index::Index;
use crate::index::shared::SharedIndex;
use crate::lock::{Lock, flock, still_there};
use crate::offered::OfferedContents;
use crate::progress::{Event, Progress};
use crate::stage::{Stage, sync_filesystem};

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

/// What else than its tar a layer is made of.
pub struct Giving<'a> {
    /// Files with bytes of the tar, at the same paths.
    pub files: &'a GivenFiles,
    /// Told which layer it will be before it is published, so before a file is anything else than
    /// it was; an error ends the unpack.
    pub before: &'a mut (dyn FnMut(&DiffId) -> std::io::Result<()> + Send),
}

/// An unpack of one layer.
struct Unpack<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
    offered: &'s OfferedContents,
    limits: &'s Limits,
    label: String,
    progress: &'s dyn Progress,
}

impl Store {
    /// Unpacks a layer, verifies it, and publishes it, durably; or finds that it is there.
    ///
    /// # Errors
    /// `WrongBlob`, `WrongDiffId`, `Diff`, `Rule`, `Limit`: the input; `Io`, `Sqlite`: the store.
    /// After each of them the store is as before.
    pub fn unpack(&self, input: LayerInput<'_>, progress: &dyn Progress) -> Result<Unpacked> {
        let unpack = Unpack {
            dir: &self.dir,
            index: &self.index,
            offered: &self.offered,
            limits: &self.limits,
            label: input.label.clone(),
            progress,
        };
        let unpacked = unpack.in_turn(input, None)?;
        if self.seals {
            Verity::of(self).fill(&unpacked.layer)?;
        }
        Ok(unpacked)
    }

    /// The same of a layer whose files, where they are new, are taken in place of being written.
    /// They are files like all others once [`LeasedLayer::settle`] has been called.
    ///
    /// # Errors
    /// As [`Store::unpack`]; `InUse` if somebody has written to a file meanwhile.
    pub fn take_in(
        &self,
        input: LayerInput<'_>,
        giving: Giving<'_>,
        progress: &dyn Progress,
    ) -> Result<Unpacked> {
        let unpack = Unpack {
            dir: &self.dir,
            index: &self.index,
            offered: &self.offered,
            limits: &self.limits,
            label: input.label.clone(),
            progress,
        };
        unpack.in_turn(input, Some(giving))
    }
}

impl Unpack<'_> {
    /// Unpacks the layer once no other process does, unless it is there then.
    fn in_turn(&self, input: LayerInput<'_>, giving: Option<Giving<'_>>) -> Result<Unpacked> {
        self.tell(Event::Waiting);
        let _turn = match &input.diff_id {
            Some(diff_id) => {
                let turn = Turn::take(self.dir, diff_id)?;
                if let Some(layer) = LeasedLayer::take(self.dir, self.index, diff_id)? {
                    self.tell(Event::Exists);
                    return Ok(Unpacked { layer, existed: true });
                }
                Some(turn)
            }
            None => None,
        };
        self.tell(Event::Started { total: input.blob.map(|(_, size)| size) });
        let unpacked = self.now(input, giving)?;
        self.tell(Event::Done);
        Ok(unpacked)
    }

    fn tell(&self, event: Event) {
        self.progress.event(&self.label, event);
    }

    fn now(&self, input: LayerInput<'_>, giving: Option<Giving<'_>>) -> Result<Unpacked> {
        let LayerInput { diff_id, blob, reader, .. } = input;
        let given = giving.as_ref().map(|giving| giving.files);
        let token = diff_id.map_or_else(|| "import".to_owned(), |diff_id| diff_id.hex());
        let stage = Stage::new(&self.dir.staging(), &token)?;
        let index = Index::open_existing(&self.dir.index())?;
        let staging = Staging::new(stage, index, self.dir.fd(), self.offered, given)?;
        let shared = staging.shared();
        let mut build = Build::new(&self.label, *self.limits, staging, &self.dir.scratch())?;
        let filled = self.fill(&mut build, reader).and_then(|filled| {
            verify(&self.label, &filled.0, blob, diff_id)?;
            Ok(filled)
        });
        let published = filled.and_then(|(facts, keeper)| {
            let (built, staging) = build.finish()?;
            for warning in built.rows.warnings() {
                self.progress.warning(&self.label, warning);
            }
            let mut stage = staging.into_stage()?;
            self.dir.step(Step::BodiesWritten);
            let Some(stream) = keeper.0 else {
                return Err(Error::damaged("the stage", "it was not written"));
            };
            let headers_size = built.write_headers(&mut stage, stream)?;
            stage.drop_shadows()?;
            self.dir.step(Step::Staged);
            sync_filesystem(stage.root())?;
            self.dir.step(Step::Synced);
            if let Some(Giving { files, before }) = giving {
                files.unchanged()?;
                before(&facts.diff_id).doing(|| format!("cannot note layer {}", facts.diff_id))?;
            }
            let published = publish(self.dir, self.index, &facts, headers_size, &built, stage)?;
            self.remember(&facts);
            Ok(published)
        });
        // Published or gone: from here on the index, or nobody, has these contents.
        self.offered.forget(&shared);
        published
    }

    /// Notes which blob the layer is: it has just been compared.
    fn remember(&self, facts: &stream::StreamFacts) {
        if facts.compression == stream::Compression::None {
            return;
        }
        let blobs = LayerBlobs::new(self.dir, self.index);
        // The layer is there all the same; what is not known costs a transfer.
        if let Err(error) = blobs.remember(&facts.diff_id, &facts.blob, facts.blob_size) {
            tracing::warn!("layer {}: its blob is not noted: {error}", facts.diff_id);
        }
    }

    /// Reads the whole input into the stage.
    fn fill(
        &self,
        build: &mut Build<Staging<'_>>,
        reader: Box<dyn Read + Send + '_>,
    ) -> Result<(stream::StreamFacts, Keeper)> {
        let keeper = Keeper(Some(StreamWriter::new(self.dir.scratch_file()?)?));
        let report = |bytes| self.tell(Event::Read { bytes });
        let (keeper, facts) =
            stream::decompress(reader, &self.label, self.limits, &report, |tar| {
                let mut reader = DiffReader::new(tar, self.label.clone(), *self.limits, keeper);
                build.read(&mut reader)?;
                let (_, keeper) = reader.finish()?;
                Ok::<_, Error>(keeper)
            })?;
        Ok((facts, keeper))
    }
}

/// The right to unpack one diff id. Its file goes while the lock is still held, so whoever waits
/// for the lock sees that the file is gone and makes a new one.
struct Turn {
    path: PathBuf,
    _lock: std::fs::File,
}

impl Turn {
    /// Waits until no other process unpacks that diff id.
    fn take(store: &StoreDir, diff_id: &DiffId) -> Result<Self> {
        let path = store.staging().join(format!("{}.turn", diff_id.hex()));
        loop {
            let file = std::fs::File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .doing(|| format!("cannot make {}", path.display()))?;
            flock(&file, Lock::Exclusive).doing(|| format!("cannot lock {}", path.display()))?;
            if still_there(&file, &path)? {
                return Ok(Self { path, _lock: file });
            }
        }
    }
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
