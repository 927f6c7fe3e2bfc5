//! What is in a layer, as a tree that is cut to what a page can show.
//!
//! The model: directories are opened in the order of their bytes, the largest first, as long as
//! the budget of nodes lasts; of an open directory the largest entries are shown, and the others
//! are folded into one node. So a small layer is shown to its last file, a large one where its
//! bytes are.
//!
//! Invariant: at each directory the bytes of what is shown below it, folded nodes included, add up
//! to its own; the root's are the layer's distinct contents.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use strata_layer::{HeldKind, HeldName};

use crate::look::escaped;

/// Entries that an open directory shows at most, the folded ones being one of them.
const WIDTH: usize = 40;

/// Directories that are open one in another at most.
const DEPTH: usize = 32;

/// Bytes and number of contents.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct NodeWeight {
    pub(super) bytes: u64,
    /// The bytes, each content's divided by the number of images that hold it.
    pub(super) charged: f64,
    pub(super) files: u64,
}

impl NodeWeight {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.charged += other.charged;
        self.files += other.files;
    }
}

/// What a page shows of a layer.
#[derive(Debug, PartialEq)]
pub(super) enum ShownNode {
    File(String, NodeWeight),
    /// A directory that is not opened.
    Closed(String, NodeWeight),
    /// Entries of the directory above that are not shown one by one, and how many.
    Folded(u64, NodeWeight),
    Open(String, NodeWeight, Vec<Self>),
}

impl Serialize for ShownNode {
    /// As a list, for there are many: `[0, name, bytes, charged]` is a file, `[1, name, bytes,
    /// charged, files]` a closed directory, `[2, entries, bytes, charged, files]` what is folded,
    /// `[3, name, bytes, charged, files, [...]]` an open directory.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let (Self::File(_, weight)
        | Self::Closed(_, weight)
        | Self::Folded(_, weight)
        | Self::Open(_, weight, _)) = self;
        let kind = match self {
            Self::File(..) => 0,
            Self::Closed(..) => 1,
            Self::Folded(..) => 2,
            Self::Open(..) => 3,
        };
        list.serialize_element(&kind)?;
        match self {
            Self::File(name, _) | Self::Closed(name, _) | Self::Open(name, ..) => {
                list.serialize_element(name)?;
            }
            Self::Folded(entries, _) => list.serialize_element(entries)?,
        }
        list.serialize_element(&weight.bytes)?;
        list.serialize_element(&(weight.charged.round() as u64))?;
        if !matches!(self, Self::File(..)) {
            list.serialize_element(&weight.files)?;
        }
        if let Self::Open(_, _, children) = self {
            list.serialize_element(children)?;
        }
        list.end()
    }
}

/// A tree of names, each directory with the weight of all that is below it.
struct Tree<'a> {
    names: &'a [HeldName],
    /// Entries that an open directory shows at most.
    width: usize,
    weights: Vec<NodeWeight>,
    children: Vec<Vec<u32>>,
}

/// Cuts the names of a layer to about `budget` nodes, but always opens its root; `holders` are the
/// images of each group.
pub(super) fn cut(names: &[HeldName], holders: &[u32], budget: usize) -> ShownNode {
    let mut tree = Tree {
        names,
        width: WIDTH.min(budget).max(2),
        weights: vec![NodeWeight::default(); names.len()],
        children: vec![Vec::new(); names.len()],
    };
    for (at, name) in names.iter().enumerate() {
        if let HeldKind::Content { bytes, group } = name.kind {
            let images = holders.get(group).copied().unwrap_or(0).max(1);
            tree.weights[at] =
                NodeWeight { bytes, charged: bytes as f64 / f64::from(images), files: 1 };
        }
    }
    // Node order has directories before what is in them, so backwards every sum is complete.
    for at in (1..names.len()).rev() {
        let weight = tree.weights[at];
        tree.weights[names[at].parent].add(weight);
        tree.children[names[at].parent].push(at as u32);
    }
    let open = tree.opened(budget);
    match names.is_empty() {
        true => ShownNode::Open("/".to_owned(), NodeWeight::default(), Vec::new()),
        false => tree.shown(0, &open),
    }
}

impl Tree<'_> {
    /// Sorts what is in a directory, the heaviest first, and says how many of it are shown.
    fn sort(&mut self, dir: usize) -> usize {
        let mut children = std::mem::take(&mut self.children[dir]);
        let key = |at: &u32| {
            let weight = self.weights[*at as usize];
            (Reverse((weight.bytes, weight.files)), *at)
        };
        children.sort_unstable_by_key(key);
        let shown = self.limit(&children);
        self.children[dir] = children;
        shown
    }

    /// Which directories are opened.
    fn opened(&mut self, budget: usize) -> Vec<bool> {
        let mut open = vec![false; self.names.len()];
        let mut left = budget;
        let mut next = BinaryHeap::new();
        if !self.names.is_empty() {
            next.push((self.weights[0].bytes, Reverse((0, 1))));
        }
        while let Some((_, Reverse((dir, depth)))) = next.pop() {
            let shown = self.sort(dir);
            if shown > left {
                break;
            }
            left -= shown;
            open[dir] = true;
            for child in self.children[dir][..shown].iter().map(|at| *at as usize) {
                let bytes = self.weights[child].bytes;
                if depth < DEPTH && self.names[child].kind == HeldKind::Directory && bytes > 0 {
                    next.push((bytes, Reverse((child, depth + 1))));
                }
            }
        }
        open
    }

    /// Not deeper than [`DEPTH`], because no deeper directory is open.
    fn shown(&self, at: usize, open: &[bool]) -> ShownNode {
        let (name, weight) = (self.name(at), self.weights[at]);
        match self.names[at].kind {
            HeldKind::Directory if open[at] => {
                let children = &self.children[at];
                let (shown, folded) = children.split_at(self.limit(children));
                let mut list: Vec<ShownNode> =
                    shown.iter().map(|child| self.shown(*child as usize, open)).collect();
                if !folded.is_empty() {
                    let mut rest = NodeWeight::default();
                    folded.iter().for_each(|child| rest.add(self.weights[*child as usize]));
                    list.push(ShownNode::Folded(folded.len() as u64, rest));
                }
                ShownNode::Open(name, weight, list)
            }
            HeldKind::Directory => ShownNode::Closed(name, weight),
            _ => ShownNode::File(name, weight),
        }
    }

    /// How many of a directory's entries are shown one by one.
    fn limit(&self, children: &[u32]) -> usize {
        match children.len() {
            len if len > self.width => self.width - 1,
            len => len,
        }
    }

    fn name(&self, at: usize) -> String {
        match at {
            0 => "/".to_owned(),
            _ => escaped(&self.names[at].name).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names in node order: each directory's children after it, in `holders` of one group.
    fn layer(spec: &[(usize, Option<u64>)]) -> Vec<HeldName> {
        let mut names =
            vec![HeldName { name: Box::default(), parent: 0, kind: HeldKind::Directory }];
        let mut dirs = vec![0];
        for (at, (parent, bytes)) in spec.iter().enumerate() {
            let kind = match bytes {
                None => HeldKind::Directory,
                Some(bytes) => HeldKind::Content { bytes: *bytes, group: at % 3 },
            };
            let parent = dirs[parent % dirs.len()];
            if bytes.is_none() {
                dirs.push(names.len());
            }
            names.push(HeldName { name: format!("n{at}").into_bytes().into(), parent, kind });
        }
        names
    }

    /// Checks that what is below adds up, and counts the nodes.
    fn added_up(node: &ShownNode) -> (NodeWeight, usize) {
        match node {
            ShownNode::File(_, weight)
            | ShownNode::Closed(_, weight)
            | ShownNode::Folded(_, weight) => (*weight, 1),
            ShownNode::Open(name, weight, children) => {
                let (mut sum, mut nodes) = (NodeWeight::default(), 1);
                for child in children {
                    let (weight, below) = added_up(child);
                    sum.add(weight);
                    nodes += below;
                }
                assert_eq!((sum.bytes, sum.files), (weight.bytes, weight.files), "{name}");
                assert!((sum.charged - weight.charged).abs() < 1e-3, "{name}");
                (*weight, nodes)
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_adds_up_and_fits_the_budget(
            spec in prop::collection::vec((0_usize..40, prop::option::of(0_u64..5000)), 0..200),
            budget in 2_usize..120,
        ) {
            let names = layer(&spec);
            let shown = cut(&names, &[1, 2, 5], budget);
            let (weight, nodes) = added_up(&shown);
            let bytes: u64 = spec.iter().filter_map(|(_, bytes)| *bytes).sum();
            let files = spec.iter().filter(|(_, bytes)| bytes.is_some()).count();
            prop_assert_eq!((weight.bytes, weight.files), (bytes, files as u64));
            // Each open directory may have one node more, for its folded entries.
            prop_assert!(nodes <= 1 + budget * 2, "{} nodes of {}", nodes, budget);
        }
    }

    #[test]
    fn the_largest_are_shown_and_the_others_folded() {
        let spec: Vec<_> = (0..WIDTH as u64 + 10).map(|n| (0, Some(n))).collect();
        let ShownNode::Open(name, _, children) = cut(&layer(&spec), &[1, 1, 1], 1000) else {
            panic!("the root is open")
        };
        assert_eq!((name.as_str(), children.len()), ("/", WIDTH));
        let largest = WIDTH as u64 + 9;
        assert!(matches!(&children[0], ShownNode::File(name, w) if name == &format!("n{largest}")
            && w.bytes == largest));
        assert!(matches!(children.last(), Some(ShownNode::Folded(11, _))));
    }

    #[test]
    fn nodes_are_short_lists_and_names_are_escaped() {
        let mut names = layer(&[(0, None), (1, Some(10)), (0, Some(4))]);
        names[3].name = b"a\xffb\n"[..].into();
        let json = serde_json::to_string(&cut(&names, &[1, 1, 2], 100)).unwrap();
        assert_eq!(
            json,
            r#"[3,"/",14,12,2,[[3,"n0",10,10,1,[[0,"n1",10,10]]],[0,"a\\377b\\n",4,2]]]"#
        );
    }

    #[test]
    fn no_directory_is_opened_deeper_than_the_limit() {
        let spec: Vec<_> = (0..200).map(|n| (n, None)).chain([(200, Some(7))]).collect();
        let mut node = &cut(&layer(&spec), &[1, 1, 1], 10_000);
        let mut depth = 0;
        while let ShownNode::Open(_, weight, children) = node {
            assert_eq!(weight.bytes, 7);
            (node, depth) = (&children[0], depth + 1);
        }
        assert_eq!(depth, DEPTH);
        assert!(matches!(node, ShownNode::Closed(_, NodeWeight { bytes: 7, files: 1, .. })));
    }
}
