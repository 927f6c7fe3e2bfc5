//! How a tree is to be mounted.
//!
//! Invariants: the defaults are safe for an untrusted image: read-only always, no set-user-id,
//! no devices.

use strata_tree::FlatTree;

/// Which of the kernel's ways to read files a mount uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// The kernel never sends OPEN or OPENDIR and caches everything for ever: fastest for many
    /// small files. For everyone.
    #[default]
    NoOpen,
    /// The kernel reads contents straight from the store's files, where it allows that (root,
    /// Linux 6.9); else as usual. Fastest for big files.
    Passthrough,
}

/// What is known of a whole tree beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeFacts {
    /// How many nodes there are; 0 if not known.
    pub nodes: u64,
    /// The bytes of all regular files together; 0 if not known.
    pub content_bytes: u64,
    /// `false` only if no node has any extended attribute: the kernel then never asks.
    pub has_xattrs: bool,
    /// Whether the nodes are numbered 1 to `nodes` in an order that keeps the files of a
    /// directory together, so that neighbours are worth reading ahead.
    pub dense: bool,
}

/// Nothing is known.
impl Default for TreeFacts {
    fn default() -> Self {
        Self { nodes: 0, content_bytes: 0, has_xattrs: true, dense: false }
    }
}

/// A compiled tree knows all of it.
impl From<&FlatTree> for TreeFacts {
    fn from(tree: &FlatTree) -> Self {
        Self {
            nodes: tree.node_count(),
            content_bytes: tree.content_bytes(),
            has_xattrs: tree.has_xattrs(),
            dense: true,
        }
    }
}

/// How a tree is to be mounted. A mount is always read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// How files are read.
    pub profile: Profile,
    /// Honour set-user-id bits and file capabilities (root only).
    pub suid: bool,
    /// Honour device nodes (root only).
    pub dev: bool,
    /// Allow running programs.
    pub exec: bool,
    /// Let every user in, not just the one who mounts.
    pub allow_other: bool,
    /// Let the kernel check modes, owners and ACLs; without it whoever may enter may read all.
    pub default_permissions: bool,
    /// The source that the mount table shows.
    pub fsname: String,
    /// How many threads answer; at least 1.
    pub threads: usize,
    /// What the caller knows of the tree.
    pub facts: TreeFacts,
}

/// For an ordinary user: alone in the mount, and allowed to read everything in it.
impl Default for MountOptions {
    fn default() -> Self {
        Self {
            profile: Profile::NoOpen,
            suid: false,
            dev: false,
            exec: true,
            allow_other: false,
            default_permissions: false,
            fsname: "strata".to_owned(),
            threads: 2,
            facts: TreeFacts::default(),
        }
    }
}

impl MountOptions {
    /// The permission model for the caller: root's mounts are everyone's and the kernel checks
    /// the image's modes; a user's mount is the user's alone, and shows everything.
    pub fn for_caller() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self { allow_other: root, default_permissions: root, ..Self::default() }
    }
}
