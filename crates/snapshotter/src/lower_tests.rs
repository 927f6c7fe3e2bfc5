//! What snapshots are above: chains of any length are one lower, and it is there again after a
//! reboot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strata_testkit::hard::{Immutable, nest, quick_dir};
use strata_testkit::needs;
use strata_testkit::tars::{Head, Tar};
use strata_tree::DiffId;
use stratafs::{Engine, LayerInput, LeasedLayer, Quiet, Store, chain_id, unmount_names};

use crate::args::LowerBackend;
use crate::error::Error;
use crate::labels;
use crate::places::SnapshotMount;
use crate::snapshots::Snapshots;
use crate::state::{Labels, SnapshotKind};

fn open(place: &Path) -> Snapshots {
    open_keeping(place, Duration::ZERO)
}

/// What is not needed any more stays for that long.
fn open_keeping(place: &Path, kept: Duration) -> Snapshots {
    let store = Store::open(&place.join("store")).unwrap();
    let (run, none) = (place.join("run"), PathBuf::from("/nonexistent"));
    let run = (run.as_path(), LowerBackend::Auto);
    Snapshots::of_store(store, run, &none, kept, None).unwrap()
}

/// A layer of one file.
fn layer(store: &Store, number: usize) -> LeasedLayer {
    let (name, body) = (format!("file-{number}"), number.to_string());
    layer_of(store, Tar::default().file(name.as_bytes(), body.as_bytes()))
}

/// A layer of what a tar has.
fn layer_of(store: &Store, tar: Tar) -> LeasedLayer {
    let input = LayerInput {
        label: "a layer".to_owned(),
        diff_id: None,
        blob: None,
        reader: Box::new(std::io::Cursor::new(tar.end())),
    };
    store.unpack(input, &Quiet).unwrap().layer
}

/// Commits that many snapshots, each a layer above the last; gives the name of the last.
fn stack(snapshots: &Snapshots, height: usize) -> String {
    let (mut layers, mut parent) = (Vec::<DiffId>::new(), String::new());
    for number in 0..height {
        let leased = layer(&snapshots.store, number);
        layers.push(*leased.diff_id());
        let chain = chain_id(&layers).unwrap().to_string();
        snapshots.commit_layers(&chain, &parent, &Labels::new(), &[leased]).unwrap();
        parent = chain;
    }
    parent
}

/// Mounts as containerd 1.6 does: by mount(2), with an option string.
fn mount(mounts: &[SnapshotMount], at: &Path) -> usize {
    let [mount] = mounts else { panic!("{mounts:?}") };
    let options = mount.options.iter().filter(|option| !matches!(option.as_str(), "ro" | "rw"));
    let options = options.cloned().collect::<Vec<_>>().join(",");
    fs::create_dir_all(at).unwrap();
    let data = std::ffi::CString::new(options.as_str()).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(&mount.source, at, mount.kind.as_str(), flags, Some(&*data)).unwrap();
    options.len()
}

#[test]
fn five_hundred_layers_are_one_lower() {
    if !needs::root() {
        return;
    }
    const HEIGHT: usize = 500;
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let top = stack(&snapshots, HEIGHT);
    let mounts = snapshots.prepare(SnapshotKind::Active, "a", &top, &Labels::new()).unwrap();
    let at = place.path().join("at");
    let length = mount(&mounts, &at);
    assert!(length < 1000, "{mounts:?}");
    assert_eq!(fs::read_dir(place.path().join("run")).unwrap().count(), 1);
    for number in 0..HEIGHT {
        let text = fs::read_to_string(at.join(format!("file-{number}"))).unwrap();
        assert_eq!(text, number.to_string());
    }
    fs::write(at.join("file-0"), "changed").unwrap();
    assert_eq!(fs::read_dir(&at).unwrap().count(), HEIGHT);
    unmount_names(&at).unwrap();
    snapshots.remove("a").unwrap();
    assert_eq!(fs::read_dir(place.path().join("run")).unwrap().count(), 0);
}

#[test]
fn after_a_reboot_everything_is_mounted_again() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let top = stack(&snapshots, 3);
    let run = place.path().join("run");
    let writable = snapshots.prepare(SnapshotKind::Active, "a", &top, &Labels::new()).unwrap();
    let at = place.path().join("at");
    mount(&writable, &at);
    fs::write(at.join("own"), "written before").unwrap();
    fs::remove_file(at.join("file-1")).unwrap();
    let shown = snapshots.prepare(SnapshotKind::View, "v", &top, &Labels::new()).unwrap();
    drop(snapshots);

    // What a reboot leaves: no mount, and nothing below /run.
    unmount_names(&at).unwrap();
    for entry in fs::read_dir(&run).unwrap() {
        unmount_names(&entry.unwrap().path()).unwrap();
    }
    fs::remove_dir_all(&run).unwrap();

    let snapshots = open(place.path());
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
    assert_eq!(snapshots.mounts("a").unwrap(), writable);
    assert_eq!(snapshots.mounts("v").unwrap(), shown);
    mount(&writable, &at);
    assert_eq!(fs::read_to_string(at.join("own")).unwrap(), "written before");
    assert_eq!(fs::read_to_string(at.join("file-2")).unwrap(), "2");
    assert!(!at.join("file-1").exists());
    unmount_names(&at).unwrap();
    snapshots.remove("a").unwrap();
    snapshots.remove("v").unwrap();
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}

#[test]
fn directories_that_a_power_cut_took_are_there_again() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let top = stack(&snapshots, 1);
    for (key, kind) in [("a", SnapshotKind::Active), ("v", SnapshotKind::View)] {
        snapshots.prepare(kind, key, &top, &Labels::new()).unwrap();
    }
    snapshots.prepare(SnapshotKind::Active, "written", "", &Labels::new()).unwrap();
    let uppers = place.path().join("store/containerd/snapshots");
    let of = |key: &str| uppers.join(snapshots.stat(key).unwrap().id.0.to_string());
    let (a, v, written) = (of("a"), of("v"), of("written"));
    drop(snapshots);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions();
    let modes = [mode(&a), mode(&a.join("fs")), mode(&a.join("work")), mode(&v)];
    fs::write(written.join("fs/text"), "stays").unwrap();
    fs::remove_dir(written.join("work")).unwrap();
    for dir in [&a, &v] {
        fs::remove_dir_all(dir).unwrap();
    }

    let snapshots = open(place.path());
    assert_eq!([mode(&a), mode(&a.join("fs")), mode(&a.join("work")), mode(&v)], modes);
    assert!(!v.join("work").exists());
    assert_eq!(fs::read_to_string(written.join("fs/text")).unwrap(), "stays");
    let at = place.path().join("at");
    mount(&snapshots.mounts("a").unwrap(), &at);
    assert_eq!(fs::read_to_string(at.join("file-0")).unwrap(), "0");
    unmount_names(&at).unwrap();
    for key in ["a", "v", "written"] {
        snapshots.remove(key).unwrap();
    }
}

#[test]
fn the_names_of_an_image_are_written_before_its_first_container() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let top = stack(&snapshots, 3);
    let below = snapshots.stat(&top).unwrap().parent;
    let written = || -> Vec<_> {
        let trees = fs::read_dir(place.path().join("store/trees")).unwrap();
        let paths = trees.map(|one| one.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "erofs")).collect()
    };
    // Above that one there is a layer, so no container will be.
    snapshots.write_names(&below, false).unwrap();
    assert_eq!(written(), Vec::<PathBuf>::new());
    snapshots.write_names(&top, false).unwrap();
    let [names] = &written()[..] else { panic!("{:?}", written()) };
    let before = names.metadata().unwrap().modified().unwrap();

    // The container takes what is there.
    snapshots.prepare(SnapshotKind::Active, "a", &top, &Labels::new()).unwrap();
    assert_eq!(names.metadata().unwrap().modified().unwrap(), before);
    snapshots.write_names("a", true).unwrap();
    snapshots.write_names("no such snapshot", true).unwrap();
    assert_eq!(written().len(), 1);
    // Another image ends there.
    snapshots.write_names(&below, true).unwrap();
    assert_eq!(written().len(), 2);
    for snapshot in ["a", &top, &below] {
        snapshots.remove(snapshot).unwrap();
    }
    assert_eq!(written().len(), 0, "they go with the image");
}

#[test]
fn names_stay_mounted_for_the_next_container_until_their_image_goes() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open_keeping(place.path(), Duration::from_secs(600));
    let top = stack(&snapshots, 2);
    let mounted = || fs::read_dir(place.path().join("run")).unwrap().count();
    for key in ["a", "b"] {
        snapshots.prepare(SnapshotKind::Active, key, &top, &Labels::new()).unwrap();
        assert_eq!(mounted(), 1);
        snapshots.remove(key).unwrap();
        assert_eq!(mounted(), 1);
    }
    // They have not been idle for long enough.
    snapshots.cleanup().unwrap();
    let room = !snapshots.places.is_nearly_full().unwrap();
    assert_eq!(mounted(), usize::from(room), "with room: {room}");
    snapshots.remove(&top).unwrap();
    assert_eq!(mounted(), 0);
}

/// A snapshot comes with a layer that goes with the last other one that has it.
#[test]
fn a_layer_is_held_as_long_as_a_snapshot_has_it() {
    if !needs::root() {
        return;
    }
    let place = quick_dir();
    let snapshots = open(place.path());
    let commit = |name: &str| {
        let leased = [layer(&snapshots.store, 1)];
        snapshots.commit_layers(name, "", &Labels::new(), &leased).unwrap();
    };
    let held = || fs::read_dir(place.path().join("store/holds/containerd")).unwrap().count();
    for _ in 0..200 {
        commit("going");
        std::thread::scope(|scope| {
            scope.spawn(|| snapshots.remove("going").unwrap());
            scope.spawn(|| commit("coming"));
        });
        assert_eq!(held(), 1);
        snapshots.remove("coming").unwrap();
        assert_eq!(held(), 0);
    }
}

/// The one directory of the lower that a differ reads which mounts nothing.
fn only_lower(mounts: &[SnapshotMount]) -> Option<PathBuf> {
    let [mount] = mounts else { panic!("{mounts:?}") };
    let lower = mount.options.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
    (!lower.contains(':')).then(|| PathBuf::from(lower))
}

#[test]
fn a_differ_that_mounts_nothing_finds_the_directories_below() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let data = Head::new(b'5', b"data/").put(100, b"0000700\0");
    let base = layer_of(&snapshots.store, Tar::default().add(data, b""));
    let chain = chain_id(&[*base.diff_id()]).unwrap().to_string();
    snapshots.commit_layers(&chain, "", &Labels::new(), &[base]).unwrap();
    let prepare =
        |key: &str| snapshots.prepare(SnapshotKind::Active, key, &chain, &Labels::new()).unwrap();
    let is_there = |mounts: &[SnapshotMount]| {
        let lower = only_lower(mounts).unwrap();
        fs::metadata(lower.join("data")).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(is_there(&prepare("default/1/extract-1 a")), 0o700);
    // The client that asked for this diff says nothing of others.
    prepare("default/2/extract-2 a");
    let applied = snapshots.stat("default/2/extract-2 a").unwrap();
    snapshots.applied(&applied, &layer(&snapshots.store, 1)).unwrap();
    for key in ["default/1/extract-1 a", "default/2/extract-2 a"] {
        snapshots.remove(key).unwrap();
    }
    let mounts = prepare("default/3/extract-3 a");
    assert_eq!(is_there(&mounts), 0o700);
    assert_eq!(snapshots.mounts("default/3/extract-3 a").unwrap(), mounts);
    assert_eq!(only_lower(&prepare("default/4/container")), None, "that one is mounted");
    for key in ["default/3/extract-3 a", "default/4/container"] {
        snapshots.remove(key).unwrap();
    }
}

/// containerd's own unpack of a layer makes another layer here than the image has.
#[test]
fn a_layer_above_what_containerd_unpacked_is_found() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let (below, upper) = (layer(&snapshots.store, 1), layer(&snapshots.store, 2));
    let parent = chain_id(&[*below.diff_id()]).unwrap().to_string();
    let chain = chain_id(&[*below.diff_id(), *upper.diff_id()]).unwrap().to_string();
    let labels: Labels = [(labels::REF.to_owned(), chain.clone())].into();
    let key = "default/1/extract-1 a";
    snapshots.prepare(SnapshotKind::Active, key, "", &Labels::new()).unwrap();
    let unpacked = snapshots.places.upper(snapshots.stat(key).unwrap().id);
    fs::write(unpacked.join("file-1"), "1").unwrap();
    let name = format!("default/2/{parent}");
    snapshots.commit(&name, key, &Labels::new()).unwrap();
    assert_ne!(snapshots.state().chain(&name).unwrap(), [*below.diff_id()]);
    let key = "default/3/extract-3 a";
    let found = snapshots.prepare(SnapshotKind::Active, key, &name, &labels);
    assert!(matches!(found, Err(Error::AlreadyExists(_))), "{found:?}");
    assert_eq!(snapshots.state().chain(&chain).unwrap().pop(), Some(*upper.diff_id()));
}

/// What keeps a layer from going when it is to go first does so for a while, not for ever.
#[test]
fn layers_that_are_to_go_are_not_forgotten() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let unneeded = |snapshots: &Snapshots| snapshots.state().unneeded(Duration::ZERO).unwrap();
    let there = |snapshots: &Snapshots| snapshots.store.layers().unwrap().len();

    // Somebody reads it just now.
    let top = stack(&snapshots, 1);
    let leased = layer(&snapshots.store, 0);
    snapshots.remove(&top).unwrap();
    snapshots.cleanup().unwrap();
    assert_eq!((there(&snapshots), unneeded(&snapshots)), (1, vec![*leased.diff_id()]));
    drop(leased);
    snapshots.cleanup().unwrap();
    assert_eq!((there(&snapshots), unneeded(&snapshots)), (0, vec![]));

    // A kill came after the row had gone.
    let top = stack(&snapshots, 1);
    snapshots.state().remove(&top).unwrap();
    drop(snapshots);
    let snapshots = open(place.path());
    snapshots.cleanup().unwrap();
    assert_eq!(there(&snapshots), 0);

    // The clock was ahead.
    let top = stack(&snapshots, 1);
    snapshots.remove(&top).unwrap();
    let db = place.path().join("store/containerd/snapshots.db");
    let db = rusqlite::Connection::open(db).unwrap();
    db.execute("UPDATE unneeded SET since = ?1", [i64::MAX]).unwrap();
    snapshots.cleanup().unwrap();
    assert_eq!((there(&snapshots), unneeded(&snapshots)), (0, vec![]));
}

#[test]
fn what_a_container_leaves_stops_neither_a_removal_nor_a_start() {
    if !needs::root() {
        return;
    }
    let place = quick_dir();
    let snapshots = open(place.path());
    let make = |key: &str| {
        snapshots.prepare(SnapshotKind::Active, key, "", &Labels::new()).unwrap();
        snapshots.places.upper(snapshots.stat(key).unwrap().id)
    };
    let (deep, stuck) = (make("deep"), make("stuck"));
    nest(&deep, 15_000);
    let Some(kept) = Immutable::make(&stuck.join("kept")) else { return };
    fs::write(stuck.join("other"), "").unwrap();
    for key in ["deep", "stuck"] {
        snapshots.remove(key).unwrap();
        assert!(snapshots.stat(key).is_err());
    }
    assert!(!deep.exists() && !stuck.join("other").exists() && stuck.join("kept").exists());
    drop(snapshots);
    let snapshots = open(place.path());
    assert_eq!(snapshots.places.numbers().unwrap().len(), 1);
    drop(snapshots);
    drop(kept);
    assert_eq!(open(place.path()).places.numbers().unwrap(), []);
}

#[test]
fn a_store_is_served_once() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let first = open(place.path());
    let again = || {
        let (engine, run) = (Engine::new(place.path().join("store")), place.path().join("run"));
        let run = (run.as_path(), LowerBackend::Auto);
        Snapshots::open(&engine, run, Path::new("/nonexistent"), Duration::ZERO)
    };
    let Err(refused) = again() else { panic!("two serve one store") };
    assert!(refused.to_string().contains("another strata-snapshotter serves"), "{refused}");
    drop(first);
    assert!(again().is_ok());
}

#[test]
fn another_store_does_not_take_the_names_of_the_first_away() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let first = open(place.path());
    let top = stack(&first, 1);
    let mounts = first.prepare(SnapshotKind::Active, "a", &top, &Labels::new()).unwrap();
    let run = place.path().join("run");
    let second = || {
        let store = Store::open(&place.path().join("second")).unwrap();
        let run = (run.as_path(), LowerBackend::Auto);
        Snapshots::of_store(store, run, Path::new("/nonexistent"), Duration::ZERO, None)
    };
    let Err(refused) = second() else { panic!("two mount names in one directory") };
    assert!(refused.to_string().contains("--run"), "{refused}");
    let at = place.path().join("at");
    mount(&mounts, &at);
    unmount_names(&at).unwrap();
    first.remove("a").unwrap();
    drop(first);
    assert!(second().is_ok());
}

#[test]
fn on_a_full_disk_it_starts_and_removes() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &disk, "tmpfs", flags, Some(c"size=16m")).unwrap();
    let start = || {
        let (engine, run) = (Engine::new(disk.join("store")), place.path().join("run"));
        let run = (run.as_path(), LowerBackend::Auto);
        Snapshots::open(&engine, run, Path::new("/nonexistent"), Duration::ZERO)
    };
    let snapshots = start().unwrap();
    snapshots.prepare(SnapshotKind::Active, "a", "", &Labels::new()).unwrap();
    let upper = snapshots.places.upper(snapshots.stat("a").unwrap().id);
    drop(snapshots);
    let full = fs::write(upper.join("large"), vec![1; 32 << 20]);
    let removed = start().and_then(|snapshots| {
        snapshots.remove("a")?;
        snapshots.cleanup()
    });
    let there = upper.exists();
    unmount_names(&disk).unwrap();
    assert!(full.is_err(), "the disk is not full");
    removed.unwrap();
    assert!(!there);
}

#[test]
fn a_hold_that_cannot_be_read_stops_no_start_and_no_cleanup() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let snapshots = open(place.path());
    let top = stack(&snapshots, 2);
    let layer = |name: &str| snapshots.state().chain(name).unwrap().pop().unwrap();
    let (hold, files) = (layer(&top).hex(), snapshots.store.layer_files(&layer(&top)));
    let hold = place.path().join("store/holds/containerd").join(hold);
    fs::write(hold, "{").unwrap();
    drop(snapshots);
    let snapshots = open(place.path());
    snapshots.cleanup().unwrap();
    assert!(files.exists());
    snapshots.remove(&top).unwrap();
    snapshots.cleanup().unwrap();
    assert!(!files.exists());
}
