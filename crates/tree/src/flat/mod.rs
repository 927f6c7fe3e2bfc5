//! [`FlatTree`]: a whole merged tree compiled into one memory-mapped file.
//!
//! [`compile`] walks any merged tree once and writes the file (`format` draws it); a mount then
//! serves from the map: a node id is a record number, a lookup is a binary search, nothing is
//! cached and nothing is locked. Contents stay in the layers' directories, named by record.
//!
//! Invariants: opening looks at the header alone, whatever the size; every later access is
//! checked against the map, and damage is `Error::Corrupt`, never a panic; `verify` finds any
//! changed byte. The file is derived: it may be removed and compiled again at any time.

mod compile;
mod format;
#[cfg(test)]
mod tests;
mod verify;

use std::fs::File;
use std::ops::ControlFlow;

pub use compile::compile;

use crate::file_handle::{ByHandle, FileHandle};
use crate::lower::{ContentRef, DirEntry, Error, Lower, Result, Xattr};
use crate::mmap::MappedFile;
use crate::name::{Name, TreePath};
use crate::node::{Device, DirMarks, Entry, Kind, Node, NodeId, Stat, Timestamp};
use format::{
    BACKING, BackingDir, DIRENT, Dirent, HEADER, Header, NODE, NodeRecord, Sections, XATTRS,
    XattrSet,
};

/// The form of a tree's own handles; no file system's.
const FLAT: i32 = -1;

/// A compiled tree. See the module.
#[derive(Debug)]
pub struct FlatTree {
    map: MappedFile,
    label: String,
    header: Header,
    sections: Sections,
}

impl FlatTree {
    /// Maps a file that [`compile`] wrote. `label` names the tree in errors.
    ///
    /// # Errors
    /// `Corrupt` if the header does not fit the file; `Io` if it cannot be mapped.
    pub fn open(file: File, label: String) -> Result<Self> {
        let corrupt = |what: String| Error::Corrupt { tree: label.clone(), what };
        let length = file
            .metadata()
            .map_err(|source| Error::io(format!("reading the length of {label}"), source))?
            .len();
        if length < HEADER as u64 {
            return Err(corrupt(format!("it is {length} bytes long, shorter than a header")));
        }
        let map = MappedFile::new(&file)
            .map_err(|source| Error::io(format!("mapping {label}"), source))?;
        let header = map
            .bytes()
            .first_chunk::<HEADER>()
            .ok_or("it is shorter than a header")
            .and_then(Header::decode)
            .map_err(|what| corrupt(what.to_owned()))?;
        let sections = header
            .sections()
            .filter(|s| s.end == header.file && s.end == length)
            .ok_or_else(|| corrupt(format!("it is {length} bytes long, not {}", header.file)))?;
        if header.nodes == 0 {
            return Err(corrupt("it has no root".to_owned()));
        }
        Ok(Self { map, label, header, sections })
    }

    /// Checks that `given` layers hold all contents that the tree refers to.
    ///
    /// # Errors
    /// `Corrupt` if the tree names more layers.
    pub fn check_layers(&self, given: usize) -> Result<()> {
        if (given as u64) < u64::from(self.header.layers) {
            let layers = self.header.layers;
            return self.corrupt(format!("its contents are in {layers} layers, not {given}"));
        }
        Ok(())
    }

    /// The number of inodes. Node ids are 1 to this number.
    pub fn node_count(&self) -> u64 {
        u64::from(self.header.nodes)
    }

    /// The number of names, the root not counted.
    pub fn name_count(&self) -> u64 {
        u64::from(self.header.dirents)
    }

    /// The sum of the sizes of all regular files in bytes, each inode once.
    pub fn content_bytes(&self) -> u64 {
        self.header.content
    }

    /// Whether any inode has an extended attribute.
    pub fn has_xattrs(&self) -> bool {
        self.header.xattr_sets > 0
    }

    /// The length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.sections.end
    }

    /// Calls `each` for the other regular files of the first directory that has a name of
    /// `node`, in the order of names, until it breaks: what a daemon may read ahead.
    ///
    /// # Errors
    /// `NoNode`.
    pub fn siblings(
        &self,
        node: NodeId,
        each: &mut dyn FnMut(Node) -> ControlFlow<()>,
    ) -> Result<()> {
        let parent = self.record(node)?.1.parent;
        let (first, count) = self.dirents_of(NodeId(u64::from(parent)))?;
        for index in first..first + count {
            let sibling = self.child(self.dirent(index)?.node)?;
            if sibling.id != node && sibling.stat.kind == Kind::Regular && each(sibling).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Checks the checksum and then every record: a tree that passes answers every call.
    /// Reads the whole file.
    ///
    /// # Errors
    /// `Corrupt`: the first thing that is wrong.
    pub fn verify(&self) -> Result<()> {
        verify::verify(self)
    }

    fn corrupt<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Error::Corrupt { tree: self.label.clone(), what: what.into() })
    }

    /// The record `index` of `N` bytes of the section at `start`. The caller has compared
    /// `index` with the count.
    fn fixed<const N: usize>(&self, start: u64, index: u32) -> Result<&[u8; N]> {
        let at = start + u64::from(index) * N as u64;
        usize::try_from(at)
            .ok()
            .and_then(|at| self.map.bytes().get(at..))
            .and_then(<[u8]>::first_chunk)
            .map_or_else(|| self.corrupt(format!("no record at offset {at}")), Ok)
    }

    fn arena(&self, at: u32, length: u32) -> Result<&[u8]> {
        let (from, to) = (u64::from(at), u64::from(at) + u64::from(length));
        let range = usize::try_from(self.sections.arena + from)
            .ok()
            .zip(usize::try_from(self.sections.arena + to).ok());
        range
            .and_then(|(from, to)| self.map.bytes().get(from..to))
            .map_or_else(|| self.corrupt(format!("no bytes {from}..{to} in the arena")), Ok)
    }

    fn record(&self, node: NodeId) -> Result<(u32, NodeRecord)> {
        self.map.reading();
        match u32::try_from(node.0) {
            Ok(number) if number >= 1 && number <= self.header.nodes => {
                let bytes = self.fixed::<NODE>(self.sections.nodes, number - 1)?;
                Ok((number, NodeRecord::decode(bytes)))
            }
            _ => Err(Error::NoNode(node)),
        }
    }

    fn kind(&self, number: u32, record: &NodeRecord) -> Result<Kind> {
        let device = Device { major: record.a, minor: record.b };
        match Kind::of_mode(u32::from(record.mode), device) {
            Some(kind) => Ok(kind),
            None => self.corrupt(format!("node {number} has mode {:o}", record.mode)),
        }
    }

    fn describe(&self, number: u32, record: &NodeRecord) -> Result<Node> {
        if record.nanos >= 1_000_000_000 {
            return self.corrupt(format!("node {number} has {} nanoseconds", record.nanos));
        }
        let stat = Stat {
            kind: self.kind(number, record)?,
            perm: record.mode & 0o7777,
            uid: record.uid,
            gid: record.gid,
            size: record.size,
            nlink: record.nlink,
            mtime: Timestamp { seconds: record.seconds, nanos: record.nanos },
        };
        Ok(Node { id: NodeId(u64::from(number)), stat, marks: DirMarks::default() })
    }

    /// The node that a dirent names: a number out of range is damage, not a caller's mistake.
    fn child(&self, number: u32) -> Result<Node> {
        match self.record(NodeId(u64::from(number))) {
            Ok((number, record)) => self.describe(number, &record),
            Err(Error::NoNode(_)) => self.corrupt(format!("a name stands for node {number}")),
            Err(other) => Err(other),
        }
    }

    /// First dirent and number of dirents of a directory, within the section.
    fn dirents_of(&self, dir: NodeId) -> Result<(u32, u32)> {
        let (number, record) = self.record(dir)?;
        if !self.kind(number, &record)?.is_dir() {
            return Err(Error::NotDirectory(dir));
        }
        match record.a.checked_add(record.b) {
            Some(end) if end <= self.header.dirents => Ok((record.a, record.b)),
            _ => self.corrupt(format!("node {number} has {} names from {}", record.b, record.a)),
        }
    }

    fn dirent(&self, index: u32) -> Result<Dirent> {
        self.fixed::<DIRENT>(self.sections.dirents, index).map(Dirent::decode)
    }

    fn dirent_name(&self, dirent: &Dirent) -> Result<Name<'_>> {
        let bytes = self.arena(dirent.name, u32::from(dirent.length))?;
        Name::new(bytes)
            .or_else(|why| self.corrupt(format!("the name at {} is none: {why}", dirent.name)))
    }

    fn regular(&self, node: NodeId) -> Result<NodeRecord> {
        let (number, record) = self.record(node)?;
        match self.kind(number, &record)? {
            Kind::Regular => Ok(record),
            kind => Err(Error::NotRegular { node, kind }),
        }
    }

    fn backing_dir(&self, index: u32) -> Result<(u32, TreePath)> {
        if index >= self.header.backings {
            return self.corrupt(format!("no backing directory {index}"));
        }
        let bytes = self.fixed::<BACKING>(self.sections.backings, index)?;
        let backing = BackingDir::decode(bytes);
        let bytes = self.arena(backing.path, backing.length)?;
        match TreePath::clamped(bytes) {
            Ok(path) if path.as_bytes() == bytes => Ok((backing.layer, path)),
            _ => self.corrupt(format!("the path at {} is none", backing.path)),
        }
    }

    fn xattr_set(&self, number: u32) -> Result<Vec<Xattr>> {
        if number == 0 {
            return Ok(Vec::new());
        }
        if number > self.header.xattr_sets {
            return self.corrupt(format!("no xattr set {number}"));
        }
        let bytes = self.fixed::<XATTRS>(self.sections.xattr_sets, number - 1)?;
        let set = XattrSet::decode(bytes);
        let mut rest = self.arena(set.at, set.length)?;
        let mut all = Vec::new();
        while !rest.is_empty() {
            let Some((name, value, after)) = split_xattr(rest) else {
                return self.corrupt(format!("xattr set {number} ends within an attribute"));
            };
            all.push((name.to_vec(), value.to_vec()));
            rest = after;
        }
        Ok(all)
    }
}

/// The first attribute of a set and what follows it.
fn split_xattr(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_length, rest) = bytes.split_first_chunk::<2>()?;
    let (value_length, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_length)))?;
    let length = usize::try_from(u32::from_le_bytes(*value_length)).ok()?;
    let (value, rest) = rest.split_at_checked(length)?;
    Some((name, value, rest))
}

impl Lower for FlatTree {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let (first, count) = self.dirents_of(dir)?;
        let (mut low, mut high) = (first, first + count);
        while low < high {
            let middle = low + (high - low) / 2;
            let dirent = self.dirent(middle)?;
            let here = self.arena(dirent.name, u32::from(dirent.length))?;
            match here.cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return Ok(Some(Entry::Node(self.child(dirent.node)?)));
                }
            }
        }
        Ok(None)
    }

    /// `next` is the number of names up to this one, in the order of name bytes.
    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (first, count) = self.dirents_of(dir)?;
        for index in u32::try_from(from).unwrap_or(u32::MAX)..count {
            let dirent = self.dirent(first + index)?;
            let item = DirEntry {
                name: self.dirent_name(&dirent)?,
                entry: Entry::Node(self.child(dirent.node)?),
                next: u64::from(index) + 1,
            };
            if each(item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        let (number, record) = self.record(node)?;
        self.describe(number, &record)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let (number, record) = self.record(node)?;
        match self.kind(number, &record)? {
            Kind::Symlink => Ok(self.arena(record.a, record.b)?.to_vec()),
            _ => Err(Error::NotSymlink(node)),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.xattr_set(self.record(node)?.1.xattrs)
    }

    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let record = self.regular(node)?;
        let (layer, dir) = self.backing_dir(record.a)?;
        let bytes = self.arena(record.b, u32::from(record.length))?;
        match Name::new(bytes) {
            Ok(name) => {
                let (path, size) = (dir.join(name), record.size);
                Ok(ContentRef { layer, path, digest: None, size })
            }
            Err(why) => self.corrupt(format!("the name at {} is none: {why}", record.b)),
        }
    }

    /// The digest of the whole tree with a node's number: equal trees are equal files, so this
    /// lasts when a tree is compiled again.
    fn file_handle(&self, node: NodeId) -> Result<Option<FileHandle>> {
        self.record(node)?;
        let fs = u64::from(self.header.crc) << 32 | u64::from(self.header.nodes);
        Ok(Some(FileHandle { fs, form: FLAT, bytes: node.0.to_le_bytes().to_vec() }))
    }

    fn by_handle(&self, handle: &FileHandle) -> Result<ByHandle> {
        let number = handle.bytes.as_slice().try_into().map(u64::from_le_bytes);
        let node = NodeId(number.unwrap_or_default());
        match self.file_handle(node) {
            Ok(Some(own)) if own == *handle => Ok(ByHandle::Node(node)),
            Ok(_) | Err(Error::NoNode(_)) => Ok(ByHandle::Gone),
            Err(other) => Err(other),
        }
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        let (number, record) = self.record(dir)?;
        match self.kind(number, &record)? {
            Kind::Directory => Ok(Some(NodeId(u64::from(record.parent)))),
            _ => Err(Error::NotDirectory(dir)),
        }
    }
}
