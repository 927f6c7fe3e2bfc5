//! Destinations that are filled, deep, or changed under the checkout's hands.

use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

#[test]
fn a_filled_destination_is_refused_and_kept() {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("out");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("kept"), "kept").unwrap();
    let tree = build(&Spec::new().file("kept", "overwritten"));
    let error = into(&tree, &root).unwrap_err().to_string();
    assert!(error.contains("out: choose a new or an empty directory"), "{error}");
    // Also where it fills up only after it was looked at.
    let dir = File::open(&root).unwrap();
    let options = Options { label: "OUT".to_owned(), ..Options::default() };
    let error = checkout(&tree, tree.root(), Dest::Into(dir.as_fd()), options).unwrap_err();
    assert!(error.to_string().starts_with("cannot create OUT/kept: File exists"), "{error}");
    assert_eq!(fs::read(root.join("kept")).unwrap(), b"kept");
    let error = into(&tree, &root.join("kept")).unwrap_err().to_string();
    assert!(error.contains("Not a directory"), "{error}");
}

#[test]
fn merging_replaces_files_enters_directories_and_follows_nothing() {
    let base = tempfile::tempdir().unwrap();
    let (root, outside) = (base.path().join("out"), base.path().join("outside"));
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "victim").unwrap();
    fs::write(root.join("dir/kept"), "kept").unwrap();
    symlink(outside.join("victim"), root.join("file")).unwrap();
    let tree = build(&Spec::new().dir("dir").file("dir/new", "new").file("file", "file"));
    let merge = |tree: &FileTree| {
        let dir = File::open(&root).unwrap();
        let options = Options { label: "OUT".to_owned(), merge: true, watch: None };
        checkout(tree, tree.root(), Dest::Into(dir.as_fd()), options)
    };
    let before = found(&outside);
    merge(&tree).unwrap();
    assert_eq!(fs::read(root.join("dir/kept")).unwrap(), b"kept");
    assert_eq!(fs::read(root.join("dir/new")).unwrap(), b"new");
    assert!(fs::symlink_metadata(root.join("file")).unwrap().is_file());
    merge(&tree).unwrap();

    fs::remove_dir_all(root.join("dir")).unwrap();
    symlink(&outside, root.join("dir")).unwrap();
    assert!(
        merge(&tree).unwrap_err().to_string().starts_with("OUT/dir is not a directory of this")
    );
    fs::remove_file(root.join("dir")).unwrap();
    fs::remove_file(root.join("file")).unwrap();
    fs::create_dir(root.join("file")).unwrap();
    let error = merge(&tree).unwrap_err().to_string();
    assert!(error.starts_with("cannot create OUT/file: Is a directory"), "{error}");
    assert_eq!(found(&outside), before);
}

/// A tree whose directories are visited in a known order: `MemTree` lists last written first.
fn linked_across() -> FileTree {
    build(
        &Spec::new()
            .dir("late")
            .dir("early")
            .file("early/first", "first")
            .link("late/second", &path("early/first")),
    )
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    // "early" becomes something else right after its file was made.
    for other_directory in [false, true] {
        let base = tempfile::tempdir().unwrap();
        let (root, outside) = (base.path().join("out"), base.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("first"), "victim").unwrap();
        fs::create_dir(&root).unwrap();
        let before = found(&outside);
        let dir = File::open(&root).unwrap();
        let mut swap = |made: &TreePath, _| {
            if made.as_bytes() == b"early/first" {
                fs::rename(root.join("early"), root.join("moved")).unwrap();
                if other_directory {
                    fs::create_dir(root.join("early")).unwrap();
                    fs::hard_link(outside.join("first"), root.join("early/first")).unwrap();
                } else {
                    symlink(&outside, root.join("early")).unwrap();
                }
            }
        };
        let options = Options { label: "OUT".to_owned(), merge: false, watch: Some(&mut swap) };
        let tree = linked_across();
        let error = checkout(&tree, tree.root(), Dest::Into(dir.as_fd()), options).unwrap_err();
        assert!(error.to_string().contains("OUT/late/second"), "{error}");
        drop(dir);
        if other_directory {
            fs::remove_dir_all(&root).unwrap();
        }
        assert_eq!(found(&outside), before);
    }
}

#[test]
fn a_racing_swapper_never_gets_anything_out() {
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(outside.join("d0")).unwrap();
    fs::write(outside.join("f0"), "victim").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o711)).unwrap();
    let before = found(&outside);
    let mut spec = Spec::new().dir("d").perm(0o777).mtime(1, 1);
    for i in 0..8 {
        spec = spec.file(format!("d/f{i}"), "content").perm(0o4777).dir(format!("d/d{i}"));
        spec = spec.perm(0o777).mtime(2, 2).link(format!("d/d{i}/l"), &path(&format!("d/f{i}")));
    }
    let tree = build(&spec);
    let (stop, swaps) = (AtomicBool::new(false), AtomicBool::new(false));
    let root = base.path().join("out");
    fs::create_dir(&root).unwrap();
    let (mut done, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Long enough for a checkout to pass undisturbed now and then.
                std::thread::sleep(Duration::from_millis(5));
                for (name, aside) in [("d", "aside"), ("d/d0", "d/aside"), ("d/d7", "d/aside7")] {
                    if fs::rename(root.join(name), root.join(aside)).is_ok() {
                        let linked = symlink(&outside, root.join(name)).is_ok();
                        swaps.fetch_or(linked, Ordering::Relaxed);
                        std::thread::yield_now();
                        let _ = fs::remove_file(root.join(name));
                        let _ = fs::rename(root.join(aside), root.join(name));
                    }
                }
            }
        });
        // For a second at least, and until both outcomes were seen.
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(1)
            || ((done == 0 || failed == 0) && start.elapsed() < Duration::from_secs(60))
        {
            let dir = File::open(&root).unwrap();
            // Merging is the harder case: links in the way are met, and removed.
            let options = Options { label: String::new(), merge: true, watch: None };
            match checkout(&tree, tree.root(), Dest::Into(dir.as_fd()), options) {
                Ok(_) => done += 1,
                Err(_) => failed += 1,
            }
            if (done + failed) % 4 == 0 {
                let _ = fs::remove_dir_all(root.join("d"));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(swaps.load(Ordering::Relaxed), "the race never happened");
    assert!(done > 0 && failed > 0, "{done} checkouts were undisturbed, {failed} noticed");
    assert_eq!(found(&outside), before);
}

#[test]
fn a_deep_tree_costs_neither_stack_nor_descriptors() {
    const DEPTH: usize = 3_000;
    let mut spec = Spec::new();
    let mut way = String::new();
    for _ in 0..DEPTH {
        way += "d";
        spec = spec.dir(&way).mtime(3, 4);
        way += "/";
    }
    spec = spec.file(format!("{way}bottom"), "deep").mtime(5, 6);
    let tree = build(&spec);
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("out");
    let fds = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    let run = || {
        let mut most = 0;
        let mut watch = |made: &TreePath, _| {
            if made.depth().is_multiple_of(250) {
                most = most.max(fds());
            }
        };
        let dir = open_empty(&root).unwrap();
        let options = Options { label: String::new(), merge: false, watch: Some(&mut watch) };
        let report = checkout(&tree, tree.root(), Dest::Into(dir.as_fd()), options).unwrap();
        assert_eq!((report.entries, report.bytes), (DEPTH as u64 + 2, 4));
        most
    };
    let most = std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn_scoped(scope, run).unwrap().join().unwrap()
    });
    assert!(most < before + 500, "{most} descriptors, {before} before");
    let mut at = root.clone();
    for depth in 0..=DEPTH {
        let meta = fs::symlink_metadata(&at);
        // Beyond PATH_MAX a path says nothing any more; the way there was right.
        if at.as_os_str().len() > 4_000 {
            break;
        }
        let expected = if depth == 0 { (0, 0) } else { (3, 4) };
        let meta = meta.unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), expected, "at depth {depth}");
        at.push("d");
    }
}
