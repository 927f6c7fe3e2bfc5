//! A tar becoming a layer: the draft decides, the target follows, this keeps the books.
//!
//! For every regular file: read, hash, and have the [`BodyTarget`] either link to a file that
//! already has those bytes or write it. The books are the same whatever the target is, which is how
//! fsck and rebuild derive a layer's rows again.
//!
//! Invariants: at most [`SMALL`] bytes of a body are in memory, and of the books no more than their
//! [`SpillSpace`] says; a body that no path holds any more stays in the stage's shadows until
//! `headers.zst` has it.

use std::io::Read;
use std::sync::Arc;

use strata_tree::{ContentDigest, TreePath};

use crate::body_target::{BodyTarget, LinkedTo};
use crate::books::{BodyOf, Books, StoredPieces};
use crate::error::{Error, IoContext, Result};
pub(crate) use crate::locals::{LocalContent, LocalId};
use crate::stage::{Stage, StagePath};
use strata_diff::Limits;
use strata_diff::body::{BodyLayout, CHUNK, copy_range, digest, fill};
use strata_diff::draft::{
    Draft, DraftRows, Effects, FileId, FileKind, MemberFacts, NameId, Placed, RemovedName,
};
use strata_diff::headers::{BodySink, StoredBody, StreamWriter};
use strata_diff::rows::EntryRow;
use strata_diff::spill::SpillSpace;
use strata_diff::stream::Hashed;
use strata_diff::tar::{DiffReader, Member, MemberKind, RawSink};

/// Bodies up to this size in bytes are read whole, hashed, and written only if they are new.
const SMALL: u64 = 4 << 20;

/// Books of a layer that has been read to its end.
pub(crate) struct Built {
    pub rows: DraftRows,
    pub books: Books,
}

/// The work.
pub(crate) struct Build<T> {
    label: String,
    limits: Limits,
    draft: Draft,
    books: Books,
    logical: u64,
    /// Bytes of extended attributes of all members.
    xattrs: u64,
    /// The number of the member that is being read.
    position: u64,
    target: T,
}

impl<T: BodyTarget> Build<T> {
    /// `scratch` is where the books are kept.
    pub(crate) fn new(
        label: &str,
        limits: Limits,
        target: T,
        scratch: &Arc<SpillSpace>,
    ) -> Result<Self> {
        Ok(Self {
            label: label.to_owned(),
            limits,
            draft: Draft::new(label, limits, scratch)?,
            books: Books::new(scratch),
            logical: 0,
            xattrs: 0,
            position: 0,
            target,
        })
    }

    /// Reads a layer that was accepted before, by the rules of any time.
    pub(crate) fn accepted_before(mut self) -> Self {
        self.draft.take_earlier_links();
        self
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
                self.bound_xattrs(&facts, reader.offset())?;
                self.draft.directory(raw, facts, position, &mut effects)?;
                return self.follow(effects);
            }
            MemberKind::HardLink { target } => {
                let placed = self.draft.link(raw, &target, position, &mut effects)?;
                self.follow(effects)?;
                if let Placed::Link { file, name, path } = placed {
                    self.link(file, name, &path)?;
                }
                return Ok(());
            }
            MemberKind::Symlink { target } => FileKind::Symlink(target),
            MemberKind::CharDevice(device) => FileKind::CharDevice(device),
            MemberKind::BlockDevice(device) => FileKind::BlockDevice(device),
            MemberKind::Fifo => FileKind::Fifo,
            MemberKind::Regular => FileKind::Regular { size: member.size },
        };
        self.bound_xattrs(&facts, reader.offset())?;
        let regular = matches!(kind, FileKind::Regular { .. });
        let placed = self.draft.file(raw, kind, facts, position, &mut effects)?;
        self.follow(effects)?;
        if !regular {
            return Ok(());
        }
        let content = BodyLayout { logical: member.size, pieces: member.sparse };
        match placed {
            Placed::File { file, path, hidden } => {
                let of = BodyOf::File(file);
                let place = if hidden { of.shadow() } else { StagePath::Diff(path) };
                let local = self.content(&content, &place, reader, buffer)?;
                self.books.note(file, local, hidden)?;
                self.books.note_body(content, of)
            }
            // A whiteout with bytes in it: only the exact tar needs them.
            Placed::Nothing | Placed::Link { .. } => {
                let of = BodyOf::Loose(self.target.unused_shadow());
                self.content(&content, &of.shadow(), reader, buffer)?;
                self.books.note_body(content, of)
            }
        }
    }

    /// Does what a member's placing asks for.
    fn follow(&mut self, effects: Effects) -> Result<()> {
        for RemovedName { name, file, last } in effects.removed {
            let Some((local, hidden)) = self.books.of(file)? else { continue };
            let local = self.books.apart(name)?.unwrap_or(local);
            self.books.set_apart(name, None)?;
            let place = StagePath::Diff(self.draft.path(name)?);
            let is_source = self.books.locals.source(local)? == place;
            let shadow = if last && !hidden {
                BodyOf::File(file).shadow()
            } else if is_source {
                StagePath::Shadow(self.target.unused_shadow())
            } else {
                self.target.remove(&place)?;
                continue;
            };
            if is_source {
                self.target.withdraw(&self.books.locals.get(local)?.digest, &place);
                self.books.locals.set_source(local, &shadow)?;
            }
            self.target.rename(&place, &shadow)?;
        }
        for name in effects.removed_dirs {
            self.target.remove_dir(&self.draft.path(name)?)?;
        }
        effects.made_dirs.iter().try_for_each(|path| self.target.make_dir(path))
    }

    /// Gives an inode's bytes a further name.
    fn link(&mut self, file: FileId, name: NameId, to: &TreePath) -> Result<()> {
        let Some((own, _)) = self.books.of(file)? else {
            return Ok(()); // A symlink or device: it has no bytes.
        };
        let LocalContent { digest, size, .. } = self.books.locals.get(own)?;
        let place = StagePath::Diff(to.clone());
        let local = match self.link_known(&digest, size, &place)? {
            Some(local) => local,
            None => {
                self.grow(size)?;
                self.target.copy_own(&self.books.locals.source(own)?, &place)?;
                self.fresh(digest, size, &place)?
            }
        };
        if local != own {
            self.books.set_apart(name, Some(local))?;
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
        let local = self.books.locals.latest(digest)?;
        let own = local.map(|local| self.books.locals.source(local)).transpose()?;
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
        self.books.locals.add(content, place)
    }

    /// Bounds what a body, of which the tar has been read up to `offset`, makes of it.
    fn bound(&mut self, content: &BodyLayout, offset: u64) -> Result<()> {
        self.grow(content.logical)?;
        let times = self.limits.expansion;
        let sparse = offset.saturating_mul(times).saturating_add(Limits::EXPANSION_FREE);
        if content.pieces.is_some() && self.logical > sparse {
            let what = "bytes of sparse files for each byte of the tar";
            return Err(self.beyond(what, times, "--max-expansion"));
        }
        Ok(())
    }

    /// Counts bytes of files that are to be written.
    fn grow(&mut self, bytes: u64) -> Result<()> {
        self.logical = self.logical.saturating_add(bytes);
        let most = self.limits.layer_bytes;
        if self.logical > most {
            return Err(self.beyond("bytes of files", most, "--max-layer-bytes"));
        }
        Ok(())
    }

    /// Counts the extended attributes of a member: its own are in the tar, but those of a global
    /// header are there once, and noted for each member.
    fn bound_xattrs(&mut self, facts: &MemberFacts, offset: u64) -> Result<()> {
        let bytes = facts.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64);
        self.xattrs = self.xattrs.saturating_add(bytes.sum());
        let most = self.limits.xattr_bytes.saturating_mul(Limits::XATTRS_FREE);
        let most = most.saturating_add(offset);
        if self.xattrs > most {
            let what = "bytes of extended attributes of all members";
            return Err(self.beyond(what, most, "--max-xattr-bytes"));
        }
        Ok(())
    }

    fn beyond(&self, what: &'static str, limit: u64, option: &'static str) -> Error {
        strata_diff::Error::Limit { layer: self.label.clone(), what, limit, option }.into()
    }

    /// Settles what had to wait for the end.
    pub(crate) fn finish(mut self) -> Result<(Built, T)> {
        let draft = Draft::new("", self.limits, &self.books.scratch)?;
        let settled = std::mem::replace(&mut self.draft, draft).settle()?;
        for linked in settled.linked() {
            let (file, name, to) = linked?;
            self.link(file, name, &to)?;
        }
        let Self { books, target, .. } = self;
        Ok((Built { rows: settled.finish()?, books }, target))
    }
}

impl Built {
    /// A row, as the index keeps it.
    pub(crate) fn row(&self, at: u64) -> Result<EntryRow> {
        let digest = |file: FileId| {
            let Some((local, _)) = self.books.of(file)? else {
                return Err(Error::damaged("the draft of a layer", "a file without content"));
            };
            Ok(self.books.locals.get(local)?.digest)
        };
        self.rows.row(at, digest)
    }

    /// Its directories, those left out that only whiteouts imply.
    pub(crate) fn directories(&self) -> impl Iterator<Item = Result<TreePath>> {
        (1..self.rows.count()).filter_map(|row| match self.rows.is_dir(row) {
            Ok(true) => Some(self.rows.path(row).map_err(Error::from)),
            Ok(false) => None,
            Err(error) => Some(Err(error.into())),
        })
    }

    /// The content of a row, if it is a name of a regular file.
    pub(crate) fn local_of(&self, row: u64) -> Result<Option<LocalId>> {
        let Some(file) = self.rows.regular(row)? else { return Ok(None) };
        let Some((local, _)) = self.books.of(file)? else { return Ok(None) };
        Ok(Some(self.books.apart(self.rows.name(row)?)?.unwrap_or(local)))
    }

    /// Writes `headers.zst` into the stage; gives its size in bytes.
    pub(crate) fn write_headers(&self, stage: &mut Stage, stream: StreamWriter) -> Result<u64> {
        let books = &self.books;
        // Of each file the first name that there is at the end.
        let name = |file: FileId| {
            let row = self.rows.first_row(file)?;
            Ok::<_, Error>(row.map(|row| self.rows.path(row)).transpose()?)
        };
        let stored = (0..books.bodies()).map(|at| {
            let StoredPieces { len, of, pieces } = books.body(at)?;
            let path = match of {
                BodyOf::File(file) => name(file)?,
                BodyOf::Loose(_) => None,
            };
            Ok(match (path, pieces) {
                (Some(path), None) => StoredBody::File(path, len),
                (Some(path), Some(pieces)) => StoredBody::Sparse(path, pieces),
                (None, _) => StoredBody::Inline(len),
            })
        });
        let mut out = stage.create_beside("headers.zst")?;
        let stage = &*stage;
        stream.finish(books.bodies(), stored, &mut out, &mut |frame| {
            for at in 0..books.bodies() {
                let StoredPieces { len, of, pieces } = books.body(at)?;
                if let BodyOf::File(file) = of
                    && self.rows.first_row(file)?.is_some()
                {
                    continue;
                }
                let file = stage.open(&of.shadow())?;
                for (offset, len) in pieces.unwrap_or_else(|| vec![(0, len)]) {
                    copy_range(&file, offset, len, frame)?;
                }
            }
            Ok(())
        })
    }
}
