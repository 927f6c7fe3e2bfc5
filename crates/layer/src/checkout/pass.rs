//! The two passes: make every name, then describe the directories, bottom-up.
//!
//! Invariants: both passes see the directories in the same order, so that the second knows which
//! inode each was; a file is complete and described before the next name is made.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec::IntoIter;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use strata_content::FileTree;
use strata_tree::{Device, Entry, Kind, Name, NameBuf, Node, NodeId, TreePath, list};

use super::attrs::{Made, describe, drop_acl};
use super::content::{Copied, Copier};
use super::descent::{Descent, Identity, duplicate, open_below, open_dir};
use super::report::{Report, Skipped};
use super::{Dest, Options};
use crate::error::{Error, IoContext, Result};

/// Carries out [`super::checkout`].
pub(super) fn run(
    tree: &FileTree,
    from: NodeId,
    dest: Dest<'_>,
    options: Options<'_>,
) -> Result<Report> {
    let node = tree.node(from)?;
    let mut pass = Pass {
        tree,
        options,
        report: Report::default(),
        path: TreePath::root(),
        links: HashMap::new(),
        dirs: Vec::new(),
        copier: Copier::new(),
    };
    match (dest, node.stat.kind) {
        (Dest::Into(dir), Kind::Directory) => {
            let root = duplicate(dir).doing(|| pass.making())?;
            pass.directory(node, Descent::new(root), true)?;
        }
        (Dest::Into(_), _) => return Err(Error::io(pass.making(), Errno::ISDIR)),
        (Dest::As(parent, name), Kind::Directory) => {
            let fresh = pass.make_dir(parent, name)?;
            let root = open_dir(parent, name.as_bytes()).doing(|| pass.swapped())?;
            pass.directory(node, Descent::new(root), fresh)?;
        }
        (Dest::As(parent, name), _) => {
            let parent = Descent::new(duplicate(parent).doing(|| pass.making())?);
            pass.other(&parent, name, node, true)?;
        }
    }
    Ok(pass.report)
}

/// Where the first name of a hard-linked inode was made.
struct Linked {
    path: TreePath,
    identity: Identity,
    /// Names of it yet to come.
    left: u32,
}

struct Pass<'a, 'o> {
    tree: &'a FileTree,
    options: Options<'o>,
    report: Report,
    /// The name at hand, below the copied node.
    path: TreePath,
    links: HashMap<NodeId, Linked>,
    /// The directories below the copied node, in the order they are met.
    dirs: Vec<Identity>,
    copier: Copier,
}

impl Pass<'_, '_> {
    /// The path at hand as the user would write it.
    fn shown(&self) -> String {
        let label = self.options.label.trim_end_matches('/');
        if self.path.is_root() { label.to_owned() } else { format!("{label}{}", self.path) }
    }

    fn making(&self) -> String {
        format!("cannot create {}", self.shown())
    }

    fn swapped(&self) -> String {
        format!("{} is not a directory of this checkout", self.shown())
    }

    fn describing(&self) -> String {
        format!("cannot set the metadata of {}", self.shown())
    }

    fn made(&mut self, bytes: u64) {
        self.report.entries += 1;
        self.report.bytes += bytes;
        if let Some(watch) = &mut self.options.watch {
            watch(&self.path, bytes);
        }
    }

    /// Fills and describes the destination itself. `fresh`: it may hold an ACL that is not ours.
    fn directory(&mut self, node: Node, mut way: Descent, fresh: bool) -> Result<()> {
        if fresh {
            drop_acl(way.root(), node.stat.kind);
        }
        self.made(0);
        self.fill(node.id, &mut way)?;
        self.finish(node, &mut way)
    }

    /// The names of `dir` with their nodes.
    fn children(&self, dir: NodeId) -> Result<IntoIter<(NameBuf, Node)>> {
        let mut children = Vec::new();
        for (name, entry) in list(&**self.tree, dir)? {
            match entry {
                Entry::Node(node) => children.push((name, node)),
                Entry::Whiteout | Entry::LowerLink(_) => {
                    let what = format!("the tree at {}", self.path.join(name.as_name()));
                    return Err(Error::damaged(what, "a merged tree holds no layer marks"));
                }
            }
        }
        Ok(children.into_iter())
    }

    fn fill(&mut self, top: NodeId, way: &mut Descent) -> Result<()> {
        let mut stack = vec![self.children(top)?];
        while let Some(names) = stack.last_mut() {
            let Some((name, node)) = names.next() else {
                stack.pop();
                way.leave();
                self.path.pop();
                continue;
            };
            way.current().doing(|| self.swapped())?;
            self.path.push(name.as_name());
            if node.stat.kind.is_dir() {
                let dir = way.top().doing(|| self.making())?;
                self.make_dir(dir, name.as_name())?;
                self.dirs.push(way.enter(name.as_name(), None).doing(|| self.swapped())?);
                self.made(0);
                stack.push(self.children(node.id)?);
            } else {
                self.other(way, name.as_name(), node, self.options.merge)?;
                self.path.pop();
            }
        }
        Ok(())
    }

    fn finish(&mut self, top: Node, way: &mut Descent) -> Result<()> {
        let mut met = std::mem::take(&mut self.dirs).into_iter();
        let mut stack = vec![(top, self.subdirectories(top.id)?)];
        while let Some((node, names)) = stack.last_mut() {
            if let Some((name, child)) = names.next() {
                self.path.push(name.as_name());
                way.enter(name.as_name(), met.next()).doing(|| self.swapped())?;
                stack.push((child, self.subdirectories(child.id)?));
            } else {
                let clear_acl = self.options.merge;
                let made = Made { fd: way.current().doing(|| self.swapped())?, clear_acl };
                let xattrs = self.tree.xattrs(node.id)?;
                describe(made, &node.stat, &xattrs, &self.path, &mut self.report)
                    .doing(|| self.describing())?;
                stack.pop();
                way.leave();
                self.path.pop();
            }
        }
        Ok(())
    }

    fn subdirectories(&self, dir: NodeId) -> Result<IntoIter<(NameBuf, Node)>> {
        let dirs = self.children(dir)?.filter(|(_, node)| node.stat.kind.is_dir());
        Ok(dirs.collect::<Vec<_>>().into_iter())
    }

    /// Makes a directory, 0700 until the second pass. Whether it is new.
    fn make_dir(&self, parent: BorrowedFd<'_>, name: Name<'_>) -> Result<bool> {
        match mkdirat(parent, name.as_os_str(), Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) if self.options.merge => Ok(false),
            Err(error) => Err(error).doing(|| self.making()),
        }
    }

    /// Makes and describes anything but a directory.
    fn other(&mut self, way: &Descent, name: Name<'_>, node: Node, clear_acl: bool) -> Result<()> {
        if node.stat.nlink > 1 && self.link(way, name, node.id)? {
            self.made(0);
            return Ok(());
        }
        let dir = way.top().doing(|| self.making())?;
        let (fd, bytes) = match node.stat.kind {
            Kind::Regular => (self.regular(dir, name, &node)?, node.stat.size),
            Kind::Symlink => {
                let target = self.tree.read_link(node.id)?;
                self.create(dir, name, || symlinkat(target.as_slice(), dir, name.as_os_str()))?;
                (self.claim(dir, name, FileType::Symlink, 0)?, 0)
            }
            Kind::Fifo => (self.special(dir, name, FileType::Fifo, 0)?, 0),
            Kind::Socket => {
                self.report.skip(&self.path, Skipped::Socket, None);
                return Ok(());
            }
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                match self.device(dir, name, node.stat.kind, device)? {
                    Some(fd) => (fd, 0),
                    None => return Ok(()),
                }
            }
            Kind::Directory => return Err(Error::io(self.making(), Errno::ISDIR)),
        };
        let xattrs = self.tree.xattrs(node.id)?;
        let made = Made { fd: fd.as_fd(), clear_acl };
        describe(made, &node.stat, &xattrs, &self.path, &mut self.report)
            .doing(|| self.describing())?;
        if node.stat.nlink > 1 {
            let identity = Identity::of(&fd).doing(|| self.describing())?;
            let linked = Linked { path: self.path.clone(), identity, left: node.stat.nlink - 1 };
            self.links.insert(node.id, linked);
        }
        self.made(bytes);
        Ok(())
    }

    /// Runs `make`, which creates `name`; when merging, a name in the way is removed first.
    fn create<T>(
        &self,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        self.try_create(dir, name, make).doing(|| self.making())
    }

    fn try_create<T>(
        &self,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> std::result::Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) if self.options.merge => {
                unlinkat(dir, name.as_os_str(), AtFlags::empty())?;
                make()
            }
            other => other,
        }
    }

    /// Makes `name` one more name of an inode that was made before. Whether it did.
    fn link(&mut self, way: &Descent, name: Name<'_>, id: NodeId) -> Result<bool> {
        let Some(linked) = self.links.get_mut(&id) else { return Ok(false) };
        linked.left = linked.left.saturating_sub(1);
        let (first, identity, last) = (linked.path.clone(), linked.identity, linked.left == 0);
        if last {
            self.links.remove(&id);
        }
        let Some((parent, first_name)) = first.split_last() else { return Ok(false) };
        let dir = way.top().doing(|| self.making())?;
        let parent = open_below(way.root(), parent.names()).doing(|| self.making())?;
        let made = self.try_create(dir, name, || {
            linkat(&parent, first_name.as_os_str(), dir, name.as_os_str(), AtFlags::empty())
        });
        match made {
            Ok(()) => {}
            // Too many links for this file system, none at all, or none across a mount.
            Err(error @ (Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP)) => {
                self.report.skip(&self.path, Skipped::HardLink, Some(error));
                return Ok(false);
            }
            Err(error) => return Err(error).doing(|| self.making()),
        }
        let found = open_path(dir, name).and_then(Identity::of).doing(|| self.making())?;
        if found != identity {
            let what = format!("{}: {first} is not the file that was made there", self.making());
            return Err(Error::io(what, Errno::STALE));
        }
        Ok(true)
    }

    fn regular(&mut self, dir: BorrowedFd<'_>, name: Name<'_>, node: &Node) -> Result<OwnedFd> {
        let content = self.tree.open(node.id)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.create(dir, name, || openat(dir, name.as_os_str(), flags, mode))?;
        let file = File::from(file);
        let copied = match self.copier.copy(&*content, &file, node.stat.size) {
            Ok(Copied::Whole) => return Ok(file.into()),
            Ok(Copied::WrongSize(found)) => Err(Error::damaged(
                format!("the content of {}", self.path),
                format!("it holds {found} bytes, its node says {}", node.stat.size),
            )),
            Err(error) => Err(error).doing(|| format!("cannot write {}", self.shown())),
        };
        // A file that is only half there must not look like one that is whole.
        let _ = unlinkat(dir, name.as_os_str(), AtFlags::empty());
        copied
    }

    /// Makes a device; `None` if it may not be, which the report then says.
    fn device(
        &mut self,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        kind: Kind,
        device: Device,
    ) -> Result<Option<OwnedFd>> {
        let skip = |pass: &mut Self, errno| {
            pass.report.skip(&pass.path, Skipped::Device, Some(errno));
            Ok(None)
        };
        // The kernel takes 12 and 20 bits and would silently make another device.
        if device.major >= 1 << 12 || device.minor >= 1 << 20 {
            return skip(self, Errno::OVERFLOW);
        }
        let file_type = match kind {
            Kind::BlockDevice(_) => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let number = makedev(device.major, device.minor);
        match self.special(dir, name, file_type, number) {
            Ok(fd) => Ok(Some(fd)),
            Err(Error::Io { source, .. })
                if matches!(
                    Errno::from_io_error(&source),
                    Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)
                ) =>
            {
                skip(self, Errno::from_io_error(&source).unwrap_or(Errno::PERM))
            }
            Err(error) => Err(error),
        }
    }

    fn special(
        &self,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        file_type: FileType,
        device: u64,
    ) -> Result<OwnedFd> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.create(dir, name, || mknodat(dir, name.as_os_str(), file_type, mode, device))?;
        self.claim(dir, name, file_type, device)
    }

    /// Opens what was just made without reading it, and checks that it is that.
    fn claim(
        &self,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        file_type: FileType,
        device: u64,
    ) -> Result<OwnedFd> {
        let fd = open_path(dir, name).doing(|| self.making())?;
        let stat = fstat(&fd).doing(|| self.making())?;
        let found = (FileType::from_raw_mode(stat.st_mode), stat.st_rdev, stat.st_nlink);
        if found != (file_type, device, 1) {
            let what = format!("{} was replaced while it was made", self.shown());
            return Err(Error::io(what, Errno::STALE));
        }
        Ok(fd)
    }
}

fn open_path(dir: BorrowedFd<'_>, name: Name<'_>) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name.as_os_str(), flags, Mode::empty())
}
