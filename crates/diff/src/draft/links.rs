//! Hard links: to an earlier member, to a later one, to a file of a lower layer.
//!
//! A link is another name of its target's inode. One whose target has not come yet waits; when
//! the tar is read, what still waits either finds its target in this layer or, if this layer does
//! not hide that path, becomes a link into the lower layers (the merge resolves it).
//!
//! Invariants: targets are resolved component by component, no symbolic link is followed; a link
//! never targets a directory; chains of waiting links end, cycles are refused.

use std::collections::HashMap;

use strata_tree::{Name, Presence, TreePath};

use super::{DirId, Draft, Effects, FileId, MemberPlace, Placed, ROOT, Slot, WaitingLink};
use crate::error::{Error, Result};

/// What this layer has at a link's target.
pub(super) enum LinkTarget {
    File(FileId),
    Waiting,
    /// The layer says nothing of that path: a lower layer may have it.
    Absent,
    /// The layer hides the path in lower layers.
    Hidden,
    Directory,
}

impl Draft {
    /// A hard link member.
    pub fn link(
        &mut self,
        raw: &[u8],
        raw_target: &[u8],
        position: u64,
        effects: &mut Effects,
    ) -> Result<Placed> {
        let path = match self.classify(raw, false)? {
            MemberPlace::Plain(path) => path,
            MemberPlace::Hidden(_) => return Ok(Placed::Nothing),
            MemberPlace::Whiteout { parent, name } => {
                self.whiteout(&parent, &name)?;
                return Ok(Placed::Nothing);
            }
            MemberPlace::Opaque(dir) => {
                self.opaque(&dir)?;
                return Ok(Placed::Nothing);
            }
        };
        let target = match self.classify(raw_target, false)? {
            MemberPlace::Plain(target) => target,
            MemberPlace::Hidden(target) => {
                let Some(file) = self.hidden.get(&target).copied() else {
                    return Err(Error::rule(
                        &self.label,
                        &path,
                        format!("hard link to {target}, which no earlier member is"),
                    ));
                };
                return self.name_file(file, path, position, effects);
            }
            MemberPlace::Whiteout { .. } | MemberPlace::Opaque(_) => {
                return Err(Error::rule(&self.label, &path, "hard link to a whiteout"));
            }
        };
        match self.target(&target) {
            // GNU tar and others write a file's second occurrence as a link to itself.
            LinkTarget::File(_) if target == path => Ok(Placed::Nothing),
            LinkTarget::File(file) => self.name_file(file, path, position, effects),
            LinkTarget::Directory => Err(Error::rule(
                &self.label,
                &path,
                format!("hard link to {target}, which is a directory"),
            )),
            LinkTarget::Waiting if target == path => Ok(Placed::Nothing),
            LinkTarget::Waiting | LinkTarget::Absent | LinkTarget::Hidden => {
                let link = WaitingLink { target, position };
                self.put(&path, Slot::Waiting(Box::new(link)), effects)?;
                Ok(Placed::Nothing)
            }
        }
    }

    fn name_file(
        &mut self,
        file: FileId,
        path: TreePath,
        position: u64,
        effects: &mut Effects,
    ) -> Result<Placed> {
        // Counted first: replacing `path` must not take the inode's last name away.
        self.files[file.index()].names += 1;
        self.put(&path, Slot::File { file, position }, effects)?;
        Ok(Placed::Link { file, path })
    }

    /// What this layer has at `path`.
    pub(super) fn target(&self, path: &TreePath) -> LinkTarget {
        let Some((parent, last)) = path.split_last() else { return LinkTarget::Directory };
        let mut dir = ROOT;
        for name in parent.names() {
            match self.step(dir, name) {
                Ok(Slot::Dir(next)) => dir = *next,
                Ok(Slot::File { .. } | Slot::Waiting(_)) => return LinkTarget::Hidden,
                Err(absent) => return absent,
            }
        }
        match self.step(dir, last) {
            // Whiteouts stand there and nothing else: a lower layer may have a file.
            Ok(Slot::Dir(found)) if self.dirs[found.0].presence == Presence::Phantom => {
                match self.hides(dir, last) {
                    true => LinkTarget::Hidden,
                    false => LinkTarget::Absent,
                }
            }
            Ok(Slot::Dir(_)) => LinkTarget::Directory,
            Ok(Slot::File { file, .. }) => LinkTarget::File(*file),
            Ok(Slot::Waiting(_)) => LinkTarget::Waiting,
            Err(absent) => absent,
        }
    }

    fn step(&self, dir: DirId, name: Name<'_>) -> std::result::Result<&Slot, LinkTarget> {
        let node = &self.dirs[dir.0];
        match node.children.get(name.as_bytes()) {
            Some(slot) => Ok(slot),
            None if self.hides(dir, name) => Err(LinkTarget::Hidden),
            None => Err(LinkTarget::Absent),
        }
    }

    /// Whether lower layers' entry of that name does not show.
    fn hides(&self, dir: DirId, name: Name<'_>) -> bool {
        let node = &self.dirs[dir.0];
        node.opaque || node.whiteouts.contains(name.as_bytes())
    }

    /// Settles every waiting link; returns those that became names of this layer's inodes.
    pub(super) fn settle_links(&mut self) -> Result<Vec<(FileId, TreePath)>> {
        let mut waiting: HashMap<TreePath, (TreePath, u64)> = HashMap::new();
        let mut order = Vec::new();
        let mut todo = vec![(ROOT, TreePath::root())];
        while let Some((dir, path)) = todo.pop() {
            for (name, slot) in &self.dirs[dir.0].children {
                let path = path.join(name.as_name());
                match slot {
                    Slot::Dir(dir) => todo.push((*dir, path)),
                    Slot::Waiting(link) => {
                        waiting.insert(path.clone(), (link.target.clone(), link.position));
                        order.push((link.position, path));
                    }
                    Slot::File { .. } => {}
                }
            }
        }
        order.sort();
        let mut settled = Vec::new();
        for (_, link) in order {
            // Chains are followed link by link and settled from their end, each link once.
            let mut chain = Vec::new();
            let mut at = link;
            while let Some((target, position)) = waiting.remove(&at) {
                chain.push((at, target.clone(), position));
                at = target;
            }
            while let Some((link, target, position)) = chain.pop() {
                match self.target(&target) {
                    LinkTarget::File(file) => {
                        self.files[file.index()].names += 1;
                        self.set_slot(&link, Slot::File { file, position });
                        settled.push((file, link));
                    }
                    LinkTarget::Absent => {}
                    // The target waits for good: it is a link into a lower layer, so is this.
                    LinkTarget::Waiting if self.leads_below(&target) => {}
                    LinkTarget::Waiting => {
                        let rule = format!("hard link to {target}: the links form a circle");
                        return Err(Error::rule(&self.label, &link, rule));
                    }
                    LinkTarget::Hidden => {
                        let rule = format!(
                            "hard link to {target}, which this layer hides and does not have"
                        );
                        return Err(Error::rule(&self.label, &link, rule));
                    }
                    LinkTarget::Directory => {
                        let rule = format!("hard link to {target}, which is a directory");
                        return Err(Error::rule(&self.label, &link, rule));
                    }
                }
            }
        }
        Ok(settled)
    }

    /// Whether a chain of waiting links ends at a path of which this layer says nothing.
    fn leads_below(&self, path: &TreePath) -> bool {
        self.below(path).is_some()
    }

    /// The path in lower layers at which a chain of waiting links ends.
    pub(super) fn below(&self, path: &TreePath) -> Option<TreePath> {
        let mut at = path.clone();
        for _ in 0..=self.files.len() + self.dirs.len() + MAX_CHAIN {
            match self.waiting_target(&at) {
                // A link to its own path: the lower layer's file of that name stays visible.
                Some(next) if *next == at => return Some(at),
                Some(next) => at = next.clone(),
                None => return matches!(self.target(&at), LinkTarget::Absent).then_some(at),
            }
        }
        None
    }

    fn waiting_target(&self, path: &TreePath) -> Option<&TreePath> {
        let (parent, last) = path.split_last()?;
        let mut dir = ROOT;
        for name in parent.names() {
            match self.dirs[dir.0].children.get(name.as_bytes())? {
                Slot::Dir(next) => dir = *next,
                Slot::File { .. } | Slot::Waiting(_) => return None,
            }
        }
        match self.dirs[dir.0].children.get(last.as_bytes())? {
            Slot::Waiting(link) => Some(&link.target),
            Slot::Dir(_) | Slot::File { .. } => None,
        }
    }

    fn set_slot(&mut self, path: &TreePath, slot: Slot) {
        let Some((parent, last)) = path.split_last() else { return };
        let mut dir = ROOT;
        for name in parent.names() {
            let Some(Slot::Dir(next)) = self.dirs[dir.0].children.get(name.as_bytes()) else {
                return;
            };
            dir = *next;
        }
        self.dirs[dir.0].children.insert(last.to_owned(), slot);
    }
}

/// Longer chains of links into lower layers are refused; real tars have chains of one.
const MAX_CHAIN: usize = 64;
