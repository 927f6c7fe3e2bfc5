//! The names of a merged directory.
//!
//! Invariants: a listing is complete at one moment; its numbers and types are those that `lookup`
//! gives; a whiteout hides the lower's name and is none itself.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use rustix::fs::{Dir, OFlags};
use strata_tree::{DirEntry, Entry, Kind, NameBuf, NodeId};

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
        let upper = self.upper_names(dir)?;
        let mut all = upper.listed;
        let Some(lower) = dir.found.lower else { return Ok(all) };
        self.lower.read_dir(lower, 0, &mut |item: DirEntry<'_>| {
            let name = item.name.to_owned();
            if let Entry::Node(node) = item.entry
                && !upper.seen.contains(&name)
            {
                all.push(Listed { name, id: node.id, kind: node.stat.kind });
            }
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
        let Some(lower) = dir.found.lower else { return Ok(true) };
        let mut empty = true;
        self.lower.read_dir(lower, 0, &mut |item: DirEntry<'_>| {
            let shown = item.entry.node().is_some();
            if shown && !upper.seen.contains(&item.name.to_owned()) {
                empty = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(empty)
    }

    fn upper_names(&self, dir: &Seen) -> Result<UpperNames> {
        let mut names = UpperNames { listed: Vec::new(), seen: HashSet::new() };
        if dir.found.stage != Stage::Upper {
            return Ok(names);
        }
        let path = dir.place()?;
        let shown = || format!("list {}", self.upper.shown(path));
        let file = self.upper.content(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&file).doing(shown)? {
            let entry = entry.doing(shown)?;
            let Ok(name) = NameBuf::new(entry.file_name().to_bytes()) else { continue };
            match self.in_upper(dir, file.as_fd(), name.as_name())? {
                None => continue, // Removed since.
                Some(InUpper::Whiteout) => {}
                Some(InUpper::Node(found, ..)) => {
                    let (id, kind) = (found.id, found.kind);
                    names.listed.push(Listed { name: name.clone(), id, kind });
                }
            }
            names.seen.insert(name);
        }
        Ok(names)
    }

    /// How many directories are in a merged directory, for its link count.
    pub(super) fn subdirectories(&self, found: &Found) -> Result<u32> {
        if let Some(known) = self.table.subdirectories(found.id) {
            return Ok(known);
        }
        let Ok(seen) = self.table.see_dir(found.id) else { return Ok(0) };
        let listed = self.merged(&seen)?;
        let count = listed.iter().filter(|item| item.kind == Kind::Directory).count() as u32;
        self.table.set_subdirectories(found.id, count);
        Ok(count)
    }
}
