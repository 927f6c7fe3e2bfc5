//! Zeros that need no disk: whole blocks of them, in runs long enough for a hole.
//!
//! Invariant: what [`data`] leaves out is zeros, so a file of the right length that has the rest
//! written has the same bytes.

/// The block size of file systems; no hole is smaller.
const BLOCK: usize = 4096;
/// A hole splits an extent of the file in two, which a shorter run is not worth.
const RUN: usize = 64 << 10;

/// How many bytes of `bytes` stand in blocks of nothing but zeros.
pub fn zero_blocks(bytes: &[u8]) -> u64 {
    bytes.chunks(BLOCK).filter(|block| is_zero(block)).map(|block| block.len() as u64).sum()
}

/// The parts of `bytes` that a file needs written: all but the long runs of zeros.
pub fn data(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += RUN * bytes[at..].chunks(RUN).take_while(|run| is_zero(run)).count();
        if at >= bytes.len() {
            return None;
        }
        let runs = bytes[at..].chunks(RUN).take_while(|run| !is_zero(run)).count();
        let from = at;
        at = bytes.len().min(from + RUN * runs);
        Some((from, &bytes[from..at]))
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    // Compared with itself one byte on: as fast as memory is read.
    bytes.first().is_none_or(|first| *first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_zeros_and_nothing_else_is_lost() {
        let mut bytes = vec![0; 5 * RUN + 100];
        bytes[RUN] = 1;
        bytes[3 * RUN - 1] = 2;
        bytes[5 * RUN + 99] = 3;
        let parts: Vec<_> = data(&bytes).map(|(at, part)| (at, part.len())).collect();
        assert_eq!(parts, [(RUN, 2 * RUN), (5 * RUN, 100)]);
        let mut again = vec![0; bytes.len()];
        for (at, part) in data(&bytes) {
            again[at..at + part.len()].copy_from_slice(part);
        }
        assert_eq!(again, bytes);
        assert_eq!(data(&[0; 3 * RUN + 5]).count(), 0);
        assert_eq!(data(&[]).count(), 0);
        assert_eq!(data(&[9; 10]).collect::<Vec<_>>(), [(0, &[9; 10][..])]);
    }

    #[test]
    fn zeros_are_counted_by_blocks() {
        let mut bytes = vec![0; 3 * BLOCK + 10];
        bytes[BLOCK + 5] = 1;
        assert_eq!(zero_blocks(&bytes), 2 * BLOCK as u64 + 10);
        assert_eq!(zero_blocks(&[]), 0);
    }
}
