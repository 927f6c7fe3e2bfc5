//! Mounts that the kernel serves by itself: an image of names, and overlayfs above it.
//!
//! ```text
//! image of names (a file)  --EROFS-->  detached mount  \
//! the store's layers/      ---------------------------- }--overlayfs-->  detached mount --> DIR
//! a file that tells        --EROFS-->  detached mount  /
//! whether the mount lives
//! ```
//!
//! Everything is made by file descriptors (fsopen(2), fsconfig(2), fsmount(2)), so no path is
//! resolved twice, and nothing is seen by anybody before [`attach`]: a process that is killed
//! before leaves nothing mounted. EROFS mounts a plain file without a loop device from Linux 6.12
//! on; data-only lowers are in Linux 6.5, by descriptor in 6.13, and in user namespaces in 6.16.
//!
//! Invariant: nothing here decides what is mounted where; an error says what the kernel said.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use strata_tree::dialect::XattrClass;

use crate::error::{Error, Result};

/// Opens an EROFS image as a mount that is attached nowhere, and ends with its last descriptor or
/// with the last overlayfs that uses it.
///
/// # Errors
/// `Mount`: the kernel has no EROFS, does not mount a plain file, or takes the image for damaged;
/// the caller may not mount.
pub fn detached_erofs(image: &File) -> Result<OwnedFd> {
    let context = Context::new("erofs")?;
    // A magic link: it leads to the open file, whatever its path leads to by now.
    context.set("source", &format!("/proc/self/fd/{}", image.as_raw_fd()))?;
    context.flag("ro")?;
    context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// What an overlayfs is made of.
#[derive(Debug, Clone, Copy)]
pub struct OverlayParts<'a> {
    /// The class of the marks that the names have: the caller's user namespace decides.
    pub class: XattrClass,
    /// The merged names: a detached mount.
    pub names: BorrowedFd<'a>,
    /// The data-only lowers, the first one found counts.
    pub data: &'a [BorrowedFd<'a>],
    /// The upper and the work directory; without them the mount is read-only.
    pub upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// Open no content that the names have no fs-verity digest of, or that is not sealed with
    /// fs-verity, or has another digest (`EIO`; overlayfs.rst, "fs-verity support", Linux 6.6).
    pub verity: bool,
    /// What the mount table shows as the source.
    pub source: &'a str,
    /// Honour set-user-id bits.
    pub suid: bool,
    /// Honour devices.
    pub dev: bool,
    /// Allow running programs.
    pub exec: bool,
}

/// Puts overlayfs together, attached nowhere.
///
/// # Errors
/// `Mount`, with what the kernel says of it.
pub fn detached_overlay(parts: &OverlayParts<'_>) -> Result<OwnedFd> {
    let context = Context::new("overlay")?;
    context.set("source", parts.source)?;
    match parts.class {
        // `metacopy` is what refers to contents, and it wants `redirect_dir`. Numbers of the names'
        // file system and of an upper's stay apart by `xino`.
        XattrClass::Trusted => {
            context.set("metacopy", "on")?;
            context.set("redirect_dir", "on")?;
            context.set("xino", "on")?;
        }
        // It excludes these two. From Linux 6.16 on, lowers refer to data-only ones without them.
        XattrClass::User => context.flag("userxattr")?,
    }
    if parts.verity {
        context.set("verity", "require")?;
    }
    // An index would refuse uppers that were begun above another lower, and strata keeps one of
    // its own.
    context.set("index", "off")?;
    context.layer("lowerdir+", parts.names)?;
    for data in parts.data {
        context.layer("datadir+", *data)?;
    }
    if let Some((upper, work)) = parts.upper {
        context.layer("upperdir", upper)?;
        context.layer("workdir", work)?;
    }
    let mut attributes = MountAttrFlags::empty();
    for (attribute, wanted) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, parts.upper.is_none()),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, !parts.suid),
        (MountAttrFlags::MOUNT_ATTR_NODEV, !parts.dev),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, !parts.exec),
    ] {
        attributes.set(attribute, wanted);
    }
    context.mount(attributes)
}

/// Shows a detached mount on a directory, in one step.
///
/// # Errors
/// `Mount`.
pub fn attach(mount: &OwnedFd, directory: &File) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", directory, "", flags)
        .map_err(|source| Error::mount("attaching the mount", source, String::new()))
}

/// A file system that is being configured.
struct Context {
    kind: &'static str,
    fd: OwnedFd,
}

impl Context {
    fn new(kind: &'static str) -> Result<Self> {
        match fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self { kind, fd }),
            Err(Errno::NODEV) => {
                let said = format!("the kernel has no {kind}");
                Err(Error::mount(format!("opening {kind}"), Errno::NODEV, said))
            }
            Err(errno) => Err(Error::mount(format!("opening {kind}"), errno, String::new())),
        }
    }

    fn set(&self, option: &str, value: &str) -> Result<()> {
        fsconfig_set_string(self.fd.as_fd(), option, value)
            .map_err(|errno| self.failed(&format!("{option}={value}"), errno))
    }

    fn flag(&self, option: &str) -> Result<()> {
        fsconfig_set_flag(self.fd.as_fd(), option).map_err(|errno| self.failed(option, errno))
    }

    /// Gives overlayfs a directory: by its descriptor, or where the kernel only takes paths by the
    /// magic link that leads to the descriptor.
    fn layer(&self, option: &str, directory: BorrowedFd<'_>) -> Result<()> {
        match fsconfig_set_fd(self.fd.as_fd(), option, directory) {
            Ok(()) => Ok(()),
            Err(_) => self.set(option, &format!("/proc/self/fd/{}", directory.as_raw_fd())),
        }
    }

    fn mount(self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        fsconfig_create(self.fd.as_fd()).map_err(|errno| self.failed("creating it", errno))?;
        fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.failed("mounting it", errno))
    }

    /// The error of a call, with the lines that the kernel has for this context (fsopen(2)): each
    /// begins with `e `, `w ` or `i `.
    fn failed(&self, what: &str, errno: Errno) -> Error {
        let mut said = Vec::new();
        let mut line = [0; 1024];
        while let Ok(length) = rustix::io::read(&self.fd, &mut line) {
            let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
            if let Some(text) = text.strip_prefix("e ") {
                said.push(text.trim_end().to_owned());
            }
            if length == 0 {
                break;
            }
        }
        Error::mount(format!("{}: {what}", self.kind), errno, said.join("; "))
    }
}
