//! What is noted of the files of a layer while its tar is read.
//!
//! ```text
//! file of the draft ──> its content        each inode, so millions: in `Spill`s
//! body of the tar   ──> its file
//! ```
//!
//! Invariant: `bodies` has one record for each body that is not empty, in tar order.

use std::collections::HashMap;
use std::sync::Arc;

use strata_diff::body::BodyLayout;
use strata_diff::draft::FileId;
use strata_diff::record;
use strata_diff::spill::{Spill, SpillSpace};
use strata_tree::TreePath;

use crate::error::{Error, Result};
use crate::locals::{LocalId, Locals};
use crate::stage::StagePath;

record! {
    /// The bytes of one inode: the number of its content, or 0 if it is no regular file.
    struct FileContent {
        local: u32,
        hidden: u8,
    }
}

impl FileContent {
    const NONE: Self = Self { local: 0, hidden: 0 };
}

record! {
    /// All stored bytes of a file, or what is in [`Books::others`] under a number.
    pub(crate) struct BodyRecord {
        pub len: u64,
        pub file: u32,
        pub other: u32,
    }
}

/// No number.
const NONE: u32 = u32::MAX;

/// A body of the tar that is not just a file.
pub(crate) struct OtherBody {
    /// Stored bytes.
    pub len: u64,
    /// For sparse files: where they go.
    pub pieces: Option<Vec<(u64, u64)>>,
    pub of: BodyOf,
}

pub(crate) enum BodyOf {
    File(FileId),
    Loose(StagePath),
}

/// What is noted of the files of a layer.
pub(crate) struct Books {
    pub locals: Locals,
    files: Spill<FileContent>,
    /// Hard links whose bytes are another copy than their inode's: the file system allowed the
    /// first no further name.
    pub apart: HashMap<TreePath, LocalId>,
    pub bodies: Spill<BodyRecord>,
    /// Few bodies are sparse, or without a name.
    pub others: Vec<OtherBody>,
    pub scratch: Arc<SpillSpace>,
}

impl Books {
    pub(crate) fn new(scratch: &Arc<SpillSpace>) -> Self {
        Self {
            locals: Locals::new(scratch),
            files: Spill::new(scratch, 4),
            apart: HashMap::new(),
            bodies: Spill::new(scratch, 5),
            others: Vec::new(),
            scratch: Arc::clone(scratch),
        }
    }

    /// The content of an inode, and whether its name is never shown.
    pub(crate) fn of(&self, file: FileId) -> Result<Option<(LocalId, bool)>> {
        let at = u64::from(file.number());
        if at >= self.files.len() {
            return Ok(None);
        }
        let FileContent { local, hidden } = self.files.get(at)?;
        Ok(LocalId::of_number(local).map(|local| (local, hidden != 0)))
    }

    pub(crate) fn note(&mut self, file: FileId, local: LocalId, hidden: bool) -> Result<()> {
        while self.files.len() < u64::from(file.number()) {
            self.files.push(FileContent::NONE)?;
        }
        self.files.push(FileContent { local: local.number(), hidden: u8::from(hidden) })?;
        Ok(())
    }

    pub(crate) fn note_body(&mut self, content: BodyLayout, of: BodyOf) -> Result<()> {
        let len = content.stored();
        if len == 0 {
            return Ok(());
        }
        let record = match (content.pieces, of) {
            (None, BodyOf::File(file)) => BodyRecord { len, file: file.number(), other: NONE },
            (pieces, of) => {
                let number = u32::try_from(self.others.len()).ok().filter(|at| *at != NONE);
                self.others.push(OtherBody { len, pieces, of });
                let damaged = || Error::damaged("a layer", "it has more than 2^32 bodies");
                BodyRecord { len, file: 0, other: number.ok_or_else(damaged)? }
            }
        };
        self.bodies.push(record)?;
        Ok(())
    }
}
