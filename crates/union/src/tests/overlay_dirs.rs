//! Stacks of plain directories: many of them, large ones, and what their numbers keep.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use strata_content::FileTree;
use strata_tree::dialect::{Mark, XattrClass};
use strata_tree::{Dialect, DirOptions, Error, Lower, NodeId, Numbers, OverlayDir, Trust};

use super::{content, files_of, find, names};
use crate::Stack;

fn open_over(
    dirs: impl IntoIterator<Item = impl AsRef<Path>>,
    data: &[Arc<OverlayDir>],
) -> FileTree {
    let options = DirOptions {
        dialect: Dialect::kernel(XattrClass::User),
        redirects: Trust::Anyone,
        metacopy: Trust::Anyone,
        ..Default::default()
    };
    let numbers = Arc::new(Numbers::new());
    let open = |dir: &Path| OverlayDir::open(dir, options, Arc::clone(&numbers)).unwrap();
    let lowers: Vec<_> = dirs.into_iter().map(|dir| Arc::new(open(dir.as_ref()))).collect();
    let files = files_of(lowers.iter().chain(data));
    let lowers = lowers.into_iter().map(|dir| dir as Arc<dyn Lower>).collect();
    let data = data.iter().map(|dir| Arc::clone(dir) as Arc<dyn Lower>).collect();
    FileTree::new(Arc::new(Stack::numbered(lowers).with_data(data)), files)
}

fn open(dirs: impl IntoIterator<Item = impl AsRef<Path>>) -> FileTree {
    open_over(dirs, &[])
}

#[test]
fn five_hundred_lowers_hold_one_descriptor_each_and_few_more() {
    let dir = tempfile::tempdir().unwrap();
    let lower = |n: u32| dir.path().join(n.to_string());
    for n in 0..500 {
        fs::create_dir_all(lower(n).join("d/e")).unwrap();
        fs::write(lower(n).join("d/e").join(n.to_string()), n.to_string()).unwrap();
        fs::write(lower(n).join("d/same"), n.to_string()).unwrap();
    }
    let stack = open((0..500).map(lower));
    let mut want: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    want.sort();
    assert_eq!(names(&stack, "d/e"), want.join(" "));
    assert_eq!(content(&stack, "d/same").as_deref(), Some("499"));
    assert_eq!(content(&stack, "d/e/0").as_deref(), Some("0"));
    let ours = |fd: std::io::Result<fs::DirEntry>| {
        fs::read_link(fd.unwrap().path()).is_ok_and(|target| target.starts_with(dir.path()))
    };
    let held = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| ours(fd).then_some(()));
    assert!((500..=564).contains(&held.count()));
}

#[test]
fn numbers_repeat_and_stay_under_one_more_layer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for path in ["base/d/e", "mid/d", "top/d/e"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::write(at("base/d/f"), "f").unwrap();
    fs::write(at("mid/d/g"), "g").unwrap();
    let ids = |stack: &FileTree, order: &[&str]| -> Vec<NodeId> {
        let mut ids: Vec<_> =
            order.iter().map(|path| (*path, find(stack, path).unwrap().id)).collect();
        ids.sort_by_key(|(path, _)| *path);
        ids.into_iter().map(|(_, id)| id).collect()
    };
    let two = ids(&open([at("base"), at("mid")]), &["", "d", "d/e", "d/f", "d/g"]);
    let again = ids(&open([at("base"), at("mid")]), &["d/g", "d/f", "d/e", "d", ""]);
    let three = ids(&open([at("base"), at("mid"), at("top")]), &["", "d", "d/e", "d/f", "d/g"]);
    assert_eq!(two, again);
    assert_eq!(two, three);
    assert_eq!(two[0], NodeId::ROOT);
}

#[test]
fn lowers_inside_one_another_share_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/x/y")).unwrap();
    fs::write(dir.path().join("sub/x/file"), "file").unwrap();
    let stack = open([dir.path().to_owned(), dir.path().join("sub")]);
    let [inner, outer] = ["x", "sub/x"].map(|path| find(&stack, path).unwrap().id);
    assert_ne!(inner, outer);
    let sub = find(&stack, "sub").unwrap().id;
    assert_eq!(stack.parent(outer).unwrap(), Some(sub));
    assert_eq!(stack.parent(inner).unwrap(), Some(NodeId::ROOT));
    assert_ne!(find(&stack, "x/y").unwrap().id, find(&stack, "sub/x/y").unwrap().id);
    assert_eq!(find(&stack, "x/file"), find(&stack, "sub/x/file"));
}

/// Layers under one directory, written as an ordinary user may.
struct Layers(tempfile::TempDir);

impl Layers {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A directory of a layer, with its parents.
    fn dir(&self, path: &str, marks: &[(Mark, &str)]) {
        fs::create_dir_all(self.0.path().join(path)).unwrap();
        self.mark(path, marks);
    }

    fn file(&self, path: &str, content: &str, marks: &[(Mark, &str)]) {
        let path = Path::new(path);
        self.dir(path.parent().unwrap().to_str().unwrap(), &[]);
        fs::write(self.0.path().join(path), content).unwrap();
        self.mark(path.to_str().unwrap(), marks);
    }

    fn mark(&self, path: &str, marks: &[(Mark, &str)]) {
        for (mark, value) in marks {
            let name = XattrClass::User.name(*mark);
            let flags = rustix::fs::XattrFlags::empty();
            let path = self.0.path().join(path);
            rustix::fs::lsetxattr(path, name, value.as_bytes(), flags).unwrap();
        }
    }

    /// Layers 0, 1, ... merged.
    fn stack(&self, count: u32) -> FileTree {
        self.stack_over(count, &[])
    }

    /// The same with layers that have contents alone.
    fn stack_over(&self, count: u32, data: &[Arc<OverlayDir>]) -> FileTree {
        open_over((0..count).map(|n| self.0.path().join(n.to_string())), data)
    }
}

#[test]
fn a_sibling_redirect_merges_another_name() {
    let layers = Layers::new();
    layers.file("0/d/was/f", "f", &[]);
    layers.file("0/d/is/no", "no", &[]);
    layers.dir("1/d/is", &[(Mark::Redirect, "was")]);
    let stack = layers.stack(2);
    assert_eq!(names(&stack, "d/is"), "f");
    assert_eq!(content(&stack, "d/is/f").as_deref(), Some("f"));
    // Nobody has hidden the old name.
    assert_eq!(find(&stack, "d/was/f"), find(&stack, "d/is/f"));
    assert_eq!(names(&stack, "d"), "is was");
}

#[test]
fn an_absolute_redirect_starts_at_the_roots_and_turns_on_its_way() {
    let layers = Layers::new();
    layers.file("0/x/b/low", "low", &[]);
    layers.file("0/a/b/not", "not", &[]);
    layers.file("1/a/b/mid", "mid", &[]);
    layers.mark("1/a", &[(Mark::Redirect, "/x")]);
    layers.dir("2/new", &[(Mark::Redirect, "/a/b")]);
    assert_eq!(names(&layers.stack(3), "new"), "low mid");
    layers.mark("1/a/b", &[(Mark::Redirect, "c")]);
    layers.file("0/x/c/renamed", "", &[]);
    assert_eq!(names(&layers.stack(3), "new"), "mid renamed");
}

#[test]
fn what_is_hidden_on_the_way_stays_hidden() {
    let layers = Layers::new();
    layers.file("0/a/b/low", "low", &[]);
    layers.file("1/a/b/mid", "mid", &[]);
    layers.dir("2/new", &[(Mark::Redirect, "/a/b")]);
    layers.mark("1/a", &[(Mark::Opaque, "y")]);
    assert_eq!(names(&layers.stack(3), "new"), "mid");
    // An absolute redirect further along the path says where to go on.
    layers.mark("1/a/b", &[(Mark::Redirect, "/elsewhere")]);
    layers.file("0/elsewhere/found", "", &[]);
    assert_eq!(names(&layers.stack(3), "new"), "found mid");

    let layers = Layers::new();
    layers.file("0/a/b/low", "low", &[]);
    layers.file("1/a", "a file", &[]);
    layers.dir("2/new", &[(Mark::Redirect, "/a/b")]);
    assert_eq!(names(&layers.stack(3), "new"), "");
    layers.file("2/a/b/top", "", &[]);
    assert_eq!(names(&layers.stack(3), "a/b"), "top");
}

#[test]
fn content_is_found_below_metacopies() {
    let layers = Layers::new();
    layers.file("0/was/f", "content", &[]);
    layers.file("1/was/f", "\0\0\0\0\0\0\0", &[(Mark::Metacopy, "")]);
    layers.file("2/is/g", "\0\0\0\0\0\0\0", &[(Mark::Metacopy, ""), (Mark::Redirect, "f")]);
    layers.mark("2/is", &[(Mark::Redirect, "/was")]);
    let stack = layers.stack(3);
    assert_eq!(names(&stack, "is"), "f g");
    let found = find(&stack, "is/g").unwrap();
    assert_eq!(content(&stack, "is/g").as_deref(), Some("content"));
    assert_eq!(found.stat.size, 7);
    let which = stack.content(found.id).unwrap();
    assert_eq!((which.layer, which.path.as_bytes()), (0, &b"was/f"[..]));
}

#[test]
fn lost_content_is_an_error() {
    for at in ["absent", "f", "opaque"] {
        let layers = Layers::new();
        layers.file("0/d/g", "content", &[]);
        layers.dir("0/d/f", &[]);
        let redirect = if at == "opaque" { "g" } else { at };
        layers.file("1/d/x", "", &[(Mark::Metacopy, ""), (Mark::Redirect, redirect)]);
        if at == "opaque" {
            layers.mark("1/d", &[(Mark::Opaque, "y")]);
        }
        let stack = layers.stack(2);
        let node = find(&stack, "d/x").unwrap();
        for error in [stack.open(node.id).map(drop).err(), stack.content(node.id).map(drop).err()] {
            let Some(Error::Io { source, what }) = error else { panic!("{at}: {error:?}") };
            assert_eq!(source.raw_os_error(), Some(5), "{at}");
            assert!(what.contains("/d/x"), "{what}");
        }
    }
}

#[test]
fn layers_of_data_are_asked_last_and_by_absolute_paths_alone() {
    let layers = Layers::new();
    let meta = |path: &str, redirect: &str| {
        layers.file(path, "", &[(Mark::Metacopy, ""), (Mark::Redirect, redirect)]);
    };
    layers.file("data/a/both", "first", &[]);
    layers.file("more/a/both", "second", &[]);
    layers.file("more/a/second", "second", &[]);
    layers.dir("data/a/second", &[]);
    layers.file("more/a/both2/not", "below a file", &[]);
    layers.file("data/a/both2", "a file", &[]);
    layers.file("data/a/.wh.name", "plain", &[]);
    // Marks of such layers are attributes like others.
    layers.file("data/a/marked", "own", &[(Mark::Metacopy, ""), (Mark::Redirect, "/a/both")]);
    layers.file("data/moved/f", "", &[]);
    layers.dir("data/a/dir", &[(Mark::Redirect, "/moved")]);
    // A lower that has the directory and not the file is on the way; one that has it counts.
    layers.file("0/a/lower", "lower", &[]);
    layers.file("data/a/lower", "data", &[]);
    for (name, redirect) in [
        ("both", "/a/both"),
        ("second", "/a/second"),
        ("below", "/a/both2/not"),
        ("wh", "/a/.wh.name"),
        ("marked", "/a/marked"),
        ("dir", "/a/dir/f"),
        ("lower", "/a/lower"),
        ("twice", "/step"),
        ("sibling", "both"),
    ] {
        meta(&format!("1/{name}"), redirect);
    }
    meta("0/step", "/a/both");
    let numbers = Arc::new(Numbers::new());
    let options = DirOptions {
        dialect: Dialect::NONE,
        redirects: Trust::Nobody,
        metacopy: Trust::Nobody,
        ..Default::default()
    };
    let data = ["data", "more"].map(|name| {
        let path = layers.0.path().join(name);
        Arc::new(OverlayDir::open(&path, options, Arc::clone(&numbers)).unwrap())
    });
    let bare = layers.stack(2);
    let stack = layers.stack_over(2, &data);
    assert_eq!(names(&stack, ""), names(&bare, ""));
    for (name, want) in [
        ("both", Some("first")),
        ("second", Some("second")),
        ("below", Some("below a file")),
        ("wh", Some("plain")),
        ("marked", Some("own")),
        ("dir", None),
        ("lower", Some("lower")),
        ("twice", Some("first")),
        ("sibling", None),
    ] {
        let node = find(&stack, name).unwrap();
        match stack.open(node.id) {
            Ok(_) => assert_eq!(content(&stack, name).as_deref(), want, "{name}"),
            Err(error) => assert!(want.is_none(), "{name}: {error}"),
        }
        let here = bare.open(find(&bare, name).unwrap().id).is_ok();
        assert_eq!(here, name == "lower", "{name} without layers of data");
    }
    assert_eq!(content(&stack, "a/lower").as_deref(), Some("lower"));
}
