//! Extended attributes of the upper: our own marks, the image's, and how to distinguish them.
//!
//! ```text
//! P = trusted.overlay.   or   user.overlay.      (overlayfs.rst, "userxattr")
//! P opaque           "y": the lower's children do not show; "x": whiteouts may be files
//! P whiteout         present, on an empty file: a whiteout
//! P redirect         "/a/b": the lower of this directory, or of this metacopy, is there
//! P metacopy         present: the content is the lower's
//! P strata.origin    the lower node that was copied up whole, whose number is kept (`origin`)
//! P strata.device    "char-0-0": a character device 0:0 that is no whiteout
//! P overlay.X        what the image itself calls P X (overlayfs.rst, "Nested overlayfs mounts")
//! P strata.x.NAME    the image's NAME, where the upper's owner may set user attributes only, or
//!                    where NAME is one that states owner, mode and type in some dialect
//! user.containers.override_stat  "uid:gid:0mode:type": owner, mode and type, where the upper's
//!                    owner may not set them (containers/storage)
//! ```
//!
//! Invariants: no name beginning with P that the image asks for reaches the disk as it is, and
//! none of ours reaches the image. Nor does a name that states owners: whoever mounts the upper in
//! another dialect, or reads it as a lower, would believe what an ordinary user has set.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
pub(super) use strata_tree::dialect::{Mark, Override, format_kind};
use strata_tree::dialect::{OVERRIDE_STAT, XattrClass};
use strata_tree::xattrs::{self, XattrNames};
use strata_tree::{OverrideStat, Xattr};

use super::descriptor::by_descriptor;
use super::error::{Doing, Error, Result};
use super::inode_bits::{chmod, make_writable};
use super::types::SetMode;

/// Between the prefix and a name that only root may set, or nobody.
const APART: &[u8] = b"strata.x.";
/// The dialect of one upper.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    class: XattrClass,
    /// Only user attributes can be set: the others are kept under other names.
    apart: bool,
}

impl Marks {
    pub(super) fn new(user: bool, apart: bool) -> Self {
        Self { class: if user { XattrClass::User } else { XattrClass::Trusted }, apart }
    }

    /// Whether owners, bits and types are kept apart from the upper's inodes.
    pub(super) fn is_apart(self) -> bool {
        self.apart
    }

    /// Whether marks are user attributes.
    pub(super) fn is_user(self) -> bool {
        matches!(self.class, XattrClass::User)
    }

    /// What the names of all marks begin with.
    pub(super) fn prefix(self) -> &'static str {
        self.class.prefix()
    }

    /// Whether an inode has a mark: `names` are those of its attributes.
    pub(super) fn has(self, names: &XattrNames, mark: Mark) -> bool {
        names.has(self.class.name(mark))
    }

    /// A mark's value, asked for only if `names` has it.
    pub(super) fn get_of(
        self,
        fd: impl AsFd,
        names: &XattrNames,
        mark: Mark,
    ) -> Result<Option<Vec<u8>>> {
        if self.has(names, mark) { self.get(fd, mark) } else { Ok(None) }
    }

    /// A mark's value.
    pub(super) fn get(self, fd: impl AsFd, mark: Mark) -> Result<Option<Vec<u8>>> {
        get(&by_descriptor(fd.as_fd()), self.class.name(mark).as_bytes())
    }

    /// Sets a mark. Whoever sets one on an inode that others see has claimed its node.
    pub(super) fn set(self, fd: impl AsFd, mark: Mark, value: &[u8]) -> Result<()> {
        let (name, path) = (self.class.name(mark), by_descriptor(fd.as_fd()));
        let set = || rustix::fs::setxattr(&*path, name, value, XattrFlags::empty());
        self.changed(fd.as_fd(), set)
            .map_err(|errno| Error::attribute(name.as_bytes(), value.len(), errno))
    }

    /// Changes a mark. An inode that its owner may not write takes no user attribute (xattr(7)): if
    /// it is ours, it may be written for that moment.
    fn changed(
        self,
        fd: BorrowedFd<'_>,
        change: impl Fn() -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        match change() {
            Err(Errno::ACCESS) if self.is_user() => {}
            done => return done,
        }
        let perm = make_writable(fd).ok_or(Errno::ACCESS)?;
        let changed = change();
        changed.and(chmod(fd, perm))
    }

    /// Takes a mark away, if it is there.
    pub(super) fn clear(self, fd: impl AsFd, mark: Mark) -> Result<()> {
        let (name, path) = (self.class.name(mark), by_descriptor(fd.as_fd()));
        match self.changed(fd.as_fd(), || rustix::fs::removexattr(&*path, name)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("take away the mark {name}")),
        }
    }

    /// What the image's name is called on disk.
    pub(super) fn escape<'n>(self, name: &'n [u8]) -> Cow<'n, [u8]> {
        let ours = self.class.prefix().as_bytes();
        match self.apart && !name.starts_with(b"user.") || OverrideStat::is_name(name) {
            true => Cow::Owned([ours, APART, name].concat()),
            false => self.class.escape(name),
        }
    }

    /// What a name on disk is called in the image; `None` for ours.
    fn unescape<'n>(self, name: &'n [u8]) -> Option<Cow<'n, [u8]>> {
        let rest = name.strip_prefix(self.class.prefix().as_bytes());
        match rest.and_then(|rest| rest.strip_prefix(APART)) {
            Some(apart) => Some(Cow::Borrowed(apart)),
            None if OverrideStat::is_name(name) => None,
            None => self.class.unescape(name),
        }
    }

    /// The image's attributes of an inode, sorted by name.
    pub(super) fn all(self, fd: impl AsFd) -> Result<Vec<Xattr>> {
        let mut all = Vec::new();
        for name in names(&fd)?.iter() {
            if let Some(shown) = self.unescape(name)
                && let Some(value) = get(&by_descriptor(fd.as_fd()), name)?
            {
                all.push((shown.into_owned(), value));
            }
        }
        all.sort();
        Ok(all)
    }

    /// One of the image's attributes.
    pub(super) fn value(self, fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let own = self.escape(name);
        // What is not listed under that name is ours.
        match self.unescape(&own) {
            Some(shown) if *shown == *name => get(&by_descriptor(fd.as_fd()), &own),
            _ => Ok(None),
        }
    }

    /// The ACL that a directory gives to what is made in it, if it has one.
    pub(super) fn default_acl(self, fd: impl AsFd) -> Result<Vec<Xattr>> {
        const NAME: &[u8] = b"system.posix_acl_default";
        let value = get(&by_descriptor(fd.as_fd()), &self.escape(NAME))?;
        Ok(value.map(|value| (NAME.to_vec(), value)).into_iter().collect())
    }

    /// Sets one of the image's attributes.
    pub(super) fn put(self, fd: impl AsFd, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        let flags = match mode {
            SetMode::Either => XattrFlags::empty(),
            SetMode::Create => XattrFlags::CREATE,
            SetMode::Replace => XattrFlags::REPLACE,
        };
        rustix::fs::setxattr(by_descriptor(fd.as_fd()), &*self.escape(name), value, flags)
            .map_err(Error::Refused)
    }

    /// Removes one of the image's attributes. `ENODATA`.
    pub(super) fn remove(self, fd: impl AsFd, name: &[u8]) -> Result<()> {
        rustix::fs::removexattr(by_descriptor(fd.as_fd()), &*self.escape(name))
            .map_err(Error::Refused)
    }
}

/// Whether a directory's file system has attributes of users and none that only root may set:
/// NFS, some FUSE file systems, overlayfs before Linux 6.7.
pub(super) fn only_users(dir: impl AsFd) -> bool {
    let path = by_descriptor(dir.as_fd());
    let lacks = |class: XattrClass| {
        let mut room = [0_u8; 0];
        let answer = rustix::fs::getxattr(&path, class.name(Mark::Opaque), &mut room[..]);
        answer == Err(Errno::OPNOTSUPP)
    };
    lacks(XattrClass::Trusted) && !lacks(XattrClass::User)
}

/// The value of an attribute as it is on disk.
pub(super) fn raw_value(fd: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    get(&by_descriptor(fd.as_fd()), name.as_bytes())
}

fn get(path: &Path, name: &[u8]) -> Result<Option<Vec<u8>>> {
    xattrs::value(|room| rustix::fs::getxattr(path, name, room))
        .doing(|| format!("read {}", String::from_utf8_lossy(name)))
}

/// The names of an inode's attributes, as on disk.
pub(super) fn names(fd: impl AsFd) -> Result<XattrNames> {
    let path = by_descriptor(fd.as_fd());
    XattrNames::read(|room| rustix::fs::listxattr(&path, room))
        .doing(|| "list attributes".to_owned())
}

/// What `user.containers.override_stat` says of an inode.
pub(super) fn stated(fd: impl AsFd) -> Result<Option<Override>> {
    let text = get(&by_descriptor(fd.as_fd()), OVERRIDE_STAT.as_bytes())?;
    Ok(text.and_then(|text| Override::parse(&text)))
}

/// Writes it.
pub(super) fn state(fd: impl AsFd, stated: Override) -> Result<()> {
    let (path, text) = (by_descriptor(fd.as_fd()), stated.format());
    rustix::fs::setxattr(path, OVERRIDE_STAT, text.as_bytes(), XattrFlags::empty())
        .doing(|| format!("set {OVERRIDE_STAT}"))
}

/// Whether a node of the upper that is known says that it is protected.
#[derive(Debug, Default)]
pub(super) struct Met(AtomicBool);

impl Met {
    /// Notes that a protected node was met.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_and_of_the_image_are_told_apart() {
        for (user, apart) in [(false, false), (true, false), (true, true)] {
            let marks = Marks::new(user, apart);
            assert_eq!(marks.unescape(marks.class.name(Mark::Opaque).as_bytes()), None);
            for name in OverrideStat::NAMES {
                assert_eq!(marks.unescape(name.as_bytes()), None);
            }
            for name in [
                &b"user.a"[..],
                b"security.capability",
                b"trusted.overlay.opaque",
                b"trusted.overlay.overlay.x",
                b"user.overlay.opaque",
                OVERRIDE_STAT.as_bytes(),
                b"user.fuseoverlayfs.override_stat",
            ] {
                let shown = marks.escape(name);
                assert!(!OverrideStat::is_name(&shown));
                assert_eq!(marks.unescape(&shown).as_deref(), Some(name));
            }
        }
    }
}
