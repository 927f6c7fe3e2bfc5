//! Inodes of the upper: opening them, and what they say of their nodes.
//!
//! Invariants: an inode is opened by its node's path or, when that was removed, by what keeps it;
//! what is shown of it is what the image has, wherever it is kept.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::xattrs::XattrNames;
use strata_tree::{Device, Kind, Node, NodeId, Stat};

use super::base::Base;
use super::descriptor::by_descriptor;
use super::error::{Doing, Error, Result, damaged};
use super::listing::DirReader;
use super::marks::{Mark, Marks, format_kind, stated};
use super::stats::{kind_of, stat, time};
use super::table::{CopyStage, NodeState, NodeTable, SeenNode};
use super::types::Attr;
use super::upper::Upper;

/// Bytes of the longest target of a symbolic link (PATH_MAX less its end).
const TARGET_MAX: u64 = 4095;

/// What a marked file stands for, because on disk it would be a whiteout.
const NO_DEVICE: Kind = Kind::CharDevice(Device { major: 0, minor: 0 });

/// A descriptor of an inode of the upper.
pub(super) enum OpenInode {
    Dir(Arc<OwnedFd>),
    File(Arc<File>),
    /// Opened for this use alone.
    Own(OwnedFd),
}

impl AsFd for OpenInode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Dir(fd) => fd.as_fd(),
            Self::File(file) => file.as_fd(),
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// Opens inodes of the upper, and reads what they say.
pub(super) struct UpperInodes {
    lower: FileTree,
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    dirs: Arc<DirReader>,
}

impl UpperInodes {
    pub(super) fn new(base: &Base, dirs: &Arc<DirReader>) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            dirs: Arc::clone(dirs),
        }
    }

    /// The type of an inode of the upper, as the image has it.
    pub(super) fn kind(&self, fd: &OwnedFd, names: &XattrNames, stat: &Statx) -> Result<Kind> {
        let kind = kind_of(stat);
        let apart = self.marks.is_apart();
        if kind != Kind::Regular || stat.stx_size != 0 && !apart {
            return Ok(kind);
        }
        let told = || Ok::<_, Error>(stated(fd)?.and_then(|stated| stated.kind));
        if stat.stx_size != 0 {
            let target = stat.stx_size <= TARGET_MAX && told()? == Some(Kind::Symlink);
            return Ok(if target { Kind::Symlink } else { kind });
        }
        let told = match self.marks.get_of(fd, names, Mark::StrataDevice)? {
            // No other is marked so: whoever may set the mark may not make devices.
            Some(text) => (text == format_kind(NO_DEVICE).as_bytes()).then_some(NO_DEVICE),
            None if apart => told()?,
            None => None,
        };
        // An empty file can stand for what has no content, and for nothing else.
        Ok(match told {
            Some(
                told @ (Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket),
            ) => told,
            Some(Kind::Regular | Kind::Directory | Kind::Symlink) | None => kind,
        })
    }

    /// Owner, group and permission bits of an inode of the upper.
    pub(super) fn owner_and_bits(&self, fd: impl AsFd, stat: &Statx) -> Result<(u32, u32, u16)> {
        if self.marks.is_apart()
            && let Some(stated) = stated(&fd)?
        {
            return Ok((stated.uid, stated.gid, stated.perm));
        }
        Ok((stat.stx_uid, stat.stx_gid, stat.stx_mode & 0o7777))
    }

    /// The size of a metacopy. Its inode's is the same, unless a crash has left part of a copy,
    /// which only a view shows: all others have mended it.
    fn size_below(&self, found: &NodeState) -> Result<u64> {
        let lower = found.lower.ok_or_else(without_content)?;
        Ok(self.lower.node(lower)?.stat.size)
    }

    /// `stat` of a node of the upper.
    pub(super) fn upper_attr(
        &self,
        found: &NodeState,
        fd: impl AsFd,
        stat: &Statx,
    ) -> Result<Attr> {
        let (uid, gid, perm) = self.owner_and_bits(fd, stat)?;
        let nlink = match found.kind {
            Kind::Directory if found.lower.is_some() && stat.stx_nlink > 0 => {
                2 + self.dirs.subdirectories(found)?
            }
            _ => stat.stx_nlink,
        };
        let size = match found.kind {
            Kind::Regular if self.upper.view && found.stage == CopyStage::Meta => {
                self.size_below(found)?
            }
            Kind::Regular | Kind::Symlink | Kind::Directory => stat.stx_size,
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => 0,
        };
        let blocks = match found.stage {
            CopyStage::Meta => size.div_ceil(512),
            CopyStage::Lower | CopyStage::Upper => stat.stx_blocks,
        };
        let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Attr {
            id: found.id,
            generation: self.table.generation(found.id),
            stat: Stat {
                kind: found.kind,
                perm,
                uid,
                gid,
                size,
                nlink,
                mtime: time(stat.stx_mtime),
            },
            atime: time(stat.stx_atime),
            ctime: time(stat.stx_ctime),
            birth: born.then(|| time(stat.stx_btime)),
            blocks,
        })
    }

    pub(super) fn attr_of(&self, seen: &SeenNode) -> Result<Attr> {
        let generation = self.table.generation(seen.found.id);
        if seen.found.stage > CopyStage::Lower {
            let inode = self.open(seen)?;
            let attr = self.upper_attr(&seen.found, &inode, &stat(&inode)?)?;
            return Ok(Attr { generation, ..attr });
        }
        let Some(lower) = seen.found.lower else { return Err(Error::Refused(Errno::STALE)) };
        let mut attr = lower_attr(&seen.found, &self.lower.node(lower)?);
        if seen.path.is_none() {
            attr.stat.nlink = 0;
        }
        Ok(Attr { generation, ..attr })
    }

    /// The inode that is a node's lower, if it is one and has flags.
    pub(super) fn lower_inode(&self, seen: &SeenNode) -> Result<Option<OwnedFd>> {
        match (seen.found.kind, seen.found.lower) {
            (Kind::Regular | Kind::Directory, Some(lower)) => Ok(self.lower.inode(lower)?),
            (_, Some(_)) => Ok(None),
            (_, None) => Err(Error::Refused(Errno::STALE)),
        }
    }

    /// A node's file that was just made, with the access times that are asked for.
    pub(super) fn made_to_read(&self, node: NodeId, made: File) -> Result<File> {
        self.upper.made_to_read(made, self.table.see(node)?.path.as_ref())
    }

    pub(super) fn open_upper(&self, seen: &SeenNode, write: bool) -> Result<Arc<File>> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        if let Some(path) = &seen.path {
            return Ok(Arc::new(self.upper.content(path, access)?));
        }
        let inode = self.open(seen)?;
        let path = by_descriptor(inode.as_fd());
        let file = rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty());
        Ok(Arc::new(File::from(file.doing(|| "open a file of the upper".to_owned())?)))
    }

    /// The inode of a node of the upper: what is open of it, or else opened for this.
    pub(super) fn open(&self, seen: &SeenNode) -> Result<OpenInode> {
        if let (true, Some(path)) = (seen.found.kind.is_dir(), &seen.path) {
            return Ok(OpenInode::Dir(self.upper.dir(path)?));
        }
        if seen.found.kind == Kind::Regular
            && let Some(file) = self.table.open_content(seen.found.id).and_then(|c| c.upper_file())
        {
            return Ok(OpenInode::File(file));
        }
        Ok(OpenInode::Own(self.open_own(seen)?))
    }

    /// The inode of a node of the upper, opened by its path or, when it has none, by what keeps it.
    pub(super) fn open_own(&self, seen: &SeenNode) -> Result<OwnedFd> {
        match (&seen.path, &seen.orphan) {
            (Some(path), _) => self.upper.node(path),
            (None, Some(file)) => {
                let path = by_descriptor(file.as_fd());
                rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .doing(|| "open a removed node".to_owned())
            }
            (None, None) => Err(Error::Refused(Errno::NOENT)),
        }
    }
}

/// A metacopy's lower is gone (overlayfs.rst, "Metadata only copy up").
pub(super) fn without_content() -> Error {
    damaged("find the content of a metacopy in the lower")
}

/// `stat` of a node that is only in the lower.
pub(super) fn lower_attr(found: &NodeState, node: &Node) -> Attr {
    let mtime = node.stat.mtime;
    Attr {
        id: found.id,
        generation: 0,
        stat: node.stat,
        atime: mtime,
        ctime: mtime,
        birth: None,
        blocks: node.stat.size.div_ceil(512),
    }
}
