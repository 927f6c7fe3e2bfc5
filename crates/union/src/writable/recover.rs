//! The beginning and the end of an upper's use.
//!
//! Invariants: after [`UpperUse::recover`] the work directory holds nothing that is being made; a
//! copy of several names that a crash cut off has all of them; every file has all of its content.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{Error as TreeError, NameBuf, NodeId, TreePath};

use super::base::Base;
use super::copy_up::CopyUp;
use super::copying::copy_content;
use super::descriptor::by_descriptor;
use super::error::{Doing, Error, Result};
use super::inode_attrs::{refill, set_times};
use super::inode_maker::{Dress, InodeMaker};
use super::links::LinkFinder;
use super::locks::NodeLocks;
use super::marks::{Mark, Marks};
use super::origin::Origins;
use super::readers::Readers;
use super::stats::stat;
use super::table::NodeTable;
use super::types::SetTime;
use super::unsynced::{ANNOUNCED, Unsynced, is_whole};
use super::upper::Upper;
use super::whiteouts::Whiteouts;

/// Begins and ends the use of an upper.
pub(super) struct UpperUse {
    lower: FileTree,
    upper: Arc<Upper>,
    marks: Marks,
    table: Arc<NodeTable>,
    locks: Arc<NodeLocks>,
    unsynced: Arc<Unsynced>,
    whiteouts: Arc<Whiteouts>,
    origins: Arc<Origins>,
    maker: InodeMaker,
    links: Arc<LinkFinder>,
    copies: Arc<CopyUp>,
    volatile: bool,
}

impl UpperUse {
    pub(super) fn new(
        base: &Base,
        read: &Readers,
        links: &Arc<LinkFinder>,
        copies: &Arc<CopyUp>,
        volatile: bool,
    ) -> Self {
        Self {
            lower: base.lower.clone(),
            upper: Arc::clone(&base.upper),
            marks: base.marks,
            table: Arc::clone(&base.table),
            locks: Arc::clone(&base.locks),
            unsynced: Arc::clone(&base.unsynced),
            whiteouts: Arc::clone(&read.whiteouts),
            origins: Arc::clone(&read.origins),
            maker: InodeMaker::new(base.marks),
            links: Arc::clone(links),
            copies: Arc::clone(copies),
            volatile,
        }
    }

    /// Gives the root of a new upper the metadata of the lower's root; overlayfs shows the upper's.
    pub(super) fn adopt_root(&self) -> Result<()> {
        let root = self.lower.root();
        let stat = self.lower.node(root)?.stat;
        let fd = self.upper.node(&TreePath::root())?;
        let xattrs = self.lower.xattrs(root)?;
        let (kind, uid, gid, perm) = (stat.kind, stat.uid, stat.gid, stat.perm);
        self.maker.dress(&fd, &Dress { kind, uid, gid, perm, xattrs: &xattrs })?;
        let mtime = SetTime::To(stat.mtime);
        set_times(&fd, mtime, mtime)
    }

    /// Completes or removes what a crash left in the work directory.
    pub(super) fn recover(&self) -> Result<()> {
        let doing = || "clean the work directory".to_owned();
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(self.upper.work()).doing(doing)? {
            let name = entry.doing(doing)?.file_name().to_bytes().to_vec();
            if !matches!(&name[..], b"." | b".." | b"incompat") {
                names.push(OsString::from_vec(name));
            }
        }
        let (links, rest): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.as_bytes().starts_with(b"links-"));
        for name in &links {
            let text = name.to_str().unwrap_or_default();
            let Some(id) = text.strip_prefix("links-").and_then(|id| id.parse().ok()) else {
                continue;
            };
            self.complete(NodeId(id), text)?;
        }
        if rest.iter().any(|name| name.as_bytes().starts_with(ANNOUNCED.as_bytes())) {
            self.mend()?;
        }
        for name in &rest {
            self.upper.remove_from_work(name)?;
        }
        self.begin()
    }

    /// Gives a copy the names that it has not got yet. One that has none at all is dropped: the
    /// lower shows them all.
    fn complete(&self, id: NodeId, links: &str) -> Result<()> {
        let stat = rustix::fs::statat(self.upper.work(), links, AtFlags::SYMLINK_NOFOLLOW)
            .doing(|| format!("stat {links}"))?;
        let mut pins = self.table.pins();
        let names = match stat.st_nlink {
            0 | 1 => Vec::new(),
            _ => self.copies.names_of((id, id), &mut pins)?,
        };
        let _steady = self.locks.steady();
        self.copies.link_all(id, links, &names)
    }

    /// Completes the copies that a crash has left (`unsynced`), wherever in the upper they are.
    fn mend(&self) -> Result<()> {
        let mut stack = vec![TreePath::root()];
        while let Some(path) = stack.pop() {
            let doing = || format!("list {}", self.upper.shown(&path));
            let dir = self.upper.content(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for entry in Dir::read_from(&dir).doing(doing)? {
                let entry = entry.doing(doing)?;
                let Ok(name) = NameBuf::new(entry.file_name().to_bytes()) else { continue };
                let here = path.join(name.as_name());
                let fd = self.upper.node(&here)?;
                match FileType::from_raw_mode(stat(&fd)?.stx_mode.into()) {
                    FileType::Directory => stack.push(here),
                    FileType::RegularFile => self.mend_one(&here, &fd)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn mend_one(&self, path: &TreePath, fd: &OwnedFd) -> Result<()> {
        let Some(origin) = self.origins.read(fd)?.filter(|origin| origin.unsynced) else {
            return Ok(());
        };
        let lower = origin.lower;
        let shown = self.upper.shown(path);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(by_descriptor(fd.as_fd()), flags, Mode::empty());
        let file = File::from(file.doing(|| format!("open {shown}"))?);
        if self.lower.node(lower).is_err() {
            // Some lowers know their numbers once they were listed.
            self.links.all()?;
        }
        let gone = || Error::Unusable {
            path: shown.clone(),
            why: "a crash came while it was copied up, and these lowers do not have it; use \
                  the lowers that it was made with, or remove it"
                .to_owned(),
        };
        let original = match self.origins.still_has(&origin) {
            Ok(true) => self.lower.open(lower),
            Ok(false) | Err(Error::Lower(TreeError::NoNode(_))) => return Err(gone()),
            Err(error) => return Err(error),
        };
        let original = original.map_err(|error| match error {
            TreeError::NoNode(_) => gone(),
            error => error.into(),
        })?;
        if !is_whole(&file, &*original)? {
            refill(&file, || {
                rustix::fs::ftruncate(&file, 0).doing(|| "empty a file".to_owned())?;
                copy_content(&*original, &file, None)
            })?;
        }
        self.upper.sync_file(&file)?;
        let synced = self.origins.of(&file, lower, false)?;
        self.marks.set(&file, Mark::StrataOrigin, &synced.format())
    }

    /// Marks the upper as not to be trusted after a crash (overlayfs.rst, "Volatile mount").
    fn begin(&self) -> Result<()> {
        if !self.volatile {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(0o700);
        for name in ["incompat", "incompat/volatile"] {
            match rustix::fs::mkdirat(self.upper.work(), name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).doing(|| format!("make {name}")),
            }
        }
        Ok(())
    }

    /// Ends what a union does by itself.
    pub(super) fn close(&self) -> Result<()> {
        let (synced, removed) = (self.unsynced.end(), self.whiteouts.end());
        synced.and(removed)
    }

    /// Puts everything on disk, before the mount is taken away or while it goes on. Does nothing
    /// on a volatile union.
    pub(super) fn sync(&self) -> Result<()> {
        if self.volatile {
            return Ok(());
        }
        self.unsynced.end()?;
        rustix::fs::syncfs(self.upper.root()).doing(|| "sync the upper".to_owned())
    }

    /// Ends the use of the upper once nothing is mounted any more: little is left to do, and the
    /// next user of the directories waits for it. What was written is in the page cache, or on
    /// disk, as after any program's end; copies that came up are on disk.
    pub(super) fn finish(&self) -> Result<()> {
        self.upper.release();
        self.unsynced.end()?;
        self.whiteouts.end()?;
        if self.volatile {
            // Without its mark the upper is one to be trusted, so it has to be on disk.
            rustix::fs::syncfs(self.upper.root()).doing(|| "sync the upper".to_owned())?;
            let flags = AtFlags::REMOVEDIR;
            match rustix::fs::unlinkat(self.upper.work(), "incompat/volatile", flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::Refused(errno)),
            }
        }
        Ok(())
    }
}
