//! Hard links: to an earlier member, to a later one, to a file of a lower layer.
//!
//! A link is another name of its target's inode. One whose target has not come yet waits; when
//! the tar is read, what still waits either finds its target in this layer or, if this layer does
//! not hide that path, becomes a link into the lower layers (the merge resolves it).
//!
//! Invariants: targets are resolved component by component, no symbolic link is followed; what
//! the layer hides is no target, though it has directories of that name itself, but in a layer
//! that was accepted when such a link still led into the lower layers; a link never targets a
//! directory; cycles are refused; a link that waits when all are settled waits for the path in the
//! lower layers to which its chain leads.

use strata_tree::{Presence, TreePath};

use super::records::Settling;
use super::{DirId, Draft, Effects, FileId, MemberPlace, NameId, Placed, ROOT, Slot};
use crate::error::{Error, Result};
use crate::spill::Spill;

/// What this layer has at a link's target.
pub(super) enum LinkTarget {
    File(FileId),
    /// A link that waits: where the text of its target is, and whether the layer hides its own
    /// path in lower layers.
    Waiting {
        target: u64,
        hidden: bool,
    },
    /// The layer says nothing of that path: a lower layer may have it.
    Absent,
    /// The layer hides the path in lower layers.
    Hidden,
    Directory,
}

impl LinkTarget {
    fn missing(hidden: bool) -> Self {
        if hidden { Self::Hidden } else { Self::Absent }
    }
}

impl Draft {
    /// Takes a link to what is below a hidden directory, which the layer has made again, as a link
    /// into the lower layers: for layers that were accepted before that was refused.
    pub fn take_earlier_links(&mut self) {
        self.earlier_links = true;
    }

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
                let Some(file) = self.nodes.hidden(&target)? else {
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
            LinkTarget::Waiting { .. } if target == path => Ok(Placed::Nothing),
            LinkTarget::Waiting { .. } | LinkTarget::Absent | LinkTarget::Hidden => {
                let target = self.nodes.put_path(&target)?;
                self.links_waited = true;
                let settling = Settling::Unknown;
                self.put(&path, Slot::Waiting { target, position, settling }, effects)?;
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
        let name = self.put(&path, Slot::File { file, position }, effects)?;
        Ok(Placed::Link { file, name, path })
    }

    /// What this layer has at `path`. What it hides, it hides with all that is below, also where
    /// it has directories of that name itself.
    pub(super) fn target(&self, path: &TreePath) -> Result<LinkTarget> {
        let Some((parent, last)) = path.split_last() else { return Ok(LinkTarget::Directory) };
        let (mut dir, mut hidden) = (ROOT, false);
        for name in parent.names() {
            let (slot, hides) = self.nodes.look(dir, name)?;
            hidden = hides || hidden && !self.earlier_links;
            match slot {
                Some(Slot::Dir(next)) => dir = next,
                Some(Slot::File { .. } | Slot::Waiting { .. }) => return Ok(LinkTarget::Hidden),
                None => return Ok(LinkTarget::missing(hidden)),
            }
        }
        let (slot, hides) = self.nodes.look(dir, last)?;
        hidden = hides || hidden && !self.earlier_links;
        Ok(match slot {
            // Whiteouts stand there and nothing else: a lower layer may have a file.
            Some(Slot::Dir(found)) if self.nodes.dir(found)?.presence == Presence::Phantom => {
                LinkTarget::missing(hidden)
            }
            Some(Slot::Dir(_)) => LinkTarget::Directory,
            Some(Slot::File { file, .. }) => LinkTarget::File(file),
            Some(Slot::Waiting { target, .. }) => {
                LinkTarget::Waiting { target, hidden: hidden && !self.earlier_links }
            }
            None => LinkTarget::missing(hidden),
        })
    }

    /// Settles every waiting link; gives those that became names of this layer's inodes.
    pub(super) fn settle_links(&mut self) -> Result<Spill<u32>> {
        let mut settled = Spill::new(&self.nodes.scratch, 2);
        if !self.links_waited {
            return Ok(settled);
        }
        let mut dirs = Spill::new(&self.nodes.scratch, 1);
        dirs.push(ROOT.0)?;
        let mut at = 0;
        while at < dirs.len() {
            let mut next = self.nodes.first_name(DirId(dirs.get(at)?))?;
            at += 1;
            while let Some(id) = next {
                let name = self.nodes.name(id)?;
                next = name.next;
                match name.slot {
                    Some(Slot::Dir(dir)) => drop(dirs.push(dir.0)?),
                    Some(Slot::Waiting { .. }) => self.settle_chain(id, &mut settled)?,
                    Some(Slot::File { .. }) | None => {}
                }
            }
        }
        Ok(settled)
    }

    /// Follows a chain of waiting links, and settles it from its end, each link once.
    fn settle_chain(&mut self, first: NameId, settled: &mut Spill<u32>) -> Result<()> {
        let mut chain = Spill::new(&self.nodes.scratch, 1);
        let mut at = Some(first);
        while let Some(id) = at {
            let Some(Slot::Waiting { target, position, settling }) = self.nodes.name(id)?.slot
            else {
                break;
            };
            match settling {
                Settling::Known => break,
                // A link to its own path is no circle: the lower layer's file of that name stays.
                Settling::Followed if chain.get(chain.len() - 1)? == id.0 => break,
                Settling::Followed => {
                    let (path, target) = (self.nodes.path(id)?, self.nodes.get_path(target)?);
                    let rule = format!("hard link to {target}: the links form a circle");
                    return Err(Error::rule(&self.label, &path, rule));
                }
                Settling::Unknown => {}
            }
            let settling = Settling::Followed;
            self.nodes.set_slot(id, Slot::Waiting { target, position, settling })?;
            chain.push(id.0)?;
            at = self.nodes.at(&self.nodes.get_path(target)?)?;
        }
        for at in (0..chain.len()).rev() {
            let id = NameId(chain.get(at)?);
            if self.settle_link(id)? {
                settled.push(id.0)?;
            }
        }
        Ok(())
    }

    /// Settles a link whose target is settled; says whether it is a name of an inode now.
    fn settle_link(&mut self, id: NameId) -> Result<bool> {
        let Some(Slot::Waiting { target, position, .. }) = self.nodes.name(id)?.slot else {
            return Ok(false);
        };
        let path = self.nodes.get_path(target)?;
        let refused = |what: &str| {
            let rule = format!("hard link to {path}, {what}");
            Ok::<_, Error>(Error::rule(&self.label, &self.nodes.path(id)?, rule))
        };
        let target = match self.target(&path)? {
            LinkTarget::File(file) => {
                self.nodes.add_name(file)?;
                self.nodes.set_slot(id, Slot::File { file, position })?;
                return Ok(true);
            }
            LinkTarget::Absent => target,
            // The target waits for good: it leads into a lower layer, and so does this, to the
            // same path.
            LinkTarget::Waiting { target: end, hidden }
                if !hidden || self.nodes.get_path(end)? != path =>
            {
                end
            }
            LinkTarget::Waiting { .. } | LinkTarget::Hidden => {
                return Err(refused("which this layer hides and does not have")?);
            }
            LinkTarget::Directory => return Err(refused("which is a directory")?),
        };
        let settling = Settling::Known;
        self.nodes.set_slot(id, Slot::Waiting { target, position, settling })?;
        Ok(false)
    }
}
