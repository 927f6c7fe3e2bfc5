//! Merges layers into an [`ImageTree`], base first, row by row as the index has them.
//!
//! A layer's rows come directory by directory, names sorted, so each directory is one merge of
//! two sorted lists. The first layer finds nothing there and only appends.
//!
//! Invariants: a layer's whiteouts and opaque marks touch what lower layers have and nothing of
//! its own: an opaque directory is emptied before its own names come; a path is made only for a
//! name that exists after the layer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use strata_diff::rows::{EntryRow, RowKind};
use strata_layer::{ContentId, Error, ImageRecord, IndexReader, LeasedLayer, Result, Store};
use strata_tree::{
    ContentDigest, DiffId, ImageId, Kind, Name, NodeId, Presence, Stat, TreePath, Xattr,
};

use super::holders::Finder;
use super::{EventRecord, HeldContent, ImageTree, Layer, NONE, PathId, PathRecord, Version};

impl ImageTree {
    /// Reads an image, layer by layer, from the index; `leased` are its layers, base first. Calls
    /// `watch` with the number of layers that were read.
    ///
    /// # Errors
    /// `NoLayer`; `Damaged` where the index does not add up, or the image has more than 2^32 - 2
    /// names; `Sqlite`, `Io`.
    pub fn read(
        store: &Store,
        image: &ImageRecord,
        leased: &[LeasedLayer],
        watch: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let reader = store.reader();
        let mut builder = Builder::new();
        builder.tree.files = Arc::new(LeasedLayer::files(leased)?);
        for (number, layer) in leased.iter().enumerate() {
            builder.tree.layers.push(Layer { diff_id: *layer.diff_id() });
            builder.layer(&reader, number as u32)?;
            watch(number + 1);
        }
        builder.finish(&reader, &image.id)
    }
}

struct Builder {
    tree: ImageTree,
    /// By number in the index; and by digest, for copies of the same bytes have several ids.
    contents: HashMap<ContentId, u32>,
    /// By content, of one of its copies.
    ids: Vec<ContentId>,
    digests: HashMap<ContentDigest, u32>,
    xattrs: HashMap<Vec<Xattr>, u32>,
    /// Leaves of a layer's own tree that show nothing; another layer may have a path there.
    void: HashSet<TreePath>,
}

/// What is known of the layer that is being read.
struct Reading {
    layer: u32,
    diff_id: DiffId,
    /// By node - 1: path and version, `NONE` for none.
    nodes: Vec<(u32, u32)>,
    /// The directory whose names come, by node, and the path it has.
    dir: NodeId,
    path: Option<PathId>,
    /// How far its old children were passed.
    passed: usize,
    new: Vec<PathId>,
    /// For files with several names, the number of the tar member that has the bytes.
    members: HashMap<u32, u64>,
    /// Directories that no layer below has, on the way to whiteouts.
    absent: HashMap<NodeId, TreePath>,
}

impl Reading {
    fn damaged(&self, what: &str) -> Error {
        Error::damaged("index.db", format!("the rows of layer {}: {what}", self.diff_id))
    }
}

impl Builder {
    fn new() -> Self {
        let root = PathRecord { parent: 0, name_at: 0, name_length: 0, kids: 0, last: NONE };
        let tree = ImageTree {
            layers: Vec::new(),
            names: Vec::new(),
            paths: vec![root],
            kids: vec![Vec::new()],
            events: Vec::new(),
            versions: Vec::new(),
            contents: Vec::new(),
            files: Arc::default(),
            links: Vec::new(),
            xattrs: vec![Vec::new()],
            holders: Vec::new(),
            bare: HashSet::new(),
        };
        Self {
            tree,
            contents: HashMap::new(),
            ids: Vec::new(),
            digests: HashMap::new(),
            xattrs: HashMap::from([(Vec::new(), 0)]),
            void: HashSet::new(),
        }
    }

    fn layer(&mut self, reader: &IndexReader<'_>, layer: u32) -> Result<()> {
        let diff_id = self.tree.layers[layer as usize].diff_id;
        let mut reading = Reading {
            layer,
            diff_id,
            nodes: Vec::new(),
            dir: NodeId::ROOT,
            path: None,
            passed: 0,
            new: Vec::new(),
            members: HashMap::new(),
            absent: HashMap::new(),
        };
        reader.each_row(&diff_id, &mut |row, content| {
            let found = self.row(&mut reading, &row, content)?;
            reading.nodes.push(found);
            Ok(())
        })?;
        self.close(&mut reading);
        Ok(())
    }

    /// Takes one row; gives the path and the version that its node has.
    fn row(
        &mut self,
        reading: &mut Reading,
        row: &EntryRow,
        content: Option<ContentId>,
    ) -> Result<(u32, u32)> {
        let is_root = reading.nodes.is_empty();
        let old = if is_root {
            Some(PathId::ROOT)
        } else {
            if row.parent != reading.dir || reading.nodes.len() == 1 {
                self.enter(reading, row.parent)?;
            }
            // Below a directory that is not there after all are whiteouts alone.
            let Some(dir) = reading.path else { return self.nothing(reading, row) };
            let old = &self.tree.children(dir)[reading.passed..];
            reading.passed += old.partition_point(|kid| self.tree.name(*kid) < &row.name[..]);
            let next = self.tree.children(dir).get(reading.passed).copied();
            next.filter(|kid| self.tree.name(*kid) == &row.name[..])
        };
        let now = old.and_then(|path| self.now(path));
        let now_dir = now.is_some_and(|number| self.version(number).kind.is_dir());
        let number = match &row.kind {
            RowKind::Whiteout => {
                // It may be gone already, with all that an opaque directory had.
                let hides = |path: &PathId| self.tree.at(*path, reading.layer as usize).is_some();
                let Some(path) = old.filter(hides) else { return self.nothing(reading, row) };
                self.empty(reading.layer, path);
                self.set(reading.layer, path, NONE, true);
                return Ok((NONE, NONE));
            }
            RowKind::Directory { marks, .. } => {
                if let Some(path) = old.filter(|_| now_dir && marks.opaque) {
                    self.empty(reading.layer, path);
                }
                match (marks.presence, now) {
                    (Presence::Phantom, _) if !now_dir && !is_root => {
                        return self.nothing(reading, row);
                    }
                    (Presence::Implied | Presence::Phantom, Some(number)) if now_dir => number,
                    (Presence::Implied | Presence::Phantom, _) => {
                        self.add_version(reading.layer, Stat::unstated_dir(), NONE, NONE, 0)?
                    }
                    (Presence::Explicit, _) => self.described(reading, row, content, now)?,
                }
            }
            RowKind::HardLink(target) => self.hard_link(reading, row, *target)?,
            RowKind::LowerLink(target) => match self.lower(reading, target) {
                Some(number) => number,
                None => return self.dangling(reading, row, old),
            },
            _ => self.leaf(reading, row, content)?,
        };
        let path = match old {
            Some(path) => path,
            None => self.add_path(reading, &row.name)?,
        };
        if now_dir && !self.version(number).kind.is_dir() {
            self.empty(reading.layer, path);
        }
        let same = now == Some(number);
        if match row.kind {
            RowKind::Directory { children, .. } => children == 0,
            // To the very file that lower layers have at this path.
            _ => same,
        } {
            self.tree.bare.insert(path);
        }
        let version = &mut self.tree.versions[number as usize];
        if version.path.0 == NONE {
            version.path = path;
        }
        if !same {
            self.set(reading.layer, path, number, false);
        }
        Ok((path.0, number))
    }

    /// Turns to the names of another directory of the layer.
    fn enter(&mut self, reading: &mut Reading, dir: NodeId) -> Result<()> {
        self.close(reading);
        let at = (dir.0 as usize).checked_sub(1);
        let parent = at.and_then(|at| reading.nodes.get(at));
        let (path, _) = parent.ok_or_else(|| reading.damaged("a name without parent"))?;
        (reading.dir, reading.passed) = (dir, 0);
        reading.path = Some(PathId(*path)).filter(|path| path.0 != NONE);
        Ok(())
    }

    /// The version of a directory that the layer describes; `now` is what is there.
    fn described(
        &mut self,
        reading: &Reading,
        row: &EntryRow,
        content: Option<ContentId>,
        now: Option<u32>,
    ) -> Result<u32> {
        let number = self.inode(reading, row, content)?;
        // A directory that is only on the way has nothing of its own to tell.
        let new = self.version(number);
        let same = now.filter(|old| self.tree.differences(self.version(*old), new).is_empty());
        if same.is_some() {
            self.tree.versions.pop();
        }
        Ok(same.unwrap_or(number))
    }

    /// The version of the first name of anything but a directory.
    fn leaf(
        &mut self,
        reading: &mut Reading,
        row: &EntryRow,
        content: Option<ContentId>,
    ) -> Result<u32> {
        let number = self.inode(reading, row, content)?;
        let names = row.meta.as_ref().map(|meta| meta.nlink);
        if let (Some(2..), Some(position)) = (names, row.position) {
            reading.members.insert(number, position);
        }
        Ok(number)
    }

    /// The version of a further name of an inode of the layer.
    fn hard_link(&mut self, reading: &mut Reading, row: &EntryRow, target: NodeId) -> Result<u32> {
        let target = (target.0 as usize).checked_sub(1);
        let (_, number) = *target
            .and_then(|at| reading.nodes.get(at))
            .ok_or_else(|| reading.damaged("a link to nothing"))?;
        if let (Some(first), Some(here)) = (reading.members.get_mut(&number), row.position)
            && here < *first
        {
            *first = here;
            // Set by the caller, which takes the row.
            self.tree.versions[number as usize].path = PathId(NONE);
        }
        Ok(number)
    }

    /// Takes a row that shows nothing: a whiteout of what is not there, or a directory with such
    /// whiteouts alone.
    fn nothing(&mut self, reading: &mut Reading, row: &EntryRow) -> Result<(u32, u32)> {
        let dir = match reading.path {
            Some(path) => Some(self.tree.path(path)),
            None => reading.absent.get(&reading.dir).cloned(),
        };
        let (Some(dir), Ok(name)) = (dir, Name::new(&row.name)) else {
            return Err(reading.damaged("a whiteout without a path"));
        };
        let path = dir.join(name);
        if matches!(row.kind, RowKind::Directory { children: 1.., .. }) {
            reading.absent.insert(NodeId(reading.nodes.len() as u64 + 1), path);
        } else {
            self.void.insert(path);
        }
        Ok((NONE, NONE))
    }

    /// Gives the directory whose names came its new children.
    fn close(&mut self, reading: &mut Reading) {
        let new = std::mem::take(&mut reading.new);
        let (Some(dir), false) = (reading.path, new.is_empty()) else { return };
        let record = &mut self.tree.paths[dir.index()];
        if record.kids == 0 {
            record.kids = self.tree.kids.len() as u32;
            self.tree.kids.push(new);
            return;
        }
        let old = std::mem::take(&mut self.tree.kids[record.kids as usize]);
        let list = record.kids as usize;
        let mut merged = Vec::with_capacity(old.len() + new.len());
        let mut new = new.into_iter().peekable();
        for kid in old {
            while let Some(first) =
                new.next_if(|first| self.tree.name(*first) < self.tree.name(kid))
            {
                merged.push(first);
            }
            merged.push(kid);
        }
        merged.extend(new);
        self.tree.kids[list] = merged;
    }

    fn version(&self, number: u32) -> &Version {
        &self.tree.versions[number as usize]
    }

    /// The version that is there now.
    fn now(&self, path: PathId) -> Option<u32> {
        let event = self.tree.events.get(self.tree.paths[path.index()].last as usize)?;
        Some(event.version).filter(|version| *version != NONE)
    }

    /// Notes what the layer makes of a path; of several notes the last holds.
    fn set(&mut self, layer: u32, path: PathId, version: u32, named: bool) {
        let last = self.tree.paths[path.index()].last;
        if let Some(event) = self.tree.events.get_mut(last as usize)
            && event.layer == layer
        {
            (event.version, event.named) = (version, named);
            return;
        }
        self.tree.paths[path.index()].last = self.tree.events.len() as u32;
        self.tree.events.push(EventRecord { before: last, layer, version, named });
    }

    /// Removes all that is below a path.
    fn empty(&mut self, layer: u32, dir: PathId) {
        let mut open = vec![dir];
        while let Some(dir) = open.pop() {
            for at in 0..self.tree.children(dir).len() {
                let kid = self.tree.children(dir)[at];
                let Some(now) = self.now(kid) else { continue };
                if self.version(now).kind.is_dir() {
                    open.push(kid);
                }
                self.set(layer, kid, NONE, false);
            }
        }
    }

    fn add_path(&mut self, reading: &mut Reading, name: &[u8]) -> Result<PathId> {
        let dir = reading.path.ok_or_else(|| reading.damaged("a name in no directory"))?;
        let numbers = (
            u32::try_from(self.tree.paths.len()),
            u32::try_from(self.tree.names.len()),
            u16::try_from(name.len()),
        );
        let (Ok(number), Ok(name_at), Ok(name_length)) = numbers else {
            return Err(reading.damaged("more names than can be numbered"));
        };
        if number == NONE {
            return Err(reading.damaged("more names than can be numbered"));
        }
        self.tree.names.extend_from_slice(name);
        let record = PathRecord { parent: dir.0, name_at, name_length, kids: 0, last: NONE };
        self.tree.paths.push(record);
        reading.new.push(PathId(number));
        Ok(PathId(number))
    }

    /// A version for an inode of the layer.
    fn inode(
        &mut self,
        reading: &Reading,
        row: &EntryRow,
        content: Option<ContentId>,
    ) -> Result<u32> {
        let (Some(mut stat), Some(meta)) = (row.stat(), &row.meta) else {
            return Err(reading.damaged("an inode without metadata"));
        };
        let content = match (&row.kind, content) {
            (RowKind::Regular(digest), Some(id)) => self.content(id, *digest, stat.size),
            (RowKind::Regular(_), None) => return Err(reading.damaged("a file without content")),
            _ => NONE,
        };
        let link = match &row.kind {
            RowKind::Symlink(target) => {
                stat.size = target.len() as u64;
                self.tree.links.push(target.as_slice().into());
                self.tree.links.len() as u32 - 1
            }
            _ => NONE,
        };
        let xattrs = match self.xattrs.get(&meta.xattrs) {
            Some(known) => *known,
            None => {
                let number = self.tree.xattrs.len() as u32;
                self.tree.xattrs.push(meta.xattrs.clone());
                self.xattrs.insert(meta.xattrs.clone(), number);
                number
            }
        };
        self.add_version(reading.layer, stat, content, link, xattrs)
    }

    fn add_version(
        &mut self,
        layer: u32,
        stat: Stat,
        content: u32,
        link: u32,
        xattrs: u32,
    ) -> Result<u32> {
        let Some(number) = u32::try_from(self.tree.versions.len()).ok().filter(|n| *n != NONE)
        else {
            return Err(Error::damaged("index.db", "more inodes than can be numbered"));
        };
        self.tree.versions.push(Version {
            kind: stat.kind,
            perm: stat.perm,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            mtime: stat.mtime,
            layer,
            path: PathId(NONE),
            number,
            content,
            link,
            xattrs,
        });
        Ok(number)
    }

    fn content(&mut self, id: ContentId, digest: ContentDigest, size: u64) -> u32 {
        if let Some(known) = self.contents.get(&id) {
            return *known;
        }
        let next = self.tree.contents.len() as u32;
        let number = *self.digests.entry(digest).or_insert(next);
        if number == next {
            self.tree.contents.push(HeldContent { digest, size, holders: NONE });
            self.ids.push(id);
        }
        self.contents.insert(id, number);
        number
    }

    /// The version that lower layers have at a path, before this layer.
    fn lower(&self, reading: &Reading, path: &TreePath) -> Option<u32> {
        let found = self.tree.find(path);
        let version = found.and_then(|found| self.tree.at(found, reading.layer as usize));
        version.filter(|version| version.kind != Kind::Directory).map(|version| version.number)
    }

    /// Takes a link to what lower layers lack, which shows nothing, and hides what was there: no
    /// name of the whole image is such a link (it would have been refused), so a later layer hides
    /// it.
    fn dangling(
        &mut self,
        reading: &mut Reading,
        row: &EntryRow,
        old: Option<PathId>,
    ) -> Result<(u32, u32)> {
        let Some(path) = old else { return self.nothing(reading, row) };
        self.empty(reading.layer, path);
        if self.now(path).is_some() {
            self.set(reading.layer, path, NONE, false);
        }
        self.tree.bare.insert(path);
        Ok((NONE, NONE))
    }

    fn finish(mut self, reader: &IndexReader<'_>, image: &ImageId) -> Result<ImageTree> {
        if self.tree.paths[0].last == NONE {
            // No layers at all: an empty root.
            let root = self.add_version(0, Stat::unstated_dir(), NONE, NONE, 0)?;
            self.tree.versions[root as usize].path = PathId::ROOT;
            self.set(0, PathId::ROOT, root, false);
        }
        let void = self.void.iter().filter_map(|path| self.tree.find(path)).collect::<Vec<_>>();
        self.tree.bare.extend(void);
        let mut finder = Finder::new(reader, image)?;
        for (content, id) in self.tree.contents.iter_mut().zip(&self.ids) {
            content.holders = finder.number(reader, &content.digest, *id)?;
        }
        self.tree.holders = finder.finish();
        Ok(self.tree)
    }
}
