//! The whole flow on each file system, and what happens where links end: EMLINK, EXDEV.
//!
//! The tests mount images of file systems, so they need root, mkfs and loop devices; elsewhere
//! they say so and do nothing. tmpfs needs only root.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use strata_layer::{Limits, Step, Store, StoreOptions, chain_id};
use strata_testkit::needs;

use crate::common::{
    Silent, TempStore, assert_clean, assert_one_inode_each, child, dump, files, finish, flip, load,
    members, stored_files, unpack, walk,
};
use crate::sharing::{gated, unpack_gated};
use strata_testkit::tars::{Head, Tar};

/// A file system of its own, unmounted when it is dropped.
struct Mounted {
    place: TempStore,
    at: PathBuf,
}

impl Mounted {
    /// `None` where this cannot be.
    fn new(kind: &str, megabytes: u64, options: &[&str]) -> Option<Self> {
        if !needs::root() {
            return None;
        }
        let place = TempStore::in_memory();
        let at = place.beside("mnt");
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        if kind == "tmpfs" {
            // 0 is half of the machine's memory.
            mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]);
        } else {
            let mkfs = format!("mkfs.{kind}");
            if !needs::path("/dev/loop-control") || !needs::program(&mkfs) {
                return None;
            }
            let image = place.beside("image");
            std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
            let output = Command::new(&mkfs).args(options).arg("-q").arg(&image).output().unwrap();
            assert!(output.status.success(), "{mkfs}: {}", String::from_utf8_lossy(&output.stderr));
            mount.args(["-o", "loop"]).arg(&image);
        }
        let output = mount.arg(&at).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { place, at })
    }

    fn root(&self) -> PathBuf {
        self.at.join("store")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.at);
        let _ = &self.place;
    }
}

fn unmount(at: &Path) {
    let status = Command::new("umount").arg(at).status().unwrap();
    assert!(status.success() || thread::panicking());
}

/// Load, share, check, damage, repair, rebuild, remove.
fn whole_flow(root: &Path) {
    let big = vec![6; 3 << 20];
    let base = files(&[("a/one", b"one"), ("big", &big), ("name \u{e9}\n", b"odd name")]);
    let over = members(&["f b/one one", "h b/link => b/one", "f a/.wh.one", "s l -> x", "c n"]);
    let store = Store::open(root).unwrap();
    let one = load(&store, "one", &[&base]);
    load(&store, "two", &[&base, &over]);
    assert_eq!(assert_one_inode_each(root), 3);
    let (guard, leased) = store.lease_image(&one).unwrap();
    let mut out = Vec::new();
    leased[0].write_diff(&mut out).unwrap();
    assert!(out == base);
    drop((guard, leased, store));
    assert_clean(root);
    let before = dump(root);
    std::fs::remove_file(root.join("index.db")).unwrap();
    let repair = || Store::fsck(root, true, StoreOptions::default(), &Silent).unwrap();
    assert_eq!(repair().problems, []);
    assert_eq!(dump(root), before);
    let damaged = stored_files(root).into_keys().find(|path| path.ends_with("b/link")).unwrap();
    flip(&root.join("layers").join(damaged), 1);
    assert_eq!(repair().problems, []);
    assert_clean(root);
    let store = Store::open(root).unwrap();
    load(&store, "two", &[&base, &over]);
    store.gc().unwrap();
    for image in store.images().all().unwrap() {
        store.images().remove(&image.id).unwrap();
    }
    store.gc().unwrap();
    assert_eq!(walk(&root.join("layers")).len(), 0);
    drop(store);
    assert_clean(root);
}

macro_rules! flows {
    ($($test:ident: $kind:literal, $megabytes:literal, $options:expr;)*) => {$(
        #[test]
        fn $test() {
            let Some(mounted) = Mounted::new($kind, $megabytes, $options) else { return };
            whole_flow(&mounted.root());
        }
    )*};
}

flows! {
    the_whole_flow_on_tmpfs: "tmpfs", 0, &[];
    the_whole_flow_on_ext4: "ext4", 64, &["-F"];
    the_whole_flow_on_xfs: "xfs", 320, &["-f"];
    the_whole_flow_on_btrfs: "btrfs", 128, &["-f"];
}

/// How many inodes and names a content has in the store, and its rows.
fn copies(root: &Path, content: &[u8]) -> (usize, usize, i64) {
    let files: Vec<_> =
        stored_files(root).into_values().filter(|(bytes, _)| bytes == content).collect();
    let inodes: std::collections::HashSet<_> = files.iter().map(|(_, inode)| inode).collect();
    let db = rusqlite::Connection::open(root.join("index.db")).unwrap();
    let rows = db.query_row(
        "SELECT count(*) FROM contents WHERE digest = (
            SELECT digest FROM contents GROUP BY digest ORDER BY count(*) DESC LIMIT 1)",
        [],
        |row| row.get(0),
    );
    (inodes.len(), files.len(), rows.unwrap())
}

/// Names of one content, as files of their own or as hard links of the first.
fn many(n: usize, tag: &str, hard_links: bool) -> Tar {
    (0..n).fold(Tar::default(), |tar, i| {
        let name = format!("{tag}/{i}");
        if hard_links && i > 0 {
            tar.add(Head::new(b'1', name.as_bytes()).link(format!("{tag}/0").as_bytes()), b"")
        } else {
            tar.file(name.as_bytes(), b"same")
        }
    })
}

/// More names than an inode may have, in one layer, in the next, and in one that is being
/// unpacked while another process publishes; then all of it once more from the directories.
fn beyond_the_limit(root: &Path, limit: usize) {
    let store = Store::open(root).unwrap();
    let one = load(&store, "one", &[&many(limit + 50, "a", false).end()]);
    assert_eq!(copies(root, b"same"), (2, limit + 50, 2));
    load(&store, "two", &[&many(limit + 10, "b", true).end()]);
    let (inodes, names, rows) = copies(root, b"same");
    assert_eq!((names, rows), (2 * limit + 60, inodes as i64));
    assert!(inodes <= 4, "{inodes} copies");
    let usage = store.accounts().disk_usage().unwrap();
    assert_eq!(usage.stored, 4 * inodes as u64);
    assert_eq!(usage.apparent, 4 * (limit as u64 + 50) + 4);
    // Written by another handle, before the store's newest copy is nearly full.
    let other = Store::open(root).unwrap();
    let (tar, reader, gate) = gated(many(30, "c", false), Tar::default());
    thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack_gated(&other, &tar, reader));
        gate.wait();
        let newest = stored_files(root)
            .into_iter()
            .filter(|(_, (bytes, _))| bytes == b"same")
            .map(|(path, _)| root.join("layers").join(path).metadata().unwrap().nlink() as usize)
            .filter(|links| *links < limit)
            .min()
            .unwrap();
        load(&store, "filler", &[&many(limit - newest - 10, "d", false).end()]);
        gate.open();
        unpacking.join().unwrap();
    });
    load(&store, "three", &[&tar]);
    drop((store, other));
    assert_clean(root);
    let before = dump(root);
    std::fs::remove_file(root.join("index.db")).unwrap();
    let report = Store::fsck(root, true, StoreOptions::default(), &Silent).unwrap();
    assert_eq!(report.problems, []);
    assert_clean(root);
    assert_eq!(dump(root), before);
    let store = Store::open(root).unwrap();
    store.images().remove(&one).unwrap();
    drop(store);
    assert_clean(root);
    let store = Store::open(root).unwrap();
    for image in store.images().all().unwrap() {
        store.images().remove(&image.id).unwrap();
    }
    assert_eq!(walk(&root.join("layers")).len(), 0);
}

#[test]
fn more_names_than_ext4_allows() {
    // Few bytes, many names: an inode of ext4 may have 65,000.
    let Some(mounted) = Mounted::new("ext4", 256, &["-F", "-O", "^has_journal"]) else { return };
    beyond_the_limit(&mounted.root(), 65_000);
}

/// What has no further link is a copy, and counts as one; on btrfs, some hundred links are too many
/// for one directory.
#[test]
fn copies_for_want_of_links_count_among_the_bytes_of_a_layer() {
    let options = ["-f", "-O", "^extref,^no-holes", "-R", "^free-space-tree"];
    let Some(mounted) = Mounted::new("btrfs", 256, &options) else { return };
    let limits = Limits { layer_bytes: 4 << 20, ..Limits::default() };
    let options = StoreOptions { limits, ..StoreOptions::default() };
    let store = Store::open_with(&mounted.root(), options).unwrap();
    let linked = |names: usize| {
        let tar = Tar::default().file(b"a/0", &vec![7; 3 << 19]);
        let link = |n: usize| Head::new(b'1', format!("a/{n}").as_bytes()).link(b"a/0");
        (1..names).fold(tar, |tar, n| tar.add(link(n), b"")).end()
    };
    let (few, many) = (linked(10), linked(4000));
    assert!(many.len() < 4 << 20);
    drop(unpack(&store, &few).unwrap());
    let error = unpack(&store, &many).map(drop).unwrap_err().to_string();
    assert!(error.contains("--max-layer-bytes"), "{error}");
    assert_eq!(store.layers().unwrap().len(), 1);
}

/// The transaction is what fills the disk: the layer that is in its place goes again.
#[test]
fn a_layer_that_a_full_disk_keeps_out_of_the_index_leaves_nothing() {
    let Some(mounted) = Mounted::new("tmpfs", 32, &[]) else { return };
    let root = mounted.root();
    let kept = files(&[("kept", b"kept")]);
    load(&Store::open(&root).unwrap(), "kept", &[&kept]);
    let filler = mounted.at.join("filler");
    let fill = {
        let filler = filler.clone();
        move |step| {
            if step == Step::ParentSynced {
                let mut file = std::fs::File::create(&filler).unwrap();
                while file.write_all(&[1; 4096]).is_ok() {}
            }
        }
    };
    let options = StoreOptions { on_step: Some(Arc::new(fill)), ..StoreOptions::default() };
    let store = Store::open_with(&root, options).unwrap();
    // More rows than the log has room for already.
    let tar = many(3000, "a", false).file(b"big", &vec![5; 4 << 20]).end();
    let before = walk(&root.join("layers"));
    let error = unpack(&store, &tar).map(drop).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(walk(&root.join("layers")), before);
    assert_eq!(walk(&root.join("trash")).len() + walk(&root.join("staging")).len(), 0);
    drop(store);
    std::fs::remove_file(&filler).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(store.layers().unwrap().len(), 1);
    load(&store, "full", &[&tar]);
    drop(store);
    assert_clean(&root);
}

/// As long as another process has a store open, SQLite opens its index read-only without a word.
#[test]
fn a_read_only_view_of_a_store_in_use_is_read_only() {
    let Some(mounted) = Mounted::new("tmpfs", 0, &[]) else { return };
    let (root, view) = (mounted.root(), mounted.at.join("view"));
    let store = Store::open(&root).unwrap();
    load(&store, "one", &[&files(&[("a", b"a")])]);
    std::fs::create_dir(&view).unwrap();
    let mount = |options: &[&str], what: &[&Path]| {
        let done = Command::new("mount").args(options).args(what).status().unwrap();
        assert!(done.success());
    };
    mount(&["--bind"], &[&root, &view]);
    mount(&["-o", "remount,bind,ro"], &[&view]);
    // Another process: within one, SQLite takes the descriptors that are open already.
    let env = [("STRATA_TEST_ROOT", view.to_str().unwrap())];
    let seen = finish(child("file_systems::child_sees_a_read_only_store", &env));
    unmount(&view);
    assert!(seen.success());
    drop(store);
    assert_clean(&root);
}

#[test]
#[ignore = "the process that sees it"]
fn child_sees_a_read_only_store() {
    let cache = tempfile::tempdir().unwrap();
    let elsewhere = Some(cache.path().to_owned());
    let options = StoreOptions { elsewhere, ..StoreOptions::default() };
    let root = PathBuf::from(std::env::var_os("STRATA_TEST_ROOT").unwrap());
    let seen = Store::open_existing(&root, options).unwrap();
    assert!(seen.read_only().is_some());
    let image = seen.images().all().unwrap().pop().unwrap();
    assert!(seen.tree_path_elsewhere(&chain_id(&image.layers).unwrap()).is_some());
    seen.lease_image(&image.id).unwrap();
}

/// Without extended references btrfs keeps all names of an inode within one directory in one
/// item of a leaf, so the limit is one for each directory, and the lengths of the names count.
#[test]
fn more_names_in_a_directory_than_btrfs_without_extref_allows() {
    let options = ["-f", "-O", "^extref,^no-holes", "-R", "^free-space-tree"];
    let Some(mounted) = Mounted::new("btrfs", 256, &options) else { return };
    let root = mounted.root();
    let store = Store::open(&root).unwrap();
    load(&store, "one", &[&many(3000, "a", false).end()]);
    load(&store, "two", &[&many(3000, "b", true).end()]);
    let (inodes, names, rows) = copies(&root, b"same");
    println!("{names} names of {inodes} inodes");
    assert_eq!((names, rows), (6000, inodes as i64));
    drop(store);
    assert_clean(&root);
    let before = dump(&root);
    std::fs::remove_file(root.join("index.db")).unwrap();
    Store::fsck(&root, true, StoreOptions::default(), &Silent).unwrap();
    assert_eq!(dump(&root), before);
    assert_clean(&root);
}

/// A layer that lies on a mount of its own cannot be linked from (EXDEV): its contents are cloned
/// where the file system can, else written again.
#[test]
fn contents_on_another_mount_are_cloned_or_written_again() {
    for (kind, megabytes, options) in [
        ("ext4", 64, &["-F"][..]),
        ("xfs", 320, &["-f"]),
        ("btrfs", 128, &["-f"]),
        ("tmpfs", 0, &[]),
    ] {
        let Some(mounted) = Mounted::new(kind, megabytes, options) else { continue };
        let root = mounted.root();
        let store = Store::open(&root).unwrap();
        let big = vec![4; 2 << 20];
        let base = files(&[("a", b"same"), ("big", &big)]);
        load(&store, "one", &[&base]);
        let layer = root.join("layers").join(crate::common::diff_id(&base).hex());
        let bind = Command::new("mount").arg("--bind").arg(&layer).arg(&layer).status().unwrap();
        assert!(bind.success());
        let loaded = std::panic::catch_unwind(|| {
            let over = files(&[("b", b"same"), ("c", b"same"), ("big-too", &big)]);
            let store = Store::open(&root).unwrap();
            load(&store, "two", &[&over]);
            assert_eq!(copies(&root, b"same"), (2, 3, 2), "{kind}");
            // The newest copy can be linked.
            drop(unpack(&store, &files(&[("d", b"same")])).unwrap());
            assert_eq!(copies(&root, b"same"), (2, 4, 2), "{kind}");
        });
        drop(store);
        unmount(&layer);
        loaded.unwrap();
        assert_clean(&root);
    }
}

/// `layers/` on another mount than `staging/`: nothing can be renamed, and the error says so.
#[test]
fn a_store_in_pieces_says_what_is_wrong() {
    let Some(mounted) = Mounted::new("tmpfs", 0, &[]) else { return };
    let root = mounted.root();
    let store = Store::open(&root).unwrap();
    let layers = root.join("layers");
    let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&layers).status();
    assert!(status.unwrap().success());
    let error = unpack(&store, &files(&[("a", b"a")])).map(drop).unwrap_err().to_string();
    let left = walk(&root.join("staging")).len() + walk(&layers).len();
    unmount(&layers);
    assert!(error.contains("cannot publish") && error.contains("cross-device"), "{error}");
    assert_eq!(left, 0);
    drop(store);
    assert_clean(&root);
}
