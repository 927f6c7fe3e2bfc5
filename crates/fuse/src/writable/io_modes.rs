//! Whether the kernel reads and writes a file by itself.
//!
//! The kernel holds an inode to one way of reading and writing, and to one backing file, as long
//! as it is open anywhere, and fails with EIO where a reply breaks that. So the first open of an
//! inode decides, and the later ones follow, until the last release:
//!
//! ```text
//! content in the upper    passthrough, where the kernel allows it; else, and with set-id bits,
//!                         cached
//! content in a lower      cached: all openers share the kernel's pages, so a write after a
//!                         copy-up is seen by those who opened before it, and no write can reach
//!                         the lower
//! ```
//!
//! Invariants: a lower's file is never registered; a backing lives exactly as long as its inode
//! is open; once the kernel refuses to take any, it is not asked again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::BackingId;
use rustix::io::Errno;
use strata_tree::NodeId;

use super::set_id::may_pass_through;

/// How one opener reads and writes.
#[derive(Debug)]
pub(super) enum IoMode {
    /// Through the daemon and the kernel's pages.
    Cached {
        /// The pages that the kernel has are still right.
        keep: bool,
    },
    /// Straight from this file.
    Passthrough(Arc<BackingId>),
}

/// An inode that is open somewhere.
struct OpenNode {
    backing: Option<Arc<BackingId>>,
    opens: u64,
    /// Somebody may write it through the backing file.
    written: bool,
}

/// The inodes that are open.
pub(super) struct IoModes {
    open: Mutex<HashMap<NodeId, OpenNode>>,
    wanted: AtomicBool,
    /// Whether any file was ever written behind the kernel's pages.
    ever: AtomicBool,
}

impl IoModes {
    pub(super) fn new(passthrough: bool) -> Self {
        Self {
            open: Mutex::default(),
            wanted: AtomicBool::new(passthrough),
            ever: AtomicBool::new(false),
        }
    }

    /// Whether passthrough is to be tried.
    pub(super) fn wants_passthrough(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// From now on everything is cached.
    pub(super) fn refuse(&self, why: &str) {
        if self.wanted.swap(false, Ordering::Relaxed) {
            tracing::info!("passthrough is not possible ({why}); reading through the daemon");
        }
    }

    /// The mode of one more opener. `upper` is the content's file if that is in the upper.
    pub(super) fn enter(
        &self,
        node: NodeId,
        upper: Option<Arc<File>>,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> IoMode {
        let is_lower = upper.is_none();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match open.entry(node) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(vacant) => {
                let backing = upper.and_then(|file| self.register(&file, register)).map(Arc::new);
                vacant.insert(OpenNode { backing, opens: 0, written: false })
            }
        };
        entry.opens += 1;
        match &entry.backing {
            Some(id) => IoMode::Passthrough(Arc::clone(id)),
            None => {
                let fresh = entry.opens == 1 && !is_lower && self.ever.load(Ordering::Relaxed);
                IoMode::Cached { keep: !fresh }
            }
        }
    }

    /// An inode that is open in passthrough may be written from now on, until the last release.
    /// Whether that is new.
    pub(super) fn begin_writing(&self, node: NodeId) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get_mut(&node).is_some_and(|node| !std::mem::replace(&mut node.written, true))
    }

    /// Whether the kernel may be writing an inode by itself.
    pub(super) fn is_written(&self, node: NodeId) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&node).is_some_and(|node| node.written)
    }

    /// One opener less.
    pub(super) fn leave(&self, node: NodeId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(node) {
            entry.get_mut().opens -= 1;
            if entry.get().opens == 0 {
                entry.remove();
            }
        }
    }

    fn register(
        &self,
        file: &File,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Option<BackingId> {
        if !self.wants_passthrough() {
            return None;
        }
        let registered =
            may_pass_through(file).and_then(|may| may.then(|| register(file)).transpose());
        match registered {
            Ok(Some(id)) => {
                self.ever.store(true, Ordering::Relaxed);
                Some(id)
            }
            Ok(None) => None,
            Err(error) => {
                // These pass; all others are about what this daemon or its upper is.
                let passing = [Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::INTR];
                if !Errno::from_io_error(&error).is_some_and(|errno| passing.contains(&errno)) {
                    self.refuse(&error.to_string());
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    fn fail(errno: Errno) -> impl FnOnce(&File) -> io::Result<BackingId> {
        move |_| Err(errno.into())
    }

    #[allow(clippy::unnecessary_wraps)]
    fn upper() -> Option<Arc<File>> {
        Some(Arc::new(tempfile::tempfile().unwrap()))
    }

    #[test]
    fn a_lower_is_never_registered_and_stays_cached_after_copy_up() {
        let modes = IoModes::new(true);
        let never = |_: &File| -> io::Result<BackingId> { panic!("registered") };
        assert!(matches!(modes.enter(NODE, None, never), IoMode::Cached { keep: true }));
        assert!(matches!(modes.enter(NODE, upper(), never), IoMode::Cached { keep: true }));
        modes.leave(NODE);
        assert!(matches!(modes.enter(NODE, upper(), never), IoMode::Cached { keep: true }));
        modes.leave(NODE);
        modes.leave(NODE);
        assert!(modes.open.lock().unwrap().is_empty());
        assert!(modes.wants_passthrough());
    }

    #[test]
    fn a_kernel_that_refuses_is_not_asked_again_but_one_that_is_short_is() {
        let modes = IoModes::new(true);
        assert!(matches!(modes.enter(NODE, upper(), fail(Errno::MFILE)), IoMode::Cached { .. }));
        assert!(modes.wants_passthrough());
        modes.leave(NODE);
        assert!(matches!(modes.enter(NODE, upper(), fail(Errno::PERM)), IoMode::Cached { .. }));
        assert!(!modes.wants_passthrough());
    }

    #[test]
    fn pages_from_before_a_passthrough_are_not_kept() {
        let modes = IoModes::new(true);
        modes.ever.store(true, Ordering::Relaxed);
        let first = modes.enter(NODE, upper(), fail(Errno::MFILE));
        assert!(matches!(first, IoMode::Cached { keep: false }));
        let second = modes.enter(NODE, upper(), fail(Errno::MFILE));
        assert!(matches!(second, IoMode::Cached { keep: true }));
    }
}
