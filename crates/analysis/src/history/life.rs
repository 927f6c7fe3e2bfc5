//! [`Life`]: what every layer does to one path, and to what is below it.
//!
//! Invariants: the events are those of [`Chain::replay`] at that path, none left out; a path that
//! no layer ever had has no events.

use std::collections::BTreeSet;

use strata_layer::Result;
use strata_tree::TreePath;

use super::chain::{Chain, LayerNode, NodeFacts, Shown};
use super::facts::ChangedFacts;
use super::replay::{HiddenBy, Merged, NameChange, NameEvent};

/// How many names like the one that was asked for are listed.
const NEAR: usize = 8;

/// The life of a path in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The path.
    pub path: TreePath,
    /// What the layers do to it and below it, the base first.
    pub events: Vec<LifeEvent>,
    /// What it is in the image; `None` if it does not exist there.
    pub now: Option<NodeFacts>,
    /// All names in the image of the file that it is, this one with them; empty for directories.
    pub names: Vec<TreePath>,
}

/// What one layer does to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeEvent {
    /// The layer's position in the image, counted from the base.
    pub layer: usize,
    /// What happens to the path itself.
    pub what: Happened,
    /// What it is afterwards; `None` if it is removed.
    pub node: Option<NodeFacts>,
    /// Other names that the layer gives the file: hard links.
    pub links: Vec<TreePath>,
    /// The layer whose file this is, if the name is a hard link into a lower layer.
    pub linked_from: Option<usize>,
    /// What happens to names below it.
    pub below: Tally,
}

/// What happens to a path in one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// There was nothing.
    Added {
        /// A lower layer had it, and one in between removed it.
        again: bool,
    },
    /// There was something. No facts: the layer has the same again.
    Changed(ChangedFacts),
    /// It is removed.
    Removed {
        /// What hides it.
        by: HiddenBy,
        /// What was whited out, opaque or replaced: this path or a directory above it.
        at: TreePath,
    },
    /// The layer says nothing of the path itself, only of names below it.
    Below,
}

/// Numbers of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Names where there was nothing.
    pub added: u64,
    /// Names that show something else now.
    pub changed: u64,
    /// Names that the layer has again as they were.
    pub again: u64,
    /// Names that are gone.
    pub removed: u64,
}

impl Tally {
    /// Counts one name.
    pub fn count(&mut self, what: &NameChange) {
        match what {
            NameChange::Added(_) => self.added += 1,
            NameChange::Changed { facts, .. } if facts.is_empty() => self.again += 1,
            NameChange::Changed { .. } => self.changed += 1,
            NameChange::Removed { .. } => self.removed += 1,
        }
    }
}

impl Chain<'_> {
    /// The life of a path; no link is followed.
    ///
    /// ```no_run
    /// use strata_analysis::history::Chain;
    /// use strata_layer::Store;
    /// use strata_tree::TreePath;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::open("/var/lib/stratafs".as_ref())?;
    /// # let image = store.images().all()?.remove(0);
    /// let chain = Chain::open(&store, &image.id)?;
    /// for event in chain.life(&TreePath::clamped(b"/etc/passwd")?)?.events {
    ///     println!("layer {}: {:?}", event.layer, event.what);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn life(&self, path: &TreePath) -> Result<Life> {
        Ok(self.life_and_tree(path)?.0)
    }

    /// The life of what a path leads to, as [`Chain::detour`] says it; if nothing ever was there,
    /// the life of the path as it is written.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn life_of(&self, path: &[u8], follow_last: bool) -> Result<(Detour, Life)> {
        // Most paths lead through no link: then the layers are put together once.
        let written = TreePath::clamped(path).unwrap_or_default();
        let (life, merged) = self.life_and_tree(&written)?;
        let detour = self.detour_in(&merged, path, follow_last)?;
        if detour.path == written {
            return Ok((detour, life));
        }
        let there = self.life(&detour.path)?;
        if there.events.is_empty() && !life.events.is_empty() && !detour.endless {
            let detour = Detour { path: written, links: Vec::new(), endless: false };
            return Ok((detour, life));
        }
        Ok((detour, there))
    }

    fn life_and_tree(&self, path: &TreePath) -> Result<(Life, Merged<'_>)> {
        let mut told: Vec<(usize, Option<NameChange>, Tally)> = Vec::new();
        let merged = self.replay(&mut |event| {
            let own = event.path == path.as_bytes();
            if !own && !is_below(event.path, path.as_bytes()) {
                return;
            }
            if told.last().is_none_or(|(layer, ..)| *layer != event.layer) {
                told.push((event.layer, None, Tally::default()));
            }
            let Some((_, what, below)) = told.last_mut() else { return };
            match own {
                true => *what = Some(event.what),
                false => below.count(&event.what),
            }
        })?;
        let mut gone = false;
        let mut events = Vec::new();
        for (layer, what, below) in told {
            events.push(self.event(layer, path, what, below, gone)?);
            gone |= matches!(what, Some(NameChange::Removed { .. }));
        }
        let shown = merged.find(path);
        let mut names = Vec::new();
        if let Some(leaf @ Shown::Leaf(_)) = shown {
            merged.walk(&TreePath::root(), &mut |path, shown| {
                if shown == leaf {
                    names.extend(TreePath::clamped(path));
                }
            });
        }
        let now = shown.map(|shown| self.facts(shown)).transpose()?;
        Ok((Life { path: path.clone(), events, now, names }, merged))
    }

    fn event(
        &self,
        layer: usize,
        path: &TreePath,
        what: Option<NameChange>,
        below: Tally,
        again: bool,
    ) -> Result<LifeEvent> {
        let (happened, now) = match what {
            None => (Happened::Below, None),
            Some(NameChange::Added(now)) => (Happened::Added { again }, Some(now)),
            Some(NameChange::Changed { now, facts, .. }) => (Happened::Changed(facts), Some(now)),
            Some(NameChange::Removed { by, at, .. }) => {
                let at = TreePath::clamped(&path.as_bytes()[..at]).unwrap_or_default();
                (Happened::Removed { by, at }, None)
            }
        };
        let mut links = Vec::new();
        let mut linked_from = None;
        if let Some(Shown::Leaf(leaf)) = now {
            linked_from = Some(leaf.layer).filter(|from| *from != layer);
            links = self.names(leaf)?;
            links.retain(|name| name != path);
        }
        let node = now.map(|now| self.facts(now)).transpose()?;
        Ok(LifeEvent { layer, what: happened, node, links, linked_from, below })
    }

    /// Paths of any layer like one that never was: first those of the same directory with almost
    /// the same name, then those of the same name elsewhere.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn near(&self, path: &TreePath) -> Result<Vec<TreePath>> {
        let Some((parent, last)) = path.split_last() else { return Ok(Vec::new()) };
        let wanted = String::from_utf8_lossy(last.as_bytes()).to_lowercase();
        let mut close: BTreeSet<(usize, TreePath)> = BTreeSet::new();
        let mut same: BTreeSet<(usize, TreePath)> = BTreeSet::new();
        self.replay(&mut |event| {
            let NameChange::Added(_) = event.what else { return };
            let slash = event.path.iter().rposition(|byte| *byte == b'/');
            let (dir, name) = match slash {
                Some(slash) => (&event.path[..slash], &event.path[slash + 1..]),
                None => (&b""[..], event.path),
            };
            if dir == parent.as_bytes() {
                let name = String::from_utf8_lossy(name).to_lowercase();
                let distance = strsim::osa_distance(&name, &wanted);
                if distance <= 1 + wanted.chars().count() / 4 {
                    close.insert((distance, event.tree_path()));
                } else if wanted.len() > 2 && name.contains(&wanted) {
                    close.insert((usize::MAX, event.tree_path()));
                }
            } else if name == last.as_bytes() {
                same.insert((event.path.len(), event.tree_path()));
                if same.len() > NEAR {
                    same.pop_last();
                }
            }
        })?;
        Ok(close.into_iter().chain(same).map(|(_, path)| path).take(NEAR).collect())
    }
}

/// Whether `path` is below the directory `top`.
pub(super) fn is_below(path: &[u8], top: &[u8]) -> bool {
    match path.strip_prefix(top) {
        Some(rest) if top.is_empty() => !rest.is_empty(),
        Some(rest) => rest.starts_with(b"/"),
        None => false,
    }
}

/// A path that goes through symbolic links of an image, as its root would resolve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detour {
    /// Where the path leads; beyond the last name that exists it goes on as it was written.
    pub path: TreePath,
    /// The links on the way, with their targets.
    pub links: Vec<(TreePath, Vec<u8>)>,
    /// More links than the kernel would follow; the path is then the last of them.
    pub endless: bool,
}

impl Chain<'_> {
    /// Follows the links of the merged image on the way of a path; the last name only if
    /// `follow_last` says so.
    ///
    /// # Errors
    /// As [`Chain::layer`].
    pub fn detour(&self, path: &[u8], follow_last: bool) -> Result<Detour> {
        self.detour_in(&self.replay(&mut |_| {})?, path, follow_last)
    }

    fn detour_in(&self, merged: &Merged<'_>, path: &[u8], follow_last: bool) -> Result<Detour> {
        let parts = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let parts = bytes.split(|byte| *byte == b'/').map(<[u8]>::to_vec);
            parts.filter(|part| !part.is_empty() && part != b".").collect()
        };
        let mut todo = parts(path);
        todo.reverse();
        let mut detour = Detour { path: TreePath::root(), links: Vec::new(), endless: false };
        while let Some(part) = todo.pop() {
            if part == b".." {
                detour.path.pop();
                continue;
            }
            let Ok(name) = strata_tree::Name::new(&part) else { continue };
            let here = detour.path.join(name);
            let target = match merged.find(&here) {
                Some(Shown::Leaf(leaf)) if follow_last || !todo.is_empty() => self.link(leaf)?,
                _ => None,
            };
            let Some(target) = target else {
                detour.path = here;
                continue;
            };
            if detour.links.len() >= strata_tree::LINKS_MAX as usize {
                detour.path = here;
                detour.endless = true;
                break;
            }
            if target.starts_with(b"/") {
                detour.path = TreePath::root();
            }
            todo.extend(parts(&target).into_iter().rev());
            detour.links.push((here, target));
        }
        Ok(detour)
    }

    fn link(&self, leaf: LayerNode) -> Result<Option<Vec<u8>>> {
        Ok(self.seen(leaf)?.target.map(<[u8]>::to_vec))
    }
}

impl NameEvent<'_> {
    /// Whether the path is `top` or below it.
    pub fn is_within(&self, top: &TreePath) -> bool {
        self.path == top.as_bytes() || is_below(self.path, top.as_bytes())
    }
}
