//! The mark of origin: which node of the lower a whole copy keeps the number of.
//!
//! A mark is a claim, and the lower may be another one by now: changed, made anew, on another
//! disk. The upper's inode may be a copy as well (`cp -a`, `rsync -X` in an upper that is not
//! mounted). So the mark says what both inodes were, and counts only if both still are:
//!
//! ```text
//! "<number> <inode> <handle>"             the lower's node, the upper's inode number, and the
//!                                         lower's file handle, or `-` where there is none
//! "<number> <inode> <handle> unsynced"    the copy is not on disk yet (`unsynced`)
//! "<number>", "<number> unsynced"         as written before marks had handles
//! ```
//!
//! The lower is asked for the handle (`Lower::by_handle`). Where it cannot tell, the mark counts
//! as long as the lower has that node at the copy's own name, with the same handle if it has one.
//! A node whose mark does not count stands for itself: it has the upper's own number.
//!
//! Invariants: a mark decides a number and nothing else, but for a copy that a crash cut off,
//! whose content comes from a lower node that has the handle; that two nodes never have one
//! number is the table's care, whatever marks say.

use std::os::fd::{AsFd, OwnedFd};

use strata_tree::{ByHandle, FileHandle, Kind, Name, NodeId};

use super::Union;
use super::error::Result;
use super::marks::Mark;
use super::names::stat;
use super::table::Found;

const UNSYNCED: &str = "unsynced";
const NONE: &str = "-";

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The lower's node.
    pub(super) lower: NodeId,
    /// The upper's inode; `None` in marks of before.
    pub(super) inode: Option<u64>,
    /// The lower's handle.
    pub(super) handle: Option<FileHandle>,
    /// The copy may not be on disk.
    pub(super) unsynced: bool,
}

impl Origin {
    /// The text of the mark.
    pub(super) fn format(&self) -> Vec<u8> {
        let mut text = self.lower.0.to_string();
        if let Some(inode) = self.inode {
            let handle = self.handle.as_ref().map_or(NONE.to_owned(), ToString::to_string);
            text.push_str(&format!(" {inode} {handle}"));
        }
        if self.unsynced {
            text.push(' ');
            text.push_str(UNSYNCED);
        }
        text.into_bytes()
    }

    /// Reads a mark; `None` if the text is not one.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let words: Vec<&str> = std::str::from_utf8(text).ok()?.split(' ').collect();
        let (words, unsynced) = match words.as_slice() {
            [words @ .., UNSYNCED] => (words, true),
            words => (words, false),
        };
        let (lower, inode, handle) = match words {
            [lower] => (lower, None, None),
            [lower, inode, NONE] => (lower, Some(inode.parse().ok()?), None),
            [lower, inode, handle] => {
                let handle = FileHandle::parse(handle.as_bytes())?;
                (lower, Some(inode.parse().ok()?), Some(handle))
            }
            _ => return None,
        };
        Some(Self { lower: NodeId(lower.parse().ok()?), inode, handle, unsynced })
    }
}

impl Union {
    /// The mark of an inode of the upper.
    pub(super) fn origin(&self, fd: &OwnedFd) -> Result<Option<Origin>> {
        let origin = self.marks.get(fd, Mark::StrataOrigin)?;
        Ok(origin.and_then(|text| Origin::parse(&text)))
    }

    /// The mark of a copy of the lower's node.
    pub(super) fn origin_of(
        &self,
        copy: impl AsFd,
        lower: NodeId,
        unsynced: bool,
    ) -> Result<Origin> {
        let handle = self.lower.file_handle(lower)?;
        Ok(Origin { lower, inode: Some(stat(copy)?.stx_ino), handle, unsynced })
    }

    /// The lower's number that an inode called `name` in `dir` keeps, if its mark counts.
    pub(super) fn kept_number(
        &self,
        origin: &Origin,
        inode: u64,
        dir: &Found,
        name: Name<'_>,
    ) -> Result<Option<NodeId>> {
        if origin.inode.is_some_and(|own| own != inode) {
            return Ok(None);
        }
        if let Some(handle) = &origin.handle {
            match self.lower.by_handle(handle)? {
                ByHandle::Node(node) => return Ok(Some(node)),
                ByHandle::Gone => return Ok(None),
                ByHandle::Unknown => {}
            }
        }
        let below = self.in_lower(dir, name)?.filter(|node| node.id == origin.lower);
        let Some(below) = below.filter(|node| node.stat.kind != Kind::Directory) else {
            return Ok(None);
        };
        let same = origin.handle.is_none() || self.lower.file_handle(below.id)? == origin.handle;
        Ok(same.then_some(below.id))
    }

    /// Whether the lower still has the very node that a mark names, which was looked up by now.
    pub(super) fn still_has(&self, origin: &Origin) -> Result<bool> {
        Ok(origin.handle.is_none() || self.lower.file_handle(origin.lower)? == origin.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_it_is_made_of() {
        let handle = FileHandle::parse(b"1f:1:0a0b");
        for (inode, handle) in [(None, None), (Some(7), None), (Some(7), handle)] {
            for unsynced in [false, true] {
                let origin = Origin { lower: NodeId(12), inode, handle: handle.clone(), unsynced };
                assert_eq!(Origin::parse(&origin.format()), Some(origin));
            }
        }
        for bad in ["", "x", "unsynced", "1 2", "1 2 3", "1 x -", "1 2 - 4", "1  -", "-1"] {
            assert_eq!(Origin::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
