//! The ioctl by which a file is sealed with fs-verity (Linux,
//! Documentation/filesystems/fsverity.rst).
//!
//! Invariant: the form is always the same, sha256 over blocks of [`VERITY_BLOCK`] bytes without a
//! salt, so a file has one fs-verity digest.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// Bytes of a block of the Merkle tree.
pub const VERITY_BLOCK: usize = 4096;

/// Bytes of `struct fsverity_enable_arg`.
const ARGUMENT: usize = 128;
/// `FS_IOC_ENABLE_VERITY`.
const ENABLE: Opcode = opcode::write::<[u8; ARGUMENT]>(b'f', 133);

/// Seals a file that is open for reading: from then on nobody can write to it, and the kernel
/// compares what it reads with the Merkle tree. One that is sealed stays as it is.
///
/// # Errors
/// `EOPNOTSUPP`, `ENOTTY`: the kernel or the file system has no fs-verity; `ETXTBSY`: somebody has
/// it open for writing; `EACCES`, `EROFS`, `ENOSPC`.
pub fn seal_with_verity(file: impl AsFd) -> Result<()> {
    let mut argument = [0; ARGUMENT];
    // version, hash_algorithm (FS_VERITY_HASH_ALG_SHA256), block_size, salt_size; no salt and no
    // signature follow.
    for (at, number) in [1, 1, VERITY_BLOCK as u32, 0].into_iter().enumerate() {
        argument[at * 4..at * 4 + 4].copy_from_slice(&number.to_ne_bytes());
    }
    // SAFETY: ENABLE names a structure of ARGUMENT bytes, which the kernel reads and does not keep;
    // the addresses in it are null and their lengths 0.
    let sealed = unsafe { ioctl(file, Setter::<ENABLE, [u8; ARGUMENT]>::new(argument)) };
    match sealed {
        Err(Errno::EXIST) => Ok(()),
        sealed => sealed,
    }
}
