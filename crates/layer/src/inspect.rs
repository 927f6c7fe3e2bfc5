//! [`inspect`]: reads a layer as a load would, and keeps nothing of it.
//!
//! Invariants: an inspected layer has just the contents that the store would have after loading
//! it; its bytes were verified as a load verifies them. In memory is what its [`SpillSpace`]
//! says, and 72 bytes a content.

use std::collections::HashSet;
use std::sync::Arc;

use strata_diff::headers::Keeper;
use strata_diff::spill::SpillSpace;
use strata_diff::stream::StreamFacts;
use strata_diff::tar::DiffReader;
use strata_diff::{Limits, stream};
use strata_tree::{ContentDigest, DiffId};

use crate::body_target::Discarded;
use crate::build::{Build, Built, LocalContent};
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
use crate::store::{LayerInput, verify};

/// What is known of a layer that was read and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedLayer {
    /// Which layer it is.
    pub diff_id: DiffId,
    /// Bytes of its tar.
    pub diff_size: u64,
    /// Names in it, whiteouts included.
    pub entries: u64,
    /// Bytes of its regular files, each inode once.
    pub apparent: u64,
    /// What it would contain, each content once.
    pub contents: Vec<InspectedContent>,
}

/// A content of such a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectedContent {
    /// Its name.
    pub digest: ContentDigest,
    /// Its bytes.
    pub size: u64,
    /// The number of a member of the tar that has it.
    pub member: u64,
}

/// Reads and verifies a layer, of which `scratch` keeps what has to wait for its end.
///
/// # Errors
/// Those of [`crate::Store::unpack`] that the input is the cause of.
pub fn inspect(
    input: LayerInput<'_>,
    limits: &Limits,
    scratch: &Arc<SpillSpace>,
    progress: &dyn Progress,
) -> Result<InspectedLayer> {
    let (built, facts) = read_layer(input, limits, scratch, progress)?;
    // Only what still has a name at the end.
    let mut named = HashSet::new();
    let locals = &built.books.locals;
    for row in 0..built.rows.count() {
        if let Some(local) = built.local_of(row)? {
            named.insert(locals.get(local)?.digest);
        }
    }
    let mut contents = Vec::new();
    for id in locals.ids() {
        let LocalContent { digest, size, member, .. } = locals.get(id?)?;
        // The first of each digest.
        if named.remove(&digest) {
            contents.push(InspectedContent { digest, size, member });
        }
    }
    Ok(InspectedLayer {
        diff_id: facts.diff_id,
        diff_size: facts.diff_size,
        entries: built.rows.count() - 1,
        apparent: built.rows.apparent()?,
        contents,
    })
}

/// Reads and verifies a layer; gives the books of it.
///
/// # Errors
/// As [`inspect`].
pub(crate) fn read_layer(
    input: LayerInput<'_>,
    limits: &Limits,
    scratch: &Arc<SpillSpace>,
    progress: &dyn Progress,
) -> Result<(Built, StreamFacts)> {
    let LayerInput { label, diff_id, blob, reader } = input;
    progress.event(&label, Event::Started { total: blob.map(|(_, size)| size) });
    let report = |bytes| progress.event(&label, Event::Read { bytes });
    let (build, facts) = stream::decompress(reader, &label, limits, &report, |tar| {
        let mut build = Build::new(&label, *limits, Discarded, scratch)?;
        let mut reader = DiffReader::new(tar, label.clone(), *limits, Keeper(None));
        build.read(&mut reader)?;
        reader.finish()?;
        Ok::<_, Error>(build)
    })?;
    verify(&label, &facts, blob, diff_id)?;
    let (built, _) = build.finish()?;
    progress.event(&label, Event::Done);
    Ok((built, facts))
}
