//! Snapshots of directories, so that positions in them stay valid.
//!
//! Position 0 is the start, 1 is after `.`, 2 after `..`, and `n + 3` after the `n`th name of the
//! snapshot that the handle took when it was read from the start. Names that go away meanwhile
//! move nobody else; reading from the start again (rewinddir) takes a new snapshot.
//!
//! Invariants: going on from a position costs nothing for what is before it; a lookup is counted
//! for exactly those names whose attributes go to the kernel.

use std::sync::{Arc, Mutex, PoisonError};

use fuser::FileAttr;
use strata_tree::{Kind, NodeId};
use strata_union::writable::{Attr, ListedName};

use super::{Mount, Result};

/// The position after `.` and `..`.
const AFTER_DOTS: u64 = 2;

/// What one open directory remembers.
#[derive(Default)]
pub(super) struct DirSnapshot {
    names: Mutex<Option<Arc<Vec<ListedName>>>>,
}

impl DirSnapshot {
    fn names(&self, mount: &Mount, dir: NodeId, position: u64) -> Result<Arc<Vec<ListedName>>> {
        if position > 0 {
            let known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(names) = &*known {
                return Ok(Arc::clone(names));
            }
        }
        let names = Arc::new(mount.union.list(dir)?);
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&names));
        Ok(names)
    }

    /// Tells names with numbers and types from `position` on, each with the position after it,
    /// until `full`.
    pub(super) fn plain(
        &self,
        mount: &Mount,
        dir: NodeId,
        position: u64,
        mut full: impl FnMut(&[u8], NodeId, Kind, u64) -> bool,
    ) -> Result<()> {
        let names = self.names(mount, dir, position)?;
        if position < 1 && full(b".", dir, Kind::Directory, 1) {
            return Ok(());
        }
        if position < AFTER_DOTS {
            let parent = mount.union.parent(dir)?;
            if full(b"..", parent, Kind::Directory, AFTER_DOTS) {
                return Ok(());
            }
        }
        let identity = |listed: &ListedName| Ok(mount.union.identity(dir, listed)?);
        tell(&names, position, identity, |name, (id, kind), next| full(name, id, kind, next))
    }

    /// The same with attributes. Names that are gone are left out.
    pub(super) fn plus(
        &self,
        mount: &Mount,
        dir: NodeId,
        position: u64,
        mut full: impl FnMut(&[u8], &FileAttr, u64, u64) -> bool,
    ) -> Result<()> {
        let names = self.names(mount, dir, position)?;
        let mut full = |name: &[u8], attr: &Attr, next| {
            full(name, &mount.view.attr(attr), attr.generation, next)
        };
        if position < 1 && full(b".", &mount.union.attr(dir)?, 1) {
            return Ok(());
        }
        if position < AFTER_DOTS {
            let parent = mount.union.attr(mount.union.parent(dir)?)?;
            if full(b"..", &parent, AFTER_DOTS) {
                return Ok(());
            }
        }
        let lookup = |listed: &ListedName| Ok(mount.union.lookup(dir, listed.name.as_bytes())?);
        tell(&names, position, lookup, |name, attr, next| {
            let full = full(name, &attr, next);
            if full {
                mount.union.forget(attr.id, 1);
            }
            full
        })
    }
}

/// Tells what is found of the names from `position` on, until `full`. Names that are gone are left
/// out. Names from before an error are kept: the kernel comes back for the rest.
fn tell<T>(
    names: &[ListedName],
    position: u64,
    find: impl Fn(&ListedName) -> Result<Option<T>>,
    mut full: impl FnMut(&[u8], T, u64) -> bool,
) -> Result<()> {
    let mut told = position < AFTER_DOTS;
    for (listed, next) in rest(names, position) {
        let found = match find(listed) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(_) if told => break,
            Err(error) => return Err(error),
        };
        if full(listed.name.as_bytes(), found, next) {
            break;
        }
        told = true;
    }
    Ok(())
}

/// The names from a position on, each with the position after it.
fn rest<T>(names: &[T], position: u64) -> impl Iterator<Item = (&T, u64)> {
    let first = position.saturating_sub(AFTER_DOTS);
    let left = usize::try_from(first).ok().and_then(|first| names.get(first..)).unwrap_or_default();
    left.iter().zip(first.saturating_add(AFTER_DOTS + 1)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_lead_to_what_comes_after() {
        let names = [2, 3, 4, 5, 6];
        let at = |position| rest(&names, position).map(|(name, next)| (*name, next)).collect();
        let all: Vec<(u64, u64)> = at(0);
        assert_eq!(all, [(2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]);
        assert_eq!(at(2), all);
        for (index, (_, next)) in all.iter().enumerate() {
            assert_eq!(at(*next), all[index + 1..].to_vec());
        }
        let beyond: Vec<(u64, u64)> = at(u64::MAX);
        assert!(beyond.is_empty());
    }
}
