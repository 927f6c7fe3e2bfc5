//! The tree of a draft, as flat records: names, directories, inodes that are none.
//!
//! ```text
//! table   hash of (directory, name) -> name
//! names   directory, text, what it points to, whether it hides lower ones, the next one there
//! dirs    facts, marks, its own name, the first of its names
//! files   facts, kind, how many names it has
//! texts   bytes of names, targets, attributes
//! ```
//!
//! All of it is in [`Spill`]s, so that it may be larger than memory.
//!
//! Invariants: a name is never taken out, only what it points to, so its path can be asked for
//! when it is gone; name 0 is the root's own, and directory 0 the root; directory 1 is in no
//! other, and has what is never shown, under its whole path; each directory's names are one chain,
//! in which each is once.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use strata_tree::{Device, Name, NameBuf, Presence, Timestamp, TreePath, Xattr};

use super::records::{
    BLOCK, CHAR, DirNode, DirRecord, FIFO, FactsRecord, FileNode, FileRecord, NONE, NOTHING,
    NameNode, NameRecord, REGULAR, SYMLINK, Slot, presence_number,
};
use super::{DirId, FileId, FileKind, MemberFacts, NameId};
use crate::error::{Error, Result};
use crate::spill::{Spill, SpillSpace, SpillTexts, Table, TablePlace};

/// Names that a layer may have beyond twice its members.
const IMPLIED: u64 = 2048;
/// The directory of what is never shown.
const HIDDEN: DirId = DirId(1);

/// All of it.
#[derive(Debug)]
pub(super) struct Nodes {
    names: Spill<NameRecord>,
    dirs: Spill<DirRecord>,
    files: Spill<FileRecord>,
    texts: SpillTexts,
    table: Table,
    hash: RandomState,
    pub(super) scratch: Arc<SpillSpace>,
    /// What errors call the layer, and how many names it may have.
    layer: String,
    most: u64,
}

impl Nodes {
    /// The root alone, which nobody has described.
    pub(super) fn new(scratch: &Arc<SpillSpace>, layer: &str, entries: u64) -> Result<Self> {
        let mut nodes = Self {
            names: Spill::new(scratch, 14),
            dirs: Spill::new(scratch, 5),
            files: Spill::new(scratch, 12),
            texts: SpillTexts::new(scratch, 8),
            table: Table::new(scratch, 14),
            hash: RandomState::new(),
            scratch: Arc::clone(scratch),
            layer: layer.to_owned(),
            // A member may make a thousand directories; a tar has hardly more than it names.
            most: entries.saturating_mul(2).saturating_add(IMPLIED),
        };
        let text = nodes.texts.put(b"")?;
        let root = Slot::Dir(DirId(0)).parts();
        nodes.names.push(NameRecord {
            dir: 0,
            next: NONE,
            text,
            kind: root.0,
            hidden: 0,
            value: root.1,
            position: root.2,
        })?;
        for _ in [DirId(0), HIDDEN] {
            nodes.dirs.push(DirRecord::new(Presence::Implied, NameId(0)))?;
        }
        Ok(nodes)
    }

    /// Where the name is in the table, or would be.
    fn place(&self, dir: DirId, name: &[u8]) -> Result<TablePlace> {
        let hash = (self.hash.hash_one((dir.0, name)) >> 32) as u32;
        self.table.find(hash, |number| {
            let known = self.names.get(u64::from(number))?;
            Ok(known.dir == dir.0 && self.texts.is(known.text, name)?)
        })
    }

    /// The name, if it was ever there.
    fn find(&self, dir: DirId, name: &[u8]) -> Result<Option<NameId>> {
        Ok(self.place(dir, name)?.number.map(NameId))
    }

    /// The name, which is there from now on.
    fn find_or_add(&mut self, dir: DirId, name: &[u8]) -> Result<NameId> {
        let place = self.place(dir, name)?;
        if let Some(number) = place.number {
            return Ok(NameId(number));
        }
        if self.names.len() > self.most {
            let (layer, limit, option) = (self.layer.clone(), self.most, "--max-entries");
            let what = "names, with the directories that members imply";
            return Err(Error::Limit { layer, what, limit, option });
        }
        let number = number(self.names.len(), "names")?;
        let text = self.texts.put(name)?;
        let next =
            self.dirs.update(u64::from(dir.0), |dir| std::mem::replace(&mut dir.chain, number))?;
        let (kind, hidden, value, position) = (0, 0, 0, NOTHING);
        let dir = dir.0;
        self.names.push(NameRecord { dir, next, text, kind, hidden, value, position })?;
        self.table.put(place, number)?;
        Ok(NameId(number))
    }

    /// What is known of a name.
    pub(super) fn name(&self, id: NameId) -> Result<NameNode> {
        let record = self.names.get(u64::from(id.0))?;
        let slot = Slot::of(record.kind, record.value, record.position);
        let next = (record.next != NONE).then_some(NameId(record.next));
        let (dir, hidden) = (DirId(record.dir), record.hidden != 0);
        Ok(NameNode { dir, slot, hidden, text: record.text, next })
    }

    /// Its bytes.
    pub(super) fn text_of(&self, name: &NameNode) -> Result<NameBuf> {
        NameBuf::new(&self.texts.get(name.text)?).map_err(|_| damaged("a name that is none"))
    }

    /// What a directory's name points to.
    pub(super) fn slot(&self, dir: DirId, name: Name<'_>) -> Result<Option<Slot>> {
        match self.find(dir, name.as_bytes())? {
            Some(id) => Ok(self.name(id)?.slot),
            None => Ok(None),
        }
    }

    /// Points a directory's name to `slot`.
    pub(super) fn point(&mut self, dir: DirId, name: Name<'_>, slot: Slot) -> Result<NameId> {
        let id = self.find_or_add(dir, name.as_bytes())?;
        self.set_slot(id, slot)?;
        Ok(id)
    }

    /// Points a name to `slot`.
    pub(super) fn set_slot(&mut self, id: NameId, slot: Slot) -> Result<()> {
        let parts = slot.parts();
        self.names.update(u64::from(id.0), |record| {
            (record.kind, record.value, record.position) = parts;
        })
    }

    /// Lets a directory's name point to nothing; gives what it pointed to.
    pub(super) fn take(&mut self, dir: DirId, name: Name<'_>) -> Result<Option<(NameId, Slot)>> {
        let Some(id) = self.find(dir, name.as_bytes())? else { return Ok(None) };
        let taken = self.names.update(u64::from(id.0), |record| {
            let slot = Slot::of(record.kind, record.value, record.position);
            record.kind = 0;
            slot
        })?;
        Ok(taken.map(|slot| (id, slot)))
    }

    /// The name that is at a path of directories.
    pub(super) fn at(&self, path: &TreePath) -> Result<Option<NameId>> {
        let Some((parent, last)) = path.split_last() else { return Ok(None) };
        let mut dir = DirId(0);
        for name in parent.names() {
            let Some(Slot::Dir(next)) = self.slot(dir, name)? else { return Ok(None) };
            dir = next;
        }
        self.find(dir, last.as_bytes())
    }

    /// Notes a file that is never shown, at its whole path.
    pub(super) fn put_hidden(&mut self, path: &TreePath, file: FileId) -> Result<()> {
        let id = self.find_or_add(HIDDEN, path.as_bytes())?;
        self.set_slot(id, Slot::File { file, position: 0 })
    }

    /// The file that is never shown at that path.
    pub(super) fn hidden(&self, path: &TreePath) -> Result<Option<FileId>> {
        let Some(id) = self.find(HIDDEN, path.as_bytes())? else { return Ok(None) };
        match self.name(id)?.slot {
            Some(Slot::File { file, .. }) => Ok(Some(file)),
            Some(Slot::Dir(_) | Slot::Waiting { .. }) | None => Ok(None),
        }
    }

    /// From now on what lower layers have under that name does not show.
    pub(super) fn hide(&mut self, dir: DirId, name: &[u8]) -> Result<()> {
        let id = self.find_or_add(dir, name)?;
        self.names.update(u64::from(id.0), |record| record.hidden = 1)
    }

    /// What a directory's name points to, and whether what lower layers have under that name
    /// does not show.
    pub(super) fn look(&self, dir: DirId, name: Name<'_>) -> Result<(Option<Slot>, bool)> {
        let opaque = self.dir(dir)?.opaque;
        let Some(id) = self.find(dir, name.as_bytes())? else { return Ok((None, opaque)) };
        let found = self.name(id)?;
        Ok((found.slot, opaque || found.hidden))
    }

    /// The first of a directory's names; each knows the next.
    pub(super) fn first_name(&self, dir: DirId) -> Result<Option<NameId>> {
        let chain = self.dirs.get(u64::from(dir.0))?.chain;
        Ok((chain != NONE).then_some(NameId(chain)))
    }

    /// Hands over a directory's names, those that point to nothing too, in no order.
    pub(super) fn each_name(
        &self,
        dir: DirId,
        mut take: impl FnMut(NameId, NameNode) -> Result<()>,
    ) -> Result<()> {
        let mut next = self.first_name(dir)?;
        while let Some(id) = next {
            let name = self.name(id)?;
            next = name.next;
            take(id, name)?;
        }
        Ok(())
    }

    /// The path of a name.
    pub(super) fn path(&self, id: NameId) -> Result<TreePath> {
        let mut names: Vec<NameBuf> = Vec::new();
        let mut at = id;
        while at != NameId(0) {
            let name = self.name(at)?;
            names.push(self.text_of(&name)?);
            at = NameId(self.dirs.get(u64::from(name.dir.0))?.name);
        }
        Ok(TreePath::of_names(names.iter().rev().map(NameBuf::as_name)))
    }

    /// Adds a path that a link leads to.
    pub(super) fn put_path(&mut self, path: &TreePath) -> Result<u64> {
        self.texts.put(path.as_bytes())
    }

    /// The path that [`Nodes::put_path`] has put there.
    pub(super) fn get_path(&self, at: u64) -> Result<TreePath> {
        let text = self.texts.get(at)?;
        TreePath::clamped(&text).map_err(|_| damaged("a path that is none"))
    }

    fn facts(&mut self, facts: &MemberFacts) -> Result<FactsRecord> {
        let MemberFacts { perm, uid, gid, mtime, xattrs } = facts;
        let mut place = NOTHING;
        if !xattrs.is_empty() {
            place = self.texts.put(&(xattrs.len() as u64).to_le_bytes())?;
            for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
                self.texts.put(part)?;
            }
        }
        let (seconds, nanos) = (mtime.seconds, mtime.nanos);
        Ok(FactsRecord { perm: *perm, uid: *uid, gid: *gid, seconds, nanos, xattrs: place })
    }

    fn member_facts(&self, facts: &FactsRecord) -> Result<MemberFacts> {
        let mut xattrs: Vec<Xattr> = Vec::new();
        if facts.xattrs != NOTHING {
            let (count, mut at) = self.texts.following(facts.xattrs)?;
            let count = count.first_chunk().map_or(0, |count| u64::from_le_bytes(*count));
            for _ in 0..count {
                let (name, next) = self.texts.following(at)?;
                let (value, next) = self.texts.following(next)?;
                xattrs.push((name, value));
                at = next;
            }
        }
        let mtime = Timestamp { seconds: facts.seconds, nanos: facts.nanos };
        Ok(MemberFacts { perm: facts.perm, uid: facts.uid, gid: facts.gid, mtime, xattrs })
    }

    /// Adds a directory under that name.
    pub(super) fn add_dir(
        &mut self,
        parent: DirId,
        name: Name<'_>,
        presence: Presence,
    ) -> Result<DirId> {
        let dir = DirId(number(self.dirs.len(), "directories")?);
        let own = self.point(parent, name, Slot::Dir(dir))?;
        self.dirs.push(DirRecord::new(presence, own))?;
        Ok(dir)
    }

    pub(super) fn dir(&self, dir: DirId) -> Result<DirNode> {
        let record = self.dirs.get(u64::from(dir.0))?;
        Ok(DirNode {
            record,
            presence: match record.presence {
                0 => Presence::Explicit,
                1 => Presence::Implied,
                _ => Presence::Phantom,
            },
            opaque: record.opaque != 0,
            position: (record.position != NOTHING).then_some(record.position),
            row: u64::from(record.row),
            children: (u64::from(record.first), u64::from(record.children)),
            subdirs: record.subdirs,
        })
    }

    pub(super) fn set_presence(&mut self, dir: DirId, presence: Presence) -> Result<()> {
        self.dirs.update(u64::from(dir.0), |record| record.presence = presence_number(presence))
    }

    pub(super) fn set_opaque(&mut self, dir: DirId) -> Result<()> {
        self.dirs.update(u64::from(dir.0), |record| record.opaque = 1)
    }

    /// What a member says of a directory.
    pub(super) fn describe(&mut self, dir: DirId, facts: &MemberFacts, at: u64) -> Result<()> {
        let facts = self.facts(facts)?;
        self.dirs.update(u64::from(dir.0), |record| {
            (record.facts, record.described, record.position) = (facts, 1, at);
        })
    }

    /// What a member has said of a directory.
    pub(super) fn description(&self, dir: &DirNode) -> Result<Option<MemberFacts>> {
        (dir.record.described != 0).then(|| self.member_facts(&dir.record.facts)).transpose()
    }

    /// The rows of a directory and of its children: the first of those, and how many there are.
    pub(super) fn set_rows(
        &mut self,
        dir: DirId,
        row: u64,
        (first, children, subdirs): (u64, u64, u32),
    ) -> Result<()> {
        let (row, first) = (number(row, "names")?, number(first, "names")?);
        let children = number(children, "names")?;
        self.dirs.update(u64::from(dir.0), |record| {
            (record.row, record.first) = (row, first);
            (record.children, record.subdirs) = (children, subdirs);
        })
    }

    /// Bytes of all regular inodes that have a row.
    pub(super) fn apparent(&self) -> Result<u64> {
        let mut sum = 0;
        self.files.each(0, self.files.len(), |files| {
            let counted = files.iter().filter(|file| file.kind == REGULAR && file.row != NONE);
            sum += counted.map(|file| file.value).sum::<u64>();
        })?;
        Ok(sum)
    }

    pub(super) fn add_file(&mut self, kind: &FileKind, facts: &MemberFacts) -> Result<FileId> {
        let facts = self.facts(facts)?;
        let device = |device: &Device| u64::from(device.major) << 32 | u64::from(device.minor);
        let (kind, value) = match kind {
            FileKind::Regular { size } => (REGULAR, *size),
            FileKind::Symlink(target) => (SYMLINK, self.texts.put(target)?),
            FileKind::CharDevice(number) => (CHAR, device(number)),
            FileKind::BlockDevice(number) => (BLOCK, device(number)),
            FileKind::Fifo => (FIFO, 0),
        };
        let file = FileId(number(self.files.len(), "files")?);
        self.files.push(FileRecord { facts, kind, value, names: 0, row: NONE })?;
        Ok(file)
    }

    pub(super) fn file(&self, file: FileId) -> Result<FileNode> {
        let record = self.files.get(u64::from(file.0))?;
        let row = (record.row != NONE).then_some(u64::from(record.row));
        Ok(FileNode { record, names: record.names, row })
    }

    pub(super) fn file_kind(&self, file: &FileNode) -> Result<FileKind> {
        let value = file.record.value;
        let device = Device { major: (value >> 32) as u32, minor: value as u32 };
        Ok(match file.record.kind {
            REGULAR => FileKind::Regular { size: value },
            SYMLINK => FileKind::Symlink(self.texts.get(value)?),
            CHAR => FileKind::CharDevice(device),
            BLOCK => FileKind::BlockDevice(device),
            _ => FileKind::Fifo,
        })
    }

    pub(super) fn file_facts(&self, file: &FileNode) -> Result<MemberFacts> {
        self.member_facts(&file.record.facts)
    }

    /// A further name of the inode.
    pub(super) fn add_name(&mut self, file: FileId) -> Result<()> {
        self.files.update(u64::from(file.0), |record| record.names += 1)
    }

    /// A name less; gives how many are left.
    pub(super) fn drop_name(&mut self, file: FileId) -> Result<u32> {
        self.files.update(u64::from(file.0), |record| {
            record.names -= 1;
            record.names
        })
    }

    /// Notes that a row is a name of the inode: the first that is noted stays.
    pub(super) fn note_row(&mut self, file: FileId, row: u64) -> Result<()> {
        let row = number(row, "names")?;
        self.files.update(u64::from(file.0), |record| {
            if record.row == NONE {
                record.row = row;
            }
        })
    }
}

/// The number of the next one, where there are `count`.
fn number(count: u64, what: &str) -> Result<u32> {
    let number = u32::try_from(count).ok().filter(|number| *number < NONE);
    number.ok_or_else(|| damaged(&format!("more than 2^32 {what}")))
}

fn damaged(why: &str) -> Error {
    Error::damaged("the draft of a layer", why)
}
