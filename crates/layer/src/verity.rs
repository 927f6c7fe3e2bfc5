//! The fs-verity digest of a file's bytes, without fs-verity.
//!
//! ```text
//! blocks of 4096 bytes, the last one filled with zeros     sha256 of each:
//! level 0    128 digests a block, filled with zeros        sha256 of each block:
//! level 1    ...                                           until there is one: the root
//!
//! digest = sha256 of struct fsverity_descriptor (256 bytes): version 1, hash 1, log2 of the block
//!          12, the size of the file at 8 (little-endian), the root at 16, zeros
//! ```
//!
//! (Linux, Documentation/filesystems/fsverity.rst, "Merkle tree", "fs-verity descriptor".) A file
//! of one block has no level, and the block's digest is the root; an empty one has a root of zeros.
//!
//! Invariant: memory is one block a level, whatever the size of the file.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use strata_tree::{VERITY_BLOCK, VerityDigest};

/// Digests in a block.
const FANOUT: u64 = (VERITY_BLOCK / 32) as u64;

/// Reads to the end, and gives the fs-verity digest of what was read; it must have `size` bytes.
///
/// # Errors
/// Those of reading; `UnexpectedEof` and `InvalidData` for fewer and for more bytes.
pub(crate) fn verity_digest(mut from: impl Read, size: u64) -> io::Result<VerityDigest> {
    let mut levels = Levels::new(size.div_ceil(VERITY_BLOCK as u64));
    let mut block = [0; VERITY_BLOCK];
    let mut left = size;
    while left > 0 {
        let length = VERITY_BLOCK.min(usize::try_from(left).unwrap_or(VERITY_BLOCK));
        from.read_exact(&mut block[..length])?;
        block[length..].fill(0);
        levels.push(0, Sha256::digest(block).into());
        left -= length as u64;
    }
    if from.read(&mut block[..1])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more bytes than it should"));
    }
    let mut descriptor = [0; 256];
    descriptor[..3].copy_from_slice(&[1, 1, VERITY_BLOCK.ilog2() as u8]);
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    descriptor[16..48].copy_from_slice(&levels.root());
    Ok(VerityDigest::from_bytes(Sha256::digest(descriptor).into()))
}

/// The open block of each level.
struct Levels {
    open: Vec<Vec<u8>>,
    root: [u8; 32],
}

impl Levels {
    /// For that many blocks.
    fn new(mut blocks: u64) -> Self {
        let mut open = Vec::new();
        while blocks > 1 {
            open.push(Vec::with_capacity(VERITY_BLOCK));
            blocks = blocks.div_ceil(FANOUT);
        }
        Self { open, root: [0; 32] }
    }

    fn push(&mut self, level: usize, digest: [u8; 32]) {
        if self.open.get(level).is_some_and(|block| block.len() == VERITY_BLOCK) {
            self.close(level);
        }
        match self.open.get_mut(level) {
            Some(block) => block.extend_from_slice(&digest),
            None => self.root = digest,
        }
    }

    /// Ends the open block of a level.
    fn close(&mut self, level: usize) {
        let Some(block) = self.open.get_mut(level) else { return };
        block.resize(VERITY_BLOCK, 0);
        let digest = Sha256::digest(&*block).into();
        block.clear();
        self.push(level + 1, digest);
    }

    fn root(mut self) -> [u8; 32] {
        for level in 0..self.open.len() {
            self.close(level);
        }
        self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> String {
        verity_digest(bytes, bytes.len() as u64).unwrap().to_string()
    }

    fn body(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at / 7 % 251) as u8).collect()
    }

    #[test]
    fn an_empty_file_has_the_digest_that_everybody_knows() {
        let empty = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
        assert_eq!(of(b""), empty);
    }

    #[test]
    fn all_sizes_are_as_fsverity_has_them() {
        if !strata_testkit::needs::program("fsverity") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let block = VERITY_BLOCK;
        let level = block * FANOUT as usize;
        for size in [
            0,
            1,
            block - 1,
            block,
            block + 1,
            2 * block,
            level - 1,
            level,
            level + 1,
            2 * level,
            level * FANOUT as usize,
            level * FANOUT as usize + 1,
        ] {
            let (path, bytes) = (dir.path().join("file"), body(size));
            std::fs::write(&path, &bytes).unwrap();
            let run = std::process::Command::new("fsverity").arg("digest").arg(&path).output();
            let said = String::from_utf8(run.unwrap().stdout).unwrap();
            assert_eq!(said.split(' ').next().unwrap(), of(&bytes), "{size} bytes");
        }
    }

    #[test]
    fn another_size_than_it_should_have_is_an_error() {
        let kind = |size| verity_digest(&b"text"[..], size).unwrap_err().kind();
        assert_eq!(kind(5), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(3), io::ErrorKind::InvalidData);
    }
}
