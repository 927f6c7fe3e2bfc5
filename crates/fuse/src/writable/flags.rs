//! Modes, flags and times of the kernel's calls, as the union's types.
//!
//! Invariant: a combination that means nothing is refused, never guessed.

use fuser::{OpenAccMode, OpenFlags, RenameFlags, TimeOrNow};
use rustix::fs::OFlags;
use strata_tree::Kind;
use strata_union::writable::{Changes, OpenHow, RenameMode, SetMode, SetTime};

use super::Result;
use crate::attr::{decode_device, time_from};
use crate::errno::RequestError;

/// `S_IFMT`.
const TYPE_BITS: u32 = 0o170_000;

/// The 12 permission bits of a mode.
pub(super) fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// What mknod(2) makes. No type bits: a regular file.
pub(super) fn kind(mode: u32, rdev: u32) -> Result<Kind> {
    const REGULAR: u32 = Kind::Regular.mode_bits();
    const FIFO: u32 = Kind::Fifo.mode_bits();
    const SOCKET: u32 = Kind::Socket.mode_bits();
    const CHARACTER: u32 = 0o020_000;
    const BLOCK: u32 = 0o060_000;
    match mode & TYPE_BITS {
        0 | REGULAR => Ok(Kind::Regular),
        FIFO => Ok(Kind::Fifo),
        SOCKET => Ok(Kind::Socket),
        CHARACTER => Ok(Kind::CharDevice(decode_device(rdev))),
        BLOCK => Ok(Kind::BlockDevice(decode_device(rdev))),
        _ => Err(RequestError::Flags),
    }
}

/// How open(2) opens. O_RDONLY|O_TRUNC empties a file that the caller may write (open(2)).
pub(super) fn open_how(flags: OpenFlags) -> OpenHow {
    let has = |flag: OFlags| flags.0 & flag.bits().cast_signed() != 0;
    let truncate = has(OFlags::TRUNC);
    let write = truncate || flags.acc_mode() != OpenAccMode::O_RDONLY;
    // O_SYNC is O_DSYNC and one bit more.
    let synced = write && has(OFlags::DSYNC);
    let (append, unseen) = (has(OFlags::APPEND), has(OFlags::NOATIME));
    OpenHow { write, truncate, append, synced, unseen }
}

/// What renameat2(2) is to do with the target, and whether a whiteout stays at the source.
pub(super) fn rename(flags: RenameFlags) -> Result<(RenameMode, bool)> {
    let whiteout = flags.contains(RenameFlags::RENAME_WHITEOUT);
    let rest = flags.difference(RenameFlags::RENAME_WHITEOUT);
    if rest.is_empty() {
        Ok((RenameMode::Replace, whiteout))
    } else if rest == RenameFlags::RENAME_NOREPLACE {
        Ok((RenameMode::NoReplace, whiteout))
    } else if rest == RenameFlags::RENAME_EXCHANGE && !whiteout {
        Ok((RenameMode::Exchange, false))
    } else {
        Err(RequestError::Flags)
    }
}

/// How setxattr(2) meets an attribute that exists.
pub(super) fn set_mode(flags: i32) -> Result<SetMode> {
    match flags {
        0 => Ok(SetMode::Either),
        1 => Ok(SetMode::Create),
        2 => Ok(SetMode::Replace),
        _ => Err(RequestError::Flags),
    }
}

/// Whether lseek(2) looks for a hole; the kernel answers the other kinds by itself.
pub(super) fn seeks_hole(whence: i32) -> Result<bool> {
    match whence {
        3 => Ok(false),
        4 => Ok(true),
        _ => Err(RequestError::Flags),
    }
}

/// What SETATTR asks for; of the size also whether it comes with an open file.
pub(super) fn changes(
    mode: Option<u32>,
    (uid, gid): (Option<u32>, Option<u32>),
    size: (Option<u64>, bool),
    (atime, mtime): (Option<TimeOrNow>, Option<TimeOrNow>),
) -> Changes {
    let time = |time: TimeOrNow| match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(time_from(time)),
    };
    Changes {
        perm: mode.map(perm),
        uid,
        gid,
        size: size.0,
        atime: atime.map(time),
        mtime: mtime.map(time),
        held: size.0.is_some() && size.1,
        forced: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_tree::Device;

    #[test]
    fn renames_mean_one_thing_or_are_refused() {
        let read = |bits| rename(RenameFlags::from_bits_retain(bits)).ok();
        let wanted = [
            (0, Some((RenameMode::Replace, false))),
            (1, Some((RenameMode::NoReplace, false))),
            (2, Some((RenameMode::Exchange, false))),
            (3, None),
            (4, Some((RenameMode::Replace, true))),
            (5, Some((RenameMode::NoReplace, true))),
            (6, None),
            (7, None),
            (8, None),
        ];
        for (bits, want) in wanted {
            assert_eq!(read(bits), want, "{bits}");
        }
    }

    #[test]
    fn nodes_are_made_by_their_type_bits() {
        assert_eq!(kind(0o644, 0).unwrap(), Kind::Regular);
        assert_eq!(kind(0o100_644, 0).unwrap(), Kind::Regular);
        let null = Device { major: 1, minor: 3 };
        assert_eq!(kind(0o020_666, 0x103).unwrap(), Kind::CharDevice(null));
        assert_eq!(kind(0o060_666, 0x103).unwrap(), Kind::BlockDevice(null));
        assert_eq!(kind(0o010_666, 0).unwrap(), Kind::Fifo);
        assert_eq!(kind(0o140_666, 0).unwrap(), Kind::Socket);
        assert!(kind(0o040_755, 0).is_err());
        assert!(kind(0o120_777, 0).is_err());
    }

    #[test]
    fn opening_to_empty_is_opening_to_write() {
        let how = |flags: OFlags| open_how(OpenFlags(flags.bits().cast_signed()));
        let (read, write) = (OpenHow::default(), OpenHow { write: true, ..OpenHow::default() });
        assert_eq!(how(OFlags::RDONLY), read);
        assert_eq!(how(OFlags::RDONLY | OFlags::SYNC), read);
        assert_eq!(how(OFlags::TRUNC), OpenHow { truncate: true, ..write });
        assert_eq!(how(OFlags::WRONLY), write);
        assert_eq!(how(OFlags::RDWR | OFlags::APPEND), OpenHow { append: true, ..write });
        assert_eq!(how(OFlags::NOATIME), OpenHow { unseen: true, ..read });
        assert_eq!(how(OFlags::WRONLY | OFlags::DSYNC), OpenHow { synced: true, ..write });
        assert_eq!(how(OFlags::RDWR | OFlags::SYNC), OpenHow { synced: true, ..write });
    }
}
