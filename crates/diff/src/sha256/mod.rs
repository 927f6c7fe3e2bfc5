//! SHA-256 (FIPS 180-4) of a stream, and of two streams that have bytes in common.
//!
//! Each byte of a file in a layer counts in two digests: that of the diff and that of the content.
//! [`update_both`] updates both for little more than one of them costs (see `twin`). The
//! compression function for a single stream is that of the `sha2` crate, and so it is for two where
//! the processor has no SHA instructions.
//!
//! Invariant: the digest depends on the bytes alone, not on how they came in pieces or which of
//! the functions took them.

mod twin;

use sha2::block_api::compress256;

const BLOCK: usize = 64;
/// Where the length in bits begins in the last block.
const LENGTH: usize = BLOCK - 8;

/// FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A digest in the making.
#[derive(Debug, Clone)]
pub struct Sha256 {
    state: [u32; 8],
    /// The first `filled` bytes of the next block, less than all.
    partial: [u8; BLOCK],
    filled: usize,
    /// All bytes so far.
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self { state: INITIAL, partial: [0; BLOCK], filled: 0, length: 0 }
    }
}

impl Sha256 {
    /// The digest of no bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = self.complete(bytes).as_chunks();
        compress256(&mut self.state, blocks);
        self.keep(rest);
    }

    /// Takes `n` zeros.
    pub fn update_zeros(&mut self, mut n: u64) {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while n > 0 {
            let step = n.min(ZEROS.len() as u64);
            self.update(&ZEROS[..step as usize]);
            n -= step;
        }
    }

    /// The digest of all bytes (padding: FIPS 180-4, section 5.1.1).
    pub fn finish(mut self) -> [u8; 32] {
        let mut tail = [0; 2 * BLOCK];
        tail[..self.filled].copy_from_slice(&self.partial[..self.filled]);
        tail[self.filled] = 0x80;
        let end = if self.filled < LENGTH { BLOCK } else { 2 * BLOCK };
        tail[end - 8..end].copy_from_slice(&self.length.wrapping_mul(8).to_be_bytes());
        compress256(&mut self.state, tail[..end].as_chunks().0);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }

    /// Fills the block that was begun, if there is one; gives what is left.
    fn complete<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        self.length += bytes.len() as u64;
        if self.filled == 0 {
            return bytes;
        }
        let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
        self.keep(now);
        if self.filled == BLOCK {
            compress256(&mut self.state, &[self.partial]);
            self.filled = 0;
        }
        rest
    }

    /// Keeps bytes that have room in the block that was begun.
    fn keep(&mut self, bytes: &[u8]) {
        self.partial[self.filled..][..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }
}

/// Takes the next bytes of both.
pub fn update_both(one: &mut Sha256, two: &mut Sha256, bytes: &[u8]) {
    if one.filled != two.filled {
        one.update(bytes);
        two.update(bytes);
        return;
    }
    let (blocks, rest) = one.complete(bytes).as_chunks();
    two.complete(bytes);
    if !twin::compress(&mut one.state, &mut two.state, blocks) {
        compress256(&mut one.state, blocks);
        compress256(&mut two.state, blocks);
    }
    one.keep(rest);
    two.keep(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest;

    fn by_library(bytes: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(bytes).into()
    }

    #[test]
    fn every_length_up_to_three_blocks_is_padded_right() {
        let bytes: Vec<u8> = (0..3 * BLOCK as u8).collect();
        for len in 0..=bytes.len() {
            let mut sha = Sha256::new();
            sha.update(&bytes[..len]);
            assert_eq!(sha.finish(), by_library(&bytes[..len]), "{len} bytes");
        }
    }

    #[test]
    fn zeros_are_bytes() {
        let mut sha = Sha256::new();
        sha.update(b"a");
        sha.update_zeros(200_000);
        assert_eq!(sha.finish(), by_library(&[b"a", &[0; 200_000][..]].concat()));
    }

    fn any_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    proptest! {
        /// Pieces that only one of the two gets, and pieces that both get, in any order.
        #[test]
        fn two_are_what_each_is_by_itself(
            pieces in prop::collection::vec((0..3_u8, any_bytes(400)), 0..20),
        ) {
            let (mut one, mut two) = (Sha256::new(), Sha256::new());
            let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
            for (whose, bytes) in &pieces {
                match whose {
                    0 => one.update(bytes),
                    1 => two.update(bytes),
                    _ => update_both(&mut one, &mut two, bytes),
                }
                if *whose != 1 {
                    of_one.extend_from_slice(bytes);
                }
                if *whose != 0 {
                    of_two.extend_from_slice(bytes);
                }
            }
            prop_assert_eq!(one.finish(), by_library(&of_one));
            prop_assert_eq!(two.finish(), by_library(&of_two));
        }
    }
}
