//! [`OverlayDir`]: a plain directory as overlayfs, podman or fuse-overlayfs lay it out.
//!
//! ```text
//! options   what its names and attributes mean     known     number -> (directory, name)
//! inode     an inode on disk -> node or whiteout   numbers   device, st_ino -> number
//! aufs      whiteouts that are names               disk      the calls
//! ```
//!
//! A node's number comes from its inode (`numbers`), so the names of one inode are one node and
//! remounts repeat it; a number is found again by the first name that it was seen under (`known`).
//!
//! Invariants: every access starts at the root's descriptor or at that of a directory which was
//! reached from there, follows no symbolic link and stays beneath; nothing is written. Mounts below
//! the directory are crossed. A tree that changes while it is open gives old or new answers, or
//! `Io`, but nothing from elsewhere.

mod aufs;
mod disk;
mod inode;
mod known;
#[cfg(any(test, feature = "conformance"))]
mod lay;
mod lower;
mod numbers;
mod open_dirs;
mod options;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::beneath::reach;
use crate::lower::{Error, Result};
use crate::name::{NameBuf, TreePath};
use crate::node::NodeId;

use disk::Spot;
use known::{DirFacts, Known};
#[cfg(any(test, feature = "conformance"))]
pub use lay::lay_overlay;
pub use numbers::Numbers;
pub use options::{Dialect, DirOptions, OverrideStat, Trust};

/// A directory on disk as a lower. See the module.
pub struct OverlayDir {
    root: Arc<OwnedFd>,
    label: String,
    options: DirOptions,
    /// Whether owners may be stated in attributes, `IfRootHas` decided.
    overrides: bool,
    root_facts: DirFacts,
    numbers: Arc<Numbers>,
    known: Known,
}

impl OverlayDir {
    /// Opens the directory at `path`, which may lead through symbolic links; the errors will
    /// name it.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(path: &Path, options: DirOptions, numbers: Arc<Numbers>) -> Result<Self> {
        let label = path.display().to_string();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| Error::io(format!("opening the lower {label}"), errno))?;
        Self::new(root, label, options, numbers)
    }

    /// Takes a directory that is open, with `O_PATH` or for reading. `label` names it in errors.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(
        root: OwnedFd,
        label: String,
        options: DirOptions,
        numbers: Arc<Numbers>,
    ) -> Result<Self> {
        let mut dir = Self {
            root: Arc::new(root),
            label,
            options,
            overrides: options.override_stat == OverrideStat::Read,
            root_facts: DirFacts::default(),
            numbers,
            known: Known::default(),
        };
        let failed = |errno| dir.failed("opening", &TreePath::root(), errno);
        let spot = Spot::Open(dir.root.as_fd());
        let stat = spot.stat().map_err(failed)?;
        if !disk::stat_of(&stat).map_err(failed)?.kind.is_dir() {
            return Err(failed(Errno::NOTDIR));
        }
        // Devices are numbered in the order of first use: that of this lower comes now.
        dir.numbers.number(disk::device_of(&stat), stat.stx_ino);
        let names = spot.xattr_names().map_err(failed)?;
        let says = OverrideStat::NAMES.iter().any(|name| names.has(name));
        let mut facts = dir.facts(spot, &names).map_err(failed)?;
        facts.opaque |=
            options.dialect.aufs && aufs::is_opaque(dir.root.as_fd()).map_err(failed)?;
        dir.overrides |= options.override_stat == OverrideStat::IfRootHas && says;
        dir.root_facts = facts;
        Ok(dir)
    }

    /// The open directory: where its contents are.
    pub fn directory(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.root)
    }

    /// What errors call it.
    pub fn label(&self) -> String {
        format!("the lower {}", self.label)
    }

    fn failed(&self, doing: &str, path: &TreePath, errno: Errno) -> Error {
        Error::io(format!("{doing} {path} in the lower {}", self.label), errno)
    }

    fn path(&self, node: NodeId) -> Result<TreePath> {
        self.known.path(node).ok_or(Error::NoNode(node))
    }

    fn reach(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd> {
        reach(self.root.as_fd(), path, flags).map_err(|errno| self.failed("opening", path, errno))
    }

    /// The descriptor of a directory, for `*at` calls.
    fn dir(&self, dir: NodeId) -> Result<DirFd<'_>> {
        if dir == NodeId::ROOT {
            return Ok(DirFd::Root(self.root.as_fd()));
        }
        let open = || self.reach(&self.path(dir)?, OFlags::PATH | OFlags::DIRECTORY);
        self.numbers.open_dirs().get(dir, open).map(DirFd::Open)
    }

    /// Where a node is, for `stat` and attributes.
    fn at(&self, node: NodeId) -> Result<At<'_>> {
        if node == NodeId::ROOT {
            return Ok(At { dir: self.dir(node)?, name: None });
        }
        let (dir, name) = self.known.place(node).ok_or(Error::NoNode(node))?;
        Ok(At { dir: self.dir(dir)?, name: Some(name) })
    }

    /// An error of a call on a node.
    fn failed_at(&self, doing: &str, node: NodeId, errno: Errno) -> Error {
        match self.path(node) {
            Ok(path) => self.failed(doing, &path, errno),
            Err(error) => error,
        }
    }
}

/// An open directory.
enum DirFd<'a> {
    Root(BorrowedFd<'a>),
    Open(Arc<OwnedFd>),
}

impl AsFd for DirFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => fd.as_fd(),
            Self::Open(fd) => fd.as_fd(),
        }
    }
}

/// A node as a name in an open directory, or the root.
struct At<'a> {
    dir: DirFd<'a>,
    name: Option<NameBuf>,
}

impl At<'_> {
    fn spot(&self) -> Spot<'_> {
        match &self.name {
            Some(name) => Spot::Named(self.dir.as_fd(), name.as_name()),
            None => Spot::Open(self.dir.as_fd()),
        }
    }

    /// Opens it as `flags` say; a link itself.
    fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let name = self.name.as_ref().map_or(OsStr::new("."), |name| name.as_name().as_os_str());
        openat(&self.dir, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
    }
}
