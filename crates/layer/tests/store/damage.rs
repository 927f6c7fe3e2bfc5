//! Every kind of damage to a layer's directory is found and named; repaired, the store is clean,
//! the damaged images are gone, the others are not, and what is gone loads again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_layer::{
    Event, Hold, KernelLease, KernelLeases, LEASE_BLOCK, Problem, Progress, Step, Store,
    StoreOptions,
};
use strata_tree::DiffId;

use crate::common::{
    Silent, TempStore, assert_clean, copy_store, diff_id, dump, files, flip, fsck, load, members,
    stored_files, walk,
};

struct Set {
    base: Vec<u8>,
    over: Vec<u8>,
    alone: Vec<u8>,
}

/// Two layers of one image that share a content, and an image that shares nothing.
fn set() -> Set {
    let big: Vec<u8> = (0..(1 << 20) + 5000_u32).map(|n| (n % 251) as u8).collect();
    let mut base = files(&[("d/one", b"one"), ("big", &big), ("shared", b"shared content")]);
    base.truncate(base.len() - 1024);
    base.extend(members(&[
        "d empty",
        "s l -> x",
        "f lost lost bytes",
        "f lost kept",
        "h z => lost",
    ]));
    let over = members(&["f e/own own", "f e/shared shared content", "f .wh.gone fat whiteout"]);
    Set { base, over, alone: members(&["f alone alone"]) }
}

fn fill(root: &Path, set: &Set) {
    let store = Store::open(root).unwrap();
    load(&store, "two-layers", &[&set.base, &set.over]);
    load(&store, "alone", &[&set.alone]);
}

fn layer_dir(root: &Path, diff_id: &DiffId) -> PathBuf {
    root.join("layers").join(diff_id.hex())
}

/// Damages a copy of the store; the problem must name the layer and `needle`.
fn check(origin: &Path, set: &Set, name: &str, needle: &str, damage: impl Fn(&Path)) {
    let place = TempStore::in_memory();
    let root = place.root();
    copy_store(origin, &root);
    let clean = (dump(&root), stored_files(&root));
    damage(&root);
    let report = fsck(&root);
    let little = StoreOptions { memory: Some(1), ..StoreOptions::default() };
    let again = Store::fsck(&root, false, little, &Silent).unwrap();
    assert_eq!(again, report, "{name}: with no memory to speak of");
    let text: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|text| text.contains(needle)), "{name}: {needle} not in {text:?}");
    assert!(
        text.iter().any(|text| text.contains("layer sha256:") || text.contains("layers/")),
        "{name}: {text:?}"
    );
    let repaired = Store::fsck(&root, true, StoreOptions::default(), &Silent).unwrap();
    assert_eq!(repaired.problems, [], "{name}");
    assert!(!repaired.repaired.is_empty(), "{name}");
    assert_clean(&root);
    let store = Store::open(&root).unwrap();
    let tags: Vec<String> =
        store.images().tags().unwrap().into_iter().map(|(tag, _)| tag).collect();
    assert!(tags.contains(&"alone".to_owned()), "{name}: {tags:?}");
    let mends_in_place = |problem: &Problem| matches!(problem, Problem::Mode { .. });
    let kept = report.problems.iter().all(mends_in_place);
    assert_eq!(tags.contains(&"two-layers".to_owned()), kept, "{name}: {tags:?}");
    drop(store);
    fill(&root, set);
    assert_clean(&root);
    assert_eq!((dump(&root), contents(&root)), (clean.0, without_inodes(&clean.1)), "{name}");
}

/// Removes the image with two layers, once, when the check comes to a layer.
struct Remover<'a>(&'a Path, std::sync::Once);

impl Progress for Remover<'_> {
    fn event(&self, _: &str, event: Event) {
        if matches!(event, Event::Started { .. }) {
            self.1.call_once(|| {
                let store = Store::open(self.0).unwrap();
                let (_, image) = store.images().tags().unwrap().pop().unwrap();
                assert_eq!(store.images().remove(&image).unwrap().len(), 2);
            });
        }
    }

    fn warning(&self, _: &str, _: &str) {}
}

#[test]
fn what_another_process_removes_meanwhile_is_no_damage() {
    let (place, set) = (TempStore::in_memory(), set());
    let root = place.root();
    fill(&root, &set);
    let remover = Remover(&root, std::sync::Once::new());
    let report = Store::fsck(&root, false, StoreOptions::default(), &remover).unwrap();
    assert!(remover.1.is_completed());
    assert_eq!((report.problems, report.layers), (vec![], 1));

    // What is damaged all the same is told.
    fill(&root, &set);
    flip(&layer_dir(&root, &diff_id(&set.alone)).join("diff/alone"), 0);
    let remover = Remover(&root, std::sync::Once::new());
    let report = Store::fsck(&root, false, StoreOptions::default(), &remover).unwrap();
    assert!(!report.problems.is_empty());
    assert!(report.problems.iter().all(|problem| match problem {
        Problem::Layer { diff_id: layer, .. } => *layer == diff_id(&set.alone),
        _ => false,
    }));
}

type Files = std::collections::BTreeMap<PathBuf, (Vec<u8>, u64)>;

fn without_inodes(files: &Files) -> Vec<(PathBuf, Vec<u8>)> {
    files.iter().map(|(path, (bytes, _))| (path.clone(), bytes.clone())).collect()
}

fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    without_inodes(&stored_files(root))
}

fn origin() -> (TempStore, Set) {
    let place = TempStore::in_memory();
    let set = set();
    fill(&place.root(), &set);
    assert_clean(&place.root());
    (place, set)
}

#[test]
fn a_flipped_byte_in_every_file() {
    let (place, set) = origin();
    let mut flipped = 0;
    for layer in [&set.base, &set.over] {
        let id = diff_id(layer);
        let dir = layer_dir(&place.root(), &id);
        for (path, (mode, _, len)) in walk(&dir) {
            if mode & 0o170_000 != 0o100_000 {
                continue;
            }
            let needle = if path.starts_with("diff") {
                path.file_name().unwrap()
            } else {
                "headers.zst".as_ref()
            };
            for at in [0, len / 2, len - 1] {
                check(&place.root(), &set, "flip", needle.to_str().unwrap(), |root| {
                    flip(&layer_dir(root, &id).join(&path), at);
                });
                flipped += 1;
            }
        }
    }
    assert_eq!(flipped, 3 * (5 + 1 + 2 + 1));
}

/// Every single byte of `headers.zst`, two ways each; a zstd frame has bits that decode alike.
#[test]
fn every_byte_of_the_headers() {
    let (place, set) = origin();
    let path = layer_dir(&place.root(), &diff_id(&set.over)).join("headers.zst");
    let len = path.metadata().unwrap().len();
    for at in 0..len {
        for mask in [1, 0x80] {
            crate::common::change(&path, at, |byte| byte ^ mask);
            let report = fsck(&place.root());
            crate::common::change(&path, at, |byte| byte ^ mask);
            let found = report.problems.iter().map(ToString::to_string).collect::<Vec<_>>();
            let needle = format!("layer {}", diff_id(&set.over));
            assert!(found.iter().any(|text| text.contains(&needle)), "byte {at}: {found:?}");
            assert!(found.iter().any(|text| text.contains("headers.zst")), "byte {at}: {found:?}");
        }
    }
    assert!(len > 200, "{len}");
    assert_clean(&place.root());
}

#[test]
fn missing_cut_strange_and_surplus_things() {
    let (place, set) = origin();
    let base = diff_id(&set.base);
    let dir = |root: &Path| layer_dir(root, &base);
    let check = |name: &str, needle: &str, damage: &dyn Fn(&Path)| {
        check(&place.root(), &set, name, needle, damage);
    };
    check("missing file", "/d/one", &|root| fs::remove_file(dir(root).join("diff/d/one")).unwrap());
    check("missing hard link", "/z", &|root| fs::remove_file(dir(root).join("diff/z")).unwrap());
    check("missing directory", "/empty", &|root| {
        fs::remove_dir(dir(root).join("diff/empty")).unwrap();
    });
    check("missing diff", "/ is missing", &|root| {
        fs::remove_dir_all(dir(root).join("diff")).unwrap()
    });
    check("missing headers", "headers.zst", &|root| {
        fs::remove_file(dir(root).join("headers.zst")).unwrap();
    });
    check("missing layer", "its directory is gone", &|root| {
        fs::remove_dir_all(dir(root)).unwrap();
    });
    check("extra file", "/extra", &|root| fs::write(dir(root).join("diff/extra"), "x").unwrap());
    check("extra file beside", "junk", &|root| fs::write(dir(root).join("junk"), "x").unwrap());
    check("extra directory", "/d/extra", &|root| {
        fs::create_dir(dir(root).join("diff/d/extra")).unwrap();
    });
    check("file for a directory", "/empty", &|root| {
        fs::remove_dir(dir(root).join("diff/empty")).unwrap();
        fs::write(dir(root).join("diff/empty"), "").unwrap();
    });
    check("symlink for a file", "/d/one", &|root| {
        fs::remove_file(dir(root).join("diff/d/one")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir(root).join("diff/d/one")).unwrap();
    });
    check("symlink for a directory", "/d is of the wrong type", &|root| {
        fs::rename(dir(root).join("diff/d"), root.join("../d")).unwrap();
        std::os::unix::fs::symlink("../../../../d", dir(root).join("diff/d")).unwrap();
    });
    check("symlink for the layer", "layer", &|root| {
        fs::rename(dir(root), root.join("../layer")).unwrap();
        std::os::unix::fs::symlink("../../layer", dir(root)).unwrap();
    });
    for file in ["diff/big", "diff/d/one", "headers.zst"] {
        let needle = file.trim_start_matches("diff");
        check("cut", needle, &|root| set_len(&dir(root).join(file), -1));
        check("emptied", needle, &|root| set_len(&dir(root).join(file), i64::MIN));
        check("longer", needle, &|root| set_len(&dir(root).join(file), 1));
    }
}

fn set_len(path: &Path, by: i64) {
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_add_signed(by)).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

#[test]
fn changed_modes_are_mended_in_place() {
    let (place, set) = origin();
    let base = diff_id(&set.base);
    for (path, mode) in [
        ("diff/d/one", 0o644),
        ("diff/shared", 0o4755),
        ("diff/d", 0o777),
        ("diff/empty", 0o700),
        ("headers.zst", 0o600),
        ("diff", 0o1755),
        ("", 0o711),
    ] {
        let needle = format!("{path} has mode {mode:o}");
        check(&place.root(), &set, "mode", &needle, |root| {
            let path = layer_dir(root, &base).join(path);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        });
    }
}

#[test]
fn directories_without_rows_are_remarked_and_removed() {
    let (place, _) = origin();
    let layers = place.root().join("layers");
    fs::create_dir_all(layers.join("ab".repeat(32)).join("diff")).unwrap();
    fs::write(layers.join("stray"), "stray").unwrap();
    let report = fsck(&place.root());
    assert_eq!((report.problems.len(), report.notes.len()), (0, 2));
    assert!(report.notes[0].contains("abab") && report.notes[1].contains("stray"));
    let report = Store::fsck(&place.root(), true, StoreOptions::default(), &Silent).unwrap();
    assert_eq!(report.repaired.len(), 2);
    assert_clean(&place.root());
    assert_eq!(place.open().images().all().unwrap().len(), 2);
}

#[test]
fn damaged_blobs_take_their_image_out() {
    for text in ["config of alone", "manifest of alone"] {
        for gone in [false, true] {
            let (place, set) = origin();
            let store = place.open();
            let path = place
                .root()
                .join("blobs/sha256")
                .join(store.put_blob(text.as_bytes()).unwrap().hex());
            drop(store);
            if gone {
                fs::remove_file(&path).unwrap()
            } else {
                flip(&path, 3)
            }
            let report = fsck(&place.root());
            assert!(matches!(report.problems[..], [Problem::Image { .. }]), "{report:?}");
            let report = Store::fsck(&place.root(), true, StoreOptions::default(), &Silent);
            assert_eq!(report.unwrap().problems, []);
            assert_clean(&place.root());
            fill(&place.root(), &set);
            assert_eq!(place.open().images().all().unwrap().len(), 2);
            assert_clean(&place.root());
        }
    }
}

/// A mount goes on with what it holds; the repair says so and takes it out later.
#[test]
fn what_is_in_use_is_not_taken_out() {
    let (place, set) = origin();
    let store = place.open();
    let image =
        store.images().all().unwrap().into_iter().find(|image| image.layers.len() == 2).unwrap();
    let leased = store.lease_image(&image.id).unwrap();
    drop(store);
    flip(&layer_dir(&place.root(), &diff_id(&set.base)).join("diff/d/one"), 0);
    let repair = || Store::fsck(&place.root(), true, StoreOptions::default(), &Silent).unwrap();
    assert!(!repair().problems.is_empty());
    assert_eq!(place.open().images().all().unwrap().len(), 2);
    drop(leased);
    assert_eq!(repair().problems, []);
    assert_clean(&place.root());
}

/// Without the image the layer would stay, and the image, loaded again, would have its damage.
#[test]
fn images_of_a_damaged_layer_that_has_to_stay_are_not_taken_out() {
    let (place, set) = origin();
    let base = diff_id(&set.base);
    let store = place.open();
    load(&store, "again", &[&set.base]);
    let images = store.images().tags().unwrap();
    let holds = store.holds("containerd").unwrap();
    flip(&layer_dir(&place.root(), &base).join("diff/d/one"), 0);
    let tags = || place.open().images().tags().unwrap();
    let repair = || Store::fsck(&place.root(), true, StoreOptions::default(), &Silent).unwrap();
    let stays = |why: &str| {
        let report = repair();
        assert_eq!((report.repaired, tags()), (vec![], images.clone()), "{why}");
        let said = report.problems[0].to_string();
        assert!(said.contains("repair once more when that has ended"), "{why}: {said}");
    };
    holds.add([&base]).unwrap();
    stays("an engine has the layer");
    holds.remove([&base]).unwrap();
    for (name, image) in images.iter().filter(|(name, _)| name != "alone") {
        let leased = store.lease_image(image).unwrap();
        stays(&format!("{name} is mounted"));
        drop(leased);
    }
    drop(store);
    assert_eq!(repair().problems, []);
    assert_eq!(tags().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["alone"]);
    assert_clean(&place.root());
}

/// A layer has one problem for each damaged file, and is taken out for the first of them.
#[test]
fn a_layer_that_was_loaded_again_during_the_repair_stays() {
    let (place, set) = origin();
    let (root, base) = (place.root(), diff_id(&set.base));
    let store = place.open();
    let holds = store.holds("engine").unwrap();
    holds.add([&base]).unwrap();
    let image = store.images().all().unwrap().into_iter().find(|image| image.layers.len() == 2);
    store.images().remove(&image.unwrap().id).unwrap();
    holds.remove([&base]).unwrap();
    drop((store, holds));
    for path in ["diff/d/one", "diff/lost"] {
        flip(&layer_dir(&root, &base).join(path), 0);
    }
    let again = std::sync::Once::new();
    let (at, layer) = (root.clone(), layer_dir(&root, &base));
    let load_again = move |step| {
        if step == Step::Trashed && !layer.exists() {
            again.call_once(|| fill(&at, &set));
        }
    };
    let options = StoreOptions { on_step: Some(Arc::new(load_again)), ..StoreOptions::default() };
    let report = Store::fsck(&root, true, options, &Silent).unwrap();
    assert_eq!(report.problems, []);
    let of_base = |line: &&String| line.starts_with(&format!("layer {base}"));
    assert!(report.repaired.iter().filter(of_base).count() > 1, "{report:?}");
    assert_eq!(place.open().images().all().unwrap().len(), 2);
    assert_clean(&root);
}

/// The new index has no row of a damaged layer, and its directory is what a mount still shows.
#[test]
fn what_a_mount_or_an_engine_has_stays_when_the_index_is_rebuilt() {
    let (origin, set) = origin();
    let base = diff_id(&set.base);
    let image = {
        let images = origin.open().images().all().unwrap();
        images.into_iter().find(|image| image.layers.len() == 2).unwrap()
    };
    for by in ["kernel", "engine", "engine that refuses"] {
        let place = TempStore::in_memory();
        let root = place.root();
        copy_store(&origin.root(), &root);
        let holds = place.open().holds("engine").unwrap();
        let leases = KernelLeases::new(root.join("mounts"));
        let mut lease = None;
        let layers = vec![base];
        match by {
            "kernel" => {
                let of = KernelLease { image: image.id, layers, upper: None };
                lease = Some(leases.make("name", &of, &[0; LEASE_BLOCK]).unwrap());
            }
            "engine" => holds.add([&base]).unwrap(),
            _ => {
                let (key, by, note) = ("key".to_owned(), "an engine".to_owned(), String::new());
                let images = Vec::new();
                holds
                    .take(&Hold { key, by, count: 1, layers, images, refuses: true, note })
                    .unwrap();
            }
        }
        let dir = layer_dir(&root, &base);
        flip(&dir.join("diff/d/one"), 0);
        fs::remove_file(root.join("index.db")).unwrap();
        let repair = || Store::fsck(&root, true, StoreOptions::default(), &Silent).unwrap();
        let problems = repair().problems;
        assert!(
            matches!(&problems[..], [Problem::Layer { diff_id, .. }] if *diff_id == base),
            "{by}: {problems:?}"
        );
        assert_eq!(place.open().gc().unwrap().orphans, [] as [PathBuf; 0], "{by}");
        assert_eq!(fs::read(dir.join("diff/shared")).unwrap(), b"shared content", "{by}");

        // Loaded again it is whole, and once nobody has it, a repair takes it away.
        let again = place.beside("again");
        copy_store(&root, &again);
        fill(&again, &set);
        assert_clean(&again);
        drop(lease);
        holds.remove([&base]).unwrap();
        holds.end("key").unwrap();
        assert_eq!(repair().problems, [], "{by}");
        assert!(!dir.exists(), "{by}");
        assert_clean(&root);
    }
}

/// Nobody can tell what it holds, so nothing goes: a hold of one layer is its name at least.
#[test]
fn a_hold_that_says_nothing_is_told_and_its_layer_stays() {
    let (place, set) = origin();
    let layer = diff_id(&set.alone);
    let store = place.open();
    store.holds("engine").unwrap().add([&layer]).unwrap();
    assert_clean(&place.root());
    let path = place.root().join("holds/engine").join(layer.hex());
    fs::write(&path, "{").unwrap();
    let problems = fsck(&place.root()).problems;
    assert!(
        matches!(&problems[..], [Problem::Hold { path: at, .. }] if *at == path),
        "{problems:?}"
    );
    drop(store);
    let report = Store::fsck(&place.root(), true, StoreOptions::default(), &Silent).unwrap();
    assert_eq!((report.problems.len(), report.repaired.len()), (0, 1));
    assert_clean(&place.root());
    let store = place.open();
    let image = store.images().all().unwrap();
    let image = image.iter().find(|image| image.layers == [layer]).unwrap();
    assert_eq!(store.images().remove(&image.id).unwrap(), []);
    assert!(store.layer(&layer).unwrap().is_some());
    store.holds("engine").unwrap().remove([&layer]).unwrap();
    assert_eq!(store.gc().unwrap().layers, [layer]);
    // What is held and not there is worth a line.
    store.holds("engine").unwrap().add([&layer]).unwrap();
    let report = fsck(&place.root());
    assert_eq!((report.problems.len(), report.notes.len()), (0, 1));
}
