//! The seam: a read-only tree, asked by node number.
//!
//! Everything that holds files for a mount is a [`Lower`]: a stored layer, a merged stack, a
//! compiled tree, a plain directory. Everything that shows files asks only this.
//!
//! Invariants: a tree never changes while it is open; node numbers are stable as long as it is;
//! `read_dir` never yields `.` or `..`; a merged tree yields nodes only.

use std::error::Error as StdError;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use crate::digest::ContentDigest;
use crate::file_handle::{ByHandle, FileHandle};
use crate::name::{Name, NameBuf, TreePath};
use crate::node::{Entry, Kind, Node, NodeId};

/// One extended attribute: its full name (`user.x`, `security.capability`) and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// One name that [`Lower::read_dir`] yields.
#[derive(Debug, Clone)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: Name<'a>,
    /// What it stands for.
    pub entry: Entry,
    /// Where to go on after this name: stable as long as the tree is open, never 0.
    pub next: u64,
}

/// Which bytes a regular file has: a tree gives this reference, and the contents are looked up by
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRef {
    /// The layer, counted from the base (0).
    pub layer: u32,
    /// The path below that layer's directory of contents.
    pub path: TreePath,
    /// The sha256 of the bytes, where the tree knows it.
    pub digest: Option<ContentDigest>,
    /// How many bytes there are.
    pub size: u64,
}

impl ContentRef {
    /// The error of contents that have `layers` layers, and not this one.
    pub fn no_layer(&self, layers: usize) -> Error {
        Error::Corrupt {
            tree: format!("that holds {}", self.path),
            what: format!("its content is in layer {} of {layers}", self.layer),
        }
    }
}

/// How the layers below are asked for a node, where not by its own name alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Continues {
    /// Where they have it, if not at its own name.
    pub redirect: Option<Redirect>,
    /// The content of this regular file is theirs: only its metadata are of this layer.
    pub metacopy: bool,
}

/// Where the layers below have a node (overlayfs.rst, "redirect_dir").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// At this path from their roots.
    Path(TreePath),
    /// At this name in the same directory.
    Sibling(NameBuf),
}

/// Why a tree did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such node: a number that this tree never gave out.
    #[error("node {0:?} does not exist")]
    NoNode(NodeId),
    /// A directory call on something else.
    #[error("node {0:?} is not a directory")]
    NotDirectory(NodeId),
    /// `content` of something that has none.
    #[error("node {node:?} is not a regular file but {kind:?}")]
    NotRegular {
        /// The node.
        node: NodeId,
        /// What it is.
        kind: Kind,
    },
    /// `read_link` of something else.
    #[error("node {0:?} is not a symbolic link")]
    NotSymlink(NodeId),
    /// A path leads through more symbolic links than the kernel would follow (`ELOOP`).
    #[error("{path}: too many levels of symbolic links")]
    TooManyLinks {
        /// The path, escaped.
        path: String,
    },
    /// The tree's own bytes contradict themselves.
    #[error("the tree {tree} is damaged: {what}; remove it, and it is compiled again")]
    Corrupt {
        /// Which tree.
        tree: String,
        /// What is wrong, with the offset.
        what: String,
    },
    /// A link to a lower layer's file that does not exist there.
    #[error("{path} is a hard link to {target}, which no lower layer has as a file")]
    DanglingLink {
        /// The link.
        path: TreePath,
        /// Its target.
        target: TreePath,
    },
    /// The tree does not fit its format.
    #[error("the tree has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much fits.
        limit: u64,
    },
    /// What the tree is made from did not answer.
    #[error("{what}: {source}")]
    Unanswered {
        /// What was being asked.
        what: String,
        /// The implementer's own error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps an operating system error with what was being done.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

/// The result of every call on a tree.
pub type Result<T> = std::result::Result<T, Error>;

/// A read-only tree of nodes.
pub trait Lower: Send + Sync {
    /// The root directory's node.
    fn root(&self) -> NodeId;

    /// The entry called `name` in `dir`; `None` if this tree says nothing of it.
    ///
    /// # Errors
    /// `NotDirectory`, `NoNode`.
    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Entry>>;

    /// Calls `each` for the names of `dir` that come after the position `from` (0: all, else the
    /// `next` of an earlier name), in a fixed order, until `each` breaks.
    ///
    /// # Errors
    /// `NotDirectory`, `NoNode`.
    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The node with this number.
    ///
    /// # Errors
    /// `NoNode`.
    fn node(&self, node: NodeId) -> Result<Node>;

    /// A symlink's target.
    ///
    /// # Errors
    /// `NotSymlink`, `NoNode`.
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>>;

    /// All extended attributes, sorted by name.
    ///
    /// # Errors
    /// `NoNode`.
    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>>;

    /// Which bytes a regular file has. The tree does not open them: that is for the contents.
    ///
    /// # Errors
    /// `NotRegular`, `NoNode`.
    fn content(&self, node: NodeId) -> Result<ContentRef>;

    /// How `node` goes on in the layers below; by default at its own name and nowhere else. Only
    /// for explicit directories and regular files.
    ///
    /// # Errors
    /// `NoNode`; `Io` with `EPERM` where the tree may not say it, `EINVAL` where it says nonsense.
    fn continues(&self, _node: NodeId) -> Result<Continues> {
        Ok(Continues::default())
    }

    /// What names the inode of a non-directory for ever: no other inode, here or elsewhere, now or
    /// later, has it. `None` where the tree has no such thing, which is the default.
    ///
    /// # Errors
    /// `NoNode`.
    fn file_handle(&self, _node: NodeId) -> Result<Option<FileHandle>> {
        Ok(None)
    }

    /// Which node of this tree the inode of a handle is; by default the tree cannot tell.
    ///
    /// # Errors
    /// `Io`.
    fn by_handle(&self, _handle: &FileHandle) -> Result<ByHandle> {
        Ok(ByHandle::Unknown)
    }

    /// The inode of a regular file or a directory, open with `O_PATH`, for what is neither metadata
    /// nor content: its flags. `None` where nodes are no inodes of their own, which is the default.
    ///
    /// # Errors
    /// `NoNode`, `Io`.
    fn inode(&self, _node: NodeId) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    /// The directory that holds `dir` (the root's is the root itself), for the `..` of listings;
    /// `None` where the tree keeps no way back.
    ///
    /// # Errors
    /// `NotDirectory`, `NoNode`.
    fn parent(&self, dir: NodeId) -> Result<Option<NodeId>> {
        Ok((dir == self.root()).then_some(dir))
    }
}

/// Collects a whole directory: names with their entries, in the tree's order.
///
/// # Errors
/// As [`Lower::read_dir`].
pub fn list(tree: &dyn Lower, dir: NodeId) -> Result<Vec<(NameBuf, Entry)>> {
    let mut all = Vec::new();
    tree.read_dir(dir, 0, &mut |item| {
        all.push((item.name.to_owned(), item.entry));
        ControlFlow::Continue(())
    })?;
    Ok(all)
}
