//! For each pair of images, the sum of the weights of all sets that hold both.
//!
//! ```text
//! eight sets a block          one bit a set          table[mask] = sum of those sets' weights
//! {1, 4, 7} {1, 4} {4, 7} ..  image 4: 0b...111   ->  pair (4, 7) += table[mask 4 & mask 7]
//! ```
//! So a block costs one addition for each pair of the images that it names, not one for each
//! pair of each set ("the method of the four Russians"). Sets that are alike stand together, so
//! that a block names few images.
//!
//! Invariants: the pairs of row `a` are those with `b < a`; rows are dealt out to the processors,
//! each row to one, so the sums need no lock and do not depend on how many there are.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;

use strata_content::threads::each;

/// What is summed up: two numbers at a time.
pub(super) type Weight = [u64; 2];

/// A set of images, ascending, and what it weighs.
pub(super) type WeightedSet = (Vec<u32>, Weight);

/// Sets that overlap, and what a pair that lies in at least one of them weighs.
pub(super) type Tangle<'a> = (Vec<&'a [u32]>, Weight);

/// Sets in one block: a table has 2^8 sums, 4 KiB.
const BLOCK: usize = 8;

/// The place of the pair in the lower triangle, rows one after another.
pub(super) fn place(a: usize, b: usize) -> usize {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    high * high.saturating_sub(1) / 2 + low
}

/// The number of pairs of `n` images.
pub(super) fn count(n: usize) -> usize {
    n * n.saturating_sub(1) / 2
}

/// Sums up for all pairs of `n` images. A set that occurs twice counts twice.
pub(super) fn sums(n: usize, mut sets: Vec<WeightedSet>) -> Vec<Weight> {
    sets.retain(|(images, _)| images.len() > 1);
    sets.sort_unstable();
    let mut sums = vec![[0; 2]; count(n)];
    by_rows(n, &mut sums, &|part, rows| add_rows(part, rows, &sets));
    sums
}

/// Adds, for each tangle, its weight to the pairs that lie in at least one of its sets.
pub(super) fn add_unions(n: usize, sums: &mut [Weight], tangles: &[Tangle<'_>]) {
    by_rows(n, sums, &|part, rows| {
        let base = count(rows.start);
        for (sets, weight) in tangles {
            // For each image of these rows, those before it that are in a set with it.
            let mut before: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
            for set in sets {
                let mut bits = vec![0; rows.end.div_ceil(64)];
                for image in set.iter().map(|image| *image as usize) {
                    if image >= rows.end {
                        break;
                    }
                    if image >= rows.start {
                        let others = before.entry(image).or_insert_with(|| vec![0; bits.len()]);
                        others.iter_mut().zip(&bits).for_each(|(all, these)| *all |= these);
                    }
                    bits[image / 64] |= 1 << (image % 64);
                }
            }
            for (row, others) in before {
                let from = count(row) - base;
                let row = &mut part[from..from + row];
                for (at, mut word) in others.into_iter().enumerate() {
                    while word != 0 {
                        let sum = &mut row[at * 64 + word.trailing_zeros() as usize];
                        sum[0] += weight[0];
                        sum[1] += weight[1];
                        word &= word - 1;
                    }
                }
            }
        }
    });
}

/// Gives each processor some rows of the triangle, about equally many pairs.
fn by_rows(n: usize, sums: &mut [Weight], work: &(dyn Fn(&mut [Weight], Range<usize>) + Sync)) {
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (mut rest, mut start, mut parts) = (sums, 0, Vec::new());
    for worker in 1..=workers {
        // The area grows with the square of the rows.
        let end = (n as f64 * (worker as f64 / workers as f64).sqrt()).round() as usize;
        let end = if worker == workers { n } else { end.clamp(start, n) };
        let (part, left) = rest.split_at_mut(count(end) - count(start));
        rest = left;
        parts.push((part, start..end));
        start = end;
    }
    each(workers - 1, parts, |(part, rows)| work(part, rows));
}

/// Adds all sets to the pairs of some rows.
fn add_rows(part: &mut [Weight], rows: Range<usize>, sets: &[WeightedSet]) {
    let base = count(rows.start);
    let mut masks = vec![0_u8; rows.end];
    let mut members: Vec<u32> = Vec::new();
    for block in sets.chunks(BLOCK) {
        for (bit, (images, _)) in block.iter().enumerate() {
            // Later rows are other processors' business.
            for image in images.iter().take_while(|image| (**image as usize) < rows.end) {
                let mask = &mut masks[*image as usize];
                if *mask == 0 {
                    members.push(*image);
                }
                *mask |= 1 << bit;
            }
        }
        members.sort_unstable();
        let table = table(block);
        let first = members.partition_point(|image| (*image as usize) < rows.start);
        for at in first..members.len() {
            let row = members[at] as usize;
            let mask = masks[row];
            let from = count(row) - base;
            let row = &mut part[from..from + row];
            for other in &members[..at] {
                let [first, second] = table[usize::from(mask & masks[*other as usize])];
                let sum = &mut row[*other as usize];
                sum[0] += first;
                sum[1] += second;
            }
        }
        members.drain(..).for_each(|image| masks[image as usize] = 0);
    }
}

/// For each choice of the block's sets, what they weigh together.
fn table(block: &[WeightedSet]) -> [Weight; 1 << BLOCK] {
    let mut table = [[0; 2]; 1 << BLOCK];
    for mask in 1..1_usize << block.len() {
        let (lowest, rest) = (mask.trailing_zeros() as usize, mask & (mask - 1));
        let (weight, others) = (block[lowest].1, table[rest]);
        table[mask] = [weight[0] + others[0], weight[1] + others[1]];
    }
    table
}
