//! What images have in common, two by two.
//!
//! The model: a row is an image, or, where there are more images than a page can show, a cluster of
//! those that are alike; if even clusters are too many, the smallest ones share a row.
//!
//! Invariant: a cell counts each content once that something of its row and something of its
//! column holds, so the diagonal is what the row holds.

use std::collections::HashMap;

use serde::Serialize;

/// Rows that are shown at most.
const ROWS: usize = 40;

/// Which images share a row: clusters of those that are most alike, few enough to be shown. Both
/// rows and images are in an order in which alike ones stand together.
pub(super) fn rows(alike: &strata_analysis::reuse::Matrix) -> Vec<Vec<u32>> {
    let tree = alike.tree();
    let order = tree.order();
    if order.len() <= ROWS {
        return order.into_iter().map(|image| vec![image as u32]).collect();
    }
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, image)| place[*image] = at);
    // From the strictest cut that makes rows few enough; if none does, the small ones are one.
    let mut clusters = Vec::new();
    for cut in (0..100).rev() {
        clusters = tree.clusters(f64::from(cut) / 100.0);
        if clusters.len() <= ROWS {
            break;
        }
    }
    let mut rows: Vec<Vec<u32>> = Vec::new();
    for (at, cluster) in clusters.into_iter().enumerate() {
        let images = cluster.images.into_iter().map(|image| image as u32);
        match rows.last_mut() {
            Some(rest) if at >= ROWS => rest.extend(images),
            _ => rows.push(images.collect()),
        }
    }
    rows.iter_mut().for_each(|row| row.sort_by_key(|image| place[*image as usize]));
    rows.sort_by_key(|row| row.first().map(|image| place[*image as usize]));
    rows
}

/// The bytes that rows have in common.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct PageMatrix {
    /// The images of each row, by their positions on the page.
    rows: Vec<Vec<u32>>,
    /// For each row its cells up to the diagonal: bytes of contents.
    bytes: Vec<Vec<u64>>,
    /// The same cells: how many contents.
    files: Vec<Vec<u64>>,
}

impl PageMatrix {
    /// The matrix of `rows`, from bytes and number of contents by the images that hold them;
    /// `shown` says which image of the store stands at each position on the page.
    pub(super) fn of(
        sets: &HashMap<Vec<u32>, (u64, u64)>,
        shown: &[usize],
        rows: Vec<Vec<u32>>,
    ) -> Self {
        let row_of: HashMap<u32, usize> = rows
            .iter()
            .enumerate()
            .flat_map(|(at, row)| row.iter().map(move |image| (shown[*image as usize] as u32, at)))
            .collect();
        // Many sets of images are one set of rows.
        let mut by_rows: HashMap<Vec<usize>, (u64, u64)> = HashMap::new();
        for (images, (bytes, files)) in sets {
            let mut held: Vec<usize> =
                images.iter().filter_map(|image| row_of.get(image).copied()).collect();
            held.sort_unstable();
            held.dedup();
            let sum = by_rows.entry(held).or_default();
            *sum = (sum.0 + bytes, sum.1 + files);
        }
        let empty: Vec<Vec<u64>> = (0..rows.len()).map(|row| vec![0; row + 1]).collect();
        let mut matrix = Self { rows, bytes: empty.clone(), files: empty };
        for (held, (bytes, files)) in by_rows {
            for (at, row) in held.iter().enumerate() {
                for column in &held[..=at] {
                    matrix.bytes[*row][*column] += bytes;
                    matrix.files[*row][*column] += files;
                }
            }
        }
        matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_counts_what_its_row_and_its_column_hold() {
        let sets = HashMap::from([
            (vec![0], (1, 1)),
            (vec![0, 1], (10, 2)),
            (vec![1, 2], (100, 3)),
            (vec![0, 1, 2], (1000, 4)),
            (vec![3], (10_000, 5)),
            (vec![], (100_000, 6)),
        ]);
        // The page shows images 2, 0 and 1 of the store, the last two in one row.
        let matrix = PageMatrix::of(&sets, &[2, 0, 1], vec![vec![0], vec![1, 2]]);
        assert_eq!(matrix.bytes, [vec![1100], vec![1100, 1111]]);
        assert_eq!(matrix.files, [vec![7], vec![7, 10]]);
    }

    /// Images of two layers each: one that ten have in common, one of their own.
    fn alike(images: usize) -> strata_analysis::reuse::Matrix {
        use strata_layer::{ImageRecord, SharedGroup, Sharing};
        use strata_tree::{DiffId, ImageId};
        let id = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
            bytes
        };
        let bases = images.div_ceil(10);
        let group = |layer, bytes| SharedGroup { layers: vec![layer], files: 1, bytes, blocks: 0 };
        let sharing = Sharing {
            layers: (0..bases + images).map(|n| DiffId::from_bytes(id(n))).collect(),
            apparent: vec![0; bases + images],
            groups: (0..bases + images)
                .map(|n| group(n, if n < bases { 1000 } else { 10 }))
                .collect(),
        };
        let records: Vec<ImageRecord> = (0..images)
            .map(|n| ImageRecord {
                id: ImageId::from_bytes(id(n)),
                manifest: None,
                layers: vec![sharing.layers[n % bases], sharing.layers[bases + n]],
            })
            .collect();
        strata_analysis::reuse::matrix(&sharing, &records)
    }

    #[test]
    fn every_image_has_one_row_and_alike_ones_stand_together() {
        for images in [0, 1, 9, ROWS, ROWS + 1, 300, 1000] {
            let rows = rows(&alike(images));
            assert!(rows.len() <= ROWS, "{images} images, {} rows", rows.len());
            let mut all: Vec<u32> = rows.concat();
            let bases = images.div_ceil(10).max(1);
            let changes =
                all.windows(2).filter(|two| two[0] as usize % bases != two[1] as usize % bases);
            if images <= 300 {
                assert_eq!(changes.count() + 1, bases, "{images} images");
            }
            all.sort_unstable();
            assert_eq!(all, (0..images as u32).collect::<Vec<_>>());
        }
    }
}
