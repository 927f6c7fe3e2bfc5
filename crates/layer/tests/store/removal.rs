//! Removing gives everything back, and what the store says it holds is what lies there.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use strata_layer::{DiskUsage, Error, Space, Usage};

use crate::common::{TempStore, assert_clean, diff_id, files, load, members, unpack, walk};
use crate::sharing::{gated, unpack_gated};
use strata_testkit::tars::Tar;

/// What `du` counts, each inode once: bytes with `--apparent-size` (before coreutils 9.2, which
/// leaves directories out), blocks of 512 bytes without.
fn du(path: &Path) -> Space {
    let mut seen = HashSet::new();
    let mut all = Space::default();
    let mut count = |path: &Path| {
        let meta = path.symlink_metadata().unwrap();
        if seen.insert(meta.ino()) {
            all += Space { bytes: meta.len(), blocks: meta.blocks() };
        }
    };
    count(path);
    if path.is_dir() {
        walk(path).into_keys().for_each(|below| count(&path.join(below)));
    }
    all
}

fn assert_usage_is_what_du_counts(place: &TempStore) {
    let store = place.open();
    let records = store.layers().unwrap();
    let usage = store.into_disk_usage().unwrap();
    let disk = &usage.disk;
    assert_eq!(disk.total(), du(&place.root()));
    let layers = disk.contents + disk.headers + disk.directories;
    assert_eq!(layers, du(&place.root().join("layers")));
    let said = Command::new("du").arg("-s").arg("-B512").arg(place.root()).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let said: u64 = said.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(disk.total().blocks, said);
    let indexed: u64 = usage.layers.iter().map(|layer| layer.usage.unique).sum();
    assert_eq!(indexed + usage.shared, usage.stored);
    assert_eq!(disk.headers.bytes, records.iter().map(|record| record.headers_size).sum::<u64>());
    assert_eq!(usage.entries, records.iter().map(|record| record.entries).sum::<u64>());
    assert_adds_up(&usage);
}

/// Every column is the store, or says why not.
fn assert_adds_up(usage: &DiskUsage) {
    let engines = || usage.engines.iter().map(|(_, one)| one);
    let all = || usage.images.iter().map(|(_, one)| one).chain(engines()).chain([&usage.unheld]);
    let sum = |of: fn(&Usage) -> u64| -> u64 { all().map(of).sum() };
    assert_eq!(sum(|one| one.attributed), usage.disk.contents.bytes);
    assert_eq!(sum(|one| one.blocks.attributed), usage.disk.contents.blocks);
    assert_eq!(sum(|one| one.apparent), usage.apparent);
    let sum = |of: fn(&Usage) -> u64| usage.layers.iter().map(|one| of(&one.usage)).sum::<u64>();
    assert_eq!(sum(|one| one.attributed), usage.disk.contents.bytes);
    assert_eq!(sum(|one| one.blocks.attributed), usage.disk.contents.blocks);
    assert_eq!(sum(|one| one.layered), usage.layered);
    for one in all() {
        assert_eq!(one.unique + one.shared, one.stored);
        assert_eq!(one.blocks.unique + one.blocks.shared, one.blocks.stored);
    }
}

#[test]
fn usage_is_what_du_counts() {
    let place = TempStore::new();
    assert_usage_is_what_du_counts(&place);
    let big = vec![3; 3 << 20];
    let base = files(&[("a/one", b"one"), ("a/two", b"two"), ("big", &big), ("empty", b"")]);
    let lines = ["f b/one one", "h b/link => b/one", "f own own", "f .wh.big", "s l -> x"];
    let over = members(&lines);
    load(&place.open(), "one", &[&base]);
    assert_usage_is_what_du_counts(&place);
    load(&place.open(), "two", &[&base, &over]);
    assert_usage_is_what_du_counts(&place);
    // Bodies that only headers.zst has.
    load(&place.open(), "three", &[&members(&["f a lost", "f a one", "f .wh.x fat"])]);
    assert_usage_is_what_du_counts(&place);
    assert_eq!(place.open().accounts().disk_usage().unwrap().stored, 3 + 3 + big.len() as u64 + 3);
    // Everything that may lie in a store: what is being written, what a crash left, what nobody
    // knows, an upper, records of mounts.
    let store = place.open();
    let (tar, reader, gate) = gated(files_of(&base), Tar::default());
    thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack_gated(&store, &tar, reader));
        gate.wait();
        let root = place.root();
        for (path, len) in [
            ("layers/stray", 1),
            ("layers/0000/diff/x", 70_000),
            ("uppers/u/upper/f", 5000),
            ("mounts/m.log", 10),
            ("trees/t", 4097),
            ("notes", 9),
        ] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7; len]).unwrap();
        }
        std::fs::hard_link(root.join("uppers/u/upper/f"), root.join("uppers/u/upper/g")).unwrap();
        rustix::fs::sync();
        assert_eq!(store.accounts().disk_usage().unwrap().disk.total(), du(&root));
        gate.open();
        drop(unpacking.join().unwrap());
    });
    drop(store);
    std::fs::remove_dir_all(place.root().join("layers/0000")).unwrap();
    std::fs::remove_file(place.root().join("layers/stray")).unwrap();
    // A layer that no image has.
    let store = place.open();
    let usage = store.accounts().disk_usage().unwrap();
    assert!(usage.unheld.apparent > 0);
    assert_eq!(usage.engines, []);
    // An engine has it, under a name and without one.
    let loose = usage.layers.iter().find(|layer| layer.images == 0).unwrap().diff_id;
    let holds = store.holds("engine").unwrap();
    holds.add([&loose]).unwrap();
    for (names, shown) in [(vec![], "engine"), (vec!["app:1".to_owned()], "app:1 (engine)")] {
        holds.name(&loose, &names).unwrap();
        let usage = store.accounts().disk_usage().unwrap();
        let [(held, of)] = &usage.engines[..] else { panic!("{:?}", usage.engines) };
        assert_eq!((held.shown().as_str(), &held.layers[..]), (shown, &[loose][..]));
        assert!(of.stored > 0 && usage.unheld.apparent == 0);
        assert_adds_up(&usage);
    }
    drop(store);
    rustix::fs::sync();
    assert_usage_is_what_du_counts(&place);
}

/// Members of one of the tars here, for a tar that goes on.
fn files_of(tar: &[u8]) -> Tar {
    Tar(tar[..tar.len() - 1024].to_vec())
}

/// Three images: all have one content, two have another, each has its own; a layer of no image
/// keeps what one image has.
#[test]
fn contents_are_split_among_their_images() {
    let place = TempStore::in_memory();
    let store = place.open();
    let all = vec![b'a'; 100];
    let (two, kept) = (vec![b't'; 31], vec![b'k'; 50]);
    load(&store, "one", &[&files(&[("x", &all), ("y", &two), ("own", b"1")])]);
    load(&store, "two", &[&files(&[("x2", &all), ("y2", &two), ("own", b"two")])]);
    let base = files(&[("x3", &all), ("kept", &kept)]);
    load(&store, "three", &[&base, &base]);
    drop(unpack(&store, &files(&[("loose", b"loose"), ("same", &kept)])).unwrap());
    let (images, sharing) = (store.images().all().unwrap(), store.accounts().sharing().unwrap());
    let parts = sharing.images(&images);
    let tags = store.images().tags().unwrap();
    let of = |tag: &str| {
        let id = tags.iter().find(|(name, _)| name == tag).unwrap().1;
        images.iter().position(|image| image.id == id).unwrap()
    };
    let [one, two, three] = ["one", "two", "three"].map(|tag| parts[of(tag)]);
    assert_eq!((one.stored, one.unique, one.shared, one.files), (132, 1, 131, 3));
    assert_eq!((two.stored, two.unique, two.shared, two.files), (134, 3, 131, 3));
    // Its own content stays when it goes: the layer of no image has it.
    assert_eq!((three.stored, three.unique, three.shared, three.files), (150, 0, 150, 2));
    assert_eq!((three.apparent, three.layered), (300, 300));
    // 100 = 34 + 33 + 33 and 31 = 16 + 15, to the first by id.
    let first = |rank: usize| u64::from(rank == 0);
    let of_all = |tag| 33 + first(of(tag));
    let of_two = |tag, other| 15 + first(usize::from(of(tag) > of(other)));
    assert_eq!(one.attributed, of_all("one") + of_two("one", "two") + 1);
    assert_eq!(two.attributed, of_all("two") + of_two("two", "one") + 3);
    assert_eq!(three.attributed, of_all("three") + 50);
    let unheld = sharing.unheld(&images);
    assert_eq!((unheld.stored, unheld.unique, unheld.apparent), (5, 5, 55));
    let both = sharing.together(&images, &BTreeSet::new(), &[of("one"), of("two")].into());
    assert_eq!((both.apparent, both.stored, both.unique), (266, 166 - 31, 35));
    let all = sharing.together(&images, &BTreeSet::new(), &(0..3).collect());
    assert_eq!((all.stored, all.unique, all.shared), (185, 135, 50));
    // The base of "three" is a layer of its own each time for overlay2.
    assert_eq!((all.apparent, all.layered), (566, 566));
    assert_eq!(sharing.freed_with(&images[of("three")].layers.iter().copied().collect()), 0);
    assert_adds_up(&store.accounts().disk_usage().unwrap());
}

/// What an engine has stays when the images go that have it too.
#[test]
fn what_an_engine_has_is_no_images_own() {
    let place = TempStore::in_memory();
    let store = place.open();
    let (base, top) = (files(&[("base", b"base!")]), files(&[("top", b"top")]));
    load(&store, "one", &[&base, &top]);
    let held = store.layers().unwrap()[0].diff_id;
    let holds = store.holds("engine").unwrap();
    holds.add([&held]).unwrap();
    let (images, sharing) = (store.images().all().unwrap(), store.accounts().sharing().unwrap());
    let id = [images[0].id];
    let freed = store.accounts().removal(&id, &[]).unwrap().contents.bytes;
    assert_eq!(freed, 3);
    let usage = store.accounts().disk_usage().unwrap();
    let of = usage.images[0].1;
    assert_eq!((of.stored, of.unique, of.shared, of.attributed), (8, freed, 5, 8));
    assert_adds_up(&usage);
    let held = BTreeSet::from([held]);
    assert_eq!(sharing.images_beside(&images, &held), [of]);
    assert_eq!(sharing.together(&images, &held, &BTreeSet::from([0])).unique, freed);
    // A layer that it alone has is its own, as it is without the image.
    store.images().remove(&id[0]).unwrap();
    let usage = store.accounts().disk_usage().unwrap();
    assert_eq!((usage.engines[0].1.stored, usage.engines[0].1.unique), (5, 5));
    assert_adds_up(&usage);
}

#[test]
fn removing_all_images_frees_every_byte() {
    let place = TempStore::new();
    let empty = {
        place.open();
        (du(&place.root().join("layers")), walk(&place.root()).into_keys().collect::<Vec<_>>())
    };
    let base = files(&[("a/one", b"one"), ("big", &[1; 2 << 20])]);
    let over = files(&[("b/one", b"one"), ("own", b"own")]);
    let store = place.open();
    let one = load(&store, "one", &[&base]);
    let two = load(&store, "two", &[&base, &over, &over]);
    store.images().tag("also", &one).unwrap();
    assert_eq!(store.images().remove(&one).unwrap(), []);
    assert_eq!(store.images().tags().unwrap(), [("two".to_owned(), two)]);
    let top_first = [&over, &base].map(|tar| crate::common::diff_id(tar));
    assert_eq!(store.images().remove(&two).unwrap(), top_first);
    assert!(matches!(store.images().remove(&two), Err(Error::NoImage(id)) if id == two));
    assert_eq!(store.accounts().disk_usage().unwrap().stored, 0);
    drop(store);
    let listing = Path::new("images.json").to_owned();
    let left = walk(&place.root()).into_keys().filter(|path| *path != listing).collect();
    assert_eq!((du(&place.root().join("layers")), left), empty);
    assert_clean(&place.root());
}

#[test]
fn a_name_that_came_meanwhile_is_not_lost() {
    let place = TempStore::new();
    let store = place.open();
    let image = load(&store, "one", &[&files(&[("a", b"one")])]);
    // Another process, after this one has asked for the names.
    place.open().images().tag("two", &image).unwrap();
    let renamed = |result: Error| matches!(result, Error::Renamed(id) if id == image);
    assert!(renamed(store.images().remove_known(&image, &["one"], &|| false).unwrap_err()));
    let one = ["one".to_owned()];
    assert!(renamed(store.images().untag_of(&image, &["one"], &one).unwrap_err()));
    let named = vec![("one".to_owned(), image), ("two".to_owned(), image)];
    let all = store.images().with_tags().unwrap();
    assert_eq!((all.images.len(), all.tags), (1, named));
    store.images().untag_of(&image, &["two", "one"], &one).unwrap();
    assert!(renamed(store.images().remove_known(&image, &["one", "two"], &|| false).unwrap_err()));
    let used = store.images().remove_known(&image, &["two"], &|| true).unwrap_err();
    assert!(used.is_in_use(), "{used}");
    assert_eq!(store.images().remove_known(&image, &["two"], &|| false).unwrap().len(), 1);
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn shared_contents_stay_for_who_is_left() {
    let place = TempStore::new();
    let store = place.open();
    let one = load(&store, "one", &[&files(&[("a", b"same"), ("b", b"mine")])]);
    load(&store, "two", &[&files(&[("x", b"same")])]);
    store.images().remove(&one).unwrap();
    assert_eq!(store.accounts().disk_usage().unwrap().stored, 4);
    // The content is known under the name that is left, and linked from there.
    load(&store, "three", &[&files(&[("y", b"same")])]);
    assert_eq!(crate::common::assert_one_inode_each(&place.root()), 1);
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn what_is_held_stays() {
    let place = TempStore::new();
    let store = place.open();
    let base = files(&[("a", b"one")]);
    let image = load(&store, "one", &[&base]);
    let before = walk(&place.root().join("layers"));
    let (guard, leased) = store.lease_image(&image).unwrap();
    assert!(matches!(store.images().remove(&image), Err(Error::InUse { .. })));
    drop(guard);
    assert!(matches!(store.images().remove(&image), Err(Error::InUse { .. })));
    assert_eq!(walk(&place.root().join("layers")), before);
    assert_eq!(store.images().all().unwrap().len(), 1);
    drop(leased);
    assert_eq!(store.images().remove(&image).unwrap().len(), 1);
}

/// Whoever holds a layer has it leased meanwhile: who removes waits for that, and finds the hold.
#[test]
fn what_is_held_while_a_removal_waits_stays() {
    let place = TempStore::new();
    let store = place.open();
    let tar = files(&[("a", b"one")]);
    let layer = diff_id(&tar);
    let image = load(&store, "one", &[&tar]);
    let holds = store.holds("engine").unwrap();
    let remove = || loop {
        match store.images().remove(&image) {
            Ok(freed) => return assert_eq!(freed, []),
            // It has waited for long enough, and removed nothing.
            Err(error) => assert!(error.is_in_use(), "{error}"),
        }
    };
    let collect = || assert_eq!(store.gc().unwrap().layers, []);
    for removal in [&remove as &(dyn Fn() + Sync), &collect] {
        let leased = store.lease(&layer).unwrap().unwrap();
        thread::scope(|scope| {
            let removing = scope.spawn(removal);
            thread::sleep(std::time::Duration::from_millis(40));
            holds.add([&layer]).unwrap();
            drop(leased);
            removing.join().unwrap();
        });
        assert!(store.lease(&layer).unwrap().is_some());
        holds.remove([&layer]).unwrap();
    }
    assert_eq!(store.gc().unwrap().layers, [layer]);
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn gc_takes_what_no_image_has_and_leaves_what_is_held() {
    let place = TempStore::new();
    let store = place.open();
    load(&store, "kept", &[&files(&[("k", b"kept")])]);
    let (loose, held) = (files(&[("l", b"loose")]), files(&[("h", b"held")]));
    drop(unpack(&store, &loose).unwrap());
    let holding = unpack(&store, &held).unwrap();
    let blob = store.put_blob(b"nobody's").unwrap();
    let layers = place.root().join("layers");
    std::fs::create_dir(layers.join("0".repeat(64))).unwrap();
    std::fs::create_dir(layers.join("no digest")).unwrap();
    std::fs::write(layers.join("a file"), "junk").unwrap();
    std::os::unix::fs::symlink("/etc", layers.join("a link")).unwrap();
    std::fs::write(place.root().join("blobs/sha256/junk"), "junk").unwrap();
    std::fs::write(place.root().join("trees/junk"), "junk").unwrap();
    std::fs::write(place.root().join("staging/1-1"), "of process 1, which lives").unwrap();
    let report = store.gc().unwrap();
    assert_eq!(report.layers, [crate::common::diff_id(&loose)]);
    assert_eq!(report.blobs, [blob]);
    assert_eq!(report.orphans.len(), 6);
    assert!(Path::new("/etc/passwd").exists());
    assert_eq!(store.layers().unwrap().len(), 2);
    assert_eq!(walk(&place.root().join("staging")).len(), 0);
    drop(holding);
    assert_eq!(store.gc().unwrap().layers, [crate::common::diff_id(&held)]);
    drop(store);
    assert_clean(&place.root());
}

/// Images that share layers, contents, blobs of their own: what the plan says is what goes.
#[test]
fn a_removal_frees_what_was_said() {
    let place = TempStore::new();
    let root = place.root();
    let big = |n: u8| vec![n; 300_000];
    let base = files(&[("base/big", &big(1)), ("base/small", b"small"), ("e", b"")]);
    let over = members(&["f x/y/z deep", "f own own", "f s small", "d empty/dir"]);
    let images: [(&str, Vec<Vec<u8>>); 5] = [
        ("base", vec![base.clone()]),
        ("over", vec![base.clone(), over.clone()]),
        ("other", vec![files(&[("big2", &big(1)), ("mine", &big(2))])]),
        ("twice", vec![over.clone(), over.clone()]),
        ("late", vec![files(&[("mine2", &big(2)), ("late", b"late")]), over]),
    ];
    // Everything but the index.
    let taken = || {
        let mut all = du(&root);
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            if root.join(name).exists() {
                let file = du(&root.join(name));
                all = Space { bytes: all.bytes - file.bytes, blocks: all.blocks - file.blocks };
            }
        }
        all
    };
    for order in [[0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [2, 4, 0, 3, 1]] {
        let store = place.open();
        for (tag, layers) in &images {
            load(&store, tag, &layers.iter().map(|tar| &tar[..]).collect::<Vec<_>>());
        }
        let one = store.images().tags().unwrap()[0].1;
        store.images().tag("further", &one).unwrap();
        store.images().tag("away", &one).unwrap();
        let chain = strata_layer::chain_id(&[diff_id(&base)]).unwrap();
        std::fs::write(store.tree_path(&chain), vec![1; 5000]).unwrap();
        let id = |at: usize| {
            let tags = store.images().tags().unwrap();
            tags.iter().find(|(tag, _)| tag == images[at].0).unwrap().1
        };
        let ids = order.map(id);
        rustix::fs::sync();
        // One, three at once, the last.
        for set in [&ids[..1], &ids[1..4], &ids[4..]] {
            // And a name alone, as long as its image stays.
            let there = store.images().tags().unwrap().iter().any(|(name, _)| name == "away");
            let untagged = match there && !set.contains(&one) {
                true => &["away".to_owned()][..],
                false => &[],
            };
            let plan = store.accounts().removal(set, untagged).unwrap();
            assert_eq!((&plan.images[..], &plan.in_use[..]), (set, &[][..]));
            let before = taken();
            for name in untagged {
                assert_eq!(store.images().untag(name).unwrap(), Some(one));
            }
            let mut layers = Vec::new();
            set.iter().for_each(|id| layers.extend(store.images().remove(id).unwrap()));
            rustix::fs::sync();
            let after = taken();
            assert_eq!(plan.total() + after, before, "{order:?}: {plan:?}");
            assert_eq!(
                plan.layers.iter().collect::<HashSet<_>>(),
                layers.iter().collect::<HashSet<_>>()
            );
        }
        assert_eq!(store.accounts().disk_usage().unwrap().stored, 0);
    }
    assert_clean(&root);
}

#[test]
fn what_is_in_use_would_stay() {
    let place = TempStore::new();
    let store = place.open();
    let base = files(&[("a", b"a")]);
    let one = load(&store, "one", &[&base]);
    let two = load(&store, "two", &[&base, &files(&[("b", b"b")])]);
    let leased = store.lease_image(&one).unwrap();
    // The second frees its own layer alone: the first, which stays, has the base.
    let plan = store.accounts().removal(&[one, two], &[]).unwrap();
    assert_eq!(
        (plan.images, plan.in_use, plan.layers.len(), plan.files),
        (vec![two], vec![one], 1, 1)
    );
    drop(leased);
    let plan = store.accounts().removal(&[one, two], &[]).unwrap();
    assert_eq!((plan.images, plan.in_use.len(), plan.layers.len()), (vec![one, two], 0, 2));
    store.images().remove(&one).unwrap();
    assert!(matches!(store.accounts().removal(&[one], &[]), Err(Error::NoImage(id)) if id == one));
}
