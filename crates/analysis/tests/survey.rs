//! Sources that are only read, against the same sources loaded: what would be stored, what is
//! shared, what their chunks are.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use strata_analysis::reuse::chunks::{ChunkOptions, Cut, MeanSize, MeasuredCut, measure_chunks};
use strata_analysis::reuse::{Held, levels, matrix, would_add};
use strata_analysis::{Survey, SurveyOptions};
use strata_image::{CheckedStore, LoadOptions, Platform, SourceSpec, load};
use strata_layer::{Event, Progress, Sharing, Store};
use strata_testkit::fixture;
use strata_testkit::layout::{self, Layout};
use strata_tree::DiffId;

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

fn survey(specs: &[SourceSpec]) -> Survey {
    let scratch = || -> strata_image::Result<File> { Ok(tempfile::tempfile().unwrap()) };
    let options = SurveyOptions { platform: platform(), ..SurveyOptions::default() };
    Survey::read(specs, &scratch, &options, &Silent).unwrap()
}

fn platform() -> Option<Platform> {
    Some("linux/amd64".parse().unwrap())
}

fn load_all(store: &Store, specs: &[SourceSpec]) {
    for spec in specs {
        let options = LoadOptions { platform: platform(), ..LoadOptions::default() };
        load(CheckedStore::unchecked(store), spec, &options, &Silent).unwrap();
    }
}

/// Groups by the layers' names, for positions differ; blocks are the file system's business.
fn groups(sharing: &Sharing) -> BTreeMap<BTreeSet<DiffId>, (u64, u64)> {
    let name = |at: &usize| sharing.layers[*at];
    let groups = sharing.groups.iter();
    groups.map(|g| (g.layers.iter().map(name).collect(), (g.files, g.bytes))).collect()
}

fn apparent(sharing: &Sharing) -> BTreeMap<DiffId, u64> {
    sharing.layers.iter().copied().zip(sharing.apparent.iter().copied()).collect()
}

/// Every stored inode, as `du` would find it.
fn stored_bodies(root: &Path) -> Vec<Vec<u8>> {
    let (mut todo, mut seen, mut bodies) = (vec![root.join("layers")], BTreeSet::new(), Vec::new());
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.push(path);
            } else if path.file_name().unwrap() != "headers.zst" && seen.insert(meta.ino()) {
                bodies.push(fs::read(path).unwrap());
            }
        }
    }
    bodies
}

fn options() -> ChunkOptions {
    let means = [256, 4096].map(|bytes| MeanSize::new(bytes).unwrap());
    ChunkOptions { means: means.into(), ..ChunkOptions::default() }
}

fn check(specs: &[SourceSpec]) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(&root).unwrap();
    let survey = survey(specs);
    let would = |store: &Store| {
        would_add(store, survey.layers().iter().map(|layer| &layer.contents)).unwrap()
    };
    let before = would(&store);
    assert_eq!((before.known_layers, before.known), (0, Held::default()));
    load_all(&store, specs);

    let (read, stored) = (survey.sharing(), store.accounts().sharing().unwrap());
    assert_eq!(groups(&read), groups(&stored));
    assert_eq!(apparent(&read), apparent(&stored));
    let records: Vec<_> = survey.images().iter().map(|image| image.record.clone()).collect();
    let ids: BTreeSet<_> = records.iter().map(|record| record.id).collect();
    assert_eq!(ids, store.images().all().unwrap().iter().map(|record| record.id).collect());
    assert_eq!(matrix(&read, &records), matrix(&stored, &records));
    assert_eq!(levels(&read, &records).layers, levels(&stored, &records).layers);
    for layer in survey.layers() {
        let record = store.layer(&layer.contents.diff_id).unwrap().unwrap();
        assert_eq!((layer.diff_size, layer.entries), (record.diff_size, record.entries));
    }

    // What was to be added is what is there now.
    assert_eq!(before.new.bytes, store.accounts().disk_usage().unwrap().stored);
    let after = would(&store);
    assert_eq!((after.new_layers, after.new), (0, Held::default()));
    assert_eq!((after.known_layers, after.known), (before.new_layers, before.new));

    let of_survey = survey.measure(&options(), &|_, _| ()).unwrap();
    let layers: Vec<DiffId> = survey.layers().iter().map(|one| one.contents.diff_id).collect();
    let of_store = measure_chunks(&store, &layers, &options(), &|_, _| ()).unwrap();
    assert_eq!(of_survey, of_store);
    check_blocks(&stored_bodies(&root), &of_store.cuts);
}

fn check_blocks(bodies: &[Vec<u8>], cuts: &[MeasuredCut]) {
    let of = |cut: Cut| cuts.iter().find(|one| one.cut == cut).unwrap();
    let all: Vec<&[u8]> = bodies.iter().flat_map(|body| body.chunks(4096)).collect();
    let distinct: BTreeSet<&[u8]> = all.iter().copied().collect();
    let blocks = of(Cut::Blocks);
    assert_eq!(blocks.pieces, all.len() as u64);
    assert_eq!(blocks.distinct, distinct.len() as u64);
    assert_eq!(blocks.bytes, distinct.iter().map(|block| block.len() as u64).sum::<u64>());
    let files: BTreeSet<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    assert_eq!(of(Cut::Files).bytes, files.iter().map(|file| file.len() as u64).sum::<u64>());
}

#[test]
fn each_source_alone() {
    for name in [
        "busybox-gzip.oci.tar",
        "cases-docker24.docker.tar.gz",
        "cases-docker25.docker.tar",
        "cases-podman-multi.docker.tar",
        "cases-skopeo.docker.tar",
        "cases-zstd.oci.tar",
        "cases.oci",
        "gnusparse.oci.tar",
        "lowerlink.oci.tar",
        "sparse.oci.tar",
    ] {
        check(&[SourceSpec::path(&fixture(name))]);
    }
}

#[test]
fn several_sources_at_once() {
    let names = ["cases.oci", "cases-docker25.docker.tar", "busybox-gzip.oci.tar", "cases.oci"];
    check(&names.map(|name| SourceSpec::path(&fixture(name))));
}

/// A member of a tar: name, type flag, link target, body.
type Member<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

fn tar_of(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, body) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        builder.append_data(&mut header, name, *body).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Contents whose first member is not the one that names them at the end: replaced files, links
/// to what was replaced, links before their target, a whiteout with a body.
#[test]
fn contents_are_those_that_have_a_name_at_the_end() {
    let (file, link) = (tar::EntryType::Regular, tar::EntryType::Link);
    let body = |n: u8| vec![n; 5000 + usize::from(n)];
    let bodies: Vec<Vec<u8>> = (0..6).map(body).collect();
    let layer = tar_of(&[
        ("kept-by-link", file, "", &bodies[0]),
        ("b", link, "kept-by-link", b""),
        ("kept-by-link", file, "", &bodies[1]),
        ("lost", file, "", &bodies[2]),
        ("lost", file, "", &bodies[3]),
        ("early", link, "late", b""),
        ("late", file, "", &bodies[4]),
        (".wh.gone", file, "", &bodies[5]),
        ("same", file, "", &bodies[4]),
        ("empty", file, "", b""),
    ]);
    let layout = Layout::new("replaced");
    layout.index(&[layout.image(&[&layer], "linux/amd64")]);
    let specs = [SourceSpec::path(layout.root())];
    check(&specs);
    let held = survey(&specs).layers()[0].contents.contents.len();
    assert_eq!(held, 5, "0, 1, 3, 4 and the empty file");
}

#[test]
fn a_damaged_layer_is_refused_as_a_load_refuses_it() {
    let layout = Layout::new("damaged");
    let layer = layout::tar_of(&[("a", "body")]);
    layout.index(&[layout.image(&[&layer], "linux/amd64")]);
    let blobs = layout.root().join("blobs/sha256");
    for entry in fs::read_dir(blobs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes == layer {
            bytes[512] ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    let specs = [SourceSpec::path(layout.root())];
    let scratch = || -> strata_image::Result<File> { Ok(tempfile::tempfile().unwrap()) };
    let read = Survey::read(&specs, &scratch, &SurveyOptions::default(), &Silent).unwrap_err();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let loaded = load(CheckedStore::unchecked(&store), &specs[0], &LoadOptions::default(), &Silent)
        .unwrap_err();
    assert_eq!(read.to_string(), loaded.to_string());
}
