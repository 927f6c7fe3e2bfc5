//! What each dialect's marks mean, and that they mean nothing in the others.

use std::fs;

use rustix::fs::{XattrFlags, lsetxattr};
use strata_testkit::needs;

use super::*;
use crate::dialect::{Mark, OVERRIDE_STAT};
use crate::node::{Device, Kind};
use crate::{Continues, Error, NodeId, Redirect, TreePath, list};

fn set(path: &Path, name: &str, value: &str) {
    lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
}

fn with(dialect: Dialect) -> DirOptions {
    DirOptions { dialect, ..Default::default() }
}

const KERNEL: Dialect = Dialect::kernel(XattrClass::Trusted);
const USER: Dialect = Dialect::kernel(XattrClass::User);
const ALL: Dialect = Dialect::FUSE_OVERLAYFS;

#[test]
fn opacity_counts_in_its_dialect() {
    if !needs::root() {
        return;
    }
    for (name, [kernel, user, all]) in [
        ("trusted.overlay.opaque", [true, false, true]),
        ("user.overlay.opaque", [false, true, true]),
        ("user.fuseoverlayfs.opaque", [false, false, true]),
        ("user.opaque", [false, false, false]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        set(&dir.path().join("d"), name, "y");
        for (dialect, opaque) in [(KERNEL, kernel), (USER, user), (ALL, all)] {
            let tree = open(dir.path(), with(dialect));
            let found = node(&tree, "d");
            assert_eq!(found.marks.opaque, opaque, "{name} {dialect:?}");
            assert_eq!(tree.node(found.id).unwrap(), found);
            // What counts is private, what does not is the image's.
            let shown = tree.xattrs(found.id).unwrap();
            assert_eq!(shown.is_empty(), opaque, "{name} {dialect:?}");
        }
        for value in ["n", "", "yes", "x"] {
            set(&dir.path().join("d"), name, value);
            assert!(!node(&open(dir.path(), with(ALL)), "d").marks.opaque);
        }
        set(dir.path(), name, "y");
        let tree = open(dir.path(), with(KERNEL));
        assert_eq!(tree.node(NodeId::ROOT).unwrap().marks.opaque, kernel);
    }
}

#[test]
fn whiteout_files_count_as_in_the_kernel() {
    if !needs::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["marked", "unmarked"] {
        let at = dir.path().join(name);
        fs::create_dir(&at).unwrap();
        for (file, content) in [("hidden", ""), ("full", "x"), ("empty", "")] {
            fs::write(at.join(file), content).unwrap();
            if file != "empty" {
                set(&at.join(file), "user.overlay.whiteout", "");
            }
        }
    }
    set(&dir.path().join("marked"), "user.overlay.opaque", "x");
    let whiteouts = |dialect| {
        let tree = open(dir.path(), with(dialect));
        let mut found = Vec::new();
        for name in ["marked", "unmarked"] {
            for (file, entry) in list(&tree, node(&tree, name).id).unwrap() {
                if entry == Entry::Whiteout {
                    found.push(format!("{name}/{}", String::from_utf8_lossy(file.as_bytes())));
                }
            }
        }
        found
    };
    // The mark of the directory matters to the kernel's listings alone.
    assert_eq!(whiteouts(USER), ["marked/hidden", "unmarked/hidden"]);
    assert_eq!(whiteouts(ALL), ["marked/hidden", "unmarked/hidden"]);
    assert!(whiteouts(KERNEL).is_empty());
}

#[test]
fn an_empty_file_stands_for_a_device_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let name = XattrClass::User.name(Mark::StrataDevice);
    let zero = Device { major: 0, minor: 0 };
    for (text, content, kind) in [
        ("char-0-0", "", Kind::CharDevice(zero)),
        // Every user may set the mark.
        ("block-0-0", "", Kind::Regular),
        ("char-1-5", "", Kind::Regular),
        ("block-8-0", "", Kind::Regular),
        ("char-0-0", "content", Kind::Regular),
        ("dir", "", Kind::Regular),
        ("symlink", "", Kind::Regular),
        ("nonsense", "", Kind::Regular),
    ] {
        fs::write(dir.path().join("f"), content).unwrap();
        set(&dir.path().join("f"), name, text);
        let tree = open(dir.path(), with(USER));
        assert_eq!(node(&tree, "f").stat.kind, kind, "{text} {content}");
    }
}

#[test]
fn names_are_whiteouts_where_the_lower_is_aufs_like() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["opaque", "beside", "plain", "deep"] {
        fs::create_dir(at(name)).unwrap();
    }
    let long = format!(".wh.{}", "x".repeat(251));
    for name in [
        ".wh.gone",
        ".wh.both",
        "both",
        ".wh.beside",
        "opaque/.wh..wh..opq",
        ".wh..wh.plnk",
        ".wh.",
        ".wh...",
        ".wh....",
        &long,
        "deep/.wh.a",
        "deep/b",
    ] {
        fs::write(at(name), b"").unwrap();
    }
    let aufs = open(dir.path(), with(Dialect { aufs: true, ..USER }));
    let mut seen: Vec<_> = list(&aufs, NodeId::ROOT).unwrap();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let told = |(name, entry): &(crate::NameBuf, Entry)| {
        let text = String::from_utf8_lossy(name.as_bytes()).into_owned();
        match entry {
            Entry::Whiteout => format!("-{text}"),
            Entry::Node(node) if node.marks.opaque => format!("={text}"),
            Entry::Node(_) | Entry::LowerLink(_) => text,
        }
    };
    let want = ["-...", "=beside", "both", "deep", "-gone", "=opaque", "plain"];
    let got: Vec<_> = seen.iter().map(told).collect();
    assert_eq!(got[..want.len()], want);
    assert_eq!(got[want.len()..], [format!("-{}", "x".repeat(251))]);
    for (name, listed) in &seen {
        let found = aufs.lookup(NodeId::ROOT, name.as_name()).unwrap();
        assert_eq!(found.as_ref(), Some(listed), "{name:?}");
        if let Entry::Node(node) = listed {
            assert_eq!(aufs.node(node.id).unwrap(), *node);
        }
    }
    assert_eq!(entry(&aufs, ".wh.gone"), None);
    assert_eq!(entry(&aufs, "deep/a"), Some(Entry::Whiteout));
    assert!(list(&aufs, node(&aufs, "opaque").id).unwrap().is_empty());

    let plain = open(dir.path(), with(USER));
    assert_eq!(entry(&plain, "gone"), None);
    assert_eq!(node(&plain, ".wh.gone").stat.kind, Kind::Regular);
    assert!(!node(&plain, "opaque").marks.opaque);

    fs::write(at(".wh..wh..opq"), b"").unwrap();
    let aufs = open(dir.path(), with(Dialect { aufs: true, ..USER }));
    assert!(aufs.node(NodeId::ROOT).unwrap().marks.opaque);
}

#[test]
fn stated_owners_count_when_asked_for() {
    if !needs::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "content").unwrap();
    set(&at("file"), OVERRIDE_STAT, "7:8:4711:file");
    fs::write(at("device"), "").unwrap();
    set(&at("device"), OVERRIDE_STAT, "0:5:0620:char-4-1");
    fs::write(at("full"), "content").unwrap();
    set(&at("full"), "user.fuseoverlayfs.override_stat", "1:1:0600:char-4-1");
    fs::write(at("link"), "to/somewhere").unwrap();
    set(&at("link"), OVERRIDE_STAT, "9:10:0777:symlink");
    fs::create_dir(at("dir")).unwrap();
    set(&at("dir"), "security.fuseoverlayfs.override_stat", "1:2:0700");
    let read = |when, path| {
        let tree = open(dir.path(), DirOptions { override_stat: when, ..with(ALL) });
        let found = node(&tree, path);
        assert_eq!(tree.node(found.id).unwrap(), found);
        let shown = tree.xattrs(found.id).unwrap();
        assert!(when != OverrideStat::Read || shown.is_empty(), "{shown:?}");
        let stat = found.stat;
        (stat.kind, stat.uid, stat.gid, stat.perm)
    };
    let tty = Kind::CharDevice(Device { major: 4, minor: 1 });
    assert_eq!(read(OverrideStat::Read, "file"), (Kind::Regular, 7, 8, 0o4711));
    assert_eq!(read(OverrideStat::Read, "device"), (tty, 0, 5, 0o620));
    assert_eq!(read(OverrideStat::Read, "full"), (Kind::Regular, 1, 1, 0o600));
    assert_eq!(read(OverrideStat::Read, "link"), (Kind::Symlink, 9, 10, 0o777));
    let tree = open(dir.path(), DirOptions { override_stat: OverrideStat::Read, ..with(ALL) });
    assert_eq!(tree.read_link(node(&tree, "link").id).unwrap(), b"to/somewhere");
    assert_eq!(read(OverrideStat::Read, "dir"), (Kind::Directory, 1, 2, 0o700));
    for when in [OverrideStat::Ignored, OverrideStat::IfRootHas] {
        assert_eq!(read(when, "device"), (Kind::Regular, 0, 0, 0o644));
    }
    set(dir.path(), OVERRIDE_STAT, "3:4:0711:dir");
    assert_eq!(read(OverrideStat::IfRootHas, "device"), (tty, 0, 5, 0o620));
    let tree =
        open(dir.path(), DirOptions { override_stat: OverrideStat::Read, ..Default::default() });
    assert_eq!(tree.node(NodeId::ROOT).unwrap().stat.uid, 3);
    let device = node(&tree, "device").id;
    assert!(matches!(tree.content(device), Err(Error::NotRegular { .. })));
    set(&at("file"), OVERRIDE_STAT, "nonsense");
    assert!(tree.lookup(NodeId::ROOT, Name::new(b"file").unwrap()).is_err());
}

#[test]
fn redirects_are_told_to_whom_they_are_trusted_for() {
    if !needs::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, class) in [("t", XattrClass::Trusted), ("u", XattrClass::User)] {
        fs::create_dir(at(name)).unwrap();
        set(&at(name), class.name(Mark::Redirect), "/was/here");
        let file = format!("{name}-file");
        fs::write(at(&file), "").unwrap();
        set(&at(&file), class.name(Mark::Metacopy), "");
        set(&at(&file), class.name(Mark::Redirect), "sibling");
    }
    fs::create_dir(at("bad")).unwrap();
    set(&at("bad"), "trusted.overlay.redirect", "../up");
    let ask = |dialect, trust, name: &str| {
        let options = DirOptions { redirects: trust, metacopy: trust, ..with(dialect) };
        let tree = open(dir.path(), options);
        tree.continues(node(&tree, name).id).map_err(|error| match error {
            Error::Io { source, .. } => source.raw_os_error(),
            other => panic!("{other}"),
        })
    };
    let path = Some(Redirect::Path(TreePath::clamped(b"was/here").unwrap()));
    let moved = Ok(Continues { redirect: path, metacopy: false });
    let sibling = Some(Redirect::Sibling(crate::NameBuf::new(b"sibling").unwrap()));
    let thin = Ok(Continues { redirect: sibling, metacopy: true });
    let here = Ok(Continues::default());
    let refused = Err(Some(Errno::PERM.raw_os_error()));
    for (dialect, trust, name, dir, file) in [
        (KERNEL, Trust::Privileged, "t", &moved, &thin),
        (KERNEL, Trust::Privileged, "u", &here, &here),
        (KERNEL, Trust::Nobody, "t", &refused, &refused),
        (KERNEL, Trust::Nobody, "u", &here, &here),
        (USER, Trust::Anyone, "u", &moved, &thin),
        (USER, Trust::Anyone, "t", &here, &here),
        (USER, Trust::Privileged, "u", &here, &here),
        (USER, Trust::Nobody, "u", &refused, &refused),
        (ALL, Trust::Privileged, "t", &moved, &thin),
        (ALL, Trust::Privileged, "u", &here, &here),
        (ALL, Trust::Anyone, "u", &moved, &thin),
    ] {
        assert_eq!(&ask(dialect, trust, name), dir, "{dialect:?} {trust:?} {name}");
        let thin = format!("{name}-file");
        assert_eq!(&ask(dialect, trust, &thin), file, "{dialect:?} {trust:?} {thin}");
    }
    let invalid = Err(Some(Errno::INVAL.raw_os_error()));
    assert_eq!(ask(KERNEL, Trust::Privileged, "bad"), invalid);
}
