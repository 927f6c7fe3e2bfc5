//! Hard links: to an earlier member, to a later one, to a file of a lower layer.
//!
//! A link is another name of its target's inode. One whose target has not come yet waits; when
//! the tar is read, what still waits either finds its target in this layer or, if this layer does
//! not hide that path, becomes a link into the lower layers (the merge resolves it).
//!
//! Invariants: targets are resolved component by component, no symbolic link is followed; a link
//! never targets a directory; cycles are refused; a link that waits when all are settled waits for
//! the path in the lower layers to which its chain leads.

use std::collections::HashMap;

use strata_tree::{Name, Presence, TreePath};

use super::records::NameId;
use super::{DirId, Draft, Effects, FileId, MemberPlace, Placed, ROOT, Slot};
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
        match self.target(&target)? {
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
                let target = self.nodes.put_path(&target)?;
                self.links_waited = true;
                self.put(&path, Slot::Waiting { target, position }, effects)?;
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
        self.nodes.add_name(file)?;
        self.put(&path, Slot::File { file, position }, effects)?;
        Ok(Placed::Link { file, path })
    }

    /// What this layer has at `path`.
    pub(super) fn target(&self, path: &TreePath) -> Result<LinkTarget> {
        let Some((parent, last)) = path.split_last() else { return Ok(LinkTarget::Directory) };
        let mut dir = ROOT;
        for name in parent.names() {
            match self.nodes.slot(dir, name)? {
                Some(Slot::Dir(next)) => dir = next,
                Some(Slot::File { .. } | Slot::Waiting { .. }) => return Ok(LinkTarget::Hidden),
                None => return self.missing(dir, name),
            }
        }
        Ok(match self.nodes.slot(dir, last)? {
            // Whiteouts stand there and nothing else: a lower layer may have a file.
            Some(Slot::Dir(found)) if self.nodes.dir(found)?.presence == Presence::Phantom => {
                self.missing(dir, last)?
            }
            Some(Slot::Dir(_)) => LinkTarget::Directory,
            Some(Slot::File { file, .. }) => LinkTarget::File(file),
            Some(Slot::Waiting { .. }) => LinkTarget::Waiting,
            None => self.missing(dir, last)?,
        })
    }

    /// What a name is that the layer has not.
    fn missing(&self, dir: DirId, name: Name<'_>) -> Result<LinkTarget> {
        Ok(match self.nodes.hides(dir, name)? {
            true => LinkTarget::Hidden,
            false => LinkTarget::Absent,
        })
    }

    /// Settles every waiting link; returns those that became names of this layer's inodes.
    pub(super) fn settle_links(&mut self) -> Result<Vec<(FileId, TreePath)>> {
        if !self.links_waited {
            return Ok(Vec::new());
        }
        let mut waiting: HashMap<TreePath, (TreePath, u64)> = HashMap::new();
        let mut order = Vec::new();
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            let nodes = &self.nodes;
            let mut found: Vec<(NameId, u64, u64)> = Vec::new();
            nodes.each_name(dir, |id, name| {
                match name.slot {
                    Some(Slot::Dir(dir)) => todo.push(dir),
                    Some(Slot::Waiting { target, position }) => found.push((id, target, position)),
                    Some(Slot::File { .. }) | None => {}
                }
                Ok(())
            })?;
            for (id, target, position) in found {
                let path = nodes.path(id)?;
                waiting.insert(path.clone(), (nodes.get_path(target)?, position));
                order.push((position, path));
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
            // A link to its own path is no circle: the lower layer's file of that name stays.
            let again = chain.iter().position(|(link, ..)| *link == at);
            if let Some((link, target, _)) = chain.last()
                && again.is_some_and(|again| again + 1 < chain.len())
            {
                let rule = format!("hard link to {target}: the links form a circle");
                return Err(Error::rule(&self.label, link, rule));
            }
            while let Some((link, target, position)) = chain.pop() {
                match self.target(&target)? {
                    LinkTarget::File(file) => {
                        self.nodes.add_name(file)?;
                        self.set_slot(&link, Slot::File { file, position })?;
                        settled.push((file, link));
                    }
                    LinkTarget::Absent => {}
                    // The target waits for good: it leads into a lower layer, and so does this, to
                    // the same path.
                    LinkTarget::Waiting => {
                        if let Some(target) = self.waiting_for(&target)? {
                            self.set_slot(&link, Slot::Waiting { target, position })?;
                        }
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

    /// Where the text of the path is for which a link waits.
    fn waiting_for(&self, path: &TreePath) -> Result<Option<u64>> {
        let Some((parent, last)) = path.split_last() else { return Ok(None) };
        let Some(dir) = self.known_dir(&parent)? else { return Ok(None) };
        match self.nodes.slot(dir, last)? {
            Some(Slot::Waiting { target, .. }) => Ok(Some(target)),
            Some(Slot::Dir(_) | Slot::File { .. }) | None => Ok(None),
        }
    }

    fn known_dir(&self, path: &TreePath) -> Result<Option<DirId>> {
        let mut dir = ROOT;
        for name in path.names() {
            let Some(Slot::Dir(next)) = self.nodes.slot(dir, name)? else { return Ok(None) };
            dir = next;
        }
        Ok(Some(dir))
    }

    fn set_slot(&mut self, path: &TreePath, slot: Slot) -> Result<()> {
        let Some((parent, last)) = path.split_last() else { return Ok(()) };
        if let Some(dir) = self.known_dir(&parent)? {
            self.nodes.point(dir, last, slot)?;
        }
        Ok(())
    }
}
