//! [`ServedLayers`] as the mount asks it: names, bytes, and what it is told.
//!
//! Invariants: nodes of a form are those of its tree with the place's number in the upper half;
//! `use` is never there, and is made and removed all the same, which is what is counted.

use std::ops::ControlFlow;
use std::sync::Arc;

use strata_content::{Content, Contents};
use strata_fuse::{Heard, LiveTop};
use strata_tree::{
    BlobDigest, ContentRef, DirEntry, DirMarks, Entry, Error, Kind, Lower, Name, NameBuf, Node,
    NodeId, Result, Stat, Timestamp, TreePath, Xattr,
};

use crate::contents::{PLACE_BLOB, PLACE_INFO};
use crate::place::{LayerPlace, OpenForm};
use crate::served::{BLOB, INFO, Numbered, ServedLayers, TOP, reference_name, reference_named};

/// The names in the directory of a layer.
const PLACE_NAMES: [&[u8]; 3] = [b"blob", b"diff", b"info"];

fn dir(id: NodeId) -> Node {
    Node { id, stat: Stat::unstated_dir(), marks: DirMarks::default() }
}

fn file(id: NodeId, size: u64) -> Node {
    let mtime = Timestamp { seconds: 0, nanos: 0 };
    let stat = Stat { kind: Kind::Regular, perm: 0o444, uid: 0, gid: 0, size, nlink: 1, mtime };
    Node { id, stat, marks: DirMarks::default() }
}

/// The number of a place in the numbers of its nodes.
fn base(node: NodeId) -> u64 {
    node.0 & !u64::from(u32::MAX)
}

/// A node of a form as a node of the mount.
fn outside(base: u64, node: Node) -> Node {
    Node { id: NodeId(base + node.id.0), ..node }
}

fn digest(name: Name<'_>) -> Option<BlobDigest> {
    std::str::from_utf8(name.as_bytes()).ok()?.parse().ok()
}

impl ServedLayers {
    /// What a name in the directory of a layer is.
    fn in_place(&self, base: u64, place: &LayerPlace, name: &[u8]) -> Result<Option<Node>> {
        if !PLACE_NAMES.contains(&name) {
            return Ok(None);
        }
        let form = self.form(place)?;
        Ok(match name {
            b"diff" => Some(outside(base, form.node(NodeId::ROOT)?)),
            b"info" => Some(file(NodeId(base + INFO), form.info.len() as u64)),
            _ => Some(file(NodeId(base + BLOB), form.diff_size)),
        })
    }

    /// The tree of a node of a form.
    fn of_form(&self, place: &LayerPlace) -> Result<Arc<OpenForm>> {
        Ok(self.form(place)?)
    }
}

impl Lower for ServedLayers {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir_node: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let found = match self.numbered(dir_node)? {
            Numbered::Root => {
                let reference = reference_named(name.as_bytes());
                reference.map(|reference| dir(self.reference_node(&reference)))
            }
            Numbered::Reference(reference) => {
                let Some(blob) = digest(name) else { return Ok(None) };
                let Some((number, place)) = self.find(&reference, &blob)? else {
                    return Ok(None);
                };
                // So what is found can be shown, and stays until it is taken.
                self.form(&place)?;
                place.touch();
                Some(dir(NodeId((number << 32) + TOP)))
            }
            Numbered::Place(place) => self.in_place(base(dir_node), &place, name.as_bytes())?,
            Numbered::Form(place, node) => {
                let entry = self.of_form(&place)?.tree.lookup(node, name)?;
                let node = entry.and_then(|entry| entry.node().copied());
                node.map(|node| outside(base(dir_node), node))
            }
            Numbered::Info(_) | Numbered::Blob(_) => return Err(Error::NotDirectory(dir_node)),
        };
        Ok(found.map(Entry::Node))
    }

    fn read_dir(
        &self,
        dir_node: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut names: Vec<(u64, NameBuf, Node)> = Vec::new();
        let mut add = |position: u64, name: &[u8], node: Node| {
            // All of them are digits and letters, and none is long.
            if let Ok(name) = Name::new(name)
                && position > from
            {
                names.push((position, name.to_owned(), node));
            }
        };
        match self.numbered(dir_node)? {
            Numbered::Root => {
                for (number, reference) in self.references()? {
                    let node = dir(self.reference_node(&reference));
                    add(number + 1, reference_name(&reference).as_bytes(), node);
                }
            }
            Numbered::Reference(reference) => {
                for (number, place) in self.places(&reference)? {
                    let node = dir(NodeId((number << 32) + TOP));
                    add(number, place.blob.to_string().as_bytes(), node);
                }
            }
            Numbered::Place(place) => {
                for (at, name) in PLACE_NAMES.into_iter().enumerate() {
                    if let Some(node) = self.in_place(base(dir_node), &place, name)? {
                        add(at as u64 + 1, name, node);
                    }
                }
            }
            Numbered::Form(place, node) => {
                return self.of_form(&place)?.tree.read_dir(node, from, &mut |item| {
                    let Some(node) = item.entry.node() else { return ControlFlow::Continue(()) };
                    let node = outside(base(dir_node), *node);
                    each(DirEntry { entry: Entry::Node(node), ..item })
                });
            }
            Numbered::Info(_) | Numbered::Blob(_) => return Err(Error::NotDirectory(dir_node)),
        }
        for (next, name, node) in &names {
            let item = DirEntry { name: name.as_name(), entry: Entry::Node(*node), next: *next };
            if each(item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        match self.numbered(node)? {
            Numbered::Root | Numbered::Reference(_) | Numbered::Place(_) => Ok(dir(node)),
            Numbered::Info(place) => Ok(file(node, self.of_form(&place)?.info.len() as u64)),
            Numbered::Blob(place) => Ok(file(node, self.of_form(&place)?.diff_size)),
            Numbered::Form(place, inner) => {
                Ok(outside(base(node), self.of_form(&place)?.tree.node(inner)?))
            }
        }
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        match self.numbered(node)? {
            Numbered::Form(place, inner) => self.of_form(&place)?.tree.read_link(inner),
            _ => Err(Error::NotSymlink(node)),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        match self.numbered(node)? {
            Numbered::Form(place, inner) => self.of_form(&place)?.tree.xattrs(inner),
            _ => Ok(Vec::new()),
        }
    }

    fn content(&self, node: NodeId) -> Result<ContentRef> {
        let of_place = |layer, size| {
            let number = (node.0 >> 32) - 1;
            let path = TreePath::clamped(number.to_string().as_bytes());
            let path = path.unwrap_or_else(|_| TreePath::root());
            Ok(ContentRef { layer, path, digest: None, size })
        };
        match self.numbered(node)? {
            Numbered::Form(place, inner) => self.of_form(&place)?.tree.content(inner),
            Numbered::Info(place) => of_place(PLACE_INFO, self.of_form(&place)?.info.len() as u64),
            Numbered::Blob(place) => of_place(PLACE_BLOB, self.of_form(&place)?.diff_size),
            Numbered::Root | Numbered::Reference(_) | Numbered::Place(_) => {
                Err(Error::NotRegular { node, kind: Kind::Directory })
            }
        }
    }

    fn parent(&self, node: NodeId) -> Result<Option<NodeId>> {
        Ok(Some(match self.numbered(node)? {
            Numbered::Root | Numbered::Reference(_) => NodeId::ROOT,
            Numbered::Place(place) => self.reference_node(&place.reference),
            Numbered::Form(_, NodeId::ROOT) => NodeId(base(node) + TOP),
            Numbered::Form(place, inner) => {
                let parent = self.of_form(&place)?.tree.parent(inner)?;
                return Ok(parent.map(|parent| NodeId(base(node) + parent.0)));
            }
            Numbered::Info(_) | Numbered::Blob(_) => return Err(Error::NotDirectory(node)),
        }))
    }
}

impl LiveTop for ServedLayers {
    fn grows(&self, dir: NodeId) -> bool {
        !matches!(self.numbered(dir), Ok(Numbered::Form(..)))
    }

    fn takes_long(&self, dir: NodeId, name: &[u8]) -> bool {
        let (Ok(Numbered::Reference(reference)), Ok(name)) = (self.numbered(dir), Name::new(name))
        else {
            return false;
        };
        let known = digest(name).and_then(|blob| self.known_place(&reference, &blob));
        known.is_none_or(|(_, place)| !place.is_open())
    }

    fn file_made(&self, dir: NodeId, name: &[u8]) -> Result<Heard> {
        match self.numbered(dir)? {
            Numbered::Place(place) if name == b"use" => {
                self.take(&place)?;
                Ok(Heard::Yes)
            }
            _ => Ok(Heard::No),
        }
    }

    fn dir_removed(&self, dir: NodeId, name: &[u8]) -> Result<Heard> {
        let Numbered::Reference(reference) = self.numbered(dir)? else { return Ok(Heard::No) };
        match Name::new(name).ok().and_then(digest) {
            Some(blob) => {
                self.give_back(&reference, &blob)?;
                Ok(Heard::Yes)
            }
            None => Ok(Heard::No),
        }
    }
}

/// The bytes of what is served, for a mount.
pub(crate) struct ServedBytes {
    pub(crate) served: Arc<ServedLayers>,
    pub(crate) files: strata_content::Files,
}

impl Contents for ServedBytes {
    fn open(&self, which: &ContentRef) -> Result<Box<dyn Content>> {
        match which.layer {
            PLACE_INFO | PLACE_BLOB => crate::contents::open(&self.served, which),
            _ => self.files.open(which),
        }
    }

    fn prefetch(&self, which: &[ContentRef]) {
        self.files.prefetch(which);
    }
}
