//! An image of names: which contents it holds itself, and how it refers to all others.
//!
//! Invariant: what the tree itself has of overlayfs' attributes is escaped before marks are added,
//! so no attribute of a tree is taken for a mark (overlayfs.rst, "Nesting overlayfs mounts").

use strata_tree::dialect::{Mark, XattrClass};
use strata_tree::{ContentRef, Xattr};

/// The longest path that the kernel looks up, without its NUL (`PATH_MAX`).
const LONGEST: usize = 4095;

/// How an image of names refers to contents.
pub struct NamesForm<'a> {
    /// The absolute path of a content below the data-only lower.
    pub place: &'a dyn Fn(&ContentRef) -> Vec<u8>,
    /// Contents of up to this many bytes stand in the image itself.
    pub inside: u64,
}

impl std::fmt::Debug for NamesForm<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamesForm").field("inside", &self.inside).finish_non_exhaustive()
    }
}

impl NamesForm<'_> {
    /// The attributes of the tree as overlayfs finds them below itself.
    pub(super) fn escaped(all: Vec<Xattr>) -> Vec<Xattr> {
        let escape = |(name, value): Xattr| match XattrClass::Trusted.escape(&name) {
            std::borrow::Cow::Borrowed(_) => (name, value),
            std::borrow::Cow::Owned(escaped) => (escaped, value),
        };
        all.into_iter().map(escape).collect()
    }

    /// The marks of a file whose content is elsewhere; `None` if it stands in the image: it is
    /// small, or no path leads to it.
    pub(super) fn marks(&self, content: &ContentRef) -> Option<[Xattr; 2]> {
        if content.size <= self.inside {
            return None;
        }
        let place = (self.place)(content);
        let mark = |mark| XattrClass::Trusted.name(mark).as_bytes().to_vec();
        (place.len() <= LONGEST)
            .then(|| [(mark(Mark::Metacopy), Vec::new()), (mark(Mark::Redirect), place)])
    }
}
