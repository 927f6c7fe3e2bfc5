//! [`LowerForm`]: one layer of an image as a lower directory of overlayfs.
//!
//! ```text
//! in the store                       as a lower directory
//! whiteout                           character device 0:0
//! opaque directory                   trusted.overlay.opaque or user.overlay.opaque: y
//! attribute trusted.overlay.X        trusted.overlay.overlay.X, which overlayfs turns back
//! directory that no entry describes  with the metadata that it has in the image up to this layer
//! directory of whiteouts alone       the same; absent where the layers below have none there
//! hard link to a file of a lower     that file, with the lower's bytes
//! ```
//!
//! The last three need the layers below, so a form is of a layer in its chain, not of a layer.
//!
//! Invariants: what overlayfs shows of the forms of an image's layers is what a mount of the image
//! shows; every name is a node; nodes are numbered as the layer's rows; a device 0:0 of the image
//! is what overlayfs takes it for, a whiteout, as it is in any directory.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use strata_diff::rows::{EntryRow, RowKind};
use strata_layer::StoredLayer;
use strata_tree::dialect::{Mark, XattrClass};
use strata_tree::{
    ContentRef, Device, DirEntry, DirMarks, Entry, Error, Kind, Lower, Name, Node, NodeId,
    Presence, Result, Stat, Timestamp, TreePath, Xattr,
};
use strata_union::Stack;

/// What a row is that the layer alone does not say.
enum FromBelow {
    /// Nothing: a directory of whiteouts that hide nothing.
    Nothing,
    /// An inode, under the number of the first row that leads to it.
    Inode { id: NodeId, stat: Stat, xattrs: Vec<Xattr>, content: Option<ContentRef> },
}

/// A layer in its chain. See the module.
pub(crate) struct LowerForm {
    layer: Arc<StoredLayer>,
    class: XattrClass,
    below: HashMap<NodeId, FromBelow>,
}

/// Whether the form of the layer depends on the layers below it, but for the root's metadata.
pub(crate) fn needs_lower(layer: &StoredLayer) -> bool {
    let mut rows = layer.rows().iter().enumerate();
    rows.any(|(at, row)| at > 0 && is_told_below(row))
}

pub(crate) fn is_told_below(row: &EntryRow) -> bool {
    match row.kind {
        RowKind::Directory { marks, .. } => marks.presence != Presence::Explicit,
        RowKind::LowerLink(_) => true,
        _ => false,
    }
}

/// Where the store has the bytes of a regular file, below `layers/`.
fn place(layer: &StoredLayer, path: &TreePath, of: &ContentRef) -> ContentRef {
    let place = [layer.diff_id().hex().as_bytes(), b"/diff/", path.as_bytes()].concat();
    // Of parts of paths, so it is one.
    let path = TreePath::clamped(&place).unwrap_or_else(|_| TreePath::root());
    ContentRef { layer: 0, path, digest: of.digest, size: of.size }
}

impl LowerForm {
    /// The form of the last of `chain`, base first, for who sets marks of `class`.
    ///
    /// # Errors
    /// Those of the layers: `DanglingLink` where they do not merge.
    pub(crate) fn new(chain: &[Arc<StoredLayer>], class: XattrClass) -> Result<Self> {
        let Some(layer) = chain.last() else {
            let what = "a chain of no layers".to_owned();
            return Err(Error::Corrupt { tree: "of an image".to_owned(), what });
        };
        let mut form = Self { layer: Arc::clone(layer), class, below: HashMap::new() };
        if layer.rows().iter().any(is_told_below) {
            form.ask_below(chain)?;
        }
        Ok(form)
    }

    /// Finds out what the layers below say.
    fn ask_below(&mut self, chain: &[Arc<StoredLayer>]) -> Result<()> {
        let merged = Stack::new(chain.iter().map(|one| Arc::clone(one) as _).collect());
        // Directories of the layer that were met, and what they are in the merged tree.
        let mut dirs = HashMap::from([(NodeId::ROOT, Some(NodeId::ROOT))]);
        let mut first: HashMap<NodeId, NodeId> = HashMap::new();
        let layer = Arc::clone(&self.layer);
        for (at, row) in layer.rows().iter().enumerate() {
            let id = NodeId(at as u64 + 1);
            let is_dir = matches!(row.kind, RowKind::Directory { .. });
            if !is_dir && !is_told_below(row) {
                continue;
            }
            let node = match (id, dirs.get(&row.parent).copied().flatten()) {
                (NodeId::ROOT, _) => Some(merged.node(merged.root())?),
                (_, Some(parent)) => {
                    let name = Name::new(&row.name).map_err(|_| corrupt(&layer, id))?;
                    merged.lookup(parent, name)?.and_then(|entry| entry.node().copied())
                }
                (_, None) => None,
            };
            if is_dir {
                dirs.insert(id, node.map(|node| node.id));
            }
            if !is_told_below(row) {
                continue;
            }
            let found = match node {
                None => FromBelow::Nothing,
                Some(node) => FromBelow::Inode {
                    id: if is_dir { id } else { *first.entry(node.id).or_insert(id) },
                    stat: node.stat,
                    xattrs: merged.xattrs(node.id)?,
                    content: content_of(&merged, &node, chain)?,
                },
            };
            self.below.insert(id, found);
        }
        Ok(())
    }

    /// The node of a row; `None` where its name is not to be seen.
    fn of_row(&self, id: NodeId, row: &EntryRow) -> Result<Option<Node>> {
        let node = |id, stat| Some(Node { id, stat, marks: DirMarks::default() });
        if let Some(below) = self.below.get(&id) {
            return Ok(match below {
                FromBelow::Nothing => None,
                FromBelow::Inode { id, stat, .. } => node(*id, *stat),
            });
        }
        Ok(match row.kind {
            RowKind::Whiteout => node(id, WHITEOUT),
            RowKind::HardLink(target) => node(target, self.layer.node(target)?.stat),
            _ => node(id, row.stat().ok_or_else(|| corrupt(&self.layer, id))?),
        })
    }
}

/// What the kernel takes for a whiteout.
const WHITEOUT: Stat = Stat {
    kind: Kind::CharDevice(Device { major: 0, minor: 0 }),
    perm: 0,
    uid: 0,
    gid: 0,
    size: 0,
    nlink: 1,
    mtime: Timestamp { seconds: 0, nanos: 0 },
};

fn corrupt(layer: &StoredLayer, node: NodeId) -> Error {
    let tree = format!("of layer {} in index.db", layer.diff_id());
    Error::Corrupt { tree, what: format!("node {}", node.0) }
}

fn content_of(
    merged: &Stack,
    node: &Node,
    chain: &[Arc<StoredLayer>],
) -> Result<Option<ContentRef>> {
    if node.stat.kind != Kind::Regular {
        return Ok(None);
    }
    let which = merged.content(node.id)?;
    let layer = usize::try_from(which.layer).ok().and_then(|at| chain.get(at));
    let layer = layer.ok_or_else(|| which.no_layer(chain.len()))?;
    Ok(Some(place(layer, &which.path, &which)))
}

impl Lower for LowerForm {
    fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        let (first, rows) = self.layer.children(dir)?;
        match rows.binary_search_by(|row| row.name[..].cmp(name.as_bytes())) {
            Ok(at) => Ok(self.of_row(NodeId(first + at as u64), &rows[at])?.map(Entry::Node)),
            Err(_) => Ok(None),
        }
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (first, rows) = self.layer.children(dir)?;
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        for (at, row) in rows.iter().enumerate().skip(skip) {
            let id = NodeId(first + at as u64);
            let Some(node) = self.of_row(id, row)? else { continue };
            let name = Name::new(&row.name).map_err(|_| corrupt(&self.layer, id))?;
            let item = DirEntry { name, entry: Entry::Node(node), next: at as u64 + 1 };
            if each(item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        self.of_row(node, self.layer.row(node)?)?.ok_or(Error::NoNode(node))
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.layer.read_link(node)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let row = self.layer.row(node)?;
        let own = match (self.below.get(&node), &row.kind) {
            (Some(FromBelow::Inode { xattrs, .. }), _) => xattrs.clone(),
            (Some(FromBelow::Nothing), _) => return Err(Error::NoNode(node)),
            (None, RowKind::Whiteout) => Vec::new(),
            (None, _) => self.layer.xattrs(node)?,
        };
        let escaped = |(name, value): Xattr| (self.class.escape(&name).into_owned(), value);
        let mut all: Vec<Xattr> = own.into_iter().map(escaped).collect();
        if matches!(row.kind, RowKind::Directory { marks, .. } if marks.opaque) {
            all.push((self.class.name(Mark::Opaque).into(), b"y".to_vec()));
        }
        all.sort_unstable();
        Ok(all)
    }

    fn content(&self, node: NodeId) -> Result<ContentRef> {
        match self.below.get(&node) {
            Some(FromBelow::Inode { content: Some(content), .. }) => Ok(content.clone()),
            Some(_) => Err(Error::NotRegular { node, kind: self.node(node)?.stat.kind }),
            None => {
                let own = self.layer.content(node)?;
                Ok(place(&self.layer, &own.path, &own))
            }
        }
    }
}
