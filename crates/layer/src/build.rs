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
use crate::stage::{Stage, StagePath};
use strata_diff::Limits;
use strata_diff::body::{BodyLayout, CHUNK, copy_range, digest, fill};
use strata_diff::draft::{Draft, Effects, FileId, FileKind, Finished, MemberFacts, Placed};
use strata_diff::headers::{BodySink, StoredBody, StreamWriter};
use strata_diff::stream::Hashed;
use strata_diff::tar::{DiffReader, Member, MemberKind, RawSink};

/// Bodies up to this size in bytes are read whole, hashed, and written only if they are new.
const SMALL: u64 = 4 << 20;

/// The bytes of one inode.
#[derive(Debug, Clone, Copy)]
struct FileContent {
    local: usize,
    hidden: bool,
}

/// One inode of stored bytes that this layer uses.
#[derive(Debug, Clone)]
pub(crate) struct LocalContent {
    pub digest: ContentDigest,
    pub size: u64,
    /// The row that it was linked from.
    pub known: Option<i64>,
    /// One of its names in the stage.
    pub source: StagePath,
    /// The number of the member of the tar whose body it is.
    pub member: u64,
}

/// There is one for each file, so what few have is apart.
struct BodyRecord {
    /// Stored bytes.
    len: u64,
    /// For sparse files: where they go.
    pieces: Option<Box<[(u64, u64)]>>,
    of: BodyOf,
}

enum BodyOf {
    File(FileId),
    Loose(Box<StagePath>),
}

/// Books of a layer that has been read to its end.
pub(crate) struct Built {
    pub finished: Finished,
    pub locals: Vec<LocalContent>,
    files: Vec<Option<FileContent>>,
    /// Hard links whose bytes are another copy than their inode's: the file system allowed the
    /// first no further name.
    apart: HashMap<TreePath, usize>,
    bodies: Vec<BodyRecord>,
}

/// The work.
pub(crate) struct Build<T> {
    label: String,
    limits: Limits,
    draft: Draft,
    files: Vec<Option<FileContent>>,
    locals: Vec<LocalContent>,
    latest: HashMap<ContentDigest, usize>,
    apart: HashMap<TreePath, usize>,
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
            locals: Vec::new(),
            latest: HashMap::new(),
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
                let place = if hidden {
                    StagePath::Shadow(file.index() as u64)
                } else {
                    StagePath::Diff(path)
                };
                let local = self.content(&content, &place, reader, buffer)?;
                self.files.resize(file.index() + 1, None);
                self.files[file.index()] = Some(FileContent { local, hidden });
                self.note_body(content, BodyOf::File(file));
            }
            // A whiteout with bytes in it: only the exact tar needs them.
            Placed::Nothing | Placed::Link { .. } => {
                let place = self.target.unused_shadow();
                self.content(&content, &place, reader, buffer)?;
                self.note_body(content, BodyOf::Loose(Box::new(place)));
            }
        }
        Ok(())
    }

    fn note_body(&mut self, content: BodyLayout, of: BodyOf) {
        let len = content.stored();
        if len > 0 {
            self.bodies.push(BodyRecord {
                len,
                pieces: content.pieces.map(Vec::into_boxed_slice),
                of,
            });
        }
    }

    /// Does what a member's placing asks for.
    fn follow(&mut self, effects: Effects) -> Result<()> {
        for (path, file, last) in effects.removed {
            let Some(content) = self.files.get(file.index()).copied().flatten() else { continue };
            let local = self.apart.remove(&path).unwrap_or(content.local);
            let place = StagePath::Diff(path);
            let local = &mut self.locals[local];
            let is_source = local.source == place;
            let shadow = if last && !content.hidden {
                StagePath::Shadow(file.index() as u64)
            } else if is_source {
                self.target.unused_shadow()
            } else {
                self.target.remove(&place)?;
                continue;
            };
            if is_source {
                self.target.withdraw(&local.digest, &place);
                local.source = shadow.clone();
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
        let LocalContent { digest, size, source, .. } = self.locals[content.local].clone();
        let place = StagePath::Diff(to.clone());
        self.latest.entry(digest).or_insert(content.local);
        let local = match self.link_known(&digest, size, &place)? {
            Some(local) => local,
            None => {
                self.target.copy_own(&source, &place)?;
                self.fresh(digest, size, &place)
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
    ) -> Result<usize> {
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
        Ok(self.fresh(digest, content.logical, place))
    }

    /// Too large for memory: written aside, then kept or dropped for what is there.
    fn large<R: Read, S: RawSink + BodySink>(
        &mut self,
        content: &BodyLayout,
        place: &StagePath,
        reader: &mut DiffReader<&mut Hashed<R>, S>,
    ) -> Result<usize> {
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
        Ok(known.unwrap_or_else(|| self.fresh(digest, content.logical, place)))
    }

    /// Links `place` to a file that has those bytes, if there is one that takes a further link.
    fn link_known(
        &mut self,
        digest: &ContentDigest,
        size: u64,
        place: &StagePath,
    ) -> Result<Option<usize>> {
        let local = self.latest.get(digest).copied();
        let own = local.map(|local| &self.locals[local].source);
        Ok(match self.target.link(digest, own, place)? {
            LinkedTo::Own => local,
            LinkedTo::Other(row) => Some(self.add(*digest, size, row, place)),
            LinkedTo::Cloned => Some(self.fresh(*digest, size, place)),
            LinkedTo::Nothing => None,
        })
    }

    fn fresh(&mut self, digest: ContentDigest, size: u64, place: &StagePath) -> usize {
        self.target.offer(digest, place);
        self.add(digest, size, None, place)
    }

    fn add(
        &mut self,
        digest: ContentDigest,
        size: u64,
        known: Option<i64>,
        place: &StagePath,
    ) -> usize {
        let local = self.locals.len();
        let member = self.position;
        self.locals.push(LocalContent { digest, size, known, source: place.clone(), member });
        self.latest.insert(digest, local);
        local
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
        self.latest = HashMap::new();
        let (files, locals) = (&self.files, &self.locals);
        let digest = |file: FileId| {
            let content = files.get(file.index()).copied().flatten();
            content.map(|content| locals[content.local].digest).ok_or_else(|| {
                strata_diff::Error::damaged("the draft of a layer", "a file without content")
            })
        };
        let draft = std::mem::replace(&mut self.draft, Draft::new("", self.limits));
        let finished = draft.finish(&digest)?;
        for (file, to) in &finished.linked {
            self.link(*file, to)?;
        }
        let Self { files, locals, apart, bodies, target, .. } = self;
        Ok((Built { finished, locals, files, apart, bodies }, target))
    }
}

impl Built {
    /// Of each row the local content, if it is a name of a regular file.
    pub(crate) fn locals_by_row(&self) -> Vec<Option<usize>> {
        let mut locals = vec![None; self.finished.rows.len()];
        for (row, path, file) in &self.finished.regular {
            locals[*row] = self.local_of(path, *file);
        }
        locals
    }

    /// Every image path of every local content; none if only replaced members had it.
    pub(crate) fn paths_by_local(&self) -> Vec<Vec<&TreePath>> {
        let mut paths = vec![Vec::new(); self.locals.len()];
        for (_, path, file) in &self.finished.regular {
            if let Some(local) = self.local_of(path, *file) {
                paths[local].push(path);
            }
        }
        paths
    }

    fn local_of(&self, path: &TreePath, file: FileId) -> Option<usize> {
        let content = self.files.get(file.index()).copied().flatten()?;
        Some(self.apart.get(path).copied().unwrap_or(content.local))
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
        let mut surviving: HashMap<FileId, &TreePath> = HashMap::new();
        for (_, path, file) in &self.finished.regular {
            surviving.entry(*file).or_insert(path);
        }
        let mut table = Vec::new();
        let mut inline = Vec::new();
        for body in &self.bodies {
            let path = match &body.of {
                BodyOf::File(file) => surviving.get(file).copied(),
                BodyOf::Loose(_) => None,
            };
            table.push(match (path, &body.pieces) {
                (Some(path), None) => StoredBody::File(path.clone(), body.len),
                (Some(path), Some(pieces)) => StoredBody::Sparse(path.clone(), pieces.to_vec()),
                (None, _) => {
                    inline.push(body);
                    StoredBody::Inline(body.len)
                }
            });
        }
        let mut out = stage.create_beside("headers.zst")?;
        let stage = &*stage;
        stream.finish(&table, &mut out, &mut |frame| {
            for body in &inline {
                let place = match &body.of {
                    BodyOf::File(file) => StagePath::Shadow(file.index() as u64),
                    BodyOf::Loose(place) => StagePath::clone(place),
                };
                let file = stage.open(&place)?;
                let whole = [(0, body.len)];
                for (offset, len) in body.pieces.as_deref().unwrap_or(&whole) {
                    copy_range(&file, *offset, *len, frame)?;
                }
            }
            Ok(())
        })
    }
}
