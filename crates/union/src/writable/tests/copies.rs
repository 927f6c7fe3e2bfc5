//! Copy-ups that fail, that others look at meanwhile, and of files of several names.
//!
//! Invariant: what fails leaves the tree as it was, and can be done again.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use strata_content::conformance::in_memory;
use strata_content::{FailingAfter, FileTree};
use strata_tree::{
    ContentRef, DirEntry, Entry, Error as TreeError, Lower, Name, NameBuf, Node, NodeId, Spec,
    TreePath, Xattr,
};

use super::world::{READ, WRITE, World, options, read_all};
use crate::writable::{Changes, Error, RenameMode, Union};

const PERM: Changes = Changes {
    perm: Some(0o600),
    uid: None,
    gid: None,
    size: None,
    atime: None,
    mtime: None,
    held: false,
    forced: false,
};

/// A union over `lower` in a directory of its own.
fn union(dir: &Path, lower: FileTree) -> Union {
    let [upper, work] = ["upper", "work"].map(|name| dir.join(name));
    for part in [&upper, &work] {
        std::fs::create_dir(part).unwrap();
    }
    Union::open(lower, &upper, &work, options()).unwrap()
}

fn find(union: &Union, name: &str) -> NodeId {
    union.lookup(NodeId::ROOT, name.as_bytes()).unwrap().unwrap().id
}

/// A file with `count` names `n0`, `n1` and so on in each of these directories.
fn names(dirs: &[&str], count: usize) -> Spec {
    let path = |text: &str| TreePath::clamped(text.as_bytes()).unwrap();
    let first = path(&format!("{}n0", dirs[0]));
    let mut spec = Spec::new();
    for (at, dir) in dirs.iter().enumerate() {
        spec = match *dir {
            "" => spec,
            dir => spec.dir(dir.trim_end_matches('/')),
        };
        for n in 0..count {
            let name = format!("{dir}n{n}");
            spec = match (at, n) {
                (0, 0) => spec.file(name, "content"),
                _ => spec.link(name, &first),
            };
        }
    }
    spec
}

/// A lower that counts how often its directories are read, and fails at will.
pub(super) struct Watched {
    lower: Arc<dyn Lower>,
    read: AtomicUsize,
    /// This name cannot be looked up once it has been that number of times.
    fails: Mutex<Option<(NameBuf, usize)>>,
    /// What comes before the root is read again, once names in it were looked up.
    pub(super) before_read: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// This directory cannot be listed.
    unlistable: Mutex<Option<NodeId>>,
    /// What comes once, before a node is asked for.
    before_node: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    looked_up: AtomicBool,
}

impl Watched {
    pub(super) fn over(tree: &FileTree) -> Arc<Self> {
        Arc::new(Self {
            lower: Arc::clone(tree.names()),
            read: AtomicUsize::new(0),
            fails: Mutex::default(),
            before_read: Mutex::default(),
            unlistable: Mutex::default(),
            before_node: Mutex::default(),
            looked_up: AtomicBool::new(false),
        })
    }
}

impl Lower for Watched {
    fn root(&self) -> NodeId {
        self.lower.root()
    }
    fn lookup(&self, dir: NodeId, name: Name<'_>) -> strata_tree::Result<Option<Entry>> {
        if dir == self.root() {
            self.looked_up.store(true, Ordering::Relaxed);
        }
        let mut fails = self.fails.lock().unwrap();
        match &mut *fails {
            Some((which, 0)) if which.as_name() == name => {
                return Err(TreeError::io("on purpose", Errno::IO));
            }
            Some((which, left)) if which.as_name() == name => *left -= 1,
            _ => {}
        }
        self.lower.lookup(dir, name)
    }
    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> strata_tree::Result<()> {
        self.read.fetch_add(1, Ordering::Relaxed);
        if *self.unlistable.lock().unwrap() == Some(dir) {
            return Err(TreeError::io("on purpose", Errno::ACCESS));
        }
        if dir == self.root()
            && self.looked_up.swap(false, Ordering::Relaxed)
            && let Some(before) = &mut *self.before_read.lock().unwrap()
        {
            before();
        }
        self.lower.read_dir(dir, from, each)
    }
    fn node(&self, node: NodeId) -> strata_tree::Result<Node> {
        let before = self.before_node.lock().unwrap().take();
        if let Some(before) = before {
            before();
        }
        self.lower.node(node)
    }
    fn read_link(&self, node: NodeId) -> strata_tree::Result<Vec<u8>> {
        self.lower.read_link(node)
    }
    fn xattrs(&self, node: NodeId) -> strata_tree::Result<Vec<Xattr>> {
        self.lower.xattrs(node)
    }
    fn content(&self, node: NodeId) -> strata_tree::Result<ContentRef> {
        self.lower.content(node)
    }
    fn parent(&self, dir: NodeId) -> strata_tree::Result<Option<NodeId>> {
        self.lower.parent(dir)
    }
}

#[test]
fn a_name_that_a_copy_has_not_got_yet_is_the_same_file() {
    for _ in 0..20 {
        let world = World::new(names(&[""], 100), options());
        let (union, id) = (world.union(), world.id("n0"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            for n in 0..100 {
                                let name = format!("n{n}");
                                let attr = union.lookup(NodeId::ROOT, name.as_bytes());
                                let attr = attr.unwrap().unwrap();
                                assert_eq!((attr.id, attr.stat.nlink), (id, 100), "{name}");
                            }
                        }
                    })
                })
                .collect();
            let file = union.open_file(id, WRITE);
            done.store(true, Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            file.unwrap().write(0, b"CONTENT").unwrap();
        });
        assert_eq!(union.attr(id).unwrap().stat.nlink, 100);
        for n in 0..100 {
            let file = union.open_file(find(union, &format!("n{n}")), READ).unwrap();
            assert_eq!(read_all(&file), b"CONTENT", "n{n}");
        }
    }
}

#[test]
fn a_copy_that_gets_some_of_its_names_gives_them_back() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = in_memory(&names(&[""], 10)).unwrap();
    let lower = Watched::over(&tree);
    let union = union(dir.path(), tree.with_names(Arc::clone(&lower) as _));
    let id = find(&union, "n0");
    // Once to learn the names, and then to link this one.
    *lower.fails.lock().unwrap() = Some((NameBuf::new(b"n5").unwrap(), 1));
    let failed = union.set_attr(id, &PERM);
    assert!(matches!(failed, Err(Error::Lower(_))), "{failed:?}");
    *lower.fails.lock().unwrap() = None;
    for part in ["upper", "work/work"] {
        let left = std::fs::read_dir(dir.path().join(part)).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [""; 0]);
    }
    for n in 0..10 {
        assert_eq!(find(&union, &format!("n{n}")), id);
    }
    union.set_attr(id, &PERM).unwrap();
    for n in 0..10 {
        let attr = union.lookup(NodeId::ROOT, format!("n{n}").as_bytes()).unwrap().unwrap();
        assert_eq!((attr.id, attr.stat.perm, attr.stat.nlink), (id, 0o600, 10));
    }
}

#[test]
fn a_metacopy_that_cannot_be_filled_keeps_its_size() {
    const SIZE: u64 = 1 << 20;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = in_memory(&Spec::new().file("f", vec![7; SIZE as usize])).unwrap();
    // Opened, and read once.
    let failing = FailingAfter::new(Arc::clone(tree.contents()), 2);
    let lower = FileTree::new(Arc::clone(tree.names()), Arc::new(failing));
    let union = union(dir.path(), lower);
    let id = find(&union, "f");
    let before = union.set_attr(id, &PERM).unwrap().stat;
    let cut = Changes { size: Some(SIZE - 1), ..Changes::default() };
    assert!(union.set_attr(id, &cut).is_err());
    assert_eq!(union.attr(id).unwrap().stat, before);
    assert_eq!(dir.path().join("upper/f").metadata().unwrap().len(), SIZE);
}

#[test]
fn one_walk_finds_all_names_after_a_directory_has_moved() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut spec = Spec::new().dir("d1").dir("d2");
    for n in 0..30 {
        spec = spec.file(format!("d1/{n}"), "content");
        let first = TreePath::clamped(format!("d1/{n}").as_bytes()).unwrap();
        spec = spec.link(format!("d2/{n}"), &first);
    }
    let tree = in_memory(&spec).unwrap();
    let lower = Watched::over(&tree);
    let union = union(dir.path(), tree.with_names(Arc::clone(&lower) as _));
    let change = |range: std::ops::Range<u32>| {
        let d1 = find(&union, "d1");
        for n in range {
            let id = union.lookup(d1, n.to_string().as_bytes()).unwrap().unwrap().id;
            union.set_attr(id, &PERM).unwrap();
            assert_eq!(union.attr(id).unwrap().stat.nlink, 2, "{n}");
        }
    };
    for (from, to, range) in [("d2", "e2", 0..10), ("e2", "e3", 10..20), ("e3", "d2", 20..30)] {
        let (from, to) = ((NodeId::ROOT, from.as_bytes()), (NodeId::ROOT, to.as_bytes()));
        union.rename(from, to, RenameMode::Replace, false).unwrap();
        let before = lower.read.load(Ordering::Relaxed);
        change(range);
        let walked = lower.read.load(Ordering::Relaxed) - before;
        assert!(walked < 10, "{walked} directories were read");
    }
}

/// As after `chattr -a`, and after any other error of the upper.
#[test]
fn a_copy_of_several_names_that_could_not_take_its_place_can_be_made_again() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = in_memory(&names(&["", "d/"], 3)).unwrap();
    let union = union(dir.path(), tree);
    let id = find(&union, "n0");
    let in_the_way = dir.path().join("upper/n0");
    std::fs::write(&in_the_way, "").unwrap();
    for _ in 0..2 {
        assert!(union.set_attr(id, &PERM).is_err());
    }
    std::fs::remove_file(&in_the_way).unwrap();
    // A directory that only grows, where that can be said.
    let d = std::fs::File::open(dir.path().join("upper/d")).unwrap();
    let append = rustix::fs::ioctl_setflags(&d, rustix::fs::IFlags::APPEND).is_ok();
    for _ in 0..if append { 2 } else { 0 } {
        assert!(union.set_attr(id, &PERM).is_err());
        let left = |part: &str| std::fs::read_dir(dir.path().join(part)).unwrap().count();
        assert_eq!((left("upper"), left("upper/d"), left("work/work")), (1, 0, 0));
    }
    if append {
        rustix::fs::ioctl_setflags(&d, rustix::fs::IFlags::empty()).unwrap();
    }
    assert_eq!(union.set_attr(id, &PERM).unwrap().stat.nlink, 6);
    let d = find(&union, "d");
    for n in 0..3 {
        let name = format!("n{n}");
        assert_eq!(find(&union, &name), id);
        assert_eq!(union.lookup(d, name.as_bytes()).unwrap().unwrap().id, id);
    }
}

#[test]
fn a_name_is_found_while_another_name_of_its_file_moves() {
    let mut spec = names(&[""], 2);
    for n in 0..300 {
        spec = spec.file(format!("f{n}"), "content");
    }
    let world = World::new(spec, options());
    let (union, id) = (world.union(), world.id("n0"));
    union.set_attr(id, &PERM).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [(b"n0", b"m0"), (b"m0", b"n0")] {
                    let (from, to) = ((NodeId::ROOT, &from[..]), (NodeId::ROOT, &to[..]));
                    union.rename(from, to, RenameMode::Replace, false).unwrap();
                }
            }
        });
        let finder = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let attr = union.lookup(NodeId::ROOT, b"n1");
                assert_eq!(attr.unwrap().unwrap().id, id);
            }
        });
        for n in 0..300 {
            union.set_attr(find(union, &format!("f{n}")), &PERM).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        mover.join().unwrap();
        finder.join().unwrap();
    });
}

/// What is at a path changes while directories above it change places.
#[test]
fn a_metacopy_gets_its_own_content_while_the_directories_above_move() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = Spec::new().dir("p").file("p/f", "from p").dir("q").file("q/f", "from q");
    let tree = in_memory(&spec).unwrap();
    let lower = Watched::over(&tree);
    let union = Arc::new(union(dir.path(), tree.with_names(Arc::clone(&lower) as _)));
    let ids = ["p", "q"].map(|dir| {
        let id = union.lookup(find(&union, dir), b"f").unwrap().unwrap().id;
        union.set_attr(id, &PERM).unwrap().id
    });
    let mover = Arc::clone(&union);
    // Asked for when it is known where the metacopy is, and before that is opened.
    *lower.before_node.lock().unwrap() = Some(Box::new(move || {
        let (p, q) = ((NodeId::ROOT, &b"p"[..]), (NodeId::ROOT, &b"q"[..]));
        mover.rename(p, q, RenameMode::Exchange, false).unwrap();
    }));
    drop(union.open_file(ids[0], WRITE).unwrap());
    assert!(lower.before_node.lock().unwrap().is_none(), "they have moved");
    for (id, content) in ids.into_iter().zip([b"from p", b"from q"]) {
        assert_eq!(read_all(&union.open_file(id, READ).unwrap()), content);
    }
    assert_eq!(std::fs::read(dir.path().join("upper/q/f")).unwrap(), b"from p");
}

/// An ordinary user's lower may have directories of others.
#[test]
fn a_directory_that_may_not_be_listed_stops_no_copy_of_a_hard_link() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = in_memory(&names(&["", "d/"], 2).dir("secret")).unwrap();
    let lower = Watched::over(&tree);
    let union = union(dir.path(), tree.with_names(Arc::clone(&lower) as _));
    let (id, secret) = (find(&union, "n0"), find(&union, "secret"));
    *lower.unlistable.lock().unwrap() = Some(secret);
    // So that the names are searched for in the merged tree, too.
    let (from, to) = ((NodeId::ROOT, &b"d"[..]), (NodeId::ROOT, &b"e"[..]));
    union.rename(from, to, RenameMode::Replace, false).unwrap();
    assert_eq!(union.set_attr(id, &PERM).unwrap().stat.nlink, 4);
    let n1 = union.lookup(find(&union, "e"), b"n1").unwrap().unwrap();
    assert_eq!((n1.id, n1.stat.perm), (id, 0o600));
}
