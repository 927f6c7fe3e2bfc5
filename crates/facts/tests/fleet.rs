//! Facts of many stores, read back.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use strata_facts::{Error, FactsOptions, PathPolicy, Place, read_fleet, write};
use strata_image::{CheckedStore, LoadOptions, SourceSpec, load};
use strata_layer::{Event, Progress, Store};
use strata_testkit::fixture;

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// Loads images into a store and writes its facts.
fn facts(dir: &Path, name: &str, day: &str, images: &[&str]) -> Store {
    let store = Store::open(&dir.join(format!("store-{name}"))).unwrap();
    for image in images {
        let spec: SourceSpec = fixture(image).to_str().unwrap().parse().unwrap();
        load(CheckedStore::unchecked(&store), &spec, &LoadOptions::default(), &Silent).unwrap();
    }
    let place = Place { store: name.parse().unwrap(), day: day.parse().unwrap() };
    let options = FactsOptions { place, paths: PathPolicy::Nothing };
    write(&store, &dir.join("facts"), &options, &mut |_, _| {}).unwrap();
    store
}

#[test]
fn what_stores_wrote_is_read_and_a_layer_once() {
    let dir = tempfile::tempdir().unwrap();
    let both = ["busybox-gzip.oci.tar", "cases-docker25.docker.tar"];
    let stores = [
        facts(dir.path(), "a", "2026-01-31", &both),
        facts(dir.path(), "b", "2026-01-30", &both[..1]),
    ];
    let mut last = (0, 0);
    let read = read_fleet(&[dir.path().join("facts")], &mut |done, of| last = (done, of));
    let fleet = read.unwrap();
    assert_eq!(last, (2, 2));
    let names: Vec<String> = fleet.stores.iter().map(|store| store.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    for (read, store) in fleet.stores.iter().zip(&stores) {
        let usage = store.accounts().disk_usage().unwrap();
        assert_eq!((read.files, read.stored), (usage.files, usage.stored));
        assert_eq!(read.blocks, usage.disk.contents.blocks);
        assert_eq!(read.layers.len(), usage.layers.len());
        let images = store.images().all().unwrap();
        assert_eq!(read.images.len(), images.len());
        for (read, image) in read.images.iter().zip(&images) {
            let layers: Vec<_> = read.layers.iter().map(|(layer, _)| *layer).collect();
            assert_eq!((read.id, layers), (image.id, image.layers.clone()));
            assert!(!read.names.is_empty());
        }
    }
    // All of b is in a.
    let sharing = stores[0].accounts().sharing().unwrap();
    let ids: BTreeSet<_> = fleet.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(ids, sharing.layers.iter().copied().collect());
    assert_eq!(fleet.layers.len(), ids.len());
    let contents: BTreeSet<_> = fleet.layers.iter().flat_map(|layer| &layer.contents).collect();
    let bytes: u64 = contents.iter().map(|(_, size)| size).sum();
    assert_eq!(bytes, sharing.groups.iter().map(|group| group.bytes).sum::<u64>());
}

#[test]
fn the_latest_day_of_a_store_counts() {
    let dir = tempfile::tempdir().unwrap();
    drop(facts(dir.path(), "a", "2026-01-30", &["busybox-gzip.oci.tar"]));
    drop(facts(dir.path(), "a", "2026-01-31", &["lowerlink.oci.tar"]));
    let fleet = read_fleet(&[dir.path().join("facts")], &mut |_, _| {}).unwrap();
    assert_eq!((fleet.stores.len(), fleet.stores[0].day.to_string().as_str()), (1, "2026-01-31"));
    assert_eq!(fleet.stores[0].images.len(), 2);
}

#[test]
fn what_are_no_facts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let read = |dir: PathBuf| read_fleet(&[dir], &mut |_, _| {});
    assert!(matches!(read(dir.path().to_owned()), Err(Error::NoFacts(_))));
    drop(facts(dir.path(), "a", "2026-01-31", &["busybox-gzip.oci.tar"]));
    let set = dir.path().join("facts/store=a/day=2026-01-31");
    fs::copy(set.join("names.parquet"), set.join("layers.parquet")).unwrap();
    let refused = read(dir.path().join("facts"));
    assert!(matches!(refused, Err(Error::Parquet { table: "layers", .. })), "{refused:?}");
    fs::write(set.join("images.parquet"), "no Parquet").unwrap();
    let refused = read(dir.path().join("facts"));
    assert!(matches!(refused, Err(Error::Parquet { table: "images", .. })), "{refused:?}");
}
