//! How a tree of names refers to contents that lie elsewhere, in overlayfs' attributes.
//!
//! ```text
//! P metacopy    ""                     the bytes of this file are in a data-only lower layer
//!               0 36 0 1 DIGEST        the same, with the 32 bytes of their fs-verity digest
//! P redirect    "/<diff id>/diff/..."  and this is their path there
//! P overlay.X                          what the tree itself calls P X
//! ```
//!
//! P is `trusted.overlay.`, or `user.overlay.` in a user namespace (overlayfs.rst, "Data-only
//! lower layers", "userxattr", "fs-verity support"; `struct ovl_metacopy` in the kernel's
//! fs/overlayfs/overlayfs.h: version, length, flags, algorithm, digest). [`MarkedTree`] puts the
//! marks on a tree that is asked name by name; an image of names has them written into it. A tree
//! that has its contents itself has no marks, and what it has of overlayfs' attributes is escaped
//! all the same.
//!
//! Invariant: what the tree itself has of overlayfs' attributes is escaped before marks are added,
//! so no attribute of a tree is taken for a mark (overlayfs.rst, "Nesting overlayfs mounts").

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use strata_tree::dialect::{Mark, XattrClass};
use strata_tree::{
    ByHandle, ContentRef, Continues, DirEntry, Entry, FileHandle, Kind, Lower, Name, Node, NodeId,
    Result, VerityDigest, Xattr,
};

/// The longest path that the kernel looks up, without its NUL (`PATH_MAX`).
const LONGEST: usize = 4095;

/// The attributes of a tree as overlayfs finds them below itself.
pub(crate) fn escaped(class: XattrClass, all: Vec<Xattr>) -> Vec<Xattr> {
    let escape = |(name, value): Xattr| match class.escape(&name) {
        Cow::Borrowed(_) => (name, value),
        Cow::Owned(escaped) => (escaped, value),
    };
    all.into_iter().map(escape).collect()
}

/// The marks of a file whose content is at `place`, and has that digest; `None` if no path that
/// long can be looked up.
pub(crate) fn marks(
    class: XattrClass,
    place: Vec<u8>,
    verity: Option<&VerityDigest>,
) -> Option<[Xattr; 2]> {
    let mark = |mark| class.name(mark).as_bytes().to_vec();
    let metacopy = match verity {
        Some(digest) => [&[0, 36, 0, 1][..], digest.as_bytes()].concat(),
        None => Vec::new(),
    };
    (place.len() <= LONGEST)
        .then(|| [(mark(Mark::Metacopy), metacopy), (mark(Mark::Redirect), place)])
}

/// Where a content is below the data-only lower, as an absolute path.
type ContentPlace = Box<dyn Fn(&ContentRef) -> Vec<u8> + Send + Sync>;

/// A merged tree with the marks of a class on its files. See the module.
///
/// A file whose path is too long for a mark has none: overlayfs asks the tree for its content.
pub struct MarkedTree {
    tree: Arc<dyn Lower>,
    class: XattrClass,
    place: Option<ContentPlace>,
}

impl MarkedTree {
    /// Marks `tree`; `place` is the absolute path of a content below the data-only lower.
    pub fn new(
        tree: Arc<dyn Lower>,
        class: XattrClass,
        place: impl Fn(&ContentRef) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self { tree, class, place: Some(Box::new(place)) }
    }

    /// The same without marks: for a lower of overlayfs that has its contents itself.
    pub fn escaped(tree: Arc<dyn Lower>, class: XattrClass) -> Self {
        Self { tree, class, place: None }
    }
}

impl std::fmt::Debug for MarkedTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkedTree").field("class", &self.class).finish_non_exhaustive()
    }
}

impl Lower for MarkedTree {
    fn root(&self) -> NodeId {
        self.tree.root()
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>> {
        self.tree.lookup(dir, name)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.tree.read_dir(dir, from, each)
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        self.tree.node(node)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.tree.read_link(node)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let mut all = escaped(self.class, self.tree.xattrs(node)?);
        let Some(place) = &self.place else { return Ok(all) };
        let stat = self.tree.node(node)?.stat;
        if stat.kind == Kind::Regular && stat.size > 0 {
            let place = place(&self.tree.content(node)?);
            all.extend(marks(self.class, place, None).into_iter().flatten());
            all.sort();
        }
        Ok(all)
    }

    fn content(&self, node: NodeId) -> Result<ContentRef> {
        self.tree.content(node)
    }

    fn continues(&self, node: NodeId) -> Result<Continues> {
        self.tree.continues(node)
    }

    fn file_handle(&self, node: NodeId) -> Result<Option<FileHandle>> {
        self.tree.file_handle(node)
    }

    fn by_handle(&self, handle: &FileHandle) -> Result<ByHandle> {
        self.tree.by_handle(handle)
    }

    fn inode(&self, node: NodeId) -> Result<Option<OwnedFd>> {
        self.tree.inode(node)
    }

    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        self.tree.parent(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_tree::{MemTree, Spec};

    #[test]
    fn files_refer_to_their_contents_and_own_marks_are_escaped() {
        let spec = Spec::new()
            .file("f", "content")
            .xattr("user.overlay.redirect", "/etc/shadow")
            .xattr("user.a", "1")
            .file("empty", "")
            .dir("d");
        let tree = MemTree::new(&spec).unwrap();
        let place = |content: &ContentRef| format!("/x{}", content.path).into_bytes();
        let marked = MarkedTree::new(Arc::new(tree), XattrClass::User, place);
        let of = |name: &str| {
            let name = Name::new(name.as_bytes()).unwrap();
            let entry = marked.lookup(marked.root(), name).unwrap().unwrap();
            marked.xattrs(entry.node().unwrap().id).unwrap()
        };
        let text = |all: Vec<Xattr>| -> Vec<(String, String)> {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            all.into_iter().map(|(name, value)| (text(name), text(value))).collect()
        };
        let want = [
            ("user.a", "1"),
            ("user.overlay.metacopy", ""),
            ("user.overlay.overlay.redirect", "/etc/shadow"),
            ("user.overlay.redirect", "/x/f"),
        ];
        assert_eq!(text(of("f")), want.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert!(of("empty").is_empty() && of("d").is_empty());
        let escaped = MarkedTree::escaped(Arc::clone(&marked.tree), XattrClass::User);
        let file = escaped.lookup(escaped.root(), Name::new(b"f").unwrap()).unwrap().unwrap();
        let want = [("user.a", "1"), ("user.overlay.overlay.redirect", "/etc/shadow")];
        let got = text(escaped.xattrs(file.node().unwrap().id).unwrap());
        assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
