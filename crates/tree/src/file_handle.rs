//! File handles: what names an inode for ever (name_to_handle_at(2)).
//!
//! A handle holds the inode's number and its generation, which no later inode of that number has;
//! with the identity of the file system it names one inode of all. A tree that never changes
//! makes handles of its own out of its digest.
//!
//! As text, for marks: `<file system>:<type>:<bytes>`, all in lower-case hexadecimal.
//!
//! Invariants: two inodes never have equal handles; the calls are the one place here that is
//! `unsafe`.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

/// The most bytes of a handle (`MAX_HANDLE_SZ`).
const MOST: usize = 128;

/// What names one inode. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The file system (`f_fsid` of statvfs(3)), or the digest of an unchanging tree.
    pub(crate) fs: u64,
    /// The form of the bytes, as the file system says.
    pub(crate) form: i32,
    pub(crate) bytes: Vec<u8>,
}

/// Where the inode that a handle names is in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByHandle {
    /// It has this number.
    Node(crate::NodeId),
    /// There is no such inode any more.
    Gone,
    /// The tree cannot tell: the file system has no handles, or the caller may not open by them.
    Unknown,
}

/// As the kernel lays it out; the bytes follow.
#[repr(C)]
struct Raw {
    length: libc::c_uint,
    form: libc::c_int,
    bytes: [u8; MOST],
}

impl FileHandle {
    /// The handle of what `fd` is open on, which may be open with `O_PATH`. `None` where the file
    /// system has no handles: FUSE, overlayfs without `nfs_export`, some network file systems.
    ///
    /// # Errors
    /// Any other error of the file system.
    pub fn of(fd: impl AsFd) -> Result<Option<Self>> {
        let mut raw = Raw { length: MOST as libc::c_uint, form: 0, bytes: [0; MOST] };
        let mut mount = 0;
        // SAFETY: `raw` is laid out as `struct file_handle` with room for `length` bytes, and all
        // pointers are to live objects of this frame; the path is empty and ends with NUL.
        let done = unsafe {
            libc::name_to_handle_at(
                fd.as_fd().as_raw_fd(),
                c"".as_ptr(),
                (&raw mut raw).cast(),
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        if done != 0 {
            return match last_error() {
                Errno::OPNOTSUPP | Errno::NOSYS | Errno::OVERFLOW | Errno::PERM => Ok(None),
                errno => Err(errno),
            };
        }
        let fs = rustix::fs::fstatvfs(fd)?.f_fsid;
        let bytes = raw.bytes.get(..raw.length as usize).unwrap_or_default().to_vec();
        Ok(Some(Self { fs, form: raw.form, bytes }))
    }

    /// Opens the inode on the file system of `near`, which is open for reading, with `O_PATH`.
    ///
    /// # Errors
    /// `ESTALE`: there is no such inode any more; `EPERM` without `CAP_DAC_READ_SEARCH` in the
    /// initial user namespace.
    pub fn open(&self, near: impl AsFd) -> Result<OwnedFd> {
        let mut raw = Raw { length: 0, form: self.form, bytes: [0; MOST] };
        let room = raw.bytes.get_mut(..self.bytes.len()).ok_or(Errno::INVAL)?;
        room.copy_from_slice(&self.bytes);
        raw.length = self.bytes.len() as libc::c_uint;
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: `raw` is laid out as `struct file_handle` and holds `length` bytes, which the
        // kernel reads and checks.
        let fd = unsafe {
            libc::open_by_handle_at(near.as_fd().as_raw_fd(), (&raw mut raw).cast(), flags)
        };
        match fd {
            // SAFETY: the kernel has just given this descriptor, and nobody else has it.
            0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(last_error()),
        }
    }

    /// Reads the text of one; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(':');
        let (fs, form, hex) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || hex.len() % 2 != 0 || hex.len() > 2 * MOST || !hex.is_ascii() {
            return None;
        }
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        Some(Self {
            fs: u64::from_str_radix(fs, 16).ok()?,
            form: u32::from_str_radix(form, 16).ok()?.cast_signed(),
            bytes: (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>()?,
        })
    }
}

impl fmt::Display for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}:", self.fs, self.form)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_text_says_it_all() {
        let handle = FileHandle { fs: 0xfedc, form: -1, bytes: vec![0, 1, 0xff] };
        assert_eq!(handle.to_string(), "fedc:ffffffff:0001ff");
        assert_eq!(FileHandle::parse(handle.to_string().as_bytes()), Some(handle));
        for bad in ["", "1", "1:2", "1:2:3", "1:2:33:4", "x:2:33", "1:2:zz", "1:2:é3"] {
            assert_eq!(FileHandle::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_handle_is_of_one_inode_and_dies_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let Some(first) = FileHandle::of(File::open(&path).unwrap()).unwrap() else { return };
        std::fs::hard_link(&path, dir.path().join("same")).unwrap();
        let same = FileHandle::of(File::open(dir.path().join("same")).unwrap()).unwrap();
        assert_eq!(same.as_ref(), Some(&first));
        std::fs::write(dir.path().join("other"), "two").unwrap();
        let other = FileHandle::of(File::open(dir.path().join("other")).unwrap()).unwrap();
        assert_ne!(other.as_ref(), Some(&first));
        let near = File::open(dir.path()).unwrap();
        match first.open(&near).map(drop) {
            Ok(()) => {
                std::fs::remove_file(&path).unwrap();
                std::fs::remove_file(dir.path().join("same")).unwrap();
                assert_eq!(first.open(&near).unwrap_err(), Errno::STALE);
            }
            Err(errno) => assert_eq!(errno, Errno::PERM),
        }
    }
}
