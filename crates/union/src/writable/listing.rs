//! The names of a merged directory.
//!
//! Invariants: a listing is complete at one moment; its numbers and types are those that `lookup`
//! gives; a whiteout hides the lower's name and is none itself.

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use rustix::fs::{Dir, FileType, OFlags};
use strata_tree::{DirEntry, Entry, NameBuf, Node, NodeId};

use super::Union;
use super::error::{Doing, Result};
use super::names::InUpper;
use super::table::{Found, Seen, Stage};
use super::types::Listed;

/// What the upper says of a directory.
struct UpperNames {
    listed: Vec<Listed>,
    /// All its names, whiteouts among them.
    seen: HashSet<NameBuf>,
}

impl Union {
    /// All names of a directory, without `.` and `..`. Counts no lookups.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`; `Upper`, `Lower`.
    pub fn list(&self, dir: NodeId) -> Result<Vec<Listed>> {
        let _steady = self.steady();
        let seen = self.table.see(dir)?;
        if seen.path.is_none() {
            return Ok(Vec::new()); // A removed directory is empty.
        }
        self.merged(&self.table.see_dir(dir)?)
    }

    /// The same; the caller keeps paths steady.
    pub(super) fn merged(&self, dir: &Seen) -> Result<Vec<Listed>> {
        let UpperNames { listed: mut all, seen } = self.upper_names(dir)?;
        self.read_below(dir, &seen, |name, node| {
            all.push(Listed { name, id: node.id, kind: node.stat.kind });
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Whether a directory shows no name.
    pub(super) fn is_empty(&self, dir: &Seen) -> Result<bool> {
        let upper = self.upper_names(dir)?;
        if !upper.listed.is_empty() {
            return Ok(false);
        }
        let mut empty = true;
        self.read_below(dir, &upper.seen, |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        Ok(empty)
    }

    /// Tells what the lower has in a directory under other names than `above`, the upper's.
    fn read_below(
        &self,
        dir: &Seen,
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

    fn upper_names(&self, dir: &Seen) -> Result<UpperNames> {
        let mut names = UpperNames { listed: Vec::new(), seen: HashSet::new() };
        self.read_upper(dir, |file, name, _| {
            match self.in_upper(dir, file.as_fd(), name.as_name())? {
                None => return Ok(()), // Removed since.
                Some(InUpper::Whiteout) => {}
                Some(InUpper::Node(found, ..)) => {
                    let (id, kind) = (found.id, found.kind);
                    names.listed.push(Listed { name: name.clone(), id, kind });
                }
            }
            names.seen.insert(name);
            Ok(())
        })?;
        Ok(names)
    }

    /// Tells each name that the upper has in a directory, which is open, and the type of its inode.
    fn read_upper(
        &self,
        dir: &Seen,
        mut each: impl FnMut(&File, NameBuf, FileType) -> Result<()>,
    ) -> Result<()> {
        if dir.found.stage != Stage::Upper {
            return Ok(());
        }
        let path = dir.place()?;
        let shown = || format!("list {}", self.upper.shown(path));
        let file = self.upper.content(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&file).doing(shown)? {
            let entry = entry.doing(shown)?;
            if let Ok(name) = NameBuf::new(entry.file_name().to_bytes()) {
                each(&file, name, entry.file_type())?;
            }
        }
        Ok(())
    }

    /// How many directories are in a merged directory, for its link count.
    pub(super) fn subdirectories(&self, found: &Found) -> Result<u32> {
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
    fn count_directories(&self, dir: &Seen) -> Result<u32> {
        let (mut count, mut names) = (0, HashSet::new());
        self.read_upper(dir, |file, name, told| {
            let is_dir = match told {
                FileType::Directory => true,
                FileType::Unknown => {
                    let found = self.in_upper(dir, file.as_fd(), name.as_name())?;
                    matches!(found, Some(InUpper::Node(found, ..)) if found.kind.is_dir())
                }
                _ => false,
            };
            count += u32::from(is_dir);
            names.insert(name);
            Ok(())
        })?;
        self.read_below(dir, &names, |_, node| {
            count += u32::from(node.stat.kind.is_dir());
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }
}
