//! [`compare`]: two images, compared name by name.
//!
//! Both merged trees are sorted, so they are walked as one. Where the images have the same layers
//! at the base, a name can differ only if a layer above those says something of it (or of a
//! directory above it): if there is no such layer at a directory, nothing below is walked.
//!
//! ```text
//! layers   A B C        common: A B      walked: directories that C or D have
//!          A B D E                       and, of names on one side only, all that is below
//! ```
//!
//! Two files are equal if their contents have one digest; the index knows those, no file is
//! opened. How many names a file has is not compared.
//!
//! Invariants: paths come sorted, parents before children; every path that is on one side only, or
//! differs, is reported once; nothing recurses.

use std::cmp::Ordering;

use strata_layer::{Result, StoredLayer};
use strata_tree::{ContentDigest, Entry, Kind, Lower, Name, NameBuf, Node, NodeId, TreePath, list};

use super::chain::Chain;
use super::facts::{ChangedFacts, Seen};

/// An image to compare: its merged tree and its layers.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The tree that the layers merge to.
    pub tree: &'a dyn Lower,
    /// The layers.
    pub chain: &'a Chain<'a>,
}

/// One path that is not the same in both images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: TreePath,
    /// What the first image has.
    pub old: Option<Node>,
    /// What the second image has.
    pub new: Option<Node>,
    /// What differs; nothing where one of them is `None`.
    pub facts: ChangedFacts,
}

/// A directory of the walk.
struct Frame<'a> {
    path: TreePath,
    pairs: std::vec::IntoIter<Pair>,
    /// Directories that layers above the common ones have here; `None`: all may differ.
    upper: Option<Vec<(&'a StoredLayer, NodeId)>>,
}

struct Pair {
    name: NameBuf,
    old: Option<Node>,
    new: Option<Node>,
}

/// Calls `each` with what differs at `below` and below it, until it returns `false`. A time alone
/// is a difference too: see [`ChangedFacts::without_time`].
///
/// ```no_run
/// use strata_analysis::history::{Side, compare};
/// use strata_tree::TreePath;
/// # fn show(old: Side<'_>, new: Side<'_>) -> strata_layer::Result<()> {
/// compare(old, new, &TreePath::clamped(b"/etc").unwrap_or_default(), &mut |difference| {
///     match (difference.old, difference.new) {
///         (None, _) => println!("A {}", difference.path),
///         (_, None) => println!("D {}", difference.path),
///         _ => println!("C {}", difference.path),
///     }
///     true
/// })
/// # }
/// ```
///
/// # Errors
/// As [`Chain::layer`], and what the trees answer.
pub fn compare(
    old: Side<'_>,
    new: Side<'_>,
    below: &TreePath,
    each: &mut dyn FnMut(Difference) -> bool,
) -> Result<()> {
    let common = old.chain.common(new.chain);
    let mut upper = Vec::new();
    if common > 0 {
        for (chain, from) in [(old.chain, common), (new.chain, common)] {
            for position in from..chain.count() {
                upper.push((chain.layer(position)?, NodeId::ROOT));
            }
        }
        if upper.is_empty() {
            return Ok(());
        }
    }
    let mut here = Pair {
        name: NameBuf::new(b"-").map_err(|_| strata_tree::Error::NoNode(NodeId::ROOT))?,
        old: Some(old.tree.node(old.tree.root())?),
        new: Some(new.tree.node(new.tree.root())?),
    };
    let mut upper = (common > 0).then_some(upper);
    for name in below.names() {
        here = Pair {
            name: name.to_owned(),
            old: child(old.tree, here.old, name)?,
            new: child(new.tree, here.new, name)?,
        };
        upper = step(upper.as_deref(), name)?;
    }
    let walk = Compare { old, new, common };
    let mut frames = match walk.one(below.clone(), &here, upper, each)? {
        Some(frame) => vec![frame],
        None => return Ok(()),
    };
    while let Some(frame) = frames.last_mut() {
        let Some(pair) = frame.pairs.next() else {
            frames.pop();
            continue;
        };
        let path = frame.path.join(pair.name.as_name());
        let both = pair.old.is_some() && pair.new.is_some();
        let upper = match (&frame.upper, both) {
            (Some(upper), true) => {
                if !says(upper, pair.name.as_name())? {
                    continue;
                }
                step(Some(upper), pair.name.as_name())?
            }
            _ => None,
        };
        let mut enough = false;
        let below = walk.one(path, &pair, upper, &mut |difference| {
            enough = !each(difference);
            !enough
        })?;
        if enough {
            return Ok(());
        }
        frames.extend(below);
    }
    Ok(())
}

/// A name in a directory of a merged tree.
fn child(tree: &dyn Lower, dir: Option<Node>, name: Name<'_>) -> Result<Option<Node>> {
    Ok(match dir {
        Some(dir) if dir.stat.kind.is_dir() => {
            tree.lookup(dir.id, name)?.and_then(|entry| entry.node().copied())
        }
        _ => None,
    })
}

/// Whether one of the layers says anything of a name.
fn says(upper: &[(&StoredLayer, NodeId)], name: Name<'_>) -> Result<bool> {
    for (layer, dir) in upper {
        if layer.lookup(*dir, name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The directories of that name that the layers have.
fn step<'a>(
    upper: Option<&[(&'a StoredLayer, NodeId)]>,
    name: Name<'_>,
) -> Result<Option<Vec<(&'a StoredLayer, NodeId)>>> {
    let Some(upper) = upper else { return Ok(None) };
    let mut below = Vec::new();
    for (layer, dir) in upper {
        match layer.lookup(*dir, name)? {
            Some(Entry::Node(node)) if node.stat.kind.is_dir() => below.push((*layer, node.id)),
            _ => {}
        }
    }
    Ok(Some(below))
}

struct Compare<'a> {
    old: Side<'a>,
    new: Side<'a>,
    common: usize,
}

impl<'a> Compare<'a> {
    /// Reports what differs at one name; gives the directory to walk.
    fn one<'u>(
        &self,
        path: TreePath,
        pair: &Pair,
        upper: Option<Vec<(&'u StoredLayer, NodeId)>>,
        each: &mut dyn FnMut(Difference) -> bool,
    ) -> Result<Option<Frame<'u>>> {
        let facts = match (&pair.old, &pair.new) {
            (Some(old), Some(new)) => self.between(old, new)?,
            (None, None) => return Ok(None),
            _ => ChangedFacts::NONE,
        };
        let differs = !facts.is_empty() || pair.old.is_none() || pair.new.is_none();
        if differs {
            let (old, new) = (pair.old, pair.new);
            if !each(Difference { path: path.clone(), old, new, facts }) {
                return Ok(None);
            }
        }
        let is_dir = |node: &Option<Node>| node.is_some_and(|node| node.stat.kind.is_dir());
        let upper = match (is_dir(&pair.old), is_dir(&pair.new)) {
            (false, false) => return Ok(None),
            (true, true) => upper,
            _ => None,
        };
        let pairs = self.pairs(pair)?.into_iter();
        Ok(Some(Frame { path, pairs, upper }))
    }

    /// The names of both directories, as one sorted list.
    fn pairs(&self, pair: &Pair) -> Result<Vec<Pair>> {
        let names = |tree: &dyn Lower, dir: &Option<Node>| match dir {
            Some(dir) if dir.stat.kind.is_dir() => list(tree, dir.id),
            _ => Ok(Vec::new()),
        };
        let mut old = names(self.old.tree, &pair.old)?.into_iter().peekable();
        let mut new = names(self.new.tree, &pair.new)?.into_iter().peekable();
        let mut pairs = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(pairs),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let from_old = if order.is_le() { old.next() } else { None };
            let from_new = if order.is_ge() { new.next() } else { None };
            let node = |from: &Option<(NameBuf, Entry)>| {
                from.as_ref().and_then(|(_, entry)| entry.node().copied())
            };
            let (old, new) = (node(&from_old), node(&from_new));
            let Some((name, _)) = from_old.or(from_new) else { return Ok(pairs) };
            pairs.push(Pair { name, old, new });
        }
    }

    fn between(&self, old: &Node, new: &Node) -> Result<ChangedFacts> {
        let old_xattrs = self.old.tree.xattrs(old.id)?;
        let new_xattrs = self.new.tree.xattrs(new.id)?;
        let target = |tree: &dyn Lower, node: &Node| match node.stat.kind {
            Kind::Symlink => tree.read_link(node.id).map(Some),
            _ => Ok(None),
        };
        let old_target = target(self.old.tree, old)?;
        let new_target = target(self.new.tree, new)?;
        let (old_content, new_content) = self.contents(old, new)?;
        Ok(ChangedFacts::between(
            &Seen {
                stat: old.stat,
                xattrs: &old_xattrs,
                target: old_target.as_deref(),
                content: old_content,
            },
            &Seen {
                stat: new.stat,
                xattrs: &new_xattrs,
                target: new_target.as_deref(),
                content: new_content,
            },
        ))
    }

    /// The digests of two files; neither, where they are one and the same file of one layer.
    fn contents(
        &self,
        old: &Node,
        new: &Node,
    ) -> Result<(Option<ContentDigest>, Option<ContentDigest>)> {
        if old.stat.kind != Kind::Regular || new.stat.kind != Kind::Regular {
            return Ok((None, None));
        }
        let (a, b) = (self.old.tree.content(old.id)?, self.new.tree.content(new.id)?);
        if a == b && (a.layer as usize) < self.common {
            return Ok((None, None));
        }
        let (a, b) = (
            self.old.chain.content_at(a.layer as usize, &a.path)?,
            self.new.chain.content_at(b.layer as usize, &b.path)?,
        );
        Ok((a, b))
    }
}

/// The content of a regular file of a merged tree; `None` for other nodes.
///
/// # Errors
/// As [`Chain::layer`], and what the tree answers.
pub fn content_of(side: Side<'_>, node: &Node) -> Result<Option<ContentDigest>> {
    if node.stat.kind != Kind::Regular {
        return Ok(None);
    }
    let backing = side.tree.content(node.id)?;
    side.chain.content_at(backing.layer as usize, &backing.path)
}
