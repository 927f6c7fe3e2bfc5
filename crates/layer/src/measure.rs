//! What files and directories take on disk: asked of the file system once, kept in the index.
//!
//! Bytes are `st_size`, blocks are `st_blocks`, of 512 bytes each whatever the file system's own
//! are (statx(2)). Blocks are settled only after the file system was synced: before, some decide
//! late what a file takes.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use strata_tree::TreePath;

use crate::error::{IoContext, Result};
use crate::layout::diff_path;

/// What something takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// As `du --apparent-size` counts.
    pub bytes: u64,
    /// Of 512 bytes each, as `du` counts.
    pub blocks: u64,
}

/// Adds a number that the index says, which in a damaged one may be any: not past the largest.
pub(crate) fn add(sum: &mut u64, number: u64) {
    *sum = sum.saturating_add(number);
}

/// The sum of such numbers.
pub(crate) fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

impl std::ops::AddAssign for Space {
    fn add_assign(&mut self, other: Self) {
        add(&mut self.bytes, other.bytes);
        add(&mut self.blocks, other.blocks);
    }
}

impl std::ops::Add for Space {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::iter::Sum for Space {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

/// What is at `path` below `dir`; `None` if nothing is. A symbolic link is not followed.
///
/// # Errors
/// `Io` with the path.
pub(crate) fn space(dir: BorrowedFd<'_>, path: &Path) -> Result<Option<Space>> {
    let (path, flags) = match path.as_os_str().is_empty() {
        true => (Path::new("."), AtFlags::empty()),
        false => (path, AtFlags::SYMLINK_NOFOLLOW),
    };
    match statat(dir, path, flags) {
        Ok(stat) => Ok(Some(Space { bytes: stat.st_size as u64, blocks: stat.st_blocks as u64 })),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).doing(|| format!("cannot stat {}", path.display())),
    }
}

/// The links of an inode: stat(2) tells them in 32 bits on some processors, in 64 on others.
pub(crate) fn link_count(told: impl Into<u64>) -> u64 {
    told.into()
}

/// What a layer takes beside its contents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its `headers.zst`.
    pub headers: Space,
    /// All its directories, `layers/<diff id>/` included.
    pub directories: Space,
}

/// Measures a layer directory with the directories that it has; what is missing takes nothing.
///
/// # Errors
/// `Io`; those of `directories`.
pub(crate) fn frame(
    layer: BorrowedFd<'_>,
    directories: impl Iterator<Item = Result<TreePath>>,
) -> Result<Frame> {
    let below = directories.map(|path| path.map(|path| diff_path(&path)));
    let mut frame = Frame {
        headers: space(layer, Path::new("headers.zst"))?.unwrap_or_default(),
        directories: Space::default(),
    };
    for path in [PathBuf::new(), PathBuf::from("diff")].into_iter().map(Ok).chain(below) {
        frame.directories += space(layer, &path?)?.unwrap_or_default();
    }
    Ok(frame)
}
