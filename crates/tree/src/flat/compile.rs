//! [`compile`]: any merged tree into a FlatTree file.
//!
//! The tree is walked breadth first, each directory read once and sorted, each inode asked once.
//! What is kept meanwhile is the metadata; contents are never opened.
//!
//! Invariants: one inode of the source is one record, however many names it has; link counts
//! are recounted; equal trees give equal files, whatever order the source lists names in; the
//! header is written last, so a file that was not finished does not open.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as MapEntry;
use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;

use foldhash::HashMap;
use foldhash::fast::RandomState;

use super::format::{BackingDir, Dirent, HEADER, Header, NODE, NodeRecord, XattrSet};
use crate::lower::{Error, Lower, Result, Xattr, list};
use crate::name::TreePath;
use crate::node::{Entry, Kind, Node, NodeId};

/// Compiles `tree` into `out`, replacing what `out` holds; the caller syncs and renames.
///
/// Memory: about 150 bytes for each inode, and the arena.
///
/// # Errors
/// Whatever the tree answers; `TooLarge` if a number outgrows the format (2^32 - 1 inodes, names
/// or arena bytes); `Corrupt` if the tree is not merged or not a tree; `Io` if writing fails.
pub fn compile(tree: &dyn Lower, out: &File) -> Result<()> {
    let mut compiler = Compiler::default();
    let mut queue = VecDeque::new();
    let root = tree.node(tree.root())?;
    compiler.add(tree, &root, 1)?;
    queue.push_back((1, root.id));
    while let Some((dir, source)) = queue.pop_front() {
        compiler.add_children(tree, dir, source, &mut queue)?;
    }
    compiler.write(out)
}

#[derive(Default)]
struct Compiler {
    nodes: Vec<NodeRecord>,
    /// The record of each inode of the source, as a node number.
    known: HashMap<NodeId, u32>,
    dirents: Vec<Dirent>,
    backings: Vec<BackingDir>,
    backing_of: HashMap<(u32, TreePath), u32>,
    xattr_sets: Vec<XattrSet>,
    xattrs_of: HashMap<Vec<u8>, u32>,
    arena: Arena,
    layers: u32,
    content: u64,
}

fn corrupt<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Corrupt { tree: "to be compiled".to_owned(), what: what.into() })
}

fn limited(value: usize, what: &'static str) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::TooLarge { what, limit: u64::from(u32::MAX) })
}

impl Compiler {
    /// A record for an inode seen the first time; its number.
    fn add(&mut self, tree: &dyn Lower, node: &Node, parent: u32) -> Result<u32> {
        let stat = &node.stat;
        let (mut length, mut a, mut b) = (0, 0, 0);
        let mut size = 0;
        match stat.kind {
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                (a, b) = (device.major, device.minor);
            }
            Kind::Symlink => {
                let target = tree.read_link(node.id)?;
                size = target.len() as u64;
                (a, b) = (self.arena.put(&target)?, limited(target.len(), "bytes in a target")?);
            }
            Kind::Regular => {
                let backing = tree.content(node.id)?;
                let Some((dir, name)) = backing.path.split_last() else {
                    return corrupt("the root of a layer backs a regular file");
                };
                size = stat.size;
                self.content = self.content.saturating_add(size);
                b = self.arena.put(name.as_bytes())?;
                // A name has at most 255 bytes.
                length = name.as_bytes().len() as u16;
                a = self.backing_dir(backing.layer, dir)?;
            }
        }
        let xattrs = self.xattr_set(tree.xattrs(node.id)?)?;
        self.nodes.push(NodeRecord {
            size,
            seconds: stat.mtime.seconds,
            nanos: stat.mtime.nanos,
            mode: (stat.kind.mode_bits() as u16) | (stat.perm & 0o7777),
            length,
            uid: stat.uid,
            gid: stat.gid,
            nlink: 1,
            parent,
            xattrs,
            a,
            b,
        });
        let number = limited(self.nodes.len(), "inodes")?;
        self.known.insert(node.id, number);
        Ok(number)
    }

    fn add_children(
        &mut self,
        tree: &dyn Lower,
        dir: u32,
        source: NodeId,
        queue: &mut VecDeque<(u32, NodeId)>,
    ) -> Result<()> {
        let mut names = list(tree, source)?;
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return corrupt(format!("directory {source:?} has {:?} twice", pair[0].0));
        }
        let first = limited(self.dirents.len(), "names")?;
        let mut subdirs = 0_u32;
        for (name, entry) in &names {
            let Entry::Node(node) = entry else {
                return corrupt(format!("directory {source:?} is not merged: {name:?}"));
            };
            let number = match self.known.get(&node.id).copied() {
                Some(_) if node.stat.kind.is_dir() => {
                    return corrupt(format!("the directory {name:?} has two names"));
                }
                Some(number) => {
                    self.at(number)?.nlink += 1;
                    number
                }
                None => {
                    let number = self.add(tree, node, dir)?;
                    if node.stat.kind.is_dir() {
                        subdirs += 1;
                        queue.push_back((number, node.id));
                    }
                    number
                }
            };
            let name = name.as_bytes();
            let at = self.arena.put(name)?;
            // A name has at most 255 bytes.
            let length = name.len() as u16;
            self.dirents.push(Dirent { name: at, node: number, length, zero: 0 });
        }
        limited(self.dirents.len(), "names")?;
        let record = self.at(dir)?;
        record.nlink = subdirs.saturating_add(2);
        (record.a, record.b) = (first, limited(names.len(), "names")?);
        Ok(())
    }

    fn at(&mut self, number: u32) -> Result<&mut NodeRecord> {
        match self.nodes.get_mut(number as usize - 1) {
            Some(record) => Ok(record),
            None => corrupt(format!("node {number} has no record")),
        }
    }

    fn backing_dir(&mut self, layer: u32, path: TreePath) -> Result<u32> {
        let new = match self.backing_of.entry((layer, path)) {
            MapEntry::Occupied(known) => return Ok(*known.get()),
            MapEntry::Vacant(new) => new,
        };
        let path = new.key().1.as_bytes();
        self.layers = self.layers.max(layer.saturating_add(1));
        let index = limited(self.backings.len(), "backing directories")?;
        let at = self.arena.put(path)?;
        let length = limited(path.len(), "bytes in a path")?;
        self.backings.push(BackingDir { layer, path: at, length });
        new.insert(index);
        Ok(index)
    }

    fn xattr_set(&mut self, mut set: Vec<Xattr>) -> Result<u32> {
        if set.is_empty() {
            return Ok(0);
        }
        set.sort_unstable();
        let mut bytes = Vec::new();
        for (name, value) in &set {
            let what = "bytes in the name of an xattr";
            let length = u16::try_from(name.len())
                .map_err(|_| Error::TooLarge { what, limit: u64::from(u16::MAX) })?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&limited(value.len(), "bytes in an xattr")?.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        if let Some(number) = self.xattrs_of.get(&bytes) {
            return Ok(*number);
        }
        let length = limited(bytes.len(), "bytes of xattrs")?;
        self.xattr_sets.push(XattrSet { at: self.arena.put(&bytes)?, length });
        let number = limited(self.xattr_sets.len(), "sets of xattrs")?;
        self.xattrs_of.insert(bytes, number);
        Ok(number)
    }

    fn write(&self, out: &File) -> Result<()> {
        let mut header = Header {
            nodes: limited(self.nodes.len(), "inodes")?,
            dirents: limited(self.dirents.len(), "names")?,
            backings: limited(self.backings.len(), "backing directories")?,
            xattr_sets: limited(self.xattr_sets.len(), "sets of xattrs")?,
            layers: self.layers,
            arena: self.arena.bytes.len() as u64,
            content: self.content,
            ..Header::default()
        };
        let failed = |source| Error::io("writing a compiled tree", source);
        out.set_len(0).map_err(failed)?;
        let mut sink = Sink::new(out);
        self.nodes.iter().try_for_each(|record| sink.put(&record.encode())).map_err(failed)?;
        self.dirents.iter().try_for_each(|record| sink.put(&record.encode())).map_err(failed)?;
        self.backings.iter().try_for_each(|record| sink.put(&record.encode())).map_err(failed)?;
        self.xattr_sets.iter().try_for_each(|record| sink.put(&record.encode())).map_err(failed)?;
        sink.put(&self.arena.bytes).map_err(failed)?;
        (header.file, header.crc) = sink.finish().map_err(failed)?;
        out.write_all_at(&header.encode(), 0).map_err(failed)
    }
}

/// The byte arena: equal strings are stored once.
#[derive(Default)]
struct Arena {
    bytes: Vec<u8>,
    /// Where a string with this hash stands; two strings with one hash are both stored.
    seen: HashMap<u64, (u32, u32)>,
    state: RandomState,
}

impl Arena {
    fn put(&mut self, string: &[u8]) -> Result<u32> {
        if string.is_empty() {
            return Ok(0);
        }
        let what = "bytes of names, targets and xattrs";
        let hash = self.state.hash_one(string);
        if let Some((at, length)) = self.seen.get(&hash).copied()
            && self.bytes.get(at as usize..(at + length) as usize) == Some(string)
        {
            return Ok(at);
        }
        let at = limited(self.bytes.len(), what)?;
        limited(self.bytes.len() + string.len(), what)?;
        self.bytes.extend_from_slice(string);
        self.seen.entry(hash).or_insert((at, string.len() as u32));
        Ok(at)
    }
}

/// Writes what follows the header, in large pieces, and sums it.
struct Sink<'a> {
    out: &'a File,
    at: u64,
    buffer: Vec<u8>,
    crc: crc32fast::Hasher,
}

impl<'a> Sink<'a> {
    const PIECE: usize = 1 << 18;

    fn new(out: &'a File) -> Self {
        let buffer = Vec::with_capacity(Self::PIECE + NODE);
        Self { out, at: HEADER as u64, buffer, crc: crc32fast::Hasher::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= Self::PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.crc.update(&self.buffer);
        self.out.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The length of the file and the checksum.
    fn finish(mut self) -> std::io::Result<(u64, u32)> {
        self.flush()?;
        Ok((self.at, self.crc.finalize()))
    }
}
