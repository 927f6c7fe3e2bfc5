//! The text of a mark of origin (`origin` says what it means).
//!
//! ```text
//! "<number> <inode> <handle>"             the lower's node, the upper's inode number, and the
//!                                         lower's file handle, or `-` where there is none
//! "<number> <inode> <handle> unsynced"    the copy is not on disk yet (`unsynced`)
//! "<number>", "<number> unsynced"         as written before marks had handles
//! ```
//!
//! Invariant: what is written is read back as it was.

use strata_tree::{FileHandle, NodeId};

const UNSYNCED: &str = "unsynced";

const NONE: &str = "-";

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The lower's node.
    pub(super) lower: NodeId,
    /// The upper's inode; `None` in marks from before marks had handles.
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
