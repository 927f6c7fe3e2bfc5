//! Facts of images that are in no store: the tables are those of a store that has loaded them.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parquet::file::reader::{FileReader, SerializedFileReader};
use strata_facts::schema::TABLES;
use strata_facts::{
    FactSource, FactsOptions, GatherOptions, GatheredFacts, PathPolicy, Place, Result,
    WrittenFacts, gather, write, write_gathered,
};
use strata_image::{CheckedStore, LoadOptions, PullOptions, SourceLimits, load, pull};
use strata_layer::{Event, Limits, Progress, Store};
use strata_registry::{Registries, RegistryOptions, Retry};
use strata_testkit::fixture;
use strata_testkit::layout::{Layout, tar_of};
use strata_testkit::registry::{Answer, How, Registry};

/// What nothing takes on a disk that it was never on.
const OF_DISK: [&str; 5] = ["headers_size", "headers_blocks", "dirs_size", "dirs_blocks", "blocks"];

#[derive(Default)]
struct Counting(AtomicUsize);

impl Progress for Counting {
    fn event(&self, _: &str, event: Event) {
        if matches!(event, Event::Started { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn warning(&self, _: &str, _: &str) {}
}

fn facts_options() -> FactsOptions {
    let place = Place { store: "one".parse().unwrap(), day: "2026-01-31".parse().unwrap() };
    FactsOptions { place, paths: PathPolicy::Plain }
}

fn options(dir: &Path) -> GatherOptions {
    GatherOptions {
        ledger: dir.join("ledger"),
        platform: None,
        at_once: NonZeroUsize::new(3).unwrap(),
        keep_going: false,
        limits: SourceLimits::default(),
        layer_limits: Limits::default(),
    }
}

fn registries() -> Registries {
    let millis = Duration::from_millis;
    let retry = Retry { tries: 4, pause: millis(1), longest: millis(2000) };
    Registries::new(RegistryOptions { retry, ..RegistryOptions::default() })
}

fn gathered(dir: &Path, sources: &[FactSource], options: &GatherOptions) -> Result<GatheredFacts> {
    let scratch = || Ok(tempfile::tempfile_in(dir).unwrap());
    gather(sources, &registries(), &scratch, options, &Counting::default())
}

fn written(dir: &Path, gathered: &GatheredFacts) -> WrittenFacts {
    write_gathered(gathered, &dir.join("facts"), &facts_options(), &mut |_, _| {}).unwrap()
}

/// All rows of all tables as texts, but for what the disk takes; and how many cells of that are
/// not NULL.
fn rows(facts: &WrittenFacts) -> (BTreeMap<&'static str, Vec<String>>, usize) {
    let mut on_disk = 0;
    let mut read = |name: &'static str| {
        let file = File::open(facts.path.join(format!("{name}.parquet"))).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let mut all = Vec::new();
        for row in reader.get_row_iter(None).unwrap() {
            let mut cells = Vec::new();
            for (column, field) in row.unwrap().get_column_iter() {
                match OF_DISK.contains(&column.as_str()) {
                    true => on_disk += usize::from(*field != parquet::record::Field::Null),
                    false => cells.push(format!("{column}={field:?}")),
                }
            }
            all.push(cells.join(" "));
        }
        (name, all)
    };
    (TABLES.iter().map(|table| read(table.name)).collect(), on_disk)
}

fn of_store(store: &Store, dir: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let facts = write(store, &dir.join("of-store"), &facts_options(), &mut |_, _| {}).unwrap();
    let (rows, on_disk) = rows(&facts);
    assert!(on_disk > 0, "a store knows what it takes");
    rows
}

/// Two images that share their base; a registry has them under three names.
fn registry() -> (Registry, [Vec<u8>; 3]) {
    let base = tar_of(&[("etc/passwd", "root"), ("bin/sh", "a shell")]);
    let upper = tar_of(&[("app", "one"), ("bin/sh", "another shell")]);
    let other = tar_of(&[("app", "two"), ("copy", "a shell")]);
    let registry = Registry::new();
    for (name, layers, repository) in [
        ("first", [&base[..], &upper[..]], "team/first"),
        ("second", [&base[..], &other[..]], "team/second"),
    ] {
        let layout = Layout::new(name);
        let image = layout.image(&layers, "linux/amd64");
        layout.index(&[image]);
        registry.layout(layout.root(), repository, "1");
        if name == "first" {
            registry.layout(layout.root(), repository, "2");
        }
    }
    (registry, [base, upper, other])
}

fn whole(registry: &Registry, prefix: Option<&str>) -> Vec<FactSource> {
    let prefix = prefix.map(str::to_owned);
    vec![FactSource::Registry { host: registry.host().to_owned(), prefix }]
}

#[test]
fn files_give_the_tables_of_a_store_that_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let mut sources = Vec::new();
    for name in ["cases-docker25.docker.tar", "busybox-gzip.oci.tar", "lowerlink.oci.tar"] {
        let spec: strata_image::SourceSpec = fixture(name).to_str().unwrap().parse().unwrap();
        let to = CheckedStore::unchecked(&store);
        load(to, &spec, &LoadOptions::default(), &Counting::default()).unwrap();
        sources.push(FactSource::Files(spec));
    }
    let gathered = gathered(dir.path(), &sources, &options(dir.path())).unwrap();
    assert_eq!(gathered.images, store.images().all().unwrap().len());
    assert_eq!(gathered.read as usize, store.layers().unwrap().len());
    let (found, on_disk) = rows(&written(dir.path(), &gathered));
    assert_eq!(on_disk, 0, "nothing is on a disk");
    assert_eq!(found, of_store(&store, dir.path()));
}

#[test]
fn a_registry_gives_the_tables_of_a_store_that_has_pulled_all() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, layers) = registry();
    let facts = gathered(dir.path(), &whole(&registry, None), &options(dir.path())).unwrap();
    assert_eq!((facts.images, facts.read, facts.known), (2, 3, 0));
    for layer in &layers {
        let blob = strata_testkit::digest(layer);
        assert_eq!(registry.count("GET", &blob), 1, "a layer is fetched once: {blob}");
    }
    let found = rows(&written(dir.path(), &facts)).0;
    let store = Store::open(&dir.path().join("store")).unwrap();
    for name in ["team/first:1", "team/first:2", "team/second:1"] {
        let name = format!("{}/{name}", registry.host()).parse().unwrap();
        let to = CheckedStore::unchecked(&store);
        let how = PullOptions::default();
        pull(to, &registries(), &name, &how, &Counting::default()).unwrap();
    }
    assert_eq!(found, of_store(&store, dir.path()));
    assert!(found["names"].len() >= 3);
}

#[test]
fn a_prefix_names_a_repository_or_what_is_below_it() {
    let (registry, _) = registry();
    for (prefix, images) in
        [("team", 2), ("team/", 2), ("team/second", 1), ("tea", 0), ("team/sec", 0)]
    {
        let dir = tempfile::tempdir().unwrap();
        let facts = gathered(dir.path(), &whole(&registry, Some(prefix)), &options(dir.path()));
        assert_eq!(facts.unwrap().images, images, "{prefix}");
    }
}

#[test]
fn what_was_read_before_a_failure_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, layers) = registry();
    let bad = strata_testkit::digest(&layers[2]);
    registry.rule({
        let bad = bad.clone();
        move |seen| if seen.is("GET", &bad) { How::Flip } else { How::Well }
    });
    let options = GatherOptions { at_once: NonZeroUsize::MIN, ..options(dir.path()) };
    let refused = gathered(dir.path(), &whole(&registry, None), &options);
    let Err(why) = refused else { panic!("a wrong layer was taken") };
    assert!(why.to_string().contains(&bad[7..]), "{why}");
    registry.forget();
    registry.rule(|_| How::Well);
    let facts = gathered(dir.path(), &whole(&registry, None), &options).unwrap();
    assert_eq!((facts.images, facts.read, facts.known), (2, 1, 2));
    for layer in &layers[..2] {
        assert_eq!(registry.count("GET", &strata_testkit::digest(layer)), 0);
    }
}

#[test]
fn an_image_that_cannot_be_read_is_left_out_if_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, layers) = registry();
    let bad = strata_testkit::digest(&layers[2]);
    registry.rule(move |seen| if seen.is("GET", &bad) { How::Flip } else { How::Well });
    let options = GatherOptions { keep_going: true, ..options(dir.path()) };
    let facts = gathered(dir.path(), &whole(&registry, None), &options).unwrap();
    assert_eq!((facts.images, facts.failed.len()), (1, 1));
    assert!(facts.failed[0].0.ends_with("team/second:1"), "{:?}", facts.failed);
    let (found, _) = rows(&written(dir.path(), &facts));
    assert_eq!((found["images"].len(), found["layers"].len()), (1, 2));
}

#[test]
fn artifacts_and_other_platforms_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _) = registry();
    let config = registry.blob("team/chart", b"{}");
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media}","config":{{"mediaType":
           "application/vnd.cncf.helm.config.v1+json","digest":"{config}","size":2}},"layers":[]}}"#
    );
    registry.manifest("team/chart", "1", media, manifest.as_bytes());
    let facts = gathered(dir.path(), &whole(&registry, None), &options(dir.path())).unwrap();
    assert_eq!((facts.images, facts.passed_over.len()), (2, 1));
    assert!(facts.passed_over[0].1.contains("artifact"), "{:?}", facts.passed_over);
}

#[test]
fn a_registry_that_asks_for_a_pause_gets_it_from_all_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, _) = registry();
    let (mut asked, mut until) = (0, None);
    let early = std::sync::Arc::new(AtomicUsize::new(0));
    let seen_early = std::sync::Arc::clone(&early);
    registry.rule(move |seen| {
        if !seen.path.contains("/manifests/") {
            return How::Well;
        }
        asked += 1;
        if asked == 1 {
            until = Some(std::time::Instant::now() + Duration::from_millis(950));
            return How::With(Answer::new(429).header("retry-after", "1"));
        }
        // Two others may have been on their way.
        if asked > 3 && until.is_some_and(|until| std::time::Instant::now() < until) {
            seen_early.fetch_add(1, Ordering::Relaxed);
        }
        How::Well
    });
    let facts = gathered(dir.path(), &whole(&registry, None), &options(dir.path())).unwrap();
    assert_eq!(facts.images, 2);
    assert_eq!(early.load(Ordering::Relaxed), 0, "requests came during the pause");
}

#[test]
fn a_ledger_has_one_user_and_keeps_what_other_sources_had() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, layers) = registry();
    let options = options(dir.path());
    let first = gathered(dir.path(), &whole(&registry, None), &options).unwrap();
    let other = gathered(dir.path(), &whole(&registry, None), &options);
    let Err(why) = other else { panic!("two have one ledger") };
    assert!(why.to_string().contains("in use by another process"), "{why}");
    drop(first);
    let second = gathered(dir.path(), &whole(&registry, Some("team/first")), &options).unwrap();
    assert_eq!((second.images, second.read, second.known), (1, 0, 2));
    let (found, _) = rows(&written(dir.path(), &second));
    assert_eq!((found["layers"].len(), found["contents"].len()), (2, 4));
    drop(second);
    registry.forget();
    let third = gathered(dir.path(), &whole(&registry, Some("team/second")), &options).unwrap();
    assert_eq!((third.images, third.read, third.known), (1, 0, 2), "nothing is read again");
    let blobs = layers.iter().map(|layer| registry.count("GET", &strata_testkit::digest(layer)));
    assert_eq!(blobs.sum::<usize>(), 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let fresh = GatherOptions { ledger: elsewhere.path().join("ledger"), ..options };
    let fresh = gathered(elsewhere.path(), &whole(&registry, Some("team/second")), &fresh).unwrap();
    let (shown, expected) = (written(dir.path(), &third), written(elsewhere.path(), &fresh));
    assert_eq!(rows(&shown).0, rows(&expected).0, "and what is not asked for is not shown");
}
