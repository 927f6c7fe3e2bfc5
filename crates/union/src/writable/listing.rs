//! The names of a merged directory.
//!
//! Which node a name of the upper stands for takes several calls, and mostly a lookup of the name
//! follows, which asks the same: a listing leaves it to that, or to [`Union::identity`].
//!
//! Invariants: a listing is complete at one moment; its numbers and types are those that `lookup`
//! gives; a whiteout hides the lower's name and is none itself.

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;

use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;
use strata_tree::{DirEntry, Entry, Kind, NameBuf, Node, NodeId};

use super::Union;
use super::error::{Doing, Error, Result};
use super::names::{other_number, stat_named};
use super::table::{Found, Seen, Stage};
use super::types::Listed;

/// What the upper says of a directory.
#[derive(Default)]
struct UpperNames {
    /// Those that show something.
    shown: Vec<NameBuf>,
    /// All of them, whiteouts as well.
    all: HashSet<NameBuf>,
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

    /// The number and type of a name that was listed in a directory; `None` if it is gone.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`; `Upper`, `Lower`.
    pub fn identity(&self, dir: NodeId, listed: &Listed) -> Result<Option<(NodeId, Kind)>> {
        if let Some(node) = listed.below {
            return Ok(Some(node));
        }
        let _steady = self.steady();
        let seen = self.table.see(dir)?;
        if seen.path.is_none() {
            return Ok(None);
        }
        let location = match self.find(&seen, listed.name.as_name()) {
            // The name is there, and so is listed.
            Err(Error::Refused(Errno::STALE)) => {
                let claimed = self.claimed(&seen, listed.name.as_name())?;
                return Ok(claimed.map(|it| (other_number(it.found()), it.found().kind)));
            }
            found => found?,
        };
        Ok(location.map(|location| (location.found().id, location.found().kind)))
    }

    /// [`Union::list`]; the caller keeps paths steady.
    pub(super) fn merged(&self, dir: &Seen) -> Result<Vec<Listed>> {
        let upper = self.upper_names(dir)?;
        let listed = |name| Listed { name, below: None };
        let mut all: Vec<Listed> = upper.shown.into_iter().map(listed).collect();
        self.read_below(dir, &upper.all, |name, node| {
            all.push(Listed { name, below: Some((node.id, node.stat.kind)) });
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Whether a directory shows no name.
    pub(super) fn is_empty(&self, dir: &Seen) -> Result<bool> {
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
        let mut names = UpperNames::default();
        let mut expected = None;
        self.read_upper(dir, |file, name, told| {
            // As a whiteout is.
            let perhaps = match told {
                FileType::CharacterDevice => true,
                FileType::RegularFile => match expected {
                    Some(expected) => expected,
                    None => *expected.insert(self.expects_whiteouts(file)?),
                },
                _ => false,
            };
            let hides = match perhaps.then(|| self.is_whiteout(file, name.as_name())) {
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
}
