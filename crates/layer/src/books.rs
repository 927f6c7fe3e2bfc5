//! What is noted of the files of a layer while its tar is read.
//!
//! ```text
//! file of the draft ──> its content
//! name of the draft ──> another content than its file's, where it has one
//! body of the tar   ──> its file or place, and the pieces of it that are stored
//! ```
//!
//! There are millions of each, so all of it is in [`Spill`]s.
//!
//! Invariant: there is one record for each body that is not empty, in tar order.

use std::sync::Arc;

use strata_diff::body::BodyLayout;
use strata_diff::draft::{FileId, NameId};
use strata_diff::record;
use strata_diff::spill::{Spill, SpillSpace, Table};

use crate::error::Result;
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
    struct BodyRecord {
        len: u64,
        kind: u8,
        of: u64,
        pieces: u64,
        count: u64,
    }
}

const OF_FILE: u8 = 0;
const LOOSE: u8 = 1;
/// The whole file is stored: there are no pieces.
const WHOLE: u64 = u64::MAX;

record! {
    struct ApartRecord {
        name: u32,
        local: u32,
    }
}

/// A body of the tar that is not empty.
pub(crate) struct StoredPieces {
    /// Stored bytes.
    pub len: u64,
    pub of: BodyOf,
    /// For sparse files: where they go, as offset and length in bytes.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// Whose a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyOf {
    File(FileId),
    /// Nobody's: it is in the shadow of that number.
    Loose(u64),
}

/// What is noted of the files of a layer.
pub(crate) struct Books {
    pub locals: Locals,
    files: Spill<FileContent>,
    apart: Table,
    apart_records: Spill<ApartRecord>,
    bodies: Spill<BodyRecord>,
    /// Offset and length of each, one after the other.
    pieces: Spill<u64>,
    pub scratch: Arc<SpillSpace>,
}

impl Books {
    pub(crate) fn new(scratch: &Arc<SpillSpace>) -> Self {
        Self {
            locals: Locals::new(scratch),
            files: Spill::new(scratch, 4),
            apart: Table::new(scratch, 1),
            apart_records: Spill::new(scratch, 1),
            bodies: Spill::new(scratch, 5),
            pieces: Spill::new(scratch, 1),
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

    /// The other content that a name has than its inode: the file system allowed the first no
    /// further name.
    pub(crate) fn apart(&self, name: NameId) -> Result<Option<LocalId>> {
        if self.apart_records.is_empty() {
            return Ok(None);
        }
        match self.apart_at(name)?.number {
            Some(at) => Ok(LocalId::of_number(self.apart_records.get(u64::from(at))?.local)),
            None => Ok(None),
        }
    }

    fn apart_at(&self, name: NameId) -> Result<strata_diff::spill::TablePlace> {
        let is = |at| Ok(self.apart_records.get(u64::from(at))?.name == name.number());
        // Numbers of names are as good as hashes: they are counted.
        Ok(self.apart.find(name.number().wrapping_mul(0x9e37_79b1), is)?)
    }

    pub(crate) fn set_apart(&mut self, name: NameId, local: Option<LocalId>) -> Result<()> {
        let place = self.apart_at(name)?;
        let local = local.map_or(0, LocalId::number);
        match place.number {
            Some(at) => Ok(self.apart_records.update(u64::from(at), |one| one.local = local)?),
            None if local == 0 => Ok(()),
            None => {
                let at = self.apart_records.push(ApartRecord { name: name.number(), local })?;
                Ok(self.apart.put(place, at as u32)?)
            }
        }
    }

    pub(crate) fn note_body(&mut self, content: BodyLayout, of: BodyOf) -> Result<()> {
        let len = content.stored();
        if len == 0 {
            return Ok(());
        }
        let (kind, number) = match of {
            BodyOf::File(file) => (OF_FILE, u64::from(file.number())),
            BodyOf::Loose(shadow) => (LOOSE, shadow),
        };
        let (mut pieces, mut count) = (WHOLE, 0);
        if let Some(all) = &content.pieces {
            pieces = self.pieces.len();
            count = all.len() as u64;
            for (offset, len) in all {
                self.pieces.extend(&[*offset, *len])?;
            }
        }
        self.bodies.push(BodyRecord { len, kind, of: number, pieces, count })?;
        Ok(())
    }

    /// How many bodies are not empty.
    pub(crate) fn bodies(&self) -> u64 {
        self.bodies.len()
    }

    /// The body of that number.
    pub(crate) fn body(&self, at: u64) -> Result<StoredPieces> {
        let BodyRecord { len, kind, of, pieces, count } = self.bodies.get(at)?;
        let of = match kind {
            OF_FILE => BodyOf::File(FileId::of_number(of as u32)),
            _ => BodyOf::Loose(of),
        };
        if pieces == WHOLE {
            return Ok(StoredPieces { len, of, pieces: None });
        }
        let mut numbers = Vec::with_capacity(count as usize * 2);
        self.pieces.each(pieces, count * 2, |part| numbers.extend_from_slice(part))?;
        let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(StoredPieces { len, of, pieces: Some(pieces) })
    }
}

impl BodyOf {
    /// Where such a body is that no name has.
    pub(crate) fn shadow(self) -> StagePath {
        match self {
            Self::File(file) => StagePath::Shadow(u64::from(file.number())),
            Self::Loose(shadow) => StagePath::Shadow(shadow),
        }
    }
}
