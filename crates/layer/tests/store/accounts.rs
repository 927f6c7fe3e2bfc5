//! The accounts of the index stay true whatever comes and goes: holder sets, their sums, blocks
//! and directories, as `fsck` derives them again and as the layers themselves say.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use strata_layer::{HeldKind, SharedGroup, Store};
use strata_tree::ImageId;

use crate::common::{TempStore, assert_clean, diff_id, load};
use strata_testkit::tars::Tar;

/// A layer of some contents, under names of its own.
fn layer(n: usize, contents: &BTreeSet<u8>) -> Vec<u8> {
    let start = Tar::default().file(b"number", format!("layer {n}").as_bytes());
    let all = contents.iter().fold(start, |tar, content| {
        let body = vec![*content; usize::from(*content) * 700];
        let tar = tar.file(format!("d{}/{content}", content % 3).as_bytes(), &body);
        // A content has two names in a layer, and counts once.
        tar.file(format!("again/{content}").as_bytes(), &body)
    });
    all.end()
}

/// Every set of layers with the number and bytes of its contents, counted from the layers.
fn counted(store: &Store, all: &[(Vec<u8>, BTreeSet<u8>)]) -> Vec<(Vec<usize>, u64, u64)> {
    let there = store.layers().unwrap();
    let mut by_content: BTreeMap<Vec<u8>, (Vec<usize>, u64)> = BTreeMap::new();
    for (at, record) in there.iter().enumerate() {
        let n = all.iter().position(|(tar, _)| diff_id(tar) == record.diff_id).unwrap();
        let mut own = vec![format!("layer {n}").into_bytes()];
        own.extend(all[n].1.iter().map(|content| vec![*content; usize::from(*content) * 700]));
        for body in own {
            let len = body.len() as u64;
            by_content.entry(body).or_insert((Vec::new(), len)).0.push(at);
        }
    }
    let mut sets: BTreeMap<Vec<usize>, (u64, u64)> = BTreeMap::new();
    for (layers, bytes) in by_content.into_values() {
        let set = sets.entry(layers).or_default();
        *set = (set.0 + 1, set.1 + bytes);
    }
    sets.into_iter().map(|(layers, (files, bytes))| (layers, files, bytes)).collect()
}

fn check(place: &TempStore, store: &Store, all: &[(Vec<u8>, BTreeSet<u8>)]) {
    let sharing = store.accounts().sharing().unwrap();
    let found: Vec<_> = sharing
        .groups
        .iter()
        .map(|SharedGroup { layers, files, bytes, .. }| (layers.clone(), *files, *bytes))
        .collect();
    assert_eq!(found, counted(store, all));
    let (names, usage) = (store.accounts().held_names(&sharing).unwrap(), sharing.layer_usage(&[]));
    for (at, (layer, usage)) in sharing.layers.iter().zip(&usage).enumerate() {
        let mut sum = (0, 0);
        for name in names.of(layer).unwrap() {
            if let HeldKind::Content { bytes, group } = name.kind {
                assert!(sharing.groups[group].layers.contains(&at));
                sum = (sum.0 + bytes, sum.1 + 1);
            }
        }
        assert_eq!(sum, (usage.stored, usage.files), "{layer}");
    }
    assert_clean(&place.root());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Images of few layers come and go.
    #[test]
    fn holder_sets_are_those_of_the_layers(
        sets in prop::collection::vec(prop::collection::btree_set(0_u8..9, 0..7), 6),
        steps in prop::collection::vec((0_usize..6, prop::collection::vec(0_usize..6, 1..4)), 1..8),
    ) {
        let all: Vec<_> =
            sets.iter().enumerate().map(|(n, set)| (layer(n, set), set.clone())).collect();
        let place = TempStore::in_memory();
        let store = place.open();
        let mut images: BTreeMap<usize, ImageId> = BTreeMap::new();
        for (name, layers) in steps {
            match images.remove(&name) {
                Some(image) => drop(store.images().remove(&image).unwrap()),
                None => {
                    let tars: Vec<&[u8]> = layers.iter().map(|n| &all[*n].0[..]).collect();
                    images.insert(name, load(&store, &format!("image-{name}"), &tars));
                }
            }
            check(&place, &store, &all);
        }
    }
}
