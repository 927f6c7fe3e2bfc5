//! Opening files so that the kernel reads the store's own files, without the daemon.
//!
//! The kernel holds an inode to one way of reading and one backing file as long as it is open
//! anywhere, and fails with EIO where a reply breaks that. So the first open of an inode decides,
//! and the later ones follow, until the last release.
//!
//! Invariants: backing files are opened read-only by the tree, and never for a writer; a backing
//! lives exactly as long as its inode is open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use strata_content::FileTree;
use strata_tree::NodeId;

use crate::errno::{RequestError, errno};

/// An inode that is open somewhere.
struct OpenNode {
    /// The kernel's number for its file; `None` if it is read through the daemon.
    backing: Option<BackingId>,
    opens: u64,
}

/// The inodes that are open.
#[derive(Default)]
pub(crate) struct Passthrough {
    open: Mutex<HashMap<NodeId, OpenNode>>,
    refused: AtomicBool,
}

impl Passthrough {
    /// For a kernel that did not offer it: everything is read through the daemon.
    pub(crate) fn refuse(&self, why: &str) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!("passthrough is not possible ({why}); reading through the daemon");
        }
    }

    /// Answers one open.
    pub(crate) fn open(&self, tree: &FileTree, node: NodeId, reply: ReplyOpen) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match open.entry(node) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(vacant) => match self.backing(tree, node, &reply) {
                Ok(backing) => vacant.insert(OpenNode { backing, opens: 0 }),
                Err(refusal) => return reply.error(errno(&refusal)),
            },
        };
        entry.opens += 1;
        match &entry.backing {
            Some(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, id),
            None => reply
                .opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH),
        }
    }

    /// Takes note of one release.
    pub(crate) fn release(&self, node: NodeId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get_mut(&node) {
            entry.opens -= 1;
            if entry.opens == 0 {
                open.remove(&node);
            }
        }
    }

    /// Hands the content's file to the kernel; `None` if the kernel will not have it.
    fn backing(
        &self,
        tree: &FileTree,
        node: NodeId,
        reply: &ReplyOpen,
    ) -> Result<Option<BackingId>, RequestError> {
        if self.refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let content = tree.open(node)?;
        let Some(file) = content.as_file() else { return Ok(None) };
        Ok(match reply.open_backing(file) {
            Ok(id) => Some(id),
            Err(error) => {
                self.refuse(&error.to_string());
                None
            }
        })
    }
}
