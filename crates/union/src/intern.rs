//! The stack's nodes: what makes each, and its number.
//!
//! Numbers are either counted in the order of asking, or the lowers' own: a non-directory has its
//! node's, a merged directory that of its lowest part, so a layer put on top changes none. A
//! directory whose number another has taken (lowers that lie inside one another) gets a spare
//! one.
//!
//! Invariants: a node is interned by its top-most part and keeps its number; the root, 1, is not
//! here; nothing is ever forgotten, so the table grows with the nodes asked for, by about 100
//! bytes each, and never beyond those of the lowers.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use strata_tree::{NameBuf, NodeId, Numbers};

use crate::merge::{MergedDir, Part};

/// A merged directory.
pub(crate) struct Dir {
    pub(crate) merged: MergedDir,
    pub(crate) parent: NodeId,
    /// `None` for the root.
    pub(crate) name: Option<NameBuf>,
}

/// What makes a node of the stack.
#[derive(Clone)]
pub(crate) enum NodeSource {
    /// A non-directory of one layer.
    Leaf(Part),
    /// A directory of several.
    Dir(Arc<Dir>),
}

pub(crate) struct Interner {
    /// By top-most part; of numbered non-directories only those whose number is not their own.
    ids: HashMap<Part, NodeId>,
    sources: Sources,
}

enum Sources {
    /// By node id - 2.
    Counted(Vec<NodeSource>),
    /// By node id; how many spare numbers are given.
    Numbered(HashMap<NodeId, NodeSource>, u64),
}

impl Interner {
    /// Numbers in the order of asking.
    pub(crate) fn counted() -> Self {
        Self { ids: HashMap::new(), sources: Sources::Counted(Vec::new()) }
    }

    /// The lowers' own numbers.
    pub(crate) fn numbered() -> Self {
        Self { ids: HashMap::new(), sources: Sources::Numbered(HashMap::new(), 0) }
    }

    /// Whether numbers are the lowers' own.
    pub(crate) fn is_numbered(&self) -> bool {
        matches!(self.sources, Sources::Numbered(..))
    }

    /// The node of a non-directory.
    pub(crate) fn leaf(&mut self, part: Part) -> NodeId {
        if let Sources::Numbered(sources, _) = &mut self.sources
            && part.node != NodeId::ROOT
        {
            // The same number in another layer is the same inode: a link between layers.
            let taken = sources.entry(part.node).or_insert(NodeSource::Leaf(part));
            if matches!(taken, NodeSource::Leaf(_)) {
                return part.node;
            }
        }
        self.intern(part, None, || NodeSource::Leaf(part))
    }

    /// The node of a directory; `None` for one without parts.
    pub(crate) fn dir(&mut self, merged: &MergedDir, make: impl FnOnce() -> Dir) -> Option<NodeId> {
        let (top, lowest) = (merged.parts.first()?, merged.parts.last()?);
        Some(self.intern(*top, Some(lowest.node), || NodeSource::Dir(Arc::new(make()))))
    }

    fn intern(
        &mut self,
        key: Part,
        wish: Option<NodeId>,
        source: impl FnOnce() -> NodeSource,
    ) -> NodeId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = match &mut self.sources {
            Sources::Counted(sources) => {
                sources.push(source());
                NodeId(sources.len() as u64 + 1)
            }
            Sources::Numbered(sources, spares) => {
                let free = |id: &NodeId| *id != NodeId::ROOT && !sources.contains_key(id);
                let id = wish.filter(free).unwrap_or_else(|| {
                    *spares += 1;
                    NodeId(Numbers::SPARE + *spares - 1)
                });
                sources.insert(id, source());
                id
            }
        };
        self.ids.insert(key, id);
        id
    }

    /// What makes a node.
    pub(crate) fn get(&self, id: NodeId) -> Option<NodeSource> {
        match &self.sources {
            Sources::Counted(sources) => {
                let index = id.0.checked_sub(2).and_then(|index| usize::try_from(index).ok());
                index.and_then(|index| sources.get(index).cloned())
            }
            Sources::Numbered(sources, _) => sources.get(&id).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(layer: u32, node: u64) -> Part {
        Part { layer, node: NodeId(node) }
    }

    fn dir(interner: &mut Interner, parts: &[Part]) -> NodeId {
        let merged = MergedDir { parts: parts.to_vec(), metadata: None };
        let made = Dir { merged: merged.clone(), parent: NodeId::ROOT, name: None };
        interner.dir(&merged, || made).unwrap()
    }

    #[test]
    fn a_directory_has_the_number_of_its_lowest_part() {
        let mut table = Interner::numbered();
        assert_eq!(dir(&mut table, &[part(2, 30), part(0, 10)]), NodeId(10));
        assert_eq!(dir(&mut table, &[part(2, 30), part(0, 10)]), NodeId(10));
        assert_eq!(table.leaf(part(1, 40)), NodeId(40));
        // A file that is linked into two layers is one node.
        assert_eq!(table.leaf(part(0, 40)), NodeId(40));
        assert!(table.get(NodeId(30)).is_none());
    }

    #[test]
    fn a_number_that_is_taken_is_spared() {
        let mut table = Interner::numbered();
        assert_eq!(dir(&mut table, &[part(1, 10)]), NodeId(10));
        let spare = NodeId(Numbers::SPARE);
        assert_eq!(dir(&mut table, &[part(0, 10)]), spare);
        assert_eq!(dir(&mut table, &[part(0, 10)]), spare);
        assert_eq!(dir(&mut table, &[part(0, 1)]), NodeId(Numbers::SPARE + 1));
        assert_eq!(table.leaf(part(3, 10)), NodeId(Numbers::SPARE + 2));
        assert!(matches!(table.get(spare), Some(NodeSource::Dir(_))));
    }
}
