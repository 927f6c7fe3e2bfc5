//! From a draft to rows: what every name of the layer is, numbered breadth first.
//!
//! Invariants: see [`EntryRow`](crate::rows::EntryRow); a whiteout of a name that the layer has
//! vanishes (the layer's own entry replaces the lower one) or, for a directory, makes it opaque.

use strata_tree::{TreePath, Xattr};

use super::attributes::{Holder, too_much};
use super::records::Slot;
use super::rows::{DraftRows, RowItem};
use super::sorted::append_sorted;
use super::{Draft, FileId, NameId};
use crate::error::Result;
use crate::spill::Spill;

/// A draft of which every link has found its inode, or leads into a lower layer.
#[derive(Debug)]
pub struct SettledDraft {
    draft: Draft,
    linked: Spill<u32>,
}

impl SettledDraft {
    /// Links that had waited: inode, new name, and the path of that. Only regular files.
    pub fn linked(&self) -> impl Iterator<Item = Result<(FileId, NameId, TreePath)>> {
        (0..self.linked.len()).filter_map(|at| self.link(at).transpose())
    }

    fn link(&self, at: u64) -> Result<Option<(FileId, NameId, TreePath)>> {
        let (nodes, id) = (&self.draft.nodes, NameId(self.linked.get(at)?));
        match nodes.name(id)?.slot {
            Some(Slot::File { file, .. }) if nodes.file(file)?.is_regular() => {
                Ok(Some((file, id, nodes.path(id)?)))
            }
            _ => Ok(None),
        }
    }

    /// Ends the draft.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(self) -> Result<DraftRows> {
        self.draft.finish()
    }
}

impl Draft {
    /// Settles the links that wait: no member comes any more.
    ///
    /// # Errors
    /// `Rule` for links that lead nowhere, or in a circle.
    pub fn settle(mut self) -> Result<SettledDraft> {
        let linked = self.settle_links()?;
        Ok(SettledDraft { draft: self, linked })
    }

    fn finish(mut self) -> Result<DraftRows> {
        let mut order = Spill::new(&self.nodes.scratch, 4);
        order.push(0)?;
        self.note(0, NameId(0))?;
        let mut at = 0;
        // The rows are their own queue: the children of each directory come to their end.
        while at < order.len() {
            if let RowItem::Dir { dir, .. } = self.item(NameId(order.get(at)?))? {
                let first = order.len();
                append_sorted(&self.nodes, dir, &mut order)?;
                let mut subdirs = 0;
                for row in first..order.len() {
                    let id = NameId(order.get(row)?);
                    self.note(row, id)?;
                    subdirs += u32::from(matches!(self.nodes.name(id)?.slot, Some(Slot::Dir(_))));
                }
                self.nodes.set_rows(dir, at, (first, order.len() - first, subdirs))?;
            }
            at += 1;
        }
        let warnings = std::mem::take(&mut self.warnings);
        Ok(DraftRows::new(self, order, warnings))
    }

    /// Notes which row a name has, and what a person should know of it.
    fn note(&mut self, row: u64, id: NameId) -> Result<()> {
        match self.item(id)? {
            RowItem::Dir { dir, .. } => {
                let dir = self.nodes.dir(dir)?;
                let facts = self.nodes.description(&dir)?;
                let xattrs = facts.map(|facts| facts.xattrs).unwrap_or_default();
                self.warn_of_attributes(id, &xattrs, Holder::FileOrDirectory)
            }
            RowItem::File { file, .. } => {
                let node = self.nodes.file(file)?;
                if node.row.is_some() {
                    return Ok(());
                }
                self.nodes.note_row(file, row)?;
                let holder =
                    if node.is_regular() { Holder::FileOrDirectory } else { Holder::Other };
                self.warn_of_attributes(id, &self.nodes.file_facts(&node)?.xattrs, holder)
            }
            RowItem::Waiting { .. } | RowItem::Whiteout => Ok(()),
        }
    }

    /// Warns of attributes that nothing but the store can hold.
    fn warn_of_attributes(&mut self, id: NameId, xattrs: &[Xattr], holder: Holder) -> Result<()> {
        let told = if xattrs.is_empty() { Vec::new() } else { too_much(xattrs, holder) };
        if told.is_empty() {
            return Ok(());
        }
        let path = self.nodes.path(id)?;
        for what in told {
            self.warn(|| {
                format!(
                    "{path}: {what}; it is kept, but a file that is unpacked or copied up to be \
                     changed cannot have it"
                )
            });
        }
        Ok(())
    }
}
