//! Random stacks of layers against the definitions, set by set.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use strata_layer::{ImageRecord, Sharing};
use strata_tree::{ContentDigest, DiffId, ImageId};

use super::{Held, LayerContents, Matrix, Shared, Similarity, held, matrix, relatives, sharing_of};

/// Layers as numbers of contents, images as numbers of layers.
#[derive(Debug, Clone)]
struct World {
    layers: Vec<BTreeSet<u8>>,
    images: Vec<Vec<usize>>,
}

/// A content's size: some are empty, none are alike.
fn size(content: u8) -> u64 {
    u64::from(content) * u64::from(content) * 1_000_003
}

fn layer(n: usize) -> DiffId {
    DiffId::from_bytes([n as u8; 32])
}

impl World {
    fn sharing(&self) -> Sharing {
        sharing_of(self.layers.iter().enumerate().map(|(n, contents)| {
            let contents = contents.iter().map(|c| (ContentDigest::from_bytes([*c; 32]), size(*c)));
            let contents: Vec<_> = contents.collect();
            let apparent = contents.iter().map(|(_, size)| size).sum();
            LayerContents { diff_id: layer(n), apparent, contents }
        }))
    }

    fn records(&self) -> Vec<ImageRecord> {
        let images = self.images.iter().enumerate();
        images
            .map(|(n, layers)| ImageRecord {
                id: ImageId::from_bytes([n as u8; 32]),
                manifest: None,
                layers: layers.iter().map(|n| layer(*n)).collect(),
            })
            .collect()
    }

    fn matrix(&self) -> Matrix {
        matrix(&self.sharing(), &self.records())
    }

    fn layers_of(&self, image: usize) -> BTreeSet<usize> {
        self.images[image].iter().copied().collect()
    }

    fn contents_of(&self, layers: &BTreeSet<usize>) -> BTreeSet<u8> {
        layers.iter().flat_map(|n| &self.layers[*n]).copied().collect()
    }

    /// The definition.
    fn shared(&self, a: usize, b: usize) -> Shared {
        let (one, other) = (self.layers_of(a), self.layers_of(b));
        let both: BTreeSet<usize> = &one & &other;
        let held = |contents: BTreeSet<u8>| Held {
            files: contents.len() as u64,
            bytes: contents.iter().map(|c| size(*c)).sum(),
        };
        Shared {
            layers: both.len() as u64,
            in_layers: held(self.contents_of(&both)),
            contents: held(&self.contents_of(&one) & &self.contents_of(&other)),
        }
    }

    fn check(&self) {
        let (sharing, records, matrix) = (self.sharing(), self.records(), self.matrix());
        let n = records.len();
        assert_eq!(matrix.images(), n);
        for a in 0..n {
            for b in 0..n {
                assert_eq!(matrix.shared(a, b), self.shared(a, b), "images {a} and {b}");
            }
            let nearest = matrix.nearest(a, n);
            assert_eq!(nearest.len(), n - 1);
            assert!(nearest.windows(2).all(|two| two[0].similarity >= two[1].similarity));
            assert_eq!(relatives(&sharing, &records, a, n), nearest);
            assert_eq!(relatives(&sharing, &records, a, 2), matrix.nearest(a, 2));
        }
        let closest = matrix.closest(usize::MAX);
        assert_eq!(matrix.closest(3), closest[..closest.len().min(3)]);
        let all: BTreeSet<usize> = self.images.iter().flatten().copied().collect();
        let bytes = self.contents_of(&all).iter().map(|c| size(*c)).sum::<u64>();
        assert_eq!(held(&sharing, &records).bytes, bytes);
        self.check_clusters(&matrix);
    }

    fn check_clusters(&self, matrix: &Matrix) {
        let tree = matrix.tree();
        assert_eq!(tree, self.matrix().tree());
        let mut order = tree.order();
        order.sort_unstable();
        assert_eq!(order, (0..self.images.len()).collect::<Vec<_>>());
        let mut finer: Option<HashMap<usize, usize>> = None;
        for cut in [1.0, 0.8, 0.5, 0.2, 0.0] {
            let mut home = HashMap::new();
            for (at, cluster) in tree.clusters(cut).iter().enumerate() {
                assert!(cluster.similarity >= cut - 1e-6);
                for image in &cluster.images {
                    assert_eq!(home.insert(*image, at), None);
                }
            }
            assert_eq!(home.len(), self.images.len());
            if let Some(finer) = finer {
                for (a, b) in finer.keys().flat_map(|a| finer.keys().map(move |b| (a, b))) {
                    assert!(finer[a] != finer[b] || home[a] == home[b], "{a} and {b} at {cut}");
                }
            }
            finer = Some(home);
        }
        assert!(tree.clusters(0.0).len() <= 1);
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let layers = prop::collection::vec(prop::collection::btree_set(0..40_u8, 0..8), 1..12);
    layers.prop_flat_map(|layers| {
        let stack = prop::collection::vec(0..layers.len(), 0..6);
        let images = prop::collection::vec(stack, 1..14);
        images.prop_map(move |images| World { layers: layers.clone(), images })
    })
}

proptest! {
    #[test]
    fn every_pair_is_as_defined(world in worlds()) {
        world.check();
    }
}

/// One content in two layers, each of them in stacks of its own and both in a third: the pair of
/// the images that have both counts it once.
#[test]
fn a_content_in_two_shared_layers_counts_once() {
    World {
        layers: vec![[1, 2].into(), [2, 3].into(), [4].into()],
        images: vec![vec![0, 1], vec![1, 0, 2], vec![0], vec![1, 1, 2], vec![]],
    }
    .check();
}

/// More sets than one block has, more images than a row that one processor does.
#[test]
fn many_sets_of_many_images() {
    let layers = (0..60).map(|n| (0..4).map(|i| (n * 7 + i * 11) as u8 % 97).collect());
    let images = (0..70).map(|n| (0..6).map(|i| (n * 3 + i * i * 5) % 60).collect());
    World { layers: layers.collect(), images: images.collect() }.check();
}

#[test]
fn similarity_is_exact() {
    let of = |shared, either| Similarity { shared, either };
    assert!(of(u64::MAX - 1, u64::MAX) < of(u64::MAX, u64::MAX));
    assert_eq!(of(1, 3), of(1 << 40, 3 << 40));
    assert_eq!(of(0, 0), of(5, 5));
    assert!(of(0, 1) < of(1, 1 << 63));
}
