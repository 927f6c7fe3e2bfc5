//! Extended attributes of the upper: our own marks, the image's, and how they are told apart.
//!
//! ```text
//! P = trusted.overlay.   or   user.overlay.      (overlayfs.rst, "userxattr")
//! P opaque           "y": the lower's children do not show
//! P redirect         "/a/b": the lower of this directory, or of this metacopy, is there
//! P metacopy         present: the content is the lower's
//! P strata.origin    "<number>": the lower node that was copied up, whose number is kept
//! P strata.device    "char-0-0": a character device 0:0 that is no whiteout
//! P overlay.X        what the image itself calls P X (overlayfs.rst, "Nested overlayfs mounts")
//! P strata.x.NAME    the image's NAME, where the upper's owner may set user attributes only
//! user.containers.override_stat  "uid:gid:0mode:type": owner, mode and type, where the upper's
//!                    owner may not set them (containers/storage)
//! ```
//!
//! Invariants: no name beginning with P that the image asks for reaches the disk as it is, and
//! none of ours reaches the image.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use strata_tree::{Device, Kind, Xattr};

use super::error::{Doing, Error, Result};
use super::types::SetMode;
use super::upper::by_descriptor;

/// Owner, mode and type of an inode that keeps them apart.
pub(super) const OVERRIDE: &[u8] = b"user.containers.override_stat";
/// Between the prefix and a name that only root may set.
const APART: &[u8] = b"strata.x.";
/// The largest value that Linux keeps (`XATTR_SIZE_MAX`), in bytes.
const VALUE_MAX: usize = 65536;

/// One of our marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Opaque,
    Redirect,
    Metacopy,
    Origin,
    Device,
}

/// The dialect of one upper.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    prefix: &'static str,
    /// Only user attributes can be set: the others are kept under other names.
    apart: bool,
}

impl Marks {
    pub(super) fn new(user: bool, apart: bool) -> Self {
        Self { prefix: if user { "user.overlay." } else { "trusted.overlay." }, apart }
    }

    fn name(self, mark: Mark) -> String {
        let name = match mark {
            Mark::Opaque => "opaque",
            Mark::Redirect => "redirect",
            Mark::Metacopy => "metacopy",
            Mark::Origin => "strata.origin",
            Mark::Device => "strata.device",
        };
        format!("{}{name}", self.prefix)
    }

    /// A mark's value.
    pub(super) fn get(self, fd: impl AsFd, mark: Mark) -> Result<Option<Vec<u8>>> {
        get(&by_descriptor(fd.as_fd()), self.name(mark).as_bytes())
    }

    /// Sets a mark.
    pub(super) fn set(self, fd: impl AsFd, mark: Mark, value: &[u8]) -> Result<()> {
        let name = self.name(mark);
        rustix::fs::setxattr(by_descriptor(fd.as_fd()), &name, value, XattrFlags::empty())
            .doing(|| format!("mark with {name}"))
    }

    /// Takes a mark away, if it is there.
    pub(super) fn clear(self, fd: impl AsFd, mark: Mark) -> Result<()> {
        let name = self.name(mark);
        match rustix::fs::removexattr(by_descriptor(fd.as_fd()), &name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("take away the mark {name}")),
        }
    }

    /// What the image's name is called on disk.
    pub(super) fn escape(self, name: &[u8]) -> Vec<u8> {
        match name.strip_prefix(self.prefix.as_bytes()) {
            Some(rest) => [self.prefix.as_bytes(), b"overlay.", rest].concat(),
            None if self.apart && !name.starts_with(b"user.") => {
                [self.prefix.as_bytes(), APART, name].concat()
            }
            None => name.to_vec(),
        }
    }

    /// What a name on disk is called in the image; `None` for ours.
    fn unescape(self, name: &[u8]) -> Option<Vec<u8>> {
        match name.strip_prefix(self.prefix.as_bytes()) {
            Some(rest) => match rest.strip_prefix(APART) {
                Some(name) => Some(name.to_vec()),
                None => Some([self.prefix.as_bytes(), rest.strip_prefix(b"overlay.")?].concat()),
            },
            None if name == OVERRIDE => None,
            None => Some(name.to_vec()),
        }
    }

    /// The image's attributes of an inode, sorted by name.
    pub(super) fn all(self, fd: impl AsFd) -> Result<Vec<Xattr>> {
        let path = by_descriptor(fd.as_fd());
        let mut all = Vec::new();
        for name in names(&path)? {
            if let Some(shown) = self.unescape(&name)
                && let Some(value) = get(&path, &name)?
            {
                all.push((shown, value));
            }
        }
        all.sort();
        Ok(all)
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
        rustix::fs::setxattr(by_descriptor(fd.as_fd()), self.escape(name), value, flags)
            .map_err(Error::Refused)
    }

    /// Removes one of the image's attributes. `ENODATA`.
    pub(super) fn remove(self, fd: impl AsFd, name: &[u8]) -> Result<()> {
        rustix::fs::removexattr(by_descriptor(fd.as_fd()), self.escape(name))
            .map_err(Error::Refused)
    }
}

fn get(path: &Path, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut room = 256;
    loop {
        let mut value = vec![0; room];
        match rustix::fs::getxattr(path, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if room < VALUE_MAX => room = VALUE_MAX,
            Err(errno) => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(errno).doing(|| format!("read {name}"));
            }
        }
    }
}

fn names(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut room = 1024;
    loop {
        let mut names = vec![0; room];
        match rustix::fs::listxattr(path, &mut names[..]) {
            Ok(len) => {
                names.truncate(len);
                let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if room < VALUE_MAX => room = VALUE_MAX,
            Err(errno) => return Err(errno).doing(|| "list attributes".to_owned()),
        }
    }
}

/// Owner, permission bits and type, as `user.containers.override_stat` keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) perm: u16,
    /// `None`: the inode's own.
    pub(super) kind: Option<Kind>,
}

impl Override {
    /// Reads it off an inode.
    pub(super) fn of(fd: impl AsFd) -> Result<Option<Self>> {
        let Some(text) = get(&by_descriptor(fd.as_fd()), OVERRIDE)? else { return Ok(None) };
        Ok(std::str::from_utf8(&text).ok().and_then(Self::parse))
    }

    /// Writes it to an inode.
    pub(super) fn write(self, fd: impl AsFd) -> Result<()> {
        let text = self.format();
        rustix::fs::setxattr(
            by_descriptor(fd.as_fd()),
            OVERRIDE,
            text.as_bytes(),
            XattrFlags::empty(),
        )
        .doing(|| "set user.containers.override_stat".to_owned())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let perm = u16::from_str_radix(parts.next()?, 8).ok()? & 0o7777;
        let kind = match parts.next() {
            Some(kind) => parse_kind(kind)?,
            None => None,
        };
        Some(Self { uid, gid, perm, kind })
    }

    fn format(self) -> String {
        let kind = self.kind.map_or("file".to_owned(), format_kind);
        format!("{}:{}:{:04o}:{kind}", self.uid, self.gid, self.perm)
    }
}

/// The type of a real device 0:0, or of anything in `override_stat`.
pub(super) fn parse_kind(text: &str) -> Option<Option<Kind>> {
    let device = |numbers: &str| {
        let (major, minor) = numbers.split_once('-')?;
        Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    Some(match text {
        "file" => None,
        "dir" => Some(Kind::Directory),
        "symlink" => Some(Kind::Symlink),
        "pipe" => Some(Kind::Fifo),
        "socket" => Some(Kind::Socket),
        _ => match text.split_once('-')? {
            ("block", numbers) => Some(Kind::BlockDevice(device(numbers)?)),
            ("char", numbers) => Some(Kind::CharDevice(device(numbers)?)),
            _ => return None,
        },
    })
}

/// The other way round.
pub(super) fn format_kind(kind: Kind) -> String {
    match kind {
        Kind::Regular => "file".to_owned(),
        Kind::Directory => "dir".to_owned(),
        Kind::Symlink => "symlink".to_owned(),
        Kind::Fifo => "pipe".to_owned(),
        Kind::Socket => "socket".to_owned(),
        Kind::BlockDevice(Device { major, minor }) => format!("block-{major}-{minor}"),
        Kind::CharDevice(Device { major, minor }) => format!("char-{major}-{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn override_stat_is_read_as_it_is_written() {
        let device = Kind::CharDevice(Device { major: 5, minor: 1 });
        for kind in [None, Some(Kind::Directory), Some(Kind::Fifo), Some(device)] {
            let stat = Override { uid: 1000, gid: 5, perm: 0o4755, kind };
            assert_eq!(Override::parse(&stat.format()), Some(stat));
        }
        let podman = Override { uid: 0, gid: 42, perm: 0o2755, kind: None };
        assert_eq!(Override::parse("0:42:02755"), Some(podman));
        assert_eq!(Override::parse("0:42"), None);
    }

    #[test]
    fn names_of_ours_and_of_the_image_are_told_apart() {
        for (user, apart) in [(false, false), (true, false), (true, true)] {
            let marks = Marks::new(user, apart);
            assert_eq!(marks.unescape(marks.name(Mark::Opaque).as_bytes()), None);
            assert_eq!(marks.unescape(OVERRIDE), None);
            for name in [
                &b"user.a"[..],
                b"security.capability",
                b"trusted.overlay.opaque",
                b"trusted.overlay.overlay.x",
                b"user.overlay.opaque",
            ] {
                assert_eq!(marks.unescape(&marks.escape(name)), Some(name.to_vec()));
            }
        }
    }
}
