//! How a tree is to be mounted.
//!
//! Invariants: the defaults are safe for an untrusted image: read-only, no set-user-id, no
//! devices.

use std::time::Duration;

use strata_confine::Confinement;
use strata_tree::FlatTree;

use crate::ids::Ids;
use crate::unmounting::SUBTYPE;

/// Which of the kernel's ways to read files a mount uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// The kernel never sends OPEN or OPENDIR and caches everything for ever: fastest for many
    /// small files. Every user can have it.
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

/// How a tree or a union is to be mounted.
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
    /// Refuse all writing. A tree is always mounted so, whatever is asked here.
    pub read_only: bool,
    /// Keep times of access.
    pub atime: bool,
    /// Let every user in, not just the one who mounts.
    pub allow_other: bool,
    /// Let root in, besides the one who mounts.
    pub allow_root: bool,
    /// Let the kernel check modes, owners and ACLs; without it every user who may enter may read
    /// all.
    pub default_permissions: bool,
    /// Check and show POSIX ACLs.
    pub acl: bool,
    /// The source that the mount table shows.
    pub fsname: String,
    /// What the mount table shows as type, after `fuse.`.
    pub subtype: String,
    /// Labels for the kernel's security module: `context` and its kin, with their values
    /// (mount(8)).
    pub labels: Vec<(&'static str, String)>,
    /// The owners that files are shown to have.
    pub ids: Ids,
    /// Every directory has a link count of 1, which means "not counted" (find(1)).
    pub static_nlink: bool,
    /// How many threads answer; at least 1.
    pub threads: usize,
    /// Let the thread that has answered poll for the next request for up to 50 microseconds while
    /// one caller asks one request after another. It saves a wake-up for each request, and takes
    /// that time of a processor at the end of each series.
    pub busy_poll: bool,
    /// What the caller knows of the tree.
    pub facts: TreeFacts,
    /// What the threads that answer keep, besides what the profile requires; `None`: everything.
    pub confinement: Option<Confinement>,
}

/// For an ordinary user: alone in the mount, and allowed to read everything in it.
impl Default for MountOptions {
    fn default() -> Self {
        Self {
            profile: Profile::NoOpen,
            suid: false,
            dev: false,
            exec: true,
            read_only: true,
            atime: true,
            allow_other: false,
            allow_root: false,
            default_permissions: false,
            acl: true,
            fsname: "strata".to_owned(),
            subtype: SUBTYPE.to_owned(),
            labels: Vec::new(),
            ids: Ids::default(),
            static_nlink: false,
            threads: 2,
            busy_poll: true,
            facts: TreeFacts::default(),
            confinement: None,
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

/// How a writable union is to be served, besides how it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WritableOptions {
    /// How it is mounted; [`MountOptions::profile`] and [`MountOptions::facts`] mean nothing here.
    pub mount: MountOptions,
    /// How long the kernel may remember names and attributes. Nobody else writes the upper, so
    /// there is no reason to ask again.
    pub timeout: Duration,
    /// Show extended attributes.
    pub xattrs: bool,
    /// Answer fsync without syncing.
    pub no_sync: bool,
    /// Let the kernel read and write files of the upper by itself where it allows that.
    pub passthrough: bool,
}

impl Default for WritableOptions {
    fn default() -> Self {
        Self {
            mount: MountOptions { read_only: false, threads: 4, ..MountOptions::for_caller() },
            timeout: FOR_EVER,
            xattrs: true,
            no_sync: false,
            passthrough: true,
        }
    }
}

/// 68 years: the kernel counts its own time in 32 bits on some machines.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(i32::MAX as u64);
