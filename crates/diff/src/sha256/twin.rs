//! The compression function for two messages that have their next blocks in common, by the
//! processor's SHA instructions.
//!
//! The rounds of one message wait for each other: an instruction that does two of them takes four
//! cycles until the next can begin, and could begin one or two meanwhile. Two messages fill those
//! gaps, and what is made of the block alone, the message schedule, is made once for both.
//!
//! ```text
//! FIPS 180-4, section 6.2.2       in here
//! a b e f / c d g h               one register each: `abef`, `cdgh`, highest word first
//! W[4i .. 4i+4]                   w0 to w3 in turns, lowest word first
//! two rounds                      cdgh <- rnds2(cdgh, abef, W + K), which then is the next abef
//! ```
//!
//! Invariant: the same as `sha2`'s function on each of the two, which the tests compare.

#![allow(unsafe_code)]

use super::BLOCK;

/// Takes `blocks` into both states; `false`, and nothing done, where there are no such
/// instructions.
#[cfg(target_arch = "x86_64")]
pub(super) fn compress(one: &mut [u32; 8], two: &mut [u32; 8], blocks: &[[u8; BLOCK]]) -> bool {
    let able = is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1");
    if able {
        // SAFETY: the processor has what the function is compiled for (SSE4.1 implies SSSE3 and
        // SSE2); it has no other condition.
        unsafe { x86::compress(one, two, blocks) };
    }
    able
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn compress(_: &mut [u32; 8], _: &mut [u32; 8], _: &[[u8; BLOCK]]) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::BLOCK;

    /// FIPS 180-4, section 4.2.2.
    #[rustfmt::skip]
    static K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];

    /// Of `abef` and of `cdgh`, the highest word first.
    #[target_feature(enable = "sha,sse4.1")]
    fn words(words: [u32; 4]) -> __m128i {
        let [a, b, c, d] = words.map(u32::cast_signed);
        _mm_set_epi32(a, b, c, d)
    }

    /// The other way round.
    #[target_feature(enable = "sha,sse4.1")]
    fn of(register: __m128i) -> [u32; 4] {
        [
            _mm_extract_epi32::<3>(register),
            _mm_extract_epi32::<2>(register),
            _mm_extract_epi32::<1>(register),
            _mm_extract_epi32::<0>(register),
        ]
        .map(i32::cast_unsigned)
    }

    /// Four big-endian words of a block, the lowest first.
    #[target_feature(enable = "sha,sse4.1")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // For each byte of a register the one that goes there: the words stay, their bytes turn.
        let turn = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let number = i128::from_le_bytes(*bytes);
        _mm_shuffle_epi8(_mm_set_epi64x((number >> 64) as i64, number as i64), turn)
    }

    /// The next state of one message is the last plus what the rounds make of it.
    #[target_feature(enable = "sha,sse4.1")]
    pub(super) fn compress(one: &mut [u32; 8], two: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
        let enter = |[a, b, c, d, e, f, g, h]: [u32; 8]| (words([a, b, e, f]), words([c, d, g, h]));
        let (mut abef1, mut cdgh1) = enter(*one);
        let (mut abef2, mut cdgh2) = enter(*two);
        for block in blocks {
            let before = (abef1, cdgh1, abef2, cdgh2);
            let (quarters, _) = block.as_chunks();
            let mut w0 = load(&quarters[0]);
            let mut w1 = load(&quarters[1]);
            let mut w2 = load(&quarters[2]);
            let mut w3 = load(&quarters[3]);
            // Four rounds of both.
            macro_rules! rounds {
                ($i:expr, $w:ident) => {
                    let k = words([K[$i + 3], K[$i + 2], K[$i + 1], K[$i]]);
                    let low = _mm_add_epi32($w, k);
                    cdgh1 = _mm_sha256rnds2_epu32(cdgh1, abef1, low);
                    cdgh2 = _mm_sha256rnds2_epu32(cdgh2, abef2, low);
                    let high = _mm_shuffle_epi32::<0b1110>(low);
                    abef1 = _mm_sha256rnds2_epu32(abef1, cdgh1, high);
                    abef2 = _mm_sha256rnds2_epu32(abef2, cdgh2, high);
                };
            }
            // Four words of the message schedule, in place of those sixteen before.
            macro_rules! schedule {
                ($w0:ident, $w1:ident, $w2:ident, $w3:ident) => {
                    let sum = _mm_sha256msg1_epu32($w0, $w1);
                    let sum = _mm_add_epi32(sum, _mm_alignr_epi8::<4>($w3, $w2));
                    $w0 = _mm_sha256msg2_epu32(sum, $w3);
                };
            }
            macro_rules! sixteen {
                ($i:expr) => {
                    rounds!($i, w0);
                    schedule!(w0, w1, w2, w3);
                    rounds!($i + 4, w1);
                    schedule!(w1, w2, w3, w0);
                    rounds!($i + 8, w2);
                    schedule!(w2, w3, w0, w1);
                    rounds!($i + 12, w3);
                    schedule!(w3, w0, w1, w2);
                };
            }
            sixteen!(0);
            sixteen!(16);
            sixteen!(32);
            rounds!(48, w0);
            rounds!(52, w1);
            rounds!(56, w2);
            rounds!(60, w3);
            abef1 = _mm_add_epi32(abef1, before.0);
            cdgh1 = _mm_add_epi32(cdgh1, before.1);
            abef2 = _mm_add_epi32(abef2, before.2);
            cdgh2 = _mm_add_epi32(cdgh2, before.3);
        }
        let leave = |abef, cdgh| {
            let ([a, b, e, f], [c, d, g, h]) = (of(abef), of(cdgh));
            [a, b, c, d, e, f, g, h]
        };
        *one = leave(abef1, cdgh1);
        *two = leave(abef2, cdgh2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::block_api::compress256;

    use super::*;

    fn blocks() -> impl Strategy<Value = Vec<[u8; BLOCK]>> {
        prop::collection::vec(prop::array::uniform::<_, BLOCK>(any::<u8>()), 0..5)
    }

    proptest! {
        #[test]
        fn any_two_states_become_what_the_library_makes_of_each(
            one in any::<[u32; 8]>(),
            two in any::<[u32; 8]>(),
            blocks in blocks(),
        ) {
            let (mut ours, mut theirs) = ((one, two), (one, two));
            if compress(&mut ours.0, &mut ours.1, &blocks) {
                compress256(&mut theirs.0, &blocks);
                compress256(&mut theirs.1, &blocks);
            }
            prop_assert_eq!(ours, theirs);
        }
    }
}
