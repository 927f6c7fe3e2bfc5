//! The flags of an inode, as lsattr(1) and chattr(1) know them.
//!
//! The kernel has two forms of them: `FS_IOC_GETFLAGS` is one number (ioctl_iflags(2)),
//! `FS_IOC_FSGETXATTR` a structure with XFS' numbers for the same flags, and project and extent
//! sizes beside them (ioctl_xfs_fsgetxattr(2)). A caller that sets the first is asked for the
//! second.
//! `lsattr -v` asks for the generation as well.
//!
//! Invariants: bits that have no name here are handed on as they are; the calls that rustix
//! does not have are the one place here that is `unsafe`.
#![allow(unsafe_code)]

use std::ffi::c_long;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, IFlags, Mode, OFlags, openat};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl, opcode};

/// Bytes of `struct fsxattr`, whose first four are its flags.
const EXTENDED: usize = 28;
/// `FS_IOC_FSGETXATTR`.
const GET: Opcode = opcode::read::<[u8; EXTENDED]>(b'X', 31);
/// `FS_IOC_FSSETXATTR`.
const SET: Opcode = opcode::write::<[u8; EXTENDED]>(b'X', 32);

/// `FS_IOC_GETVERSION`: a `long` is what the number says, an `int` is written.
const VERSION: Opcode = opcode::read::<c_long>(b'v', 1);

/// Which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagsForm {
    /// `FS_IOC_GETFLAGS`.
    Plain,
    /// `FS_IOC_FSGETXATTR`.
    Extended,
}

/// The flags of one inode, in one of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InodeFlags {
    /// `FS_*_FL`.
    Plain(u32),
    /// `struct fsxattr`.
    Extended([u8; EXTENDED]),
}

/// The flags by which an inode refuses to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// `a`: it can only grow.
    pub append: bool,
    /// `i`: it cannot be changed at all.
    pub immutable: bool,
}

impl Protection {
    /// Whether it refuses anything.
    pub fn any(self) -> bool {
        self.append || self.immutable
    }

    /// What `overlay.protattr` says (overlayfs.rst): letters up to the first that is not known.
    pub fn parse(text: &[u8]) -> Self {
        let mut found = Self::default();
        for letter in text {
            match letter {
                b'a' => found.append = true,
                b'i' => found.immutable = true,
                _ => break,
            }
        }
        found
    }

    /// The same, to be written.
    pub fn format(self) -> &'static [u8] {
        match (self.append, self.immutable) {
            (true, true) => b"ai",
            (true, false) => b"a",
            (false, true) => b"i",
            (false, false) => b"",
        }
    }
}

impl FlagsForm {
    /// Bytes of an answer.
    pub const fn size(self) -> usize {
        match self {
            Self::Plain => 4,
            Self::Extended => EXTENDED,
        }
    }

    /// No flags.
    pub const fn none(self) -> InodeFlags {
        match self {
            Self::Plain => InodeFlags::Plain(0),
            Self::Extended => InodeFlags::Extended([0; EXTENDED]),
        }
    }

    /// The flags that bytes are; `None` where they are too few or too many.
    pub fn parse(self, bytes: &[u8]) -> Option<InodeFlags> {
        match self {
            Self::Plain => Some(InodeFlags::Plain(u32::from_ne_bytes(bytes.try_into().ok()?))),
            Self::Extended => Some(InodeFlags::Extended(bytes.try_into().ok()?)),
        }
    }

    /// The flags of an inode that `fd` is open on, with `O_PATH` or for more. `ENOTTY` where it or
    /// its file system has none.
    ///
    /// # Errors
    /// `EACCES` where it may not be read.
    pub fn of(self, fd: impl AsFd) -> Result<InodeFlags> {
        let file = opened(fd)?;
        let read = match self {
            Self::Plain => rustix::fs::ioctl_getflags(file).map(|f| InodeFlags::Plain(f.bits())),
            Self::Extended => {
                // SAFETY: the opcode says, and the kernel writes, the size of the array; any bytes
                // are one.
                let read = unsafe { ioctl(file, Getter::<GET, [u8; EXTENDED]>::new()) };
                read.map(InodeFlags::Extended)
            }
        };
        read.map_err(unknown)
    }
}

impl InodeFlags {
    /// The bits that mean: append only, immutable, written at once, without access times.
    const fn letters(self) -> [u32; 4] {
        match self {
            Self::Plain(_) => [0x20, 0x10, 0x08, 0x80],
            Self::Extended(_) => [0x10, 0x08, 0x20, 0x40],
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::Plain(bits) => bits,
            Self::Extended([a, b, c, d, ..]) => u32::from_ne_bytes([a, b, c, d]),
        }
    }

    fn with_bits(self, bits: u32) -> Self {
        match self {
            Self::Plain(_) => Self::Plain(bits),
            Self::Extended(mut bytes) => {
                bytes[..4].copy_from_slice(&bits.to_ne_bytes());
                Self::Extended(bytes)
            }
        }
    }

    /// Which form this is.
    pub const fn form(self) -> FlagsForm {
        match self {
            Self::Plain(_) => FlagsForm::Plain,
            Self::Extended(_) => FlagsForm::Extended,
        }
    }

    /// Whether the inode refuses changes.
    pub fn protection(self) -> Protection {
        let ([append, immutable, ..], bits) = (self.letters(), self.bits());
        Protection { append: bits & append != 0, immutable: bits & immutable != 0 }
    }

    /// These flags with exactly the protection `wanted`.
    pub fn with_protection(self, wanted: Protection) -> Self {
        let ([append, immutable, ..], bits) = (self.letters(), self.bits());
        let set = |on: bool, bit: u32| if on { bit } else { 0 };
        let rest = bits & !(append | immutable);
        self.with_bits(rest | set(wanted.append, append) | set(wanted.immutable, immutable))
    }

    /// Whether it has flags that a copy-up takes along, as overlayfs does: `S` and `A`.
    pub fn has_copied(self) -> bool {
        let [.., synced, untouched] = self.letters();
        self.bits() & (synced | untouched) != 0
    }

    /// These flags, but `S` and `A` as `other` has them. Both are in the same form.
    pub fn with_copied(self, other: Self) -> Self {
        let [.., synced, untouched] = self.letters();
        let copied = synced | untouched;
        self.with_bits(self.bits() & !copied | other.bits() & copied)
    }

    /// These flags, and those of `now` that `shown` lacks: a caller that chose these by what it was
    /// shown did not mean to clear the others. All three are in the same form.
    pub fn with_unseen(self, shown: Self, now: Self) -> Self {
        self.with_bits(self.bits() | now.bits() & !shown.bits())
    }

    /// `now`, changed only where these flags differ from `shown`.
    pub fn difference_on(self, shown: Self, now: Self) -> Self {
        self.with_bits(now.bits() ^ shown.bits() ^ self.bits())
    }

    /// The bytes of the answer to a caller that asked for this form.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Plain(bits) => bits.to_ne_bytes().to_vec(),
            Self::Extended(bytes) => bytes.to_vec(),
        }
    }

    /// Gives an inode these flags. `fd` as for [`FlagsForm::of`].
    ///
    /// # Errors
    /// `ENOTTY`, `EOPNOTSUPP`, `EINVAL` for what its file system does not have; `EPERM`.
    pub fn set(self, fd: impl AsFd) -> Result<()> {
        let file = opened(fd)?;
        match self {
            Self::Plain(bits) => rustix::fs::ioctl_setflags(file, IFlags::from_bits_retain(bits)),
            // SAFETY: the kernel reads the array, of the size that the opcode says.
            Self::Extended(bytes) => unsafe {
                ioctl(file, Setter::<SET, [u8; EXTENDED]>::new(bytes))
            },
        }
    }
}

/// The generation of an inode (`lsattr -v`): what distinguishes it from a later inode of the same
/// number. `fd` as for [`FlagsForm::of`]. `ENOTTY` where its file system does not tell.
///
/// # Errors
/// `EACCES` where it may not be read.
pub fn inode_version(fd: impl AsFd) -> Result<u32> {
    let file = opened(fd)?;
    let mut room = [0_u32; 2];
    // SAFETY: 4 bytes are written, or 8 as the opcode says; there are 8, and any bytes are numbers.
    unsafe { ioctl(file, Updater::<VERSION, [u32; 2]>::new(&mut room)) }.map_err(unknown)?;
    Ok(room[0])
}

/// The inode, opened again for an ioctl(2), which a descriptor with `O_PATH` does not take.
fn opened(fd: impl AsFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Every way in which file systems say that they know no flags is `ENOTTY`.
fn unknown(errno: Errno) -> Errno {
    match errno {
        // NTFS-3G says EINVAL.
        Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS => Errno::NOTTY,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same_and_keep_what_has_no_name() {
        let mut bytes = [0; EXTENDED];
        bytes[..4].copy_from_slice(&(0x8000_0000_u32 | 0x10).to_ne_bytes());
        bytes[12] = 7; // The project.
        let append = Protection { append: true, immutable: false };
        let both = Protection { append: true, immutable: true };
        for flags in [InodeFlags::Plain(0x8000_0000 | 0x20), InodeFlags::Extended(bytes)] {
            assert_eq!(flags.protection(), append);
            assert_eq!(flags.with_protection(both).protection(), both);
            let none = flags.with_protection(Protection::default());
            assert!(!none.protection().any());
            assert_eq!(none.bits(), 0x8000_0000);
            assert_eq!(none.with_protection(append), flags);
        }
        let plain = |bits| InodeFlags::Plain(bits);
        assert_eq!(plain(0x8_0000).with_copied(plain(0x30 | 0x80)), plain(0x8_0080));
        assert_eq!(plain(0x8_0080).with_copied(plain(0x08)), plain(0x8_0008));
        // Shown was d, A is to be added; the inode has extents and no d.
        let (asked, shown, now) = (plain(0xC0), plain(0x40), plain(0x8_0000));
        assert_eq!(asked.with_unseen(shown, now), plain(0x8_00C0));
        assert_eq!(asked.difference_on(shown, now), plain(0x8_0080));
        assert!(plain(0x80).has_copied() && !plain(0x30).has_copied());
    }

    #[test]
    fn protection_is_read_as_overlayfs_reads_it() {
        for (text, append, immutable) in [
            (&b""[..], false, false),
            (b"i", false, true),
            (b"ai", true, true),
            (b"axi", true, false),
        ] {
            assert_eq!(Protection::parse(text), Protection { append, immutable });
        }
        for text in [&b""[..], b"a", b"i", b"ai"] {
            assert_eq!(Protection::parse(text).format(), text);
        }
    }
}
