//! A kill at every step of a commit that takes an upper in: the snapshot is committed, or it is as
//! it was and can be committed, to the same layer.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use strata_layer::{Problem, Step, StoreOptions};
use strata_testkit::needs;
use strata_tree::DiffId;
use stratafs::{Quiet, Store};

use crate::args::LowerBackend;
use crate::snapshots::Snapshots;
use crate::state::{Labels, SnapshotKind};
use crate::taking::{CommitHook, CommitStep};

const STORE_STEPS: [Step; 7] = [
    Step::BodiesWritten,
    Step::Staged,
    Step::Synced,
    Step::Reconciled,
    Step::Renamed,
    Step::ParentSynced,
    Step::LayerCommitted,
];
const COMMIT_STEPS: [CommitStep; 5] = [
    CommitStep::Held,
    CommitStep::Noted,
    CommitStep::Settled,
    CommitStep::Recorded,
    CommitStep::Released,
];

fn open(place: &Path, options: StoreOptions, hook: Option<CommitHook>) -> Snapshots {
    let store = Store::open_with(&place.join("store"), options).unwrap();
    let (run, none) = (place.join("run"), PathBuf::from("/nonexistent"));
    Snapshots::of_store(store, (&run, LowerBackend::Auto), &none, Duration::ZERO, hook).unwrap()
}

fn plainly(place: &Path) -> Snapshots {
    open(place, StoreOptions::default(), None)
}

/// A base, and an upper above it with something of everything. Gives the upper.
fn prepare(place: &Path) -> PathBuf {
    let snapshots = plainly(place);
    let labels = Labels::new();
    snapshots.prepare(SnapshotKind::Active, "first", "", &labels).unwrap();
    let first = snapshots.places.upper(snapshots.stat("first").unwrap().id);
    fs::write(first.join("known"), "of the base").unwrap();
    fs::write(first.join("removed"), "soon").unwrap();
    snapshots.commit("base", "first", &labels).unwrap();
    snapshots.prepare(SnapshotKind::Active, "top", "base", &labels).unwrap();
    let upper = snapshots.places.upper(snapshots.stat("top").unwrap().id);
    fill(&upper);
    upper
}

fn fill(upper: &Path) {
    fs::create_dir_all(upper.join("dir/sub")).unwrap();
    fs::write(upper.join("dir/su"), "sets ids").unwrap();
    chown(upper.join("dir/su"), Some(12), Some(34)).unwrap();
    fs::set_permissions(upper.join("dir/su"), Permissions::from_mode(0o6777)).unwrap();
    let attribute = ("trusted.note", b"v");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(upper.join("dir/su"), attribute.0, attribute.1, flags).unwrap();
    fs::write(upper.join("one"), "linked").unwrap();
    fs::hard_link(upper.join("one"), upper.join("dir/sub/two")).unwrap();
    fs::write(upper.join("twin"), "of the base").unwrap();
    fs::write(upper.join("large"), vec![7; 5 << 20]).unwrap();
    fs::write(upper.join("same as large"), vec![7; 5 << 20]).unwrap();
    std::os::unix::fs::symlink("one", upper.join("link")).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::empty();
    rustix::fs::mknodat(rustix::fs::CWD, upper.join("removed"), kind, mode, 0).unwrap();
    let kept = fs::File::create(upper.join("linked elsewhere")).unwrap();
    kept.set_len(1000).unwrap();
    let elsewhere = upper.parent().unwrap().join("elsewhere");
    fs::hard_link(upper.join("linked elsewhere"), elsewhere).unwrap();
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    for path in ["dir/sub", "dir", "dir/su", "one", "twin", "large", "same as large", ""] {
        fs::File::open(upper.join(path)).unwrap().set_times(time).unwrap();
    }
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
    };
    for name in ["link", "linked elsewhere"] {
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, upper.join(name), &times, nofollow).unwrap();
    }
}

/// The layers of the committed snapshot; nothing else is left of it, and the store is whole.
fn layers_at_the_end(place: &Path) -> Vec<DiffId> {
    let snapshots = plainly(place);
    let layers = snapshots.state().chain("done").unwrap();
    assert_eq!(snapshots.places.numbers().unwrap(), []);
    assert_eq!(snapshots.state().takes().unwrap(), []);
    let held = fs::read_dir(place.join("store/holds/containerd")).unwrap().count();
    assert_eq!(held, layers.len());
    drop(snapshots);
    let report = Store::fsck(&place.join("store"), false, StoreOptions::default(), &Quiet);
    assert_eq!(report.unwrap().problems, []);
    layers
}

fn forget(place: &Path) {
    let snapshots = plainly(place);
    snapshots.remove("done").unwrap();
    snapshots.remove("base").unwrap();
    snapshots.store.gc().unwrap();
    assert_eq!(fs::read_dir(place.join("run")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.join("store/layers")).unwrap().count(), 0);
}

#[test]
#[ignore = "the process that is killed"]
fn child_is_killed() {
    let at = std::env::var("STRATA_TEST_STEP").unwrap();
    let place = PathBuf::from(std::env::var("STRATA_TEST_PLACE").unwrap());
    let kill = move |step: String| {
        if step == at {
            let pid = rustix::process::getpid();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    };
    let again = kill.clone();
    let on_step = Arc::new(move |step: Step| kill(format!("{step:?}")));
    let options = StoreOptions { on_step: Some(on_step), ..StoreOptions::default() };
    let hook: CommitHook = Arc::new(move |step| again(format!("{step:?}")));
    open(&place, options, Some(hook)).commit("done", "top", &Labels::new()).unwrap();
}

#[test]
fn a_commit_that_is_killed_has_happened_or_has_not() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    prepare(place.path());
    plainly(place.path()).commit("done", "top", &Labels::new()).unwrap();
    let wanted = layers_at_the_end(place.path());
    assert_eq!(wanted.len(), 2);
    forget(place.path());

    let steps = STORE_STEPS.map(|step| format!("{step:?}")).into_iter();
    for step in steps.chain(COMMIT_STEPS.map(|step| format!("{step:?}"))) {
        let place = tempfile::tempdir().unwrap();
        prepare(place.path());
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "crash_tests::child_is_killed", "--ignored"]);
        child.env("STRATA_TEST_STEP", &step).env("STRATA_TEST_PLACE", place.path());
        let ended = child.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.status.signal(), Some(9), "{step}: {said}");

        let root = place.path().join("store");
        let report = Store::fsck(&root, false, StoreOptions::default(), &Quiet).unwrap();
        let is_mode = |problem: &Problem| matches!(problem, Problem::Mode { .. });
        let unsettled = step == "LayerCommitted";
        assert!(report.problems.iter().all(|one| unsettled && is_mode(one)), "{step}: {report:?}");
        // Nobody else removes what the commit is about to need.
        drop(Store::open(&root).unwrap().gc().unwrap());

        let snapshots = plainly(place.path());
        if snapshots.stat("top").is_ok() {
            assert!(snapshots.stat("done").is_err(), "{step}");
            snapshots.commit("done", "top", &Labels::new()).unwrap();
        }
        drop(snapshots);
        let layers = layers_at_the_end(place.path());
        // The base has the time of its making.
        assert_eq!((layers.len(), layers[1]), (2, wanted[1]), "{step}");
        forget(place.path());
    }
}

#[test]
fn files_are_moved_and_never_those_that_somebody_may_write_to() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let upper = prepare(place.path());
    let inode = |name: &str| fs::metadata(upper.join(name)).unwrap().ino();
    let before = ["dir/su", "one", "large", "linked elsewhere"].map(inode);
    let open = fs::File::options().append(true).open(upper.join("large")).unwrap();
    let snapshots = plainly(place.path());
    snapshots.commit("done", "top", &Labels::new()).unwrap();
    let layers = snapshots.state().chain("done").unwrap();
    let files = |n: usize| snapshots.store.layer_files(&layers[n]);
    let stored = |name: &str| fs::metadata(files(1).join(name)).unwrap();
    assert_eq!(stored("dir/su").ino(), before[0]);
    assert_eq!(stored("one").ino(), before[1]);
    assert_eq!(stored("dir/sub/two").ino(), before[1]);
    assert_ne!(stored("large").ino(), before[2], "it was open");
    assert_ne!(stored("linked elsewhere").ino(), before[3]);
    assert_eq!(stored("large").ino(), stored("same as large").ino());
    assert_eq!(stored("twin").ino(), fs::metadata(files(0).join("known")).unwrap().ino());
    let su = stored("dir/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o444, 0, 0));
    let mut list = [0; 1024];
    let path = files(1).join("dir/su");
    assert_eq!(rustix::fs::listxattr(&path, &mut list).unwrap_or(0), 0);
    drop(open);
    drop(snapshots);
    forget(place.path());
}

#[test]
fn an_upper_that_is_mounted_is_copied() {
    if !needs::root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let upper = prepare(place.path());
    let shown = place.path().join("shown");
    fs::create_dir(&shown).unwrap();
    rustix::mount::mount_bind(&upper, &shown).unwrap();
    let before = fs::metadata(upper.join("one")).unwrap().ino();
    let snapshots = plainly(place.path());
    snapshots.commit("done", "top", &Labels::new()).unwrap();
    let layers = snapshots.state().chain("done").unwrap();
    let files = snapshots.store.layer_files(&layers[1]);
    assert_ne!(fs::metadata(files.join("one")).unwrap().ino(), before);
    rustix::mount::unmount(&shown, rustix::mount::UnmountFlags::DETACH).unwrap();
    drop(snapshots);
    forget(place.path());
}
