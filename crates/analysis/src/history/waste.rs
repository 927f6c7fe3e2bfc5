//! [`Waste`]: files that one layer adds and a later one deletes or writes again.
//!
//! A file is wasted when its last name in the merged tree is gone. Its bytes still travel with
//! every pull; whether the disk holds them for nothing is another question, which [`Kept`]
//! answers: the store keeps a content once, so a file that was only given another owner costs it
//! nothing, and neither does one that another image shows.
//!
//! # The efficiency score
//!
//! `efficiency` is the share of the bytes of all layers that the image shows:
//! `1 - wasted / total`, where a file counts once in each layer that has it.
//!
//! `dive` is the score of the tool of that name, from the same layers by its formula
//! (`dive/filetree/efficiency.go`): over all paths that are a leaf of some layer's own tree
//! (files, links, devices, empty directories, and whiteouts under the name that they hide)
//!
//! ```text
//! sum of the smallest size that the path has in a layer
//! -----------------------------------------------------     1 if no path has a size
//! sum of the sizes that the path has in all layers
//! ```
//!
//! A whiteout of a file has size 0, one of a directory the size of what it hides; a hard link has
//! size 0. So a deleted directory does not lower that score, and neither does an opaque one.
//!
//! Invariants: the wasted bytes and those that the image shows add up to the total; a file is
//! wasted once, however many names it had.

use std::collections::{HashMap, HashSet};

use strata_diff::rows::RowKind;
use strata_layer::Result;
use strata_tree::{ContentDigest, ImageId, NodeId, TreePath};

use super::chain::{Chain, LayerNode, Shown};
use super::facts::ChangedFacts;
use super::replay::{HiddenBy, NameChange, NameEvent};

/// What an image's layers hold and the image does not show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Waste {
    /// The files, the largest first.
    pub files: Vec<WastedFile>,
    /// Bytes of all regular files of all layers; one file of two layers counts twice.
    pub total: u64,
    /// The part of `total` that the image does not show.
    pub wasted: u64,
    /// The score as dive defines it, 0 to 1.
    pub dive: f64,
}

impl Waste {
    /// The share of `total` that the image shows, 0 to 1; 1 if there is nothing.
    pub fn efficiency(&self) -> f64 {
        match self.total {
            0 => 1.0,
            total => 1.0 - self.wasted as f64 / total as f64,
        }
    }
}

/// A file that no name of the image shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WastedFile {
    /// The last of its names.
    pub path: TreePath,
    /// Its bytes.
    pub bytes: u64,
    /// What they are.
    pub content: ContentDigest,
    /// The position of the layer that has it.
    pub added: usize,
    /// The position of the layer that took away its last name.
    pub removed: usize,
    /// How it lost that name.
    pub how: Gone,
    /// Whether the store holds the bytes all the same.
    pub kept: Kept,
}

/// How a file lost its last name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The name is removed.
    Deleted {
        /// What hides it.
        by: HiddenBy,
        /// What was whited out, opaque or replaced.
        at: TreePath,
    },
    /// The name shows another node, which differs in this; in nothing, if it is the same again.
    Rewritten(ChangedFacts),
}

impl Gone {
    /// Whether the same bytes were written again for the sake of their metadata, or for nothing.
    pub const fn is_metadata_only(&self) -> bool {
        matches!(self, Self::Rewritten(facts) if !facts.data())
    }
}

/// Who else holds wasted bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// The image itself shows the content, under another name or with other metadata.
    Here,
    /// Another image holds it.
    Elsewhere,
    /// Nobody: without the image's waste they would not be stored.
    Nowhere,
}

impl Kept {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Here => "image",
            Self::Elsewhere => "elsewhere",
            Self::Nowhere => "no",
        }
    }
}

#[derive(Default)]
struct Paths {
    smallest: u64,
    all: u64,
}

impl Chain<'_> {
    /// What the layers of `image`, whose chain this is, hold for nothing.
    ///
    /// ```no_run
    /// use strata_analysis::history::Chain;
    /// use strata_layer::Store;
    /// # fn main() -> strata_layer::Result<()> {
    /// # let store = Store::open("/var/lib/stratafs".as_ref())?;
    /// # let image = store.images().all()?.remove(0);
    /// let waste = Chain::open(&store, &image.id)?.waste(&image.id)?;
    /// println!("{} of {} bytes, efficiency {:.3}", waste.wasted, waste.total, waste.dive);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn waste(&self, image: &ImageId) -> Result<Waste> {
        // By layer and node: how many names show it, and how the last of them went.
        let mut names: Vec<Vec<u32>> = Vec::new();
        for position in 0..self.count() {
            names.push(vec![0; self.layer(position)?.rows().len() + 1]);
        }
        let mut gone: HashMap<LayerNode, (usize, TreePath, Gone)> = HashMap::new();
        // For each layer its whiteouts, and the bytes of what is below them.
        let mut hidden: Vec<HashMap<Vec<u8>, u64>> = Vec::new();
        for position in 0..self.count() {
            hidden.push(self.whiteouts(position)?);
        }
        let mut members = Vec::new();
        for position in 0..self.count() {
            members.push(self.members(position)?);
        }
        // The size of a leaf under the name of its member, 0 under others.
        let own_size = |leaf: LayerNode, path: &[u8]| -> Result<u64> {
            let Some((_, bytes)) = self.content(leaf)? else { return Ok(0) };
            let member = members[leaf.layer].get(&leaf.node).unwrap_or(&leaf.node);
            let own = self.layer(leaf.layer)?.path(*member)?.as_bytes() == path;
            Ok(if own { bytes } else { 0 })
        };
        let mut failed = None;
        self.replay(&mut |event| {
            let (was, now) = match event.what {
                NameChange::Added(now) => (None, Some(now)),
                NameChange::Changed { was, now, .. } => (Some(was), Some(now)),
                NameChange::Removed { was, .. } => (Some(was), None),
            };
            if let Some(Shown::Leaf(leaf)) = now {
                names[leaf.layer][leaf.node.0 as usize] += 1;
            }
            let Some(Shown::Leaf(leaf)) = was else { return };
            let count = &mut names[leaf.layer][leaf.node.0 as usize];
            *count -= 1;
            if *count == 0 {
                gone.insert(leaf, (event.layer, event.tree_path(), how(event)));
            }
            // A whiteout may stand below an opaque directory, which is then told as the reason.
            let tops = event.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            for (end, _) in tops.take_while(|_| now.is_none()) {
                if let Some(hidden) = hidden[event.layer].get_mut(&event.path[..end]) {
                    match own_size(leaf, event.path) {
                        Ok(size) => *hidden += size,
                        Err(error) => failed = Some(error),
                    }
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut waste = Waste { dive: self.dive(&hidden, &members)?, ..Waste::default() };
        let mut shown: HashSet<ContentDigest> = HashSet::new();
        for (layer, names) in names.iter().enumerate() {
            for (node, names) in names.iter().enumerate().skip(1) {
                let at = LayerNode { layer, node: NodeId(node as u64) };
                let Some((content, bytes)) = self.content(at)? else { continue };
                waste.total += bytes;
                if *names > 0 {
                    shown.insert(content);
                } else if let Some((removed, path, how)) = gone.remove(&at) {
                    waste.wasted += bytes;
                    let (added, kept) = (layer, Kept::Nowhere);
                    let file = WastedFile { path, bytes, content, added, removed, how, kept };
                    waste.files.push(file);
                }
            }
        }
        self.find_kept(&mut waste.files, image, &shown)?;
        waste.files.sort_by(|a, b| {
            b.bytes.cmp(&a.bytes).then_with(|| (a.added, &a.path).cmp(&(b.added, &b.path)))
        });
        Ok(waste)
    }

    /// Finds out who else contains the wasted bytes; `shown` is what the image shows.
    fn find_kept(
        &self,
        files: &mut [WastedFile],
        image: &ImageId,
        shown: &HashSet<ContentDigest>,
    ) -> Result<()> {
        let asked = files.iter().map(|file| file.content);
        let asked: HashSet<_> = asked.filter(|content| !shown.contains(content)).collect();
        let elsewhere = self.store.reader().in_other_images(image, &asked)?;
        for file in files {
            file.kept = match (shown.contains(&file.content), elsewhere.contains(&file.content)) {
                (true, _) => Kept::Here,
                (false, true) => Kept::Elsewhere,
                (false, false) => Kept::Nowhere,
            };
        }
        Ok(())
    }

    /// The member of each node of a layer that brings the content, where a hard link's row comes
    /// before it: further names are links, which have no size.
    fn members(&self, position: usize) -> Result<HashMap<NodeId, NodeId>> {
        let layer = self.layer(position)?;
        let mut members = HashMap::new();
        for (node, row) in (1..).map(NodeId).zip(layer.rows()) {
            let RowKind::HardLink(target) = row.kind else { continue };
            let known = layer.row(*members.get(&target).unwrap_or(&target))?;
            if row.position.is_some() && row.position < known.position {
                members.insert(target, node);
            }
        }
        Ok(members)
    }

    fn whiteouts(&self, position: usize) -> Result<HashMap<Vec<u8>, u64>> {
        let layer = self.layer(position)?;
        let mut found = HashMap::new();
        for (node, row) in (1..).map(NodeId).zip(layer.rows()) {
            if row.kind == RowKind::Whiteout {
                found.insert(layer.path(node)?.as_bytes().to_vec(), 0);
            }
        }
        Ok(found)
    }

    /// The score of dive; `hidden`: bytes below each whiteout, by layer and path.
    fn dive(
        &self,
        hidden: &[HashMap<Vec<u8>, u64>],
        members: &[HashMap<NodeId, NodeId>],
    ) -> Result<f64> {
        let mut paths: HashMap<Vec<u8>, Paths> = HashMap::new();
        let mut count = |path: &[u8], size: u64| match paths.get_mut(path) {
            Some(known) => {
                known.smallest = known.smallest.min(size);
                known.all += size;
            }
            None => {
                paths.insert(path.to_vec(), Paths { smallest: size, all: size });
            }
        };
        for (position, members) in members.iter().enumerate() {
            let layer = self.layer(position)?;
            let sizes: HashMap<NodeId, u64> = members
                .iter()
                .map(|(node, member)| {
                    let content = self.content(LayerNode { layer: position, node: *node });
                    content.map(|content| (*member, content.map_or(0, |(_, bytes)| bytes)))
                })
                .collect::<Result<_>>()?;
            let mut here: Vec<Vec<u8>> = Vec::with_capacity(layer.rows().len());
            for (node, row) in (1..).map(NodeId).zip(layer.rows()) {
                let parent = here.get((row.parent.0 as usize).wrapping_sub(1));
                let mut path = parent.cloned().unwrap_or_default();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&row.name);
                match (&row.kind, &row.meta) {
                    (RowKind::Directory { children, .. }, _) if *children > 0 => {}
                    (RowKind::Regular(_), Some(meta)) if !members.contains_key(&node) => {
                        count(&path, meta.size);
                    }
                    (RowKind::HardLink(_), _) => {
                        count(&path, sizes.get(&node).copied().unwrap_or(0));
                    }
                    (RowKind::Whiteout, _) => {
                        count(&path, hidden[position].get(&path).copied().unwrap_or(0));
                    }
                    _ => count(&path, 0),
                }
                here.push(path);
            }
        }
        let (smallest, all) =
            paths.values().fold((0, 0), |(s, a), path| (s + path.smallest, a + path.all));
        Ok(if all == 0 { 1.0 } else { smallest as f64 / all as f64 })
    }
}

fn how(event: &NameEvent<'_>) -> Gone {
    match event.what {
        NameChange::Changed { facts, .. } => Gone::Rewritten(facts),
        NameChange::Removed { by, at, .. } => {
            let at = TreePath::clamped(&event.path[..at]).unwrap_or_default();
            Gone::Deleted { by, at }
        }
        // An addition takes no name away.
        NameChange::Added(_) => Gone::Rewritten(ChangedFacts::NONE),
    }
}
