//! A tar becoming a layer: the draft decides, the target follows, this keeps the books.
//!
//! For every regular file: read, hash, and have the [`BodyTarget`] either link to a file that
//! already has those bytes or write it. The books are the same whatever the target is, which is how
//! fsck and rebuild derive a layer's rows again.
//!
//! Invariants: at most [`SMALL`] bytes of a body are in memory; a body that no path holds any
//! more stays in the stage's shadows until `headers.zst` has it; `bodies` has one record for each
//! body that is not empty, in tar order.

use std::collections::HashMap;
use std::io::Read;

use strata_tree::{ContentDigest, TreePath};

use crate::body_target::{BodyTarget, LinkedTo};
use crate::error::{Error, IoContext, Result};
use crate::locals::Locals;
pub(crate) use crate::locals::{LocalContent, LocalId};
use crate::stage::{Stage, StagePath};
use strata_diff::Limits;
use strata_diff::body::{BodyLayout, CHUNK, copy_range, digest, fill};
use strata_diff::draft::{Draft, Effects, FileId, FileKind, Finished, MemberFacts, Placed};
use strata_diff::headers::{BodySink, StoredBody, StreamWriter};
use strata_diff::rows::path_of;
use strata_diff::stream::Hashed;
use strata_diff::tar::{DiffReader, Member, MemberKind, RawSink};

/// Bodies up to this size in bytes are read whole, hashed, and written only if they are new.
const SMALL: u64 = 4 << 20;

/// The bytes of one inode.
#[derive(Debug, Clone, Copy)]
struct FileContent {
    local: LocalId,
    hidden: bool,
}

/// There is one for each file, so what few have is apart.
enum BodyRecord {
    /// All stored bytes of a file.
    Whole {
        len: u64,
        file: FileId,
    },
    Other(Box<OtherBody>),
}

struct OtherBody {
    /// Stored bytes.
    len: u64,
    /// For sparse files: where they go.
    pieces: Option<Vec<(u64, u64)>>,
    of: BodyOf,
}

enum BodyOf {
    File(FileId),
    Loose(StagePath),
}

impl BodyRecord {
    fn new(content: BodyLayout, of: BodyOf) -> Self {
        let len = content.stored();
        match (content.pieces, of) {
            (None, BodyOf::File(file)) => Self::Whole { len, file },
            (pieces, of) => Self::Other(Box::new(OtherBody { len, pieces, of })),
        }
    }
}

/// Books of a layer that has been read to its end.
pub(crate) struct Built {
    pub finished: Finished,
    pub locals: Vec<LocalContent>,
    files: Vec<Option<FileContent>>,
    /// Hard links whose bytes are another copy than their inode's: the file system allowed the
    /// first no further name.
    apart: HashMap<TreePath, LocalId>,
    bodies: Vec<BodyRecord>,
}

/// The work.
pub(crate) struct Build<T> {
    label: String,
    limits: Limits,
    draft: Draft,
    files: Vec<Option<FileContent>>,
    locals: Locals,
    apart: HashMap<TreePath, LocalId>,
    bodies: Vec<BodyRecord>,
    logical: u64,
    /// The number of the member that is being read.
    position: u64,
    target: T,
}

impl<T: BodyTarget> Build<T> {
    pub(crate) fn new(label: &str, limits: Limits, target: T) -> Self {
        Self {
            label: label.to_owned(),
            limits,
            draft: Draft::new(label, limits),
            files: Vec::new(),
            locals: Locals::default(),
            apart: HashMap::new(),
            bodies: Vec::new(),
            logical: 0,
            position: 0,
            target,
        }
    }

    /// Reads the tar to the end of its members.
    pub(crate) fn read<R: Read, S: RawSink + BodySink>(
        &mut self,
        reader: &mut DiffReader<&mut Hashed<R>, S>,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        while let Some(member) = reader.next()? {
            self.member(member, self.position, reader, &mut buffer)?;
            self.position += 1;
        }
        Ok(())
    }

    fn member<R: Read, S: RawSink + BodySink>(
        &mut self,
        member: Member,
        position: u64,
        reader: &mut DiffReader<&mut Hashed<R>, S>,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let mut effects = Effects::default();
        let facts = MemberFacts {
            perm: member.perm,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: member.xattrs,
        };
        let raw = &member.path;
        let kind = match member.kind {
            MemberKind::Directory => {
                self.draft.directory(raw, facts, position, &mut effects)?;
                return self.follow(effects);
            }
            MemberKind::HardLink { target } => {
                let placed = self.draft.link(raw, &target, position, &mut effects)?;
                self.follow(effects)?;
                if let Placed::Link { file, path } = placed {
                    self.link(file, &path)?;
                }
                return Ok(());
            }
            MemberKind::Symlink { target } => FileKind::Symlink(target),
            MemberKind::CharDevice(device) => FileKind::CharDevice(device),
            MemberKind::BlockDevice(device) => FileKind::BlockDevice(device),
            MemberKind::Fifo => FileKind::Fifo,
            MemberKind::Regular => FileKind::Regular { size: member.size },
        };
        let regular = matches!(kind, FileKind::Regular { .. });
        let placed = self.draft.file(raw, kind, facts, position, &mut effects)?;
        self.follow(effects)?;
        if !regular {
            return Ok(());
        }
        let content = BodyLayout { logical: member.size, pieces: member.sparse };
        match placed {
            Placed::File { file, path, hidden } => {
                let place = if hidden { shadow(&file) } else { StagePath::Diff(path) };
                let local = self.content(&content, &place, reader, buffer)?;
                self.files.resize(file.index() + 1, None);
                self.files[file.index()] = Some(FileContent { local, hidden });
                self.note_body(content, BodyOf::File(file));
            }
            // A whiteout with bytes in it: only the exact tar needs them.
            Placed::Nothing | Placed::Link { .. } => {
                let place = self.target.unused_shadow();
                self.content(&content, &place, reader, buffer)?;
                self.note_body(content, BodyOf::Loose(place));
            }
        }
        Ok(())
    }

    fn note_body(&mut self, content: BodyLayout, of: BodyOf) {
        if content.stored() > 0 {
            self.bodies.push(BodyRecord::new(content, of));
        }
    }

    /// Does what a member's placing asks for.
    fn follow(&mut self, effects: Effects) -> Result<()> {
        for (path, file, last) in effects.removed {
            let Some(content) = self.files.get(file.index()).copied().flatten() else { continue };
            let local = self.apart.remove(&path).unwrap_or(content.local);
            let place = StagePath::Diff(path);
            let is_source = self.locals.source(local) == place;
            let shadow = if last && !content.hidden {
                StagePath::Shadow(file.index() as u64)
            } else if is_source {
                self.target.unused_shadow()
            } else {
                self.target.remove(&place)?;
                continue;
            };
            if is_source {
                self.target.withdraw(&self.locals.get(local).digest, &place);
                self.locals.set_source(local, &shadow);
            }
            self.target.rename(&place, &shadow)?;
        }
        effects.removed_dirs.iter().try_for_each(|path| self.target.remove_dir(path))?;
        effects.made_dirs.iter().try_for_each(|path| self.target.make_dir(path))
    }

    /// Gives an inode's bytes a further name.
    fn link(&mut self, file: FileId, to: &TreePath) -> Result<()> {
        let Some(content) = self.files.get(file.index()).copied().flatten() else {
            return Ok(()); // A symlink or device: it has no bytes.
        };
        let LocalContent { digest, size, .. } = *self.locals.get(content.local);
        let place = StagePath::Diff(to.clone());
        self.locals.find_also(content.local);
        let local = match self.link_known(&digest, size, &place)? {
            Some(local) => local,
            None => {
                self.target.copy_own(&self.locals.source(content.local), &place)?;
                self.fresh(digest, size, &place)?
            }
        };
        if local != content.local {
            self.apart.insert(to.clone(), local);
        }
        Ok(())
    }

    /// Reads one body and sees to it that its bytes are at `place`.
    fn content<R: Read, S: RawSink + BodySink>(
        &mut self,
        content: &BodyLayout,
        place: &StagePath,
        reader: &mut DiffReader<&mut Hashed<R>, S>,
        buffer: &mut Vec<u8>,
    ) -> Result<LocalId> {
        self.bound(content, reader.offset())?;
        if content.stored() > 0 {
            let label = &self.label;
            reader.sink().body().doing(|| format!("layer {label}: cannot write its headers"))?;
        }
        if content.logical > SMALL {
            return self.large(content, place, reader);
        }
        let size = content.logical as usize;
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let bytes = &mut buffer[..size];
        if content.pieces.is_some() {
            bytes.fill(0);
        }
        let digest = digest(content, reader, |reader, at, end| {
            fill(reader, &mut bytes[at as usize..end as usize])
        })?;
        if let Some(local) = self.link_known(&digest, content.logical, place)? {
            return Ok(local);
        }
        self.target.write(place, bytes)?;
        self.fresh(digest, content.logical, place)
    }

    /// Too large for memory: written aside, then kept or dropped for what is there.
    fn large<R: Read, S: RawSink + BodySink>(
        &mut self,
        content: &BodyLayout,
        place: &StagePath,
        reader: &mut DiffReader<&mut Hashed<R>, S>,
    ) -> Result<LocalId> {
        let large = self.target.begin_large(place, content.logical)?;
        let mut chunk = vec![0; CHUNK];
        let digest = digest(content, reader, |reader, mut at, end| {
            while at < end {
                let n = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
                fill(reader, &mut chunk[..n])?;
                T::write_part(&large, &chunk[..n], at)?;
                at += n as u64;
            }
            Ok::<_, Error>(())
        })?;
        T::end_large(&large, content.logical)?;
        let known = self.link_known(&digest, content.logical, place)?;
        self.target.place_large(large, known.is_none().then_some(place))?;
        known.map_or_else(|| self.fresh(digest, content.logical, place), Ok)
    }

    /// Links `place` to a file that has those bytes, if there is one that takes a further link.
    fn link_known(
        &mut self,
        digest: &ContentDigest,
        size: u64,
        place: &StagePath,
    ) -> Result<Option<LocalId>> {
        let local = self.locals.latest(digest);
        let own = local.map(|local| self.locals.source(local));
        match self.target.link(digest, own.as_ref(), place)? {
            LinkedTo::Own => Ok(local),
            LinkedTo::Other(row) => self.add(*digest, size, row, place).map(Some),
            LinkedTo::Cloned => self.fresh(*digest, size, place).map(Some),
            LinkedTo::Nothing => Ok(None),
        }
    }

    fn fresh(&mut self, digest: ContentDigest, size: u64, place: &StagePath) -> Result<LocalId> {
        self.target.offer(digest, place);
        self.add(digest, size, None, place)
    }

    fn add(
        &mut self,
        digest: ContentDigest,
        size: u64,
        known: Option<i64>,
        place: &StagePath,
    ) -> Result<LocalId> {
        let content = LocalContent { digest, size, known, member: self.position };
        self.locals.add(content, place.clone())
    }

    fn bound(&mut self, content: &BodyLayout, offset: u64) -> Result<()> {
        self.logical = self.logical.saturating_add(content.logical);
        let limits = &self.limits;
        let sparse = offset.saturating_mul(limits.expansion).saturating_add(Limits::EXPANSION_FREE);
        let (what, limit, option) = if self.logical > limits.layer_bytes {
            ("bytes of files", limits.layer_bytes, "--max-layer-bytes")
        } else if content.pieces.is_some() && self.logical > sparse {
            ("bytes of sparse files for each byte of the tar", limits.expansion, "--max-expansion")
        } else {
            return Ok(());
        };
        Err(strata_diff::Error::Limit { layer: self.label.clone(), what, limit, option }.into())
    }

    /// Settles what had to wait for the end.
    pub(crate) fn finish(mut self) -> Result<(Built, T)> {
        // No body comes any more. A link that waited for its file finds it by the file.
        self.locals.forget_latest();
        let draft = std::mem::replace(&mut self.draft, Draft::new("", self.limits));
        let settled = draft.settle()?;
        for (file, to) in settled.linked() {
            self.link(*file, to)?;
        }
        let Self { files, locals, apart, bodies, target, .. } = self;
        let locals = locals.settled();
        let digest = |file: FileId| {
            let content = files.get(file.index()).copied().flatten();
            content.map(|content| locals[content.local.index()].digest).ok_or_else(|| {
                strata_diff::Error::damaged("the draft of a layer", "a file without content")
            })
        };
        let finished = settled.finish(&digest)?;
        Ok((Built { finished, locals, files, apart, bodies }, target))
    }
}

impl Built {
    /// The image path of a row.
    pub(crate) fn path_of(&self, row: usize) -> TreePath {
        path_of(&self.finished.rows, row)
    }

    /// Of each row the local content, if it is a name of a regular file.
    pub(crate) fn locals_by_row(&self) -> Vec<Option<LocalId>> {
        let mut locals = vec![None; self.finished.rows.len()];
        for (local, row) in self.names() {
            locals[row] = Some(local);
        }
        locals
    }

    /// Every local content that has a name with the row of each of its names, sorted.
    pub(crate) fn names_by_local(&self) -> Vec<(LocalId, usize)> {
        let mut names: Vec<_> = self.names().collect();
        names.sort_unstable();
        names
    }

    fn names(&self) -> impl Iterator<Item = (LocalId, usize)> {
        let regular = self.finished.regular.iter();
        regular.filter_map(|(row, file)| Some((self.local_of(*row, *file)?, *row)))
    }

    fn local_of(&self, row: usize, file: FileId) -> Option<LocalId> {
        let content = self.files.get(file.index()).copied().flatten()?;
        let apart = match self.apart.is_empty() {
            true => None,
            false => self.apart.get(&self.path_of(row)).copied(),
        };
        Some(apart.unwrap_or(content.local))
    }

    /// Bytes of its regular files, each inode once.
    pub(crate) fn apparent(&self) -> u64 {
        let rows = self.finished.rows.iter();
        let regular =
            rows.filter(|row| matches!(row.kind, crate::index::rows::RowKind::Regular(_)));
        regular.filter_map(|row| row.meta.as_ref()).map(|meta| meta.size).sum()
    }

    /// Writes `headers.zst` into the stage; gives its size in bytes.
    pub(crate) fn write_headers(&self, stage: &mut Stage, stream: StreamWriter) -> Result<u64> {
        // Of each file the first name that there is at the end.
        let mut surviving = vec![None; self.files.len()];
        for (row, file) in self.finished.regular.iter().rev() {
            if let Some(name) = surviving.get_mut(file.index()) {
                *name = Some(*row);
            }
        }
        let survives = |file: &FileId| surviving.get(file.index()).copied().flatten();
        let stored = self.bodies.iter().map(|body| match body {
            BodyRecord::Whole { len, file } => match survives(file) {
                Some(row) => StoredBody::File(self.path_of(row), *len),
                None => StoredBody::Inline(*len),
            },
            BodyRecord::Other(body) => match (&body.of, &body.pieces) {
                (BodyOf::File(file), Some(pieces)) => match survives(file) {
                    Some(row) => StoredBody::Sparse(self.path_of(row), pieces.clone()),
                    None => StoredBody::Inline(body.len),
                },
                _ => StoredBody::Inline(body.len),
            },
        });
        let mut out = stage.create_beside("headers.zst")?;
        let stage = &*stage;
        stream.finish(stored, &mut out, &mut |frame| {
            for body in &self.bodies {
                let (place, len, pieces) = match body {
                    BodyRecord::Whole { file, .. } if survives(file).is_some() => continue,
                    BodyRecord::Whole { len, file } => (shadow(file), *len, None),
                    BodyRecord::Other(body) => match &body.of {
                        BodyOf::File(file) if survives(file).is_some() => continue,
                        BodyOf::File(file) => (shadow(file), body.len, body.pieces.as_deref()),
                        BodyOf::Loose(place) => (place.clone(), body.len, body.pieces.as_deref()),
                    },
                };
                let file = stage.open(&place)?;
                let whole = [(0, len)];
                for (offset, len) in pieces.unwrap_or(&whole) {
                    copy_range(&file, *offset, *len, frame)?;
                }
            }
            Ok(())
        })
    }
}

/// Where a file without a name is.
fn shadow(file: &FileId) -> StagePath {
    StagePath::Shadow(file.index() as u64)
}
