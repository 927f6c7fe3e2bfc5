//! The full check of a FlatTree: checksum first, then every record against every other.
//!
//! The checksum finds damage; the rest finds files that were written wrong, so that a tree that
//! passes answers every call of [`Lower`](crate::Lower) without `Corrupt`.
//!
//! Invariants: work and memory are linear in the file; no recursion.

use super::FlatTree;
use super::format::HEADER;
use crate::lower::{Lower, Result};
use crate::node::{Kind, NodeId};

pub(super) fn verify(tree: &FlatTree) -> Result<()> {
    let body = tree.map.bytes().get(HEADER..).unwrap_or_default();
    let crc = crc32fast::hash(body);
    if crc != tree.header.crc {
        return tree.corrupt(format!(
            "the checksum is {crc:08x}, the header says {:08x}",
            tree.header.crc
        ));
    }
    for number in 1..=tree.header.xattr_sets {
        let set = tree.xattr_set(number)?;
        if set.is_empty() || set.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return tree.corrupt(format!("xattr set {number} is empty or not sorted"));
        }
    }
    for index in 0..tree.header.backings {
        let (layer, _) = tree.backing_dir(index)?;
        if layer >= tree.header.layers {
            return tree.corrupt(format!("backing directory {index} is in layer {layer}"));
        }
    }
    let mut seen = Seen::new(tree);
    for number in 1..=tree.header.nodes {
        seen.node(number)?;
    }
    seen.finish()
}

/// What the walk in node order has met so far.
struct Seen<'a> {
    tree: &'a FlatTree,
    /// Names met, by node number.
    names: Vec<u32>,
    /// The directories whose dirents come next start here.
    dirents: u32,
    /// The highest node that a name has introduced.
    introduced: u32,
    content: u64,
}

impl<'a> Seen<'a> {
    fn new(tree: &'a FlatTree) -> Self {
        let names = vec![0; tree.header.nodes as usize + 1];
        Self { tree, names, dirents: 0, introduced: 1, content: 0 }
    }

    fn node(&mut self, number: u32) -> Result<()> {
        let tree = self.tree;
        let id = NodeId(u64::from(number));
        let (_, record) = tree.record(id)?;
        let node = tree.describe(number, &record)?;
        if number > self.introduced {
            return tree.corrupt(format!("node {number} has no name"));
        }
        tree.xattr_set(record.xattrs)?;
        let kind = node.stat.kind;
        if number == 1 && (!kind.is_dir() || record.parent != 1) {
            return tree.corrupt("the root is not its own directory");
        }
        let mut size = 0;
        let mut empty = record.length == 0;
        match kind {
            Kind::Directory => return self.directory(number, record.nlink, record.size),
            Kind::Regular => {
                tree.content(id)?;
                self.content = self.content.saturating_add(record.size);
                (size, empty) = (record.size, true);
            }
            Kind::Symlink => size = tree.read_link(id)?.len() as u64,
            Kind::CharDevice(_) | Kind::BlockDevice(_) => {}
            Kind::Fifo | Kind::Socket => empty &= record.a == 0 && record.b == 0,
        }
        if record.size != size || !empty {
            return tree.corrupt(format!("node {number} does not fit its type"));
        }
        Ok(())
    }

    fn directory(&mut self, number: u32, nlink: u32, size: u64) -> Result<()> {
        let tree = self.tree;
        let (first, count) = tree.dirents_of(NodeId(u64::from(number)))?;
        if first != self.dirents || size != 0 {
            return tree.corrupt(format!("directory {number} does not follow the one before"));
        }
        self.dirents += count;
        let mut subdirs = 0_u32;
        let mut before: &[u8] = b"";
        for index in first..first + count {
            let dirent = tree.dirent(index)?;
            let name = tree.dirent_name(&dirent)?.as_bytes();
            if name <= before || dirent.zero != 0 {
                return tree.corrupt(format!("directory {number} is not sorted at {index}"));
            }
            before = name;
            let child = tree.child(dirent.node)?;
            let (_, record) = tree.record(child.id)?;
            let first_name = dirent.node > self.introduced;
            if first_name {
                if dirent.node != self.introduced + 1 || record.parent != number {
                    return tree.corrupt(format!("node {} is out of order", dirent.node));
                }
                self.introduced = dirent.node;
            }
            if child.stat.kind.is_dir() {
                if !first_name {
                    return tree.corrupt(format!("directory {} has two names", dirent.node));
                }
                subdirs += 1;
            }
            if let Some(names) = self.names.get_mut(dirent.node as usize) {
                *names += 1;
            }
        }
        if nlink != subdirs.saturating_add(2) {
            return tree.corrupt(format!("directory {number} has {nlink} links"));
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let tree = self.tree;
        if self.dirents != tree.header.dirents || self.content != tree.header.content {
            return tree.corrupt("the totals of the header are wrong");
        }
        for number in 1..=tree.header.nodes {
            let node = tree.node(NodeId(u64::from(number)))?;
            let names = self.names.get(number as usize).copied().unwrap_or(0);
            if !node.stat.kind.is_dir() && node.stat.nlink != names {
                return tree.corrupt(format!("node {number} has {names} names"));
            }
        }
        Ok(())
    }
}
