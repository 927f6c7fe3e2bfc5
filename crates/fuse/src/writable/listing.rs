//! Snapshots of directories, so that positions in them stay valid.
//!
//! Position 0 is the start, 1 is after `.`, 2 after `..`, and `n + 3` after the `n`th name of the
//! snapshot that the handle took when it was read from the start. Names that go away meanwhile
//! move nobody else; reading from the start again (rewinddir) takes a new snapshot.
//!
//! A name that cannot be looked up (its number is another's, or its content nowhere) is listed all
//! the same: a caller that opens it is told why.
//!
//! Invariants: going on from a position costs nothing for what is before it; a lookup is counted
//! for exactly those names whose attributes go to the kernel.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::{FileAttr, INodeNo};
use strata_tree::{Kind, NodeId};
use strata_union::writable::{Attr, ListedName};

use super::{Mount, Result};
use crate::attr::absent;

/// The position after `.` and `..`.
const AFTER_DOTS: u64 = 2;

/// The number that is listed for a name that cannot be looked up. No node has it: one of the
/// lower has neither of the two highest bits, any other has one of them. It is not 0, the kernel's
/// own for that, because C libraries skip names with the number 0.
const UNKNOWN: NodeId = NodeId(u64::MAX);

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
        for (listed, next) in rest(&names, position) {
            let (id, kind) = match mount.union.identity(dir, listed) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(_) => (UNKNOWN, Kind::Regular),
            };
            if full(listed.name.as_bytes(), id, kind, next) {
                break;
            }
        }
        Ok(())
    }

    /// The same with attributes, for how long the kernel may believe them, and the generation.
    /// Names that are gone are left out.
    pub(super) fn plus(
        &self,
        mount: &Mount,
        dir: NodeId,
        position: u64,
        mut full: impl FnMut(&[u8], (FileAttr, Duration, u64), u64) -> bool,
    ) -> Result<()> {
        let names = self.names(mount, dir, position)?;
        let known = |attr: &Attr| {
            let shown = mount.view.attr(attr);
            (shown, mount.lasting(&shown), attr.generation)
        };
        if position < 1 && full(b".", known(&mount.union.attr(dir)?), 1) {
            return Ok(());
        }
        if position < AFTER_DOTS {
            let parent = mount.union.attr(mount.union.parent(dir)?)?;
            if full(b"..", known(&parent), AFTER_DOTS) {
                return Ok(());
            }
        }
        for (listed, next) in rest(&names, position) {
            let name = listed.name.as_bytes();
            let (found, id) = match mount.union.lookup(dir, name) {
                Ok(Some(attr)) => (known(&attr), Some(attr.id)),
                Ok(None) => continue,
                // The kernel asks again before it makes use of this, and hears why then.
                Err(_) => {
                    let unknown = FileAttr { ino: INodeNo(UNKNOWN.0), ..absent() };
                    ((unknown, Duration::ZERO, 0), None)
                }
            };
            if full(name, found, next) {
                id.into_iter().for_each(|id| mount.union.forget(id, 1));
                break;
            }
        }
        Ok(())
    }
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
