//! [`Chain`]: the layers of one image, leased, each read from the index when it is first needed.
//!
//! Invariants: a layer is read once, also where an image has it twice; what is read stays as it is,
//! because the layers cannot be removed meanwhile.

use std::sync::OnceLock;

use strata_diff::rows::RowKind;
use strata_layer::{LeasedImage, LeasedLayer, Result, Store, StoredLayer};
use strata_tree::{ContentDigest, DiffId, ImageId, Lower, NodeId, Stat, TreePath, Xattr};

use super::facts::{ChangedFacts, Seen};
use super::replay::{Merged, NameEvent, Replay};

/// A node of one of an image's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerNode {
    /// The layer's position in the image, counted from the base.
    pub layer: usize,
    /// Its number there.
    pub node: NodeId,
}

/// What a name shows: a directory or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// A directory, and the node that describes it; none, if it is only implied.
    Dir(Option<LayerNode>),
    /// Anything else.
    Leaf(LayerNode),
}

impl Shown {
    /// The node that describes it.
    pub const fn from(self) -> Option<LayerNode> {
        match self {
            Self::Dir(from) => from,
            Self::Leaf(from) => Some(from),
        }
    }
}

/// All that an image says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its metadata.
    pub stat: Stat,
    /// Its extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// The content of a regular file.
    pub content: Option<ContentDigest>,
}

/// The layers of an image, base first, leased as long as this lives.
pub struct Chain<'s> {
    pub(super) store: &'s Store,
    _image: LeasedImage,
    leased: Vec<LeasedLayer>,
    /// By position; of a layer that is there twice only the first is filled.
    read: Vec<OnceLock<StoredLayer>>,
    /// The first position at which the same layer stands.
    first: Vec<usize>,
}

impl<'s> Chain<'s> {
    /// Leases the layers of an image.
    ///
    /// ```no_run
    /// use strata_analysis::history::Chain;
    /// use strata_layer::Store;
    /// # fn main() -> strata_layer::Result<()> {
    /// # let store = Store::open("/var/lib/stratafs".as_ref())?;
    /// let image = store.images().all()?.remove(0);
    /// let chain = Chain::open(&store, &image.id)?;
    /// let mut names = 0;
    /// chain.replay(&mut |event| names += 1)?;
    /// println!("{} layers say {names} times that a name is something else", chain.count());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NoImage`, `NoLayer`, `Io`.
    pub fn open(store: &'s Store, image: &ImageId) -> Result<Self> {
        let (image, leased) = store.lease_image(image)?;
        let position =
            |layer: &LeasedLayer| leased.iter().position(|h| h.diff_id() == layer.diff_id());
        let first = leased.iter().map(|layer| position(layer).unwrap_or(0)).collect();
        let read = leased.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { store, _image: image, leased, read, first })
    }

    /// How many layers there are.
    pub fn count(&self) -> usize {
        self.leased.len()
    }

    /// The diff ids, base first.
    pub fn diff_ids(&self) -> impl Iterator<Item = &DiffId> {
        self.leased.iter().map(LeasedLayer::diff_id)
    }

    /// How many layers both images have in common, from the base up.
    pub fn common(&self, other: &Self) -> usize {
        self.diff_ids().zip(other.diff_ids()).take_while(|(a, b)| a == b).count()
    }

    /// The layer at `position`, which is below [`Chain::count`].
    ///
    /// # Errors
    /// `NoLayer`, `Damaged`, `Sqlite`.
    pub fn layer(&self, position: usize) -> Result<&StoredLayer> {
        let cell = &self.read[self.first[position]];
        if let Some(layer) = cell.get() {
            return Ok(layer);
        }
        let layer = self.store.lower(&self.leased[position])?;
        Ok(cell.get_or_init(|| layer))
    }

    /// Applies the layers one after the other, base first, and calls `each` with what every layer
    /// does to every name. Gives the merged tree.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn replay(&self, each: &mut dyn FnMut(&NameEvent<'_>)) -> Result<Merged<'_>> {
        let mut replay = Replay::new(self)?;
        for position in 0..self.count() {
            replay.apply(position, each)?;
        }
        Ok(replay.finish())
    }

    /// All that the image says of what a name shows.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn facts(&self, shown: Shown) -> Result<NodeFacts> {
        let Some(at) = shown.from() else {
            let seen = Seen::unstated();
            let (stat, xattrs) = (seen.stat, Vec::new());
            return Ok(NodeFacts { stat, xattrs, target: None, content: None });
        };
        let seen = self.seen(at)?;
        Ok(NodeFacts {
            stat: seen.stat,
            xattrs: seen.xattrs.to_vec(),
            target: seen.target.map(<[u8]>::to_vec),
            content: seen.content,
        })
    }

    /// What the bytes of a regular file are; `None` for other nodes.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn content(&self, at: LayerNode) -> Result<Option<(ContentDigest, u64)>> {
        let row = self.layer(at.layer)?.row(at.node)?;
        Ok(match (&row.kind, &row.meta) {
            (RowKind::Regular(digest), Some(meta)) => Some((*digest, meta.size)),
            _ => None,
        })
    }

    /// The names that one layer has for a node: its first, and the hard links in that layer.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn names(&self, at: LayerNode) -> Result<Vec<TreePath>> {
        let layer = self.layer(at.layer)?;
        let mut names = vec![layer.path(at.node)?];
        for (node, row) in (1..).map(NodeId).zip(layer.rows()) {
            if matches!(row.kind, RowKind::HardLink(target) if target == at.node) {
                names.push(layer.path(node)?);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn seen(&self, at: LayerNode) -> Result<Seen<'_>> {
        let layer = self.layer(at.layer)?;
        let row = layer.row(at.node)?;
        let (stat, xattrs) = match (row.stat(), &row.meta) {
            (Some(stat), Some(meta)) => (stat, &meta.xattrs[..]),
            _ => return Err(strata_tree::Error::NoNode(at.node).into()),
        };
        let target = match &row.kind {
            RowKind::Symlink(target) => Some(&target[..]),
            _ => None,
        };
        let content = match row.kind {
            RowKind::Regular(digest) => Some(digest),
            _ => None,
        };
        Ok(Seen { stat, xattrs, target, content })
    }

    /// What differs between what a name showed and what it shows.
    pub(super) fn between(&self, was: Shown, now: Shown) -> Result<ChangedFacts> {
        let seen = |shown: Shown| shown.from().map_or(Ok(Seen::unstated()), |at| self.seen(at));
        Ok(ChangedFacts::between(&seen(was)?, &seen(now)?))
    }

    /// The content and the path of the file at `path` of a layer; `None` if there is none.
    pub(super) fn content_at(
        &self,
        position: usize,
        path: &TreePath,
    ) -> Result<Option<ContentDigest>> {
        let layer = self.layer(position)?;
        let mut node = layer.node(NodeId::ROOT)?;
        for name in path.names() {
            match layer.lookup(node.id, name)? {
                Some(strata_tree::Entry::Node(found)) => node = found,
                _ => return Ok(None),
            }
        }
        Ok(self.content(LayerNode { layer: position, node: node.id })?.map(|(digest, _)| digest))
    }
}
