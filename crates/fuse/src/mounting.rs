//! Getting a FUSE connection and attaching it to a directory.
//!
//! Root makes the mount itself, with descriptors only: the mountpoint is opened once, without
//! following links, and the finished file system is attached to that very directory, so nobody
//! can swap it meanwhile (CVE-2021-30465). An ordinary user asks `fusermount3`, which is
//! started inside the held directory and checks as that user what it mounts on.
//!
//! Invariants: no set-user-id and no devices unless root asked; the mountpoint is a directory; no
//! descriptor is inherited by `fusermount3` but its socket.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::{Error, Result};
use crate::options::MountOptions;
use crate::unmounting::HELPER;

/// A mountpoint, held open.
pub(crate) struct Mountpoint {
    /// Absolute, without links.
    pub(crate) path: PathBuf,
    dir: OwnedFd,
}

/// A connection to the kernel, and what is left to do to make it visible.
pub(crate) struct Connection {
    /// The open FUSE device.
    pub(crate) device: OwnedFd,
    /// A mount that is attached to no directory yet; `None` if `fusermount3` attached it.
    pub(crate) detached: Option<OwnedFd>,
}

impl Mountpoint {
    /// Opens the directory to mount on.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |source: io::Error| Error::Mountpoint { path: path.to_owned(), source };
        let real = path.canonicalize().map_err(fail)?;
        // A link that someone puts in the way after canonicalize is refused here.
        let dir = rustix::fs::openat2(
            CWD,
            &real,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(|errno| fail(errno.into()))?;
        let stat = rustix::fs::fstat(&dir).map_err(|errno| fail(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Error::NotDirectory(path.to_owned()));
        }
        Ok(Self { path: real, dir })
    }

    /// Connects: by ourselves if we may, else through `fusermount3`.
    pub(crate) fn connect(&self, options: &MountOptions) -> Result<Connection> {
        match rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(context) => connect_directly(&context, options),
            Err(Errno::PERM) if options.suid => Err(Error::NeedsRoot("--suid")),
            Err(Errno::PERM) if options.dev => Err(Error::NeedsRoot("--dev")),
            Err(Errno::PERM) if !options.labels.is_empty() => Err(Error::NeedsRoot("a label")),
            Err(Errno::PERM) => self.connect_by_helper(options),
            Err(errno) => Err(kernel("open a FUSE file system")(errno)),
        }
    }

    /// Connects by ourselves, with a detached mount.
    pub(crate) fn connect_alone(&self, options: &MountOptions) -> Result<Connection> {
        match rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(context) => connect_directly(&context, options),
            Err(Errno::PERM) => Err(Error::NeedsRoot("overlayfs above it")),
            Err(errno) => Err(kernel("open a FUSE file system")(errno)),
        }
    }

    /// Makes a detached mount visible at this directory.
    pub(crate) fn attach(&self, detached: &OwnedFd) -> Result<()> {
        rustix::mount::move_mount(
            detached,
            "",
            &self.dir,
            "",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
        .map_err(kernel("attach the mount"))
    }

    fn connect_by_helper(&self, options: &MountOptions) -> Result<Connection> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::Session)?;
        // The socket is its standard input, so no descriptor has to lose its close-on-exec mark.
        // The directory is entered through our descriptor: `.` is the one that we hold.
        let child = Command::new(HELPER)
            .arg("-o")
            .arg(helper_options(options))
            .args(["--", "."])
            .current_dir(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
            .env("_FUSE_COMMFD", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::NoHelper)?;
        let device = receive_device(&ours);
        let output = child.wait_with_output().map_err(Error::NoHelper)?;
        match device {
            Ok(Some(device)) => Ok(Connection { device, detached: None }),
            Ok(None) => {
                let text = String::from_utf8_lossy(&output.stderr);
                Err(Error::Helper(text.trim().trim_start_matches("fusermount3: ").to_owned()))
            }
            Err(error) => Err(Error::Session(error)),
        }
    }
}

fn kernel(what: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Kernel { what, source: errno.into() }
}

fn connect_directly(context: &OwnedFd, options: &MountOptions) -> Result<Connection> {
    let device = File::options().read(true).write(true).open("/dev/fuse").map_err(Error::Device)?;
    let setting = kernel("set a mount option");
    let strings = [
        ("source", options.fsname.clone()),
        ("subtype", options.subtype.clone()),
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", rustix::process::getuid().as_raw().to_string()),
        ("group_id", rustix::process::getgid().as_raw().to_string()),
    ];
    let labels = options.labels.iter().map(|(key, value)| (*key, value.clone()));
    for (key, value) in strings.into_iter().chain(labels) {
        rustix::mount::fsconfig_set_string(context, key, value.as_str()).map_err(&setting)?;
    }
    let flags = [
        ("ro", options.read_only),
        ("allow_other", options.allow_other || options.allow_root),
        ("default_permissions", options.default_permissions),
    ];
    for (key, _) in flags.iter().filter(|(_, wanted)| *wanted) {
        rustix::mount::fsconfig_set_flag(context, *key).map_err(&setting)?;
    }
    rustix::mount::fsconfig_create(context).map_err(kernel("create the mount"))?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOATIME, !options.atime);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !options.suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !options.dev);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !options.exec);
    let detached = rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(kernel("create the mount"))?;
    Ok(Connection { device: device.into(), detached: Some(detached) })
}

/// `fusermount3` adds nosuid and nodev by itself for an ordinary user; we say them anyway.
fn helper_options(options: &MountOptions) -> String {
    // A comma would begin another option.
    let plain = |text: &str| text.replace([',', '\\', '\n'], "_");
    let (fsname, subtype) = (plain(&options.fsname), plain(&options.subtype));
    let write = if options.read_only { "ro" } else { "rw" };
    let mut text = format!("{write},nosuid,nodev,fsname={fsname},subtype={subtype}");
    for (name, wanted) in [
        ("noexec", !options.exec),
        ("noatime", !options.atime),
        // The kernel knows no allow_root: the session refuses everyone else.
        ("allow_other", options.allow_other || options.allow_root),
        ("default_permissions", options.default_permissions),
    ] {
        if wanted {
            text.push(',');
            text.push_str(name);
        }
    }
    text
}

/// The FUSE device that `fusermount3` sends; `None` if it ended without sending one.
fn receive_device(mut socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if received.bytes > 0 && device.is_none() {
        // Something else was said: wait for the end, the reason is on its standard error.
        let _ = socket.read(&mut byte)?;
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_cannot_smuggle_options_in() {
        let options = MountOptions { fsname: "x,suid,dev".to_owned(), ..MountOptions::default() };
        let text = helper_options(&options);
        assert_eq!(text, "ro,nosuid,nodev,fsname=x_suid_dev,subtype=strata");
    }

    #[test]
    fn only_directories_are_mountpoints() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Mountpoint::open(file.path());
        assert!(matches!(refused, Err(Error::NotDirectory(_))));
        let absent = Mountpoint::open(&file.path().join("x"));
        assert!(matches!(absent, Err(Error::Mountpoint { .. })));
    }
}
