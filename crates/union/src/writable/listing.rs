//! The names of a merged directory.
//!
//! Which node a name of the upper stands for takes several calls, and mostly a lookup of the name
//! follows, which asks the same: a listing leaves it to that, or to `Union::identity`.
//!
//! Invariants: a listing is complete at one moment; its numbers and types are those that `lookup`
//! gives; a whiteout hides the lower's name and is not listed itself.

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::fs::{Dir, FileType, OFlags};
use strata_content::FileTree;
use strata_tree::{DirEntry, Entry, Name, NameBuf, Node, NodeId};

use super::base::Base;
use super::error::{Doing, Result};
use super::locks::NodeLocks;
use super::stats::stat_named;
use super::table::{CopyStage, NodeState, NodeTable, SeenNode};
use super::types::ListedName;
use super::upper::Upper;
use super::whiteouts::Whiteouts;

/// What the upper says of a directory.
#[derive(Default)]
struct UpperNames {
    /// Those that show something.
    shown: Vec<NameBuf>,
    /// All of them, whiteouts as well.
    all: HashSet<NameBuf>,
}

/// Reads directories of both sides.
pub(super) struct DirReader {
    lower: FileTree,
    upper: Arc<Upper>,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    whiteouts: Arc<Whiteouts>,
}

impl DirReader {
    pub(super) fn new(base: &Base, whiteouts: &Arc<Whiteouts>) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            whiteouts: Arc::clone(whiteouts),
        }
    }

    /// All names of a directory, without `.` and `..`. Counts no lookups.
    pub(super) fn list(&self, dir: NodeId) -> Result<Vec<ListedName>> {
        let _steady = self.locks.steady();
        let seen = self.table.see(dir)?;
        if seen.path.is_none() {
            return Ok(Vec::new()); // A removed directory is empty.
        }
        self.merged(&self.table.see_dir(dir)?)
    }

    /// `Union::list`; the caller keeps paths steady.
    pub(super) fn merged(&self, dir: &SeenNode) -> Result<Vec<ListedName>> {
        let upper = self.upper_names(dir)?;
        let listed = |name| ListedName { name, below: None };
        let mut all: Vec<ListedName> = upper.shown.into_iter().map(listed).collect();
        self.read_below(dir, &upper.all, |name, node| {
            all.push(ListedName { name, below: Some((node.id, node.stat.kind)) });
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Whether a directory shows no name.
    pub(super) fn is_empty(&self, dir: &SeenNode) -> Result<bool> {
        let upper = self.upper_names(dir)?;
        if !upper.shown.is_empty() {
            return Ok(false);
        }
        let mut empty = true;
        self.read_below(dir, &upper.all, |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        Ok(empty)
    }

    /// Lists what the lower has in a directory under other names than `above`, the upper's.
    fn read_below(
        &self,
        dir: &SeenNode,
        above: &HashSet<NameBuf>,
        mut each: impl FnMut(NameBuf, Node) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(lower) = dir.found.lower else { return Ok(()) };
        self.lower.read_dir(lower, 0, &mut |item: DirEntry<'_>| {
            let name = item.name.to_owned();
            match item.entry {
                Entry::Node(node) if !above.contains(&name) => each(name, node),
                Entry::Node(_) | Entry::Whiteout | Entry::LowerLink(_) => ControlFlow::Continue(()),
            }
        })?;
        Ok(())
    }

    fn upper_names(&self, dir: &SeenNode) -> Result<UpperNames> {
        let mut names = UpperNames::default();
        let mut expected = None;
        self.read_upper(dir, |file, name, told| {
            // As a whiteout is.
            let perhaps = match told {
                FileType::CharacterDevice => true,
                FileType::RegularFile => match expected {
                    Some(expected) => expected,
                    None => *expected.insert(self.whiteouts.are_expected(file)?),
                },
                _ => false,
            };
            let hides = match perhaps.then(|| self.whiteouts.is_whiteout(file, name.as_name())) {
                None => false,
                Some(answer) => match answer? {
                    None => return Ok(()), // Removed since.
                    Some(hides) => hides,
                },
            };
            if !hides {
                names.shown.push(name.clone());
            }
            names.all.insert(name);
            Ok(())
        })?;
        Ok(names)
    }

    /// Tells each name that the upper has in a directory, which is open, and the type of its inode.
    fn read_upper(
        &self,
        dir: &SeenNode,
        mut each: impl FnMut(&File, NameBuf, FileType) -> Result<()>,
    ) -> Result<()> {
        if dir.found.stage != CopyStage::Upper {
            return Ok(());
        }
        let path = dir.place()?;
        let shown = || format!("list {}", self.upper.shown(path));
        let file = self.upper.content(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&file).doing(shown)? {
            let entry = entry.doing(shown)?;
            let Ok(name) = NameBuf::new(entry.file_name().to_bytes()) else { continue };
            let told = match entry.file_type() {
                // Not every file system tells it.
                FileType::Unknown => match stat_named(&file, name.as_name())? {
                    None => continue, // Removed since.
                    Some(stat) => FileType::from_raw_mode(stat.stx_mode.into()),
                },
                told => told,
            };
            each(&file, name, told)?;
        }
        Ok(())
    }

    /// How many directories are in a merged directory, for its link count.
    pub(super) fn subdirectories(&self, found: &NodeState) -> Result<u32> {
        if let Some(known) = self.table.subdirectories(found.id) {
            return Ok(known);
        }
        let Ok(seen) = self.table.see_dir(found.id) else { return Ok(0) };
        let count = self.count_directories(&seen)?;
        self.table.set_subdirectories(found.id, count);
        Ok(count)
    }

    /// Counts them by the types that the upper's listing tells: its marks make no other node a
    /// directory, and a directory is always shown.
    fn count_directories(&self, dir: &SeenNode) -> Result<u32> {
        let (mut count, mut names) = (0, HashSet::new());
        self.read_upper(dir, |_, name, told| {
            count += u32::from(told == FileType::Directory);
            names.insert(name);
            Ok(())
        })?;
        self.read_below(dir, &names, |_, node| {
            count += u32::from(node.stat.kind.is_dir());
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// What the lower has under a name of a merged directory.
    pub(super) fn in_lower(&self, dir: &NodeState, name: Name<'_>) -> Result<Option<Node>> {
        let Some(lower) = dir.lower else { return Ok(None) };
        Ok(match self.lower.lookup(lower, name)? {
            Some(Entry::Node(node)) => Some(node),
            Some(Entry::Whiteout | Entry::LowerLink(_)) | None => None,
        })
    }
}
