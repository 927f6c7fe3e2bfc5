//! An image of names: which contents it holds itself, and how it refers to all others.
//!
//! Invariant: what the tree itself has of overlayfs' attributes is escaped before marks are added
//! (see [`crate::marks`]).

use strata_tree::dialect::XattrClass;
use strata_tree::{ContentRef, VerityDigest, Xattr};

use crate::marks;

/// Gives the fs-verity digest of a content, if it is known.
pub type VerityOf<'a> = dyn Fn(&ContentRef) -> Option<VerityDigest> + 'a;

/// How an image of names refers to contents.
pub struct NamesForm<'a> {
    /// The absolute path of a content below the data-only lower.
    pub place: &'a dyn Fn(&ContentRef) -> Vec<u8>,
    /// Contents of up to this many bytes stand in the image itself.
    pub inside: u64,
    /// The fs-verity digest of a content, for an overlayfs that is asked to compare it
    /// ([`OverlayParts::verity`](crate::OverlayParts)).
    pub verity: Option<&'a VerityOf<'a>>,
    /// What the image's UUID is made of, unlike that of other trees.
    pub identity: [u8; 32],
}

impl std::fmt::Debug for NamesForm<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamesForm").field("inside", &self.inside).finish_non_exhaustive()
    }
}

impl NamesForm<'_> {
    /// The attributes of the tree as overlayfs finds them below itself.
    pub(super) fn escaped(all: Vec<Xattr>) -> Vec<Xattr> {
        marks::escaped(XattrClass::Trusted, all)
    }

    /// The marks of a file whose content is elsewhere; `None` if it stands in the image: it is
    /// small, or no path leads to it.
    pub(super) fn marks(&self, content: &ContentRef) -> Option<[Xattr; 2]> {
        if content.size <= self.inside {
            return None;
        }
        let verity = self.verity.and_then(|verity| verity(content));
        marks::marks(XattrClass::Trusted, (self.place)(content), verity.as_ref())
    }
}
