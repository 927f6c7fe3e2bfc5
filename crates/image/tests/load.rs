//! Real archives and hand-made ones into a real store: what is there afterwards, and what is not.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};
use strata_image::{
    CheckedStore, Error, ImageConfig, ImportOptions, LoadOptions, Loaded, SourceSpec, import, load,
    resolve_image,
};
use strata_layer::{Event, LeasedLayer, Progress, Store};
use strata_registry::Reference;
use strata_testkit::layout::{CONFIG, LAYER, Layout, named, tar_of, with};
use strata_testkit::{digest, fixture};

/// Keeps what happened to each layer.
#[derive(Default)]
struct Recorder(Mutex<Vec<(String, Event)>>);

impl Progress for Recorder {
    fn event(&self, layer: &str, event: Event) {
        self.0.lock().unwrap().push((layer.to_owned(), event));
    }

    fn warning(&self, _: &str, _: &str) {}
}

impl Recorder {
    fn layers(&self, wanted: impl Fn(&Event) -> bool) -> BTreeSet<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter(|(_, event)| wanted(event)).map(|(layer, _)| layer.clone()).collect()
    }
}

struct Fresh {
    store: Store,
    dir: tempfile::TempDir,
}

fn fresh() -> Fresh {
    let dir = tempfile::tempdir().unwrap();
    Fresh { store: Store::open(&dir.path().join("store")).unwrap(), dir }
}

impl Fresh {
    fn unchecked(&self) -> CheckedStore<'_> {
        CheckedStore::unchecked(&self.store)
    }

    fn load(&self, path: &Path) -> Result<Vec<Loaded>, Error> {
        self.load_with(&SourceSpec::path(path), &LoadOptions::default())
    }

    fn load_with(
        &self,
        spec: &SourceSpec,
        options: &LoadOptions<'_>,
    ) -> Result<Vec<Loaded>, Error> {
        load(self.unchecked(), spec, options, &Recorder::default())
    }

    fn tags(&self) -> Vec<String> {
        self.store.images().tags().unwrap().into_iter().map(|(tag, _)| tag).collect()
    }

    /// Nothing of anything is in the store: not in the index, not on disk.
    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!(self.store.images().all().unwrap(), []);
        assert_eq!(self.tags(), Vec::<String>::new());
        assert_eq!(self.store.layers().unwrap(), []);
        for dir in ["layers", "staging"] {
            let left: Vec<_> = fs::read_dir(self.store.root().join(dir))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, Vec::<std::ffi::OsString>::new(), "in {dir}/");
        }
    }
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.references.iter().map(Reference::familiar).collect()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(data, 1).read_to_end(&mut out).unwrap();
    out
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let level = bzip2::Compression::fast();
    bzip2::read::BzEncoder::new(data, level).read_to_end(&mut out).unwrap();
    out
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

#[test]
fn what_is_behind_the_end_of_a_compressed_archive_does_not_matter() {
    let fresh = fresh();
    let layout = Layout::new("app");
    layout.index(&[named(&layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64"), "1")]);
    let tar = layout.tar();
    // Room after the end, as tars have, so that a cut comes behind it.
    let long = [&tar[..], &vec![7; 400_000]].concat();
    for (name, pack) in
        [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("xz", xz), ("bz2", bzip2), ("zst", zstd)]
    {
        let (whole, cut) = (pack(&tar), pack(&long));
        let halves = [pack(&tar[..1000]), pack(&tar[1000..])].concat();
        for (what, bytes) in [
            ("members", halves),
            ("zeros", [&whole[..], &[0; 1001]].concat()),
            ("junk", [&whole[..], b"junk"].concat()),
            ("a cut behind the end", cut[..cut.len() - 4].to_vec()),
        ] {
            let path = layout.tar_file(&format!("app.tar.{name}"), &bytes);
            let loaded = fresh.load(&path).unwrap_or_else(|e| panic!("{name}, {what}: {e}"));
            assert_eq!(names(&loaded[0]), ["app:1"], "{name}, {what}");
        }
        let short = pack(&tar[..tar.len() - 1024]);
        let path = layout.tar_file(&format!("short.tar.{name}"), &short[..short.len() - 4]);
        let error = fresh.load(&path).unwrap_err().to_string();
        assert!(error.contains("cannot be decompressed"), "{name}: {error}");
    }
}

#[test]
fn a_blob_that_is_there_twice_has_to_be_the_same() {
    let fresh = fresh();
    let layout = Layout::new("app");
    let layer = tar_of(&[("a", "1")]);
    layout.index(&[named(&layout.image(&[&layer], "linux/amd64"), "1")]);
    let path = format!("blobs/sha256/{}", &digest(&layer)[7..]);
    let with = |first: Option<&[u8]>, last: Option<&[u8]>| {
        let mut tar = tar::Builder::new(Vec::new());
        let add = |tar: &mut tar::Builder<Vec<u8>>, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, &path, bytes).unwrap();
        };
        if let Some(bytes) = first {
            add(&mut tar, bytes);
        }
        tar.append_dir_all(".", layout.root()).unwrap();
        if let Some(bytes) = last {
            add(&mut tar, bytes);
        }
        layout.tar_file("app.tar", &tar.into_inner().unwrap())
    };
    let other = tar_of(&[("a", "2")]);
    for (first, last) in [(Some(&other[..]), None), (None, Some(&other[..]))] {
        let error = fresh.load(&with(first, last)).unwrap_err().to_string();
        assert!(error.contains("several members of this name with different bytes"), "{error}");
    }
    let loaded = fresh.load(&with(Some(&layer), Some(&layer))).unwrap();
    assert_eq!(names(&loaded[0]), ["app:1"]);
}

/// The ids that a docker archive's list gives, by the list's own words.
fn ids_in_list(archive: &Path) -> Vec<String> {
    let mut tar = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut text = String::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == Path::new("manifest.json") {
            entry.read_to_string(&mut text).unwrap();
        }
    }
    let list: Value = serde_json::from_str(&text).unwrap();
    let stem = |item: &Value| {
        let config = item["Config"].as_str().unwrap();
        let name = config.rsplit('/').next().unwrap();
        format!("sha256:{}", name.trim_end_matches(".json"))
    };
    list.as_array().unwrap().iter().map(stem).collect()
}

#[test]
fn every_fixture_loads_under_its_names() {
    let cases: [(&str, &[&[&str]]); 13] = [
        ("busybox-gzip.oci.tar", &[&["stratafs.test/busybox:1"]]),
        ("cases-gzip.oci.tar", &[&["stratafs.test/cases:2"]]),
        ("cases-zstd.oci.tar", &[&["stratafs.test/cases:2"]]),
        ("cases.oci", &[&["cases.oci:1"]]),
        ("cases-skopeo.docker.tar", &[&["stratafs.test/cases:2", "stratafs.test/cases:newest"]]),
        ("cases-podman.docker.tar", &[&["stratafs.test/cases:1"]]),
        (
            "cases-podman-multi.docker.tar",
            &[&["stratafs.test/cases:1"], &["stratafs.test/cases2:1", "stratafs.test/cases2:also"]],
        ),
        (
            "cases-docker25.docker.tar",
            &[&["cases:1"], &["stratafs.test/cases:2", "stratafs.test/cases:latest"]],
        ),
        ("cases-docker24.docker.tar", &[&["cases:1"], &["stratafs.test/cases:2"]]),
        ("cases-docker24.docker.tar.gz", &[&["cases:1"], &["stratafs.test/cases:2"]]),
        ("lowerlink.oci.tar", &[&["stratafs.test/lowerlink:1"]]),
        ("sparse.oci.tar", &[&["stratafs.test/sparse:1"]]),
        ("gnusparse.oci.tar", &[&["stratafs.test/gnusparse:1"]]),
    ];
    for (file, expected) in cases {
        let fresh = fresh();
        let loaded = fresh.load(&fixture(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(loaded.iter().map(names).collect::<Vec<_>>(), expected, "{file}");
        for image in &loaded {
            let record = fresh.store.images().get(&image.id).unwrap().unwrap();
            let layers: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
            assert_eq!(record.layers, layers, "{file}");
            assert_eq!(record.manifest.is_some(), !file.contains("docker") || file.contains("25"));
            let config = ImageConfig::of(&fresh.store, &image.id).unwrap();
            assert_eq!(config.diff_ids(), layers, "{file}");
            for name in names(image) {
                assert_eq!(resolve_image(&fresh.store, &name).unwrap().id, image.id, "{file}");
            }
        }
        if file.ends_with(".docker.tar") {
            let ids: Vec<_> = loaded.iter().map(|image| image.id.to_string()).collect();
            assert_eq!(ids, ids_in_list(&fixture(file)), "{file}");
        }
    }
}

#[test]
fn a_second_load_finds_everything_there() {
    let fresh = fresh();
    let spec = SourceSpec::path(&fixture("cases-docker24.docker.tar"));
    let first = Recorder::default();
    let loaded = load(fresh.unchecked(), &spec, &LoadOptions::default(), &first).unwrap();
    let all: BTreeSet<_> = loaded
        .iter()
        .flat_map(|image| image.layers.iter().map(|layer| layer.diff_id.short()))
        .collect();
    assert_eq!(first.layers(|event| *event == Event::Done), all);
    let second = Recorder::default();
    let again = load(fresh.unchecked(), &spec, &LoadOptions::default(), &second).unwrap();
    assert_eq!(second.layers(|event| *event == Event::Exists), all);
    assert_eq!(second.layers(|event| *event != Event::Exists), BTreeSet::new());
    assert!(again.iter().flat_map(|image| &image.layers).all(|layer| layer.existed));
    assert_eq!(fresh.store.images().all().unwrap().len(), 2);
}

#[test]
fn one_image_of_an_archive_can_be_chosen_and_named() {
    let fresh = fresh();
    let spec = SourceSpec::path(&fixture("cases-podman-multi.docker.tar"));
    let options = LoadOptions { name: Some("new:name".parse().unwrap()), ..Default::default() };
    let error = fresh.load_with(&spec, &options).unwrap_err();
    assert!(matches!(error, Error::OneName { count: 2, .. }), "{error}");
    fresh.assert_empty();
    let one = spec.only("stratafs.test/cases2:also");
    let loaded = fresh.load_with(&one, &options).unwrap();
    assert_eq!(names(&loaded[0]), ["stratafs.test/cases2:also", "new:name"]);
    assert_eq!(fresh.tags(), ["docker.io/library/new:name", "stratafs.test/cases2:also"]);
}

#[test]
fn the_bytes_decide_the_compression_of_a_layer() {
    let fresh = fresh();
    let layout = Layout::new("mixed");
    let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let oci = "application/vnd.oci.image.layer.v1.tar";
    let tars: Vec<_> = ["1", "2", "3", "4", "5", "6"].map(|n| tar_of(&[("file", n)])).to_vec();
    let empty = tar_of(&[]);
    let layers = [
        layout.blob(&format!("{oci}+gzip"), &tars[0]),
        layout.blob(docker, zstd::encode_all(&tars[1][..], 1).unwrap()),
        layout.blob(oci, gzip(&tars[2])),
        layout.blob("", &tars[3]),
        layout.blob(oci, &empty),
        layout.blob(&format!("{oci}+gzip"), &tars[0]),
        layout.blob(&format!("{oci}+xz"), xz(&tars[4])),
        layout.blob(oci, bzip2(&tars[5])),
    ];
    let mut diffs: Vec<&[u8]> = vec![&tars[0], &tars[1], &tars[2], &tars[3], &empty, &tars[0]];
    diffs.extend([&tars[4][..], &tars[5]]);
    layout.index(&[named(&layout.manifest(&layout.config(&diffs, "linux/amd64"), &layers), "1")]);
    let loaded = fresh.load(layout.root()).unwrap();
    let ids: Vec<_> = loaded[0].layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    assert_eq!(ids, diffs.iter().map(|diff| digest(diff)).collect::<Vec<_>>());
    assert_eq!(fresh.store.layers().unwrap().len(), 7);
    // The whole once more, as an archive that is compressed itself.
    let tar = layout.tar();
    for (name, bytes) in [("mixed.tar.xz", xz(&tar)), ("mixed.tar.bz2", bzip2(&tar))] {
        let again = fresh.load(&layout.tar_file(name, &bytes)).unwrap();
        assert_eq!((again[0].id, names(&again[0])), (loaded[0].id, names(&loaded[0])), "{name}");
    }
}

/// A layout of two layers whose second is damaged, and what the error must say.
fn damaged(case: &str) -> (Layout, Vec<String>) {
    let layout = Layout::new("broken");
    let (base, top) = (tar_of(&[("a", "1")]), tar_of(&[("b", "2")]));
    let below = layout.blob(LAYER, &base);
    let mut blob = layout.blob(LAYER, &top);
    let mut diffs = vec![digest(&base), digest(&top)];
    let place = format!("layer 2 of 2 ({})", digest(&top));
    let mut says = vec!["image broken:1: ".to_owned(), place.clone()];
    match case {
        "digest" => {
            let other = tar_of(&[("b", "3")]);
            fs::write(layout.blob_path(&blob), &other).unwrap();
            // The config goes along, so that only the manifest is broken.
            diffs[1] = digest(&other);
            says.extend([digest(&top), digest(&other)]);
        }
        "diff id" => {
            let other = digest(b"other");
            diffs[1].clone_from(&other);
            says.extend([other, digest(&top)]);
        }
        "size" => {
            blob = with(&blob, "size", json!(top.len() + 1));
            says.push(format!("{} bytes, its descriptor says {}", top.len(), top.len() + 1));
        }
        "truncated" => {
            let cut = gzip(&top);
            let cut = &cut[..cut.len() / 2];
            blob = layout.blob(LAYER, cut);
            says[1] = format!("layer 2 of 2 ({})", digest(cut));
        }
        "missing" => {
            layout.remove(&blob);
            says.push("which is not there".to_owned());
        }
        "foreign" => {
            layout.remove(&blob);
            blob = with(&blob, "urls", json!(["https://example.org/layer"]));
            says.push("https://example.org/layer".to_owned());
        }
        "encrypted" => {
            blob = with(&blob, "mediaType", json!(format!("{LAYER}+gzip+encrypted")));
            says.push("it is encrypted".to_owned());
        }
        other => panic!("no case {other}"),
    }
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = layout.blob(CONFIG, config.to_string());
    layout.index(&[named(&layout.manifest(&config, &[below, blob]), "1")]);
    (layout, says)
}

#[test]
fn a_damaged_layer_is_named_and_nothing_stays() {
    for case in ["digest", "diff id", "size", "truncated", "missing", "foreign", "encrypted"] {
        let (layout, says) = damaged(case);
        let archive = layout.tar_file("broken.tar", &layout.tar());
        for path in [layout.root(), &archive] {
            for threads in [1, 2] {
                let fresh = fresh();
                let options =
                    LoadOptions { threads: std::num::NonZero::new(threads), ..Default::default() };
                let error = fresh.load_with(&SourceSpec::path(path), &options).unwrap_err();
                let text = error.to_string();
                for part in &says {
                    assert!(text.contains(part), "{case}: {part:?} is not in: {text}");
                }
                fresh.assert_empty();
            }
        }
    }
}

#[test]
fn a_failed_load_leaves_other_images_alone() {
    let (layout, _) = damaged("digest");
    let good = Layout::new("good");
    let shared = tar_of(&[("a", "1")]);
    good.index(&[named(&good.image(&[&shared], "linux/amd64"), "1")]);
    let fresh = fresh();
    fresh.load(good.root()).unwrap();
    fresh.load(layout.root()).unwrap_err();
    let layers = fresh.store.layers().unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0].diff_id.to_string(), digest(&shared));
    assert_eq!(fresh.tags(), ["docker.io/library/good:1"]);
}

#[test]
fn images_loaded_before_the_broken_one_stay() {
    let layout = Layout::new("set");
    let good = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
    let lost = layout.blob(LAYER, tar_of(&[("a", "2")]));
    let config = layout.config(&[&tar_of(&[("a", "2")])], "linux/amd64");
    let broken = layout.manifest(&config, std::slice::from_ref(&lost));
    layout.remove(&lost);
    layout.index(&[named(&good, "good"), named(&broken, "broken")]);
    let fresh = fresh();
    let seen = Mutex::new(Vec::new());
    let on_loaded = |loaded: &Loaded| seen.lock().unwrap().extend(names(loaded));
    let options = LoadOptions { on_loaded: Some(&on_loaded), ..Default::default() };
    let error = fresh.load_with(&SourceSpec::path(layout.root()), &options).unwrap_err();
    assert!(error.to_string().contains("image set:broken"), "{error}");
    assert_eq!(seen.into_inner().unwrap(), ["set:good"]);
    assert_eq!(fresh.tags(), ["docker.io/library/set:good"]);
    assert_eq!(fresh.store.layers().unwrap().len(), 1);
}

#[test]
fn a_refused_stack_leaves_nothing() {
    let fresh = fresh();
    let spec = SourceSpec::path(&fixture("cases-zstd.oci.tar"));
    let depth = Mutex::new(0);
    let refuse = |_: &Store, layers: &[LeasedLayer]| {
        *depth.lock().unwrap() = layers.len();
        Err("a link leads nowhere".into())
    };
    let into = CheckedStore::new(&fresh.store, &refuse);
    let loaded = load(into, &spec, &LoadOptions::default(), &Recorder::default());
    let error = loaded.unwrap_err().to_string();
    assert!(error.contains("image stratafs.test/cases:2"), "{error}");
    assert!(error.contains("a link leads nowhere"), "{error}");
    assert_eq!(depth.into_inner().unwrap(), 6, "a layer that is there twice counts twice");
    fresh.assert_empty();
}

#[test]
fn a_pipe_is_spooled() {
    let fresh = fresh();
    for (n, file) in
        ["cases-docker25.docker.tar", "cases-docker24.docker.tar.gz"].iter().enumerate()
    {
        let fifo = fresh.dir.path().join(format!("fifo{n}"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let bytes = fs::read(fixture(file)).unwrap();
        let loaded = std::thread::scope(|scope| {
            scope.spawn(|| fs::write(&fifo, &bytes).unwrap());
            fresh.load(&fifo).unwrap()
        });
        assert_eq!(loaded.len(), 2, "{file}");
    }
    let left = fs::read_dir(fresh.store.root().join("staging")).unwrap().count();
    assert_eq!(left, 0, "the spooled archive is gone");
}

#[test]
fn two_loads_of_one_archive_at_once_both_succeed() {
    let fresh = fresh();
    let root = fresh.store.root().to_owned();
    let path = fixture("cases-docker24.docker.tar");
    std::thread::scope(|scope| {
        for own_handle in [false, true, false, true] {
            let (fresh, root, path) = (&fresh, &root, &path);
            scope.spawn(move || {
                // As another process would.
                let other = own_handle.then(|| Store::open(root).unwrap());
                let store = other.as_ref().unwrap_or(&fresh.store);
                let spec = SourceSpec::path(path);
                let loaded = load(
                    CheckedStore::unchecked(store),
                    &spec,
                    &LoadOptions::default(),
                    &Recorder::default(),
                );
                assert_eq!(loaded.unwrap().len(), 2);
            });
        }
    });
    assert_eq!(fresh.store.images().all().unwrap().len(), 2);
    let distinct: BTreeSet<_> =
        fresh.store.images().all().unwrap().into_iter().flat_map(|image| image.layers).collect();
    assert_eq!(fresh.store.layers().unwrap().len(), distinct.len());
}

#[test]
fn a_plain_tar_becomes_the_same_image_however_it_is_compressed() {
    let fresh = fresh();
    let options = ImportOptions {
        created: Some("2024-01-02T03:04:05Z".parse().unwrap()),
        ..Default::default()
    };
    let name: Reference = "rootfs:1".parse().unwrap();
    let take = |file: &str| {
        import(fresh.unchecked(), &fixture(file), Some(&name), &options, &Recorder::default())
            .unwrap()
    };
    let plain = take("rootfs.tar");
    assert_eq!(
        plain.layers[0].diff_id.to_string(),
        digest(&fs::read(fixture("rootfs.tar")).unwrap())
    );
    for file in ["rootfs.tar.gz", "rootfs.tar.zst"] {
        assert_eq!(take(file).id, plain.id, "{file}");
    }
    let bytes = fs::read(fixture("rootfs.tar")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (file, bytes) in [("rootfs.tar.xz", xz(&bytes)), ("rootfs.tar.bz2", bzip2(&bytes))] {
        let path = dir.path().join(file);
        fs::write(&path, bytes).unwrap();
        let taken =
            import(fresh.unchecked(), &path, Some(&name), &options, &Recorder::default()).unwrap();
        assert_eq!(taken.id, plain.id, "{file}");
    }
    let config = ImageConfig::of(&fresh.store, &plain.id).unwrap();
    assert_eq!(config.created(), options.created);
    assert_eq!(config.history()[0].created_by, Some("strata import"));
    assert_eq!(config.history()[0].layer, Some((0, plain.layers[0].diff_id)));
    let manifest = resolve_image(&fresh.store, "rootfs:1").unwrap().manifest.unwrap();
    let manifest: Value = serde_json::from_slice(&fresh.store.blob(&manifest).unwrap()).unwrap();
    let length = fs::metadata(fixture("rootfs.tar")).unwrap().len();
    assert_eq!(manifest["layers"][0]["size"], json!(length));
    assert_eq!(manifest["config"]["digest"], json!(plain.id.to_string()));
}

#[test]
fn what_cannot_be_imported_leaves_nothing() {
    let fresh = fresh();
    let file = fresh.dir.path().join("bad.tar");
    fs::write(&file, &tar_of(&[("a", "1")])[..700]).unwrap();
    let options = ImportOptions::default();
    let take = |path: &Path, name: &str| {
        let name = name.parse().unwrap();
        import(fresh.unchecked(), path, Some(&name), &options, &Recorder::default()).unwrap_err()
    };
    let cut = gzip(&tar_of(&[("a", "1")]));
    let cut_file = fresh.dir.path().join("cut.tar.gz");
    fs::write(&cut_file, &cut[..cut.len() - 9]).unwrap();
    assert!(matches!(take(&cut_file, "x"), Error::Layer { .. }));
    assert!(matches!(take(fresh.dir.path(), "x"), Error::WrongKind(_)));
    let pinned = format!("x@{}", digest(b""));
    assert!(matches!(take(&file, &pinned), Error::NameWithDigest(_)));
    let refuse = |_: &Store, _: &[LeasedLayer]| Err("no".into());
    let refusing = CheckedStore::new(&fresh.store, &refuse);
    let (tar, name) = (fixture("rootfs.tar"), "x".parse().unwrap());
    let error = import(refusing, &tar, Some(&name), &options, &Recorder::default()).unwrap_err();
    assert!(matches!(error, Error::Stack { .. }), "{error}");
    fresh.assert_empty();
}

#[test]
fn images_are_found_again_by_what_people_type() {
    let fresh = fresh();
    let loaded = fresh.load(&fixture("cases-docker25.docker.tar")).unwrap();
    let (one, two) = (&loaded[0], &loaded[1]);
    let manifest = fresh.store.images().get(&two.id).unwrap().unwrap().manifest.unwrap();
    let (hex, id) = (one.id.hex(), one.id.to_string());
    for (text, image) in [
        ("cases:1", one),
        ("docker.io/library/cases:1", one),
        (&id, one),
        (&hex, one),
        (&hex[..12], one),
        (&id[..20], one),
        ("stratafs.test/cases", two),
        (&format!("stratafs.test/cases@{manifest}"), two),
        (&format!("stratafs.test/cases:2@{manifest}"), two),
    ] {
        assert_eq!(resolve_image(&fresh.store, text).unwrap().id, image.id, "{text}");
    }
    let pinned_elsewhere = format!("cases@{manifest}");
    for text in ["cases", "cases:2", "", "UPPER", &hex[..1], &pinned_elsewhere, &"0".repeat(64)] {
        let error = resolve_image(&fresh.store, text).unwrap_err();
        assert!(matches!(error, Error::NoImage { .. }), "{text}: {error}");
    }
    // Enough one-layer images that two share a beginning of two digits: 257 for 256 of them.
    let mut first = std::collections::HashMap::new();
    let (tar, name) = (fixture("rootfs.tar"), "many".parse().unwrap());
    for second in 0..257 {
        let created = jiff::Timestamp::from_second(second).unwrap();
        let options = ImportOptions { created: Some(created), ..Default::default() };
        let image =
            import(fresh.unchecked(), &tar, Some(&name), &options, &Recorder::default()).unwrap();
        let prefix = image.id.hex()[..2].to_owned();
        if let Some(other) = first.insert(prefix.clone(), image.id) {
            let error = resolve_image(&fresh.store, &prefix).unwrap_err();
            let Error::Ambiguous { candidates, .. } = &error else { panic!("{error}") };
            assert!(candidates.contains(&other) && candidates.contains(&image.id));
            return;
        }
    }
    panic!("257 ids without a common beginning");
}
