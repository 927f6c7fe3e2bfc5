//! Groups of similar images, by hierarchical clustering.
//!
//! Two images are as far apart as 1 less their [`Similarity`](super::Similarity); two clusters as
//! far as their images are on average (average linkage, UPGMA). The two nearest clusters become
//! one, again and again, until one is left: that is the [`Tree`]. Cut at a similarity, it gives
//! the clusters within which images are that similar on average.
//!
//! Invariants: every image is in exactly one cluster; a higher cut gives parts of the clusters
//! that a lower one gives; memory is 8 bytes a pair of images and time grows with the pairs.

use kodama::{Method, linkage};

use super::Matrix;

/// The clusters of all sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    images: usize,
    /// Which two became one, and how far apart they were; numbered on from the images.
    steps: Vec<(usize, usize, f64)>,
}

/// Similar images.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Positions of the images, ascending.
    pub images: Vec<usize>,
    /// How similar its two halves are on average, from 0 to 1; 1 for a single image.
    pub similarity: f64,
}

impl Matrix {
    /// Clusters the images.
    ///
    /// ```
    /// # use strata_analysis::reuse::{LayerContents, matrix, sharing_of};
    /// # use strata_layer::ImageRecord;
    /// # use strata_tree::{ContentDigest, DiffId, ImageId};
    /// // Images 0 and 2 have a large layer in common, image 1 is by itself.
    /// let layer = |n: u8| DiffId::from_bytes([n; 32]);
    /// let sharing = sharing_of((1..=4).map(|n| {
    ///     let size = if n == 1 { 900 } else { 100 };
    ///     let contents = vec![(ContentDigest::from_bytes([n; 32]), size)];
    ///     LayerContents { diff_id: layer(n), apparent: size, contents }
    /// }));
    /// let image = |n: u8, layers: &[u8]| ImageRecord {
    ///     id: ImageId::from_bytes([n; 32]),
    ///     manifest: None,
    ///     layers: layers.iter().map(|n| layer(*n)).collect(),
    /// };
    /// let images = [image(0, &[1, 2]), image(1, &[3]), image(2, &[1, 4])];
    /// let clusters = matrix(&sharing, &images).tree().clusters(0.5);
    /// assert_eq!(clusters[0].images, [0, 2]);
    /// assert_eq!(clusters[1].images, [1]);
    /// assert!((clusters[0].similarity - 900.0 / 1100.0).abs() < 1e-9);
    /// ```
    pub fn tree(&self) -> Tree {
        let n = self.images();
        let mut apart: Vec<f64> = Vec::with_capacity(super::pairs::count(n));
        for a in 0..n {
            apart.extend((a + 1..n).map(|b| 1.0 - self.similarity(a, b).ratio()));
        }
        let steps = match n {
            0 | 1 => Vec::new(),
            _ => {
                let found = linkage(&mut apart, n, Method::Average);
                let steps = found.steps().iter();
                steps.map(|step| (step.cluster1, step.cluster2, step.dissimilarity)).collect()
            }
        };
        Tree { images: n, steps }
    }
}

impl Tree {
    /// The clusters whose parts are at least `similar` to each other on average: the largest
    /// first, of equally large ones that with the first image first. Single images are clusters.
    pub fn clusters(&self, similar: f64) -> Vec<Cluster> {
        // Clusters by the linkage's number: the images, then one a step.
        let alone = |image| Some(Cluster { images: vec![image], similarity: 1.0 });
        let mut found: Vec<Option<Cluster>> = (0..self.images).map(alone).collect();
        // Sums of distances are not exact; what lies on the cut counts as similar.
        let apart = 1.0 - similar + 1e-9;
        for (one, other, distance) in &self.steps {
            // Their parts may lie just beyond the cut by a rounding error, and then they do too.
            let whole = found[*one].is_some() && found[*other].is_some();
            let joined = match whole && *distance <= apart {
                true => found[*one].take().zip(found[*other].take()),
                false => None,
            };
            found.push(joined.map(|(one, other)| {
                let mut images = [one.images, other.images].concat();
                images.sort_unstable();
                Cluster { images, similarity: 1.0 - distance }
            }));
        }
        let mut found: Vec<Cluster> = found.into_iter().flatten().collect();
        found.sort_by(|a, b| {
            b.images.len().cmp(&a.images.len()).then(a.images[0].cmp(&b.images[0]))
        });
        found
    }

    /// All images in an order in which similar ones stand together: the leaves of the tree from
    /// left to right, the part with the first image on the left.
    pub fn order(&self) -> Vec<usize> {
        let mut parts: Vec<Vec<usize>> = (0..self.images).map(|image| vec![image]).collect();
        for (one, other, _) in &self.steps {
            let one = std::mem::take(&mut parts[*one]);
            let other = std::mem::take(&mut parts[*other]);
            let first = |part: &[usize]| part.iter().min().copied();
            parts.push(match first(&one) < first(&other) {
                true => [one, other].concat(),
                false => [other, one].concat(),
            });
        }
        parts.pop().unwrap_or_default()
    }
}
