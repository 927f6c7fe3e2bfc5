//! A kill at every step of everything that changes the store: it opens, `fsck` finds nothing
//! wrong, doing the same again succeeds, and after `gc` the store is as if nothing had happened.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use strata_layer::{Error, Step, Store, StoreOptions};

use crate::common::{
    Silent, TempStore, assert_clean, assert_one_inode_each, child, copy_store, dump, files, finish,
    flip, fsck, load, members, stored_files, unpack, walk,
};

fn base() -> Vec<u8> {
    let big = vec![5; (1 << 20) + 1];
    files(&[("d/one", b"one"), ("shared", b"shared"), ("big", &big), ("again", b"one")])
}

fn over() -> Vec<u8> {
    members(&["f own own", "f e/shared shared", "f lost lost", "f lost kept", "f .wh.big"])
}

fn other() -> Vec<u8> {
    members(&["f x/one one", "f x/shared shared", "f mine mine"])
}

/// Something that changes a store.
struct Task {
    name: &'static str,
    /// What the store holds before.
    prepare: fn(&Path),
    /// The change; done again on what a crash left, it comes to its end.
    run: fn(&Path, StoreOptions),
    /// Whether `fsck` may find something after the crash: the damage that was to be repaired.
    damaged: bool,
}

fn open(root: &Path, options: StoreOptions) -> Store {
    Store::open_with(root, options).unwrap()
}

fn nothing(root: &Path) {
    drop(Store::open(root).unwrap());
}

fn one_image(root: &Path) {
    load(&Store::open(root).unwrap(), "one", &[&base(), &over()]);
}

fn two_images(root: &Path) {
    one_image(root);
    let store = Store::open(root).unwrap();
    let two = load(&store, "two", &[&base(), &other()]);
    store.images().tag("moving", &two).unwrap();
}

fn image_of(store: &Store, layers: usize) -> Option<strata_tree::ImageId> {
    let images = store.images().all().unwrap().into_iter();
    images.filter(|image| image.layers.len() == layers).map(|image| image.id).next()
}

fn repair(root: &Path, options: StoreOptions) {
    let report = Store::fsck(root, true, options, &Silent).unwrap();
    assert_eq!(report.problems, []);
}

fn tasks() -> Vec<Task> {
    vec![
        Task {
            name: "first load",
            prepare: nothing,
            run: |root, options| {
                load(&open(root, options), "one", &[&base(), &over()]);
            },
            damaged: false,
        },
        Task {
            name: "load that shares",
            prepare: one_image,
            run: |root, options| {
                load(&open(root, options), "two", &[&base(), &other()]);
            },
            damaged: false,
        },
        Task {
            name: "tag that moves",
            prepare: two_images,
            run: |root, options| {
                let store = open(root, options);
                let target =
                    store.images().tags().unwrap().into_iter().find(|(tag, _)| tag == "one");
                store.images().tag("moving", &target.unwrap().1).unwrap();
            },
            damaged: false,
        },
        Task {
            name: "untag",
            prepare: two_images,
            run: |root, options| {
                open(root, options).images().untag("moving").unwrap();
            },
            damaged: false,
        },
        Task {
            name: "remove",
            prepare: two_images,
            run: |root, options| {
                let store = open(root, options);
                let image =
                    store.images().tags().unwrap().into_iter().find(|(tag, _)| tag == "two");
                if let Some((_, image)) = image {
                    store.images().remove(&image).unwrap();
                }
            },
            damaged: false,
        },
        Task {
            name: "gc",
            prepare: |root| {
                one_image(root);
                let store = Store::open(root).unwrap();
                drop(unpack(&store, &other()).unwrap());
                store.put_blob(b"nobody's").unwrap();
                fs::create_dir_all(root.join("layers").join("0".repeat(64)).join("x")).unwrap();
            },
            run: |root, options| drop(open(root, options).gc().unwrap()),
            damaged: false,
        },
        Task {
            name: "repair of a layer",
            prepare: |root| {
                load(&Store::open(root).unwrap(), "kept", &[&other(), &other(), &other()]);
                one_image(root);
                let store = Store::open(root).unwrap();
                let image = store.images().get(&image_of(&store, 2).unwrap()).unwrap().unwrap();
                flip(&root.join("layers").join(image.layers[1].hex()).join("diff/own"), 0);
            },
            run: repair,
            damaged: true,
        },
        Task {
            name: "repair of the index",
            prepare: |root| {
                two_images(root);
                flip(&root.join("index.db"), 2048 + 3);
            },
            run: repair,
            damaged: true,
        },
        Task {
            name: "repair of a lost index",
            prepare: |root| {
                two_images(root);
                fs::remove_file(root.join("index.db")).unwrap();
            },
            run: repair,
            damaged: true,
        },
    ]
}

/// Everything that matters of a store: rows, files, all paths, the images in `images.json`.
type State = (Vec<String>, Vec<(PathBuf, Vec<u8>)>, BTreeSet<PathBuf>, String);

fn state(root: &Path) -> State {
    let files = stored_files(root).into_iter().map(|(path, (bytes, _))| (path, bytes)).collect();
    let paths = walk(root).into_keys().collect();
    let listing = fs::read(root.join("images.json")).unwrap_or_default();
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap_or_default();
    (dump(root), files, paths, listing["images"].to_string())
}

#[test]
#[ignore = "the process that is killed"]
fn child_is_killed() {
    let var = |name: &str| std::env::var(name).unwrap();
    let step = Step::ALL.into_iter().find(|step| format!("{step:?}") == var("STRATA_TEST_STEP"));
    let (step, nth) = (step.unwrap(), var("STRATA_TEST_NTH").parse::<usize>().unwrap());
    let seen = AtomicUsize::new(0);
    let hook = move |at: Step| {
        if at == step && seen.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let pid = rustix::process::getpid();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    };
    let options = StoreOptions { on_step: Some(Arc::new(hook)), ..StoreOptions::default() };
    let tasks = tasks();
    let task = tasks.iter().find(|task| task.name == var("STRATA_TEST_TASK")).unwrap();
    (task.run)(Path::new(&var("STRATA_TEST_ROOT")), options);
}

/// Kills at the `nth` time that the step is reached; `false` if it is not reached that often.
fn crash(task: &Task, prepared: &Path, undisturbed: &Path, step: Step, nth: usize) -> bool {
    let place = TempStore::in_memory();
    let root = place.root();
    copy_store(prepared, &root);
    let what = format!("{} killed at {step:?} ({nth})", task.name);
    // Somebody who has the store open all along; a rebuild would rightly refuse.
    let reader = (!task.damaged).then(|| place.open());
    let child = child(
        "crash::child_is_killed",
        &[
            ("STRATA_TEST_ROOT", root.to_str().unwrap()),
            ("STRATA_TEST_TASK", task.name),
            ("STRATA_TEST_STEP", &format!("{step:?}")),
            ("STRATA_TEST_NTH", &nth.to_string()),
        ],
    );
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return false;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "{what}: {said}");
    if let Some(reader) = reader {
        for image in reader.images().all().unwrap() {
            let (_guard, leased) = reader.lease_image(&image.id).unwrap();
            for layer in &leased {
                layer.write_diff(&mut std::io::sink()).unwrap();
            }
        }
    }
    if !task.damaged {
        assert_eq!(fsck(&root).problems, [], "{what}");
    }
    (task.run)(&root, StoreOptions::default());
    assert_eq!(fsck(&root).problems, [], "{what}");
    Store::open(&root).unwrap().gc().unwrap();
    assert_clean(&root);
    assert_one_inode_each(&root);
    assert_eq!(state(&root), state(undisturbed), "{what}");
    true
}

/// Kills one task at every step; gives the steps that it has.
fn crash_everywhere(name: &str) -> BTreeSet<String> {
    let task = tasks().into_iter().find(|task| task.name == name).unwrap();
    let place = TempStore::in_memory();
    let (prepared, undisturbed) = (place.beside("prepared"), place.beside("undisturbed"));
    (task.prepare)(&prepared);
    copy_store(&prepared, &undisturbed);
    (task.run)(&undisturbed, StoreOptions::default());
    Store::open(&undisturbed).unwrap().gc().unwrap();
    let mut reached = BTreeSet::new();
    for step in Step::ALL {
        let times = (1..).take_while(|nth| crash(&task, &prepared, &undisturbed, step, *nth));
        let times = times.count();
        if times > 0 {
            println!("{name}: {step:?} {times} times");
            reached.insert(format!("{step:?}"));
        }
    }
    reached
}

macro_rules! crashes {
    ($($test:ident: $name:literal => [$($step:ident),*];)*) => {
        $(
            #[test]
            fn $test() {
                let expected: BTreeSet<String> = [$(format!("{:?}", Step::$step)),*].into();
                assert_eq!(crash_everywhere($name), expected);
            }
        )*

        /// No step and no task is left out above.
        #[test]
        fn every_step_and_every_task_is_killed() {
            let steps: BTreeSet<String> = [$($(format!("{:?}", Step::$step)),*),*].into();
            assert_eq!(steps, Step::ALL.iter().map(|step| format!("{step:?}")).collect());
            let names: BTreeSet<&str> = [$($name),*].into();
            assert_eq!(names, tasks().iter().map(|task| task.name).collect());
        }
    };
}

crashes! {
    killed_in_a_first_load: "first load" => [
        BodiesWritten, Staged, Synced, Reconciled, Renamed, ParentSynced, LayerCommitted,
        BlobWritten, ImageListed, ImageCommitted
    ];
    killed_in_a_load_that_shares: "load that shares" => [
        BodiesWritten, Staged, Synced, Reconciled, Renamed, ParentSynced, LayerCommitted,
        BlobWritten, ImageListed, ImageCommitted
    ];
    killed_in_moving_a_tag: "tag that moves" => [ImageListed];
    killed_in_taking_a_tag_away: "untag" => [ImageListed];
    killed_in_a_removal: "remove" => [ImageListed, Unreferenced, Trashed];
    killed_in_gc: "gc" => [Unreferenced, Trashed];
    killed_in_a_repair_of_a_layer: "repair of a layer" => [ImageListed, Unreferenced, Trashed];
    killed_in_a_repair_of_the_index: "repair of the index" => [IndexRebuilt, IndexReplaced];
    killed_in_a_repair_of_a_lost_index: "repair of a lost index" => [IndexRebuilt, IndexReplaced];
}

/// What a killed load leaves is there for nobody, but also in nobody's way.
#[test]
fn a_second_load_goes_on_beside_the_remains_of_a_killed_one() {
    let place = TempStore::in_memory();
    let root = place.root();
    nothing(&root);
    let env = [
        ("STRATA_TEST_ROOT", root.to_str().unwrap()),
        ("STRATA_TEST_TASK", "first load"),
        ("STRATA_TEST_STEP", "Renamed"),
        ("STRATA_TEST_NTH", "1"),
    ];
    assert!(!finish(child("crash::child_is_killed", &env)).success());
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 1);
    assert_eq!(fsck(&root).notes.len(), 1);
    let store = Store::open(&root).unwrap();
    assert!(matches!(
        store.lease(&crate::common::diff_id(&base())),
        Ok(None) | Err(Error::NoLayer(_))
    ));
    assert!(!unpack(&store, &base()).unwrap().existed);
    drop(store);
    assert_clean(&root);
    assert_eq!(walk(&root.join("trash")).len() + walk(&root.join("staging")).len(), 0);
}
