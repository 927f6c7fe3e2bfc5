//! A merged tree, or one node of it, as real files on disk.
//!
//! The model: two passes over the tree. The first makes every name; the directories that it makes
//! are 0700 and stay so. The second gives directories their metadata, bottom-up, so that filling
//! a directory never meets its final mode and never moves its mtime. What the process may not set
//! is left out and counted in the [`Report`]; what keeps the bytes from being there is an error.
//!
//! Invariants:
//! - nothing is reached by a path that is resolved twice: every name is one component below a
//!   held directory descriptor, and directories are opened again only beneath the destination,
//!   without following links, and only if they are still the inode that they were
//!   (CVE-2018-15664, CVE-2023-0778);
//! - owner, mode, times and xattrs are set through descriptors of what this call made
//!   (CVE-2021-32760);
//! - owner first, then xattrs (`chown` drops `security.capability`), then the mode (`chown` drops
//!   setuid; an ACL sets group bits), then times;
//! - setuid and setgid are dropped where the owner or group they speak for could not be set;
//! - neither the depth of the tree nor its size costs stack or descriptors.

mod attrs;
mod content;
mod descent;
mod pass;
mod report;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{Name, NodeId, TreePath};

use crate::error::{Error, IoContext, Result};

pub use report::{Group, LISTED, Report, Skipped};

/// Where a tree is recreated.
#[derive(Debug, Clone, Copy)]
pub enum Dest<'a> {
    /// The open directory becomes the node, which must be a directory; its metadata are set last.
    Into(BorrowedFd<'a>),
    /// A new name in the open directory becomes the node, of whatever kind.
    As(BorrowedFd<'a>, Name<'a>),
}

/// Is told a path below the copied node and the bytes of content written for it.
pub type Watch<'a> = dyn FnMut(&TreePath, u64) + 'a;

/// How a checkout goes about it.
#[derive(Default)]
pub struct Options<'a> {
    /// How errors name the destination: the path as the user gave it.
    pub label: String,
    /// Existing directories are entered and other existing names replaced, as `cp -a` does; else
    /// an existing name is an error.
    pub merge: bool,
    /// Told of each name after it was made.
    pub watch: Option<&'a mut Watch<'a>>,
}

/// Recreates `from` and all below it at `dest`: contents (shared by reflink where the file system
/// can, holes kept), hard links, symlinks, devices, fifos, owners, modes, xattrs, mtimes. Sockets
/// are skipped and listed.
///
/// # Errors
/// `Error::Io` naming the path: a name exists already, the disk is full, a directory was swapped
/// for something else meanwhile. What was made until then stays, its directories 0700.
/// `Error::Tree` if the tree does not answer; `Error::Damaged` if a content has another size than
/// its node says.
pub fn checkout(
    tree: &FileTree,
    from: NodeId,
    dest: Dest<'_>,
    options: Options<'_>,
) -> Result<Report> {
    pass::run(tree, from, dest, options)
}

/// Opens `path` as an empty directory to check out into, making it (0700) if it is absent.
///
/// # Errors
/// `Error::Io`: it is not a directory, is not empty, or its parent is absent.
pub fn open_empty(path: &Path) -> Result<OwnedFd> {
    let shown = || format!("cannot unpack into {}", path.display());
    match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).doing(shown),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path, flags, Mode::empty()).doing(shown)?;
    for entry in Dir::read_from(dir.as_fd()).doing(shown)? {
        if !matches!(entry.doing(shown)?.file_name().to_bytes(), b"." | b"..") {
            let what = format!("{}: choose a new or an empty directory", shown());
            return Err(Error::io(what, Errno::NOTEMPTY));
        }
    }
    Ok(dir)
}
