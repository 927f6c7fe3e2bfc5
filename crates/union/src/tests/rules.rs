//! Each merge rule by itself, and the bounds: many layers, many whiteouts, deep paths, threads.

use strata_content::conformance::check;
use strata_tree::conformance::merged_specs;
use strata_tree::{Entry, Error, Name, NodeId, Presence, Stat, TreePath, list};

use super::*;

/// The base of the table in the project's notes on layers.
fn base() -> Spec {
    Spec::new()
        .file("foo", "foo")
        .dir("a")
        .perm(0o711)
        .owner(1, 2)
        .xattr("user.a", "a")
        .file("a/old", "old")
        .dir("a/b")
        .file("a/b/low", "low")
        .dir("t")
        .file("t/x", "x")
        .symlink("ln", "t")
}

#[test]
fn one_layer_is_itself() {
    for (name, spec) in merged_specs() {
        let tree = stack([&spec]);
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
}

#[test]
fn no_layers_are_an_empty_root() {
    let tree = stack([]);
    assert_eq!(tree.node(NodeId::ROOT).unwrap().stat, Stat::unstated_dir());
    assert_eq!(names(&tree, ""), "");
}

#[test]
fn whiteouts_and_files_hide_what_is_below() {
    let upper = Spec::new().whiteout("foo").file("a", "a file now").whiteout("nothing");
    let tree = stack([&base(), &upper]);
    assert_eq!(names(&tree, ""), "a ln t");
    assert_eq!(content(&tree, "a").unwrap(), "a file now");
    // A directory over that file does not bring back the first one's children.
    let top = Spec::new().dir("a").file("a/new", "new").dir("foo");
    let tree = stack([&base(), &upper, &top]);
    assert_eq!(names(&tree, "a"), "new");
    assert_eq!(names(&tree, "foo"), "");
    // A directory replaces a lower file, or a lower symlink, which is never followed.
    let tree =
        stack([&base(), &Spec::new().dir("foo").file("foo/c", "").dir("ln").file("ln/n", "")]);
    assert_eq!(names(&tree, "foo"), "c");
    assert_eq!(names(&tree, "ln"), "n");
    assert_eq!(names(&tree, "t"), "x");
}

#[test]
fn directories_merge_until_an_opaque_one() {
    let upper = Spec::new().dir("a").opaque().file("a/c", "c").dir("t").file("t/y", "y");
    let tree = stack([&base(), &upper]);
    assert_eq!(names(&tree, "a"), "c");
    assert_eq!(names(&tree, "t"), "x y");
    let root = Spec::new().opaque().file("only", "");
    assert_eq!(names(&stack([&base(), &upper, &root]), ""), "only");
}

#[test]
fn explicit_directories_have_their_own_metadata() {
    let tree = stack([&base(), &Spec::new().dir("a").perm(0o700).xattr("user.b", "b")]);
    let a = find(&tree, "a").unwrap();
    assert_eq!((a.stat.perm, a.stat.uid), (0o700, 0));
    assert_eq!(tree.xattrs(a.id).unwrap(), [(b"user.b".to_vec(), b"b".to_vec())]);
}

#[test]
fn implied_directories_take_metadata_from_below() {
    let implied = Spec::new().dir("a").presence(Presence::Implied).file("a/c", "c");
    let opaque = Spec::new().dir("a").presence(Presence::Implied).opaque().file("a/c", "c");
    for (layers, children) in [
        (vec![&implied], "b c old"),
        (vec![&implied, &implied], "b c old"),
        // Opaque hides the children; the directory is still the one below.
        (vec![&opaque], "c"),
        (vec![&opaque, &implied], "c"),
    ] {
        let base = base();
        let tree = stack([&base].into_iter().chain(layers));
        let a = find(&tree, "a").unwrap();
        assert_eq!((a.stat.perm, a.stat.uid, a.stat.gid), (0o711, 1, 2));
        assert_eq!(tree.xattrs(a.id).unwrap(), [(b"user.a".to_vec(), b"a".to_vec())]);
        assert_eq!(names(&tree, "a"), children);
        assert_eq!(tree.node(a.id).unwrap(), a);
    }
    // Cut off from below: by a whiteout, by a file, by an opaque parent.
    let whiteout = Spec::new().whiteout("a");
    let file = Spec::new().file("a", "");
    for cut in [&whiteout, &file] {
        let tree = stack([&base(), cut, &implied]);
        assert_eq!(find(&tree, "a").unwrap().stat, Stat::unstated_dir());
        assert_eq!(names(&tree, "a"), "c");
    }
    let parent = Spec::new().dir("a").opaque().dir("a/b").presence(Presence::Implied);
    let base = base().dir("a/b2").perm(0o700);
    let tree = stack([&base, &parent]);
    assert_eq!(names(&tree, "a"), "b");
    assert_eq!(find(&tree, "a/b").unwrap().stat, Stat::unstated_dir());
}

#[test]
fn phantoms_exist_over_directories_only() {
    let phantom = Spec::new()
        .dir("a")
        .presence(Presence::Phantom)
        .whiteout("a/old")
        .dir("a/b")
        .presence(Presence::Phantom)
        .whiteout("a/b/low")
        .dir("foo")
        .presence(Presence::Phantom)
        .whiteout("foo/x")
        .dir("absent")
        .presence(Presence::Phantom)
        .dir("absent/too")
        .presence(Presence::Phantom)
        .whiteout("absent/too/x");
    let tree = stack([&base(), &phantom]);
    assert_eq!(names(&tree, ""), "a foo ln t");
    assert_eq!(content(&tree, "foo").unwrap(), "foo");
    assert_eq!(names(&tree, "a"), "b");
    assert_eq!(names(&tree, "a/b"), "");
    assert_eq!(find(&tree, "a").unwrap().stat.perm, 0o711);
    // By itself it is nothing, and over a whiteout too.
    assert_eq!(names(&stack([&phantom]), ""), "");
    assert_eq!(names(&stack([&base(), &Spec::new().whiteout("a"), &phantom]), ""), "foo ln t");
    // Opaque: the directory below, emptied.
    let opaque = Spec::new().dir("a").presence(Presence::Phantom).opaque();
    let tree = stack([&base(), &opaque]);
    assert_eq!((names(&tree, "a").as_str(), find(&tree, "a").unwrap().stat.perm), ("", 0o711));
    assert_eq!(names(&stack([&opaque]), ""), "");
    assert_eq!(names(&stack([&base(), &opaque, &phantom]), "a"), "");
}

#[test]
fn links_to_lower_layers_are_the_same_inode() {
    let links = Spec::new()
        .lower_link("hl", &path("a/old"))
        .dir("d")
        .lower_link("d/hl", &path("foo"))
        // The layer's own whiteout and its own new file do not matter for its links.
        .whiteout("foo")
        .file("t", "t is a file now")
        .lower_link("x", &path("t/x"))
        .lower_link("sym", &path("ln"));
    let top = Spec::new().lower_link("again", &path("d/hl")).whiteout("d");
    let tree = stack([&base(), &links, &top]);
    assert_eq!(content(&tree, "hl").unwrap(), "old");
    assert_eq!(find(&tree, "hl").unwrap().id, find(&tree, "a/old").unwrap().id);
    assert_eq!(content(&tree, "x").unwrap(), "x");
    assert_eq!(tree.read_link(find(&tree, "sym").unwrap().id).unwrap(), b"t");
    assert_eq!(find(&tree, "sym").unwrap().id, find(&tree, "ln").unwrap().id);
    assert_eq!(content(&tree, "again").unwrap(), "foo");
    assert_eq!(find(&tree, "d"), None);
    let backing = tree.content(find(&tree, "again").unwrap().id).unwrap();
    assert_eq!((backing.layer, backing.path), (0, path("foo")));
}

#[test]
fn dangling_links_name_both_ends() {
    for target in ["absent", "a", "", "ln/x", "foo/x", "a/absent/x"] {
        let links = Spec::new().dir("d").lower_link("d/hl", &path(target));
        let tree = stack([&base(), &links]);
        let d = find(&tree, "d").unwrap().id;
        let by_name = tree.lookup(d, Name::new(b"hl").unwrap()).unwrap_err();
        for error in [by_name, list(&*tree, d).unwrap_err()] {
            match error {
                Error::DanglingLink { path: link, target: to } => {
                    assert_eq!((link, to), (path("d/hl"), path(target)));
                }
                other => panic!("{target}: {other}"),
            }
        }
    }
    // The error names the link that leads nowhere, not the links to it.
    let middle = Spec::new().lower_link("middle", &path("absent"));
    let top = Spec::new().lower_link("top", &path("middle"));
    let tree = stack([&base(), &middle, &top]);
    match tree.lookup(NodeId::ROOT, Name::new(b"top").unwrap()) {
        Err(Error::DanglingLink { path: link, target }) => {
            assert_eq!((link, target), (path("middle"), path("absent")));
        }
        other => panic!("{other:?}"),
    }
    // In the base there is nothing below at all.
    let tree = stack([&Spec::new().lower_link("hl", &path("hl"))]);
    assert!(matches!(list(&*tree, NodeId::ROOT), Err(Error::DanglingLink { .. })));
    // Hidden, it harms nobody.
    let tree = stack([&Spec::new().lower_link("hl", &path("no")), &Spec::new().dir("hl")]);
    assert_eq!((names(&tree, "").as_str(), names(&tree, "hl").as_str()), ("hl", ""));
    assert!(find(&tree, "hl").is_some());
}

#[test]
fn backing_names_the_layer() {
    let upper = Spec::new().dir("a").file("a/new", "new");
    let tree = stack([&base(), &Spec::new(), &upper]);
    for (file, layer) in [("a/new", 2), ("a/old", 0)] {
        let backing = tree.content(find(&tree, file).unwrap().id).unwrap();
        assert_eq!((backing.layer, backing.path), (layer, path(file)));
    }
}

#[test]
fn hundreds_of_layers() {
    // Each layer adds a file, takes one away, and links to the layer below.
    let mut layers = vec![Spec::new().dir("d").perm(0o750).file("link-0", "the first")];
    for n in 1..500 {
        let layer = Spec::new()
            .dir("d")
            .presence(Presence::Implied)
            .file(format!("d/{n:03}"), n.to_string())
            .whiteout(format!("d/{:03}", n - 1))
            .lower_link(format!("link-{n}"), &path(&format!("link-{}", n - 1)));
        layers.push(layer);
    }
    let tree = stack(&layers);
    assert_eq!(names(&tree, "d"), "499");
    assert_eq!(find(&tree, "d").unwrap().stat.perm, 0o750);
    assert_eq!(content(&tree, "link-499").unwrap(), "the first");
    let all = list(&*tree, NodeId::ROOT).unwrap();
    let first = find(&tree, "link-0").unwrap().id;
    let links = all.iter().filter(|(_, entry)| entry.node().unwrap().id == first).count();
    assert_eq!(links, 500);
}

#[test]
fn a_hundred_thousand_whiteouts() {
    let (mut files, mut whiteouts) = (Spec::new(), Spec::new().file("kept", ""));
    for n in 0..100_000 {
        files = files.file(format!("file-{n}"), "");
        whiteouts = whiteouts.whiteout(format!("file-{n}"));
    }
    assert_eq!(names(&stack([&files, &whiteouts]), ""), "kept");
}

#[test]
fn reading_on_does_not_merge_anew() {
    // One name at a time: quadratic if each step merged the directory.
    let (name, spec) = merged_specs().remove(2);
    assert_eq!(name, "big");
    let tree = stack([&spec, &Spec::new().dir("big").file("big/new", "")]);
    let big = find(&tree, "big").unwrap().id;
    let (mut from, mut count, mut more) = (0, 0, true);
    while more {
        more = false;
        tree.read_dir(big, from, &mut |item| {
            (from, count, more) = (item.next, count + 1, true);
            std::ops::ControlFlow::Break(())
        })
        .unwrap();
    }
    assert_eq!(count, 10_001);
}

#[test]
fn deep_paths_do_not_recurse() {
    let mut spec = Spec::new();
    let mut deep = TreePath::root();
    for _ in 0..1000 {
        deep.push(Name::new(b"d").unwrap());
        spec = spec.dir(deep.as_bytes());
    }
    let file = deep.join(Name::new(b"f").unwrap());
    spec = spec.file(file.as_bytes(), "deep");
    let tree = stack([&spec, &Spec::new().lower_link("hl", &file)]);
    assert_eq!(content(&tree, "hl").unwrap(), "deep");
    let bad = stack([&spec, &spec.clone().lower_link("d/hl", &path("no"))]);
    assert!(list(&*bad, find(&bad, "d").unwrap().id).is_err());
}

#[test]
fn threads_get_the_same_numbers() {
    let (_, spec) = merged_specs().remove(2);
    let tree = stack([&spec, &Spec::new().dir("big").whiteout("big/5")]);
    let walk = || {
        let big = find(&tree, "big").unwrap().id;
        let by_name = (0..300).map(|n| {
            let name = n.to_string();
            tree.lookup(big, Name::new(name.as_bytes()).unwrap()).unwrap()
        });
        let looked_up: Vec<Option<Entry>> = by_name.collect();
        (looked_up, list(&*tree, big).unwrap())
    };
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(walk)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(all.iter().all(|one| *one == all[0]));
    assert_eq!(all[0].0[5], None);
}
