//! Marks of origin over plain directories: what they say is believed only of the very inodes that
//! they were made for, and no two nodes are ever taken for one.
//!
//! Invariant: what happens between two uses (a lower made again, an upper copied) is made by hand.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use strata_content::FileTree;
use strata_testkit::needs;
use strata_tree::{DirOptions, FileHandle, NodeId, Numbers, OverlayDir, Trust};

use super::refused;
use super::world::{READ, WRITE, options};
use crate::Stack;
use crate::writable::marks::{Mark, Marks};
use crate::writable::origin_mark::Origin;
use crate::writable::types::{Changes, Ownership, RenameMode, UnionOptions};
use crate::writable::{Attr, Result, Union};

/// Three directories, and a union of them while one is wanted.
struct Dirs {
    dir: tempfile::TempDir,
    options: UnionOptions,
    union: Option<Union>,
}

impl Dirs {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, options: options(), union: None }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn mount(&mut self) -> &Union {
        self.union = None;
        let dir_options = DirOptions { redirects: Trust::Anyone, ..DirOptions::default() };
        let numbers = Arc::new(Numbers::new());
        let lower = Arc::new(OverlayDir::open(&self.path("lower"), dir_options, numbers).unwrap());
        let files = crate::tests::files_of([&lower]);
        let lower = FileTree::new(Arc::new(Stack::numbered(vec![lower])), files);
        let (upper, work) = (self.path("upper"), self.path("work"));
        self.union.insert(Union::open(lower, &upper, &work, self.options).unwrap())
    }

    fn end(&mut self) {
        self.union = None;
    }

    fn look(&self, path: &str) -> Result<Attr> {
        let union = self.union.as_ref().unwrap();
        let mut attr = union.attr(NodeId::ROOT).unwrap();
        for name in path.split('/') {
            attr = union.lookup(attr.id, name.as_bytes())?.unwrap();
        }
        Ok(attr)
    }

    fn read(&self, path: &str) -> String {
        let id = self.look(path).unwrap().id;
        let open = self.union.as_ref().unwrap().open_file(id, READ).unwrap();
        let mut bytes = vec![0; 4096];
        let read = open.read(0, &mut bytes).unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    }

    fn append(&self, path: &str, text: &str) {
        let attr = self.look(path).unwrap();
        let open = self.union.as_ref().unwrap().open_file(attr.id, WRITE).unwrap();
        open.write(attr.stat.size, text.as_bytes()).unwrap();
    }

    fn marks(&self) -> Marks {
        let apart = self.options.ownership == Ownership::Override;
        Marks::new(apart, apart)
    }

    fn mark(&self, path: &str, origin: &Origin) {
        let file = File::open(self.path(path)).unwrap();
        self.marks().set(file, Mark::StrataOrigin, &origin.format()).unwrap();
    }

    fn marked(&self, path: &str) -> Origin {
        let file = File::open(self.path(path)).unwrap();
        Origin::parse(&self.marks().get(file, Mark::StrataOrigin).unwrap().unwrap()).unwrap()
    }

    fn number(&self, path: &str) -> u64 {
        fs::symlink_metadata(self.path(path)).unwrap().ino()
    }

    fn rename(&self, from: &str, to: &str) {
        let (from, to) = ((NodeId::ROOT, from.as_bytes()), (NodeId::ROOT, to.as_bytes()));
        self.union.as_ref().unwrap().rename(from, to, RenameMode::Replace, false).unwrap();
    }

    fn chmod(&self, node: NodeId, perm: u16) {
        let changes = Changes { perm: Some(perm), ..Changes::default() };
        self.union.as_ref().unwrap().set_attr(node, &changes).unwrap();
    }

    /// Copies an inode of the upper with all its attributes, as `cp -a` does.
    fn copy_upper(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        match from.is_dir() {
            true => fs::create_dir(&to).unwrap(),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
        let mut names = vec![0; 4096];
        let length = rustix::fs::listxattr(&from, names.as_mut_slice()).unwrap();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 4096];
            let length = rustix::fs::getxattr(&from, name, value.as_mut_slice()).unwrap();
            rustix::fs::setxattr(&to, name, &value[..length], XattrFlags::empty()).unwrap();
        }
    }

    /// That all files have numbers of their own, in whatever order they are asked for.
    fn apart(&mut self, names: &[&str]) {
        let mut orders = vec![names.to_vec(), names.to_vec()];
        orders[1].reverse();
        for order in orders {
            self.mount();
            let numbers: BTreeMap<u64, &str> =
                order.iter().map(|name| (self.look(name).unwrap().id.0, *name)).collect();
            assert_eq!(numbers.len(), names.len(), "{numbers:?}");
        }
    }
}

#[test]
fn a_number_that_came_again_is_another_files() {
    for handle in [true, false] {
        let mut dirs = Dirs::new();
        dirs.put("lower/f", "old");
        dirs.mount();
        dirs.append("f", " more");
        dirs.end();
        // The lower is made again: `g` has the number that `f` once had.
        dirs.put("lower/g", "other");
        fs::remove_file(dirs.path("lower/f")).unwrap();
        let old = dirs.marked("upper/f");
        let origin = Origin {
            lower: NodeId(dirs.number("lower/g")),
            inode: old.inode.filter(|_| handle),
            handle: old.handle.filter(|_| handle),
            unsynced: false,
        };
        dirs.mark("upper/f", &origin);
        dirs.apart(&["f", "g"]);
        assert_eq!((dirs.read("f"), dirs.read("g")), ("old more".into(), "other".into()));
        dirs.append("g", " added");
        assert_eq!((dirs.read("f"), dirs.read("g")), ("old more".into(), "other added".into()));
        dirs.end();
        assert_eq!(dirs.text("upper/f"), "old more");
        assert_eq!(dirs.text("lower/g"), "other");
    }
}

#[test]
fn a_copy_of_a_copy_stands_for_itself() {
    let mut dirs = Dirs::new();
    dirs.put("lower/f", "one");
    dirs.mount();
    dirs.append("f", " two");
    let number = dirs.look("f").unwrap().id;
    dirs.end();
    dirs.copy_upper("upper/f", "upper/h");
    dirs.put("upper/h", "other");
    dirs.apart(&["f", "h"]);
    assert_eq!(dirs.look("f").unwrap().id, number, "the first keeps its number");
    assert_eq!((dirs.read("f"), dirs.read("h")), ("one two".into(), "other".into()));
    dirs.append("h", " more");
    dirs.end();
    assert_eq!(dirs.text("upper/f"), "one two");
    assert_eq!(dirs.text("upper/h"), "other more");
}

/// What the kernel without `index` leaves of a file of two names, with a mark from before marks had
/// handles.
#[test]
fn a_broken_link_shows_what_each_of_its_names_has() {
    let mut dirs = Dirs::new();
    dirs.put("lower/f", "lower");
    fs::hard_link(dirs.path("lower/f"), dirs.path("lower/g")).unwrap();
    dirs.put("upper/f", "upper");
    let lower = NodeId(dirs.number("lower/f"));
    dirs.mark("upper/f", &Origin { lower, inode: None, handle: None, unsynced: false });
    dirs.apart(&["f", "g"]);
    assert_eq!((dirs.read("f"), dirs.read("g")), ("upper".into(), "lower".into()));
    dirs.append("g", " added");
    assert_eq!((dirs.read("f"), dirs.read("g")), ("upper".into(), "lower added".into()));
    dirs.end();
    assert_eq!(dirs.text("upper/f"), "upper");
    assert_eq!(dirs.text("upper/g"), "lower added");
    assert_eq!(dirs.text("lower/g"), "lower");
    dirs.apart(&["f", "g"]);
}

#[test]
fn numbers_outlive_renames_and_remounts() {
    let mut dirs = Dirs::new();
    dirs.put("lower/f", "one");
    dirs.mount();
    let number = dirs.look("f").unwrap().id;
    dirs.append("f", " two");
    dirs.mount();
    assert_eq!(dirs.look("f").unwrap().id, number);
    let (from, to) = ((NodeId::ROOT, &b"f"[..]), (NodeId::ROOT, &b"moved"[..]));
    dirs.union.as_ref().unwrap().rename(from, to, RenameMode::Replace, false).unwrap();
    dirs.mount();
    let moved = dirs.look("moved").unwrap().id;
    let handle = FileHandle::of(File::open(dirs.path("lower/f")).unwrap()).unwrap();
    let near = File::open(dirs.path("lower")).unwrap();
    // Without handles, or the right to open by them, nobody can know where the lower's file was.
    if handle.is_some_and(|handle| handle.open(near).is_ok()) {
        assert_eq!(moved, number);
    }
    fs::remove_file(dirs.path("lower/f")).unwrap();
    dirs.mount();
    assert_ne!(dirs.look("moved").unwrap().id, number, "the lower has it no more");
    assert_eq!(dirs.read("moved"), "one two");
}

#[test]
fn a_directory_is_at_one_place_alone() {
    let mut dirs = Dirs::new();
    fs::create_dir(dirs.path("lower/d")).unwrap();
    dirs.put("lower/d/f", "below");
    dirs.mount();
    let (from, to) = ((NodeId::ROOT, &b"d"[..]), (NodeId::ROOT, &b"e"[..]));
    dirs.union.as_ref().unwrap().rename(from, to, RenameMode::Replace, false).unwrap();
    dirs.end();
    dirs.copy_upper("upper/e", "upper/e2");
    for (first, second) in [("e", "e2"), ("e2", "e")] {
        let union = dirs.mount();
        let names = union.list(NodeId::ROOT).unwrap();
        assert_eq!(names.len(), 2, "both are listed");
        assert_eq!(dirs.read(&format!("{first}/f")), "below");
        assert_eq!(refused(dirs.look(second)), Some(Errno::STALE));
        let union = dirs.union.as_ref().unwrap();
        let told: Vec<_> =
            names.iter().map(|name| union.identity(NodeId::ROOT, name).unwrap().unwrap()).collect();
        assert_ne!(told[0].0, told[1].0);
    }
}

#[test]
fn the_names_of_a_copy_have_one_number_where_handles_tell_nothing() {
    let mut dirs = Dirs::new();
    dirs.put("lower/a", "a");
    dirs.put("lower/one", "1");
    let union = dirs.mount();
    let low = union.lookup(NodeId::ROOT, b"a").unwrap().unwrap().id;
    union.link(low, NodeId::ROOT, b"b").unwrap();
    dirs.append("b", "+");
    dirs.append("one", "+");
    let one = dirs.look("one").unwrap().id;
    // As an ordinary user, who may not open by a handle.
    for name in ["upper/a", "upper/one"] {
        let origin = Origin { handle: None, ..dirs.marked(name) };
        dirs.mark(name, &origin);
    }
    assert_eq!((dirs.look("a").unwrap().id, dirs.look("b").unwrap().id), (low, low));
    for order in [["a", "b"], ["b", "a"]] {
        dirs.mount();
        let numbers = order.map(|name| dirs.look(name).unwrap().id);
        assert_eq!(numbers[0], numbers[1]);
        assert_eq!(dirs.look("one").unwrap().id, one);
    }
}

/// Fifos, devices, sockets and links have no user attributes, so there nothing says in the upper
/// whose number they keep.
#[test]
fn an_inode_that_has_no_mark_of_origin_is_one_node() {
    if !needs::root() {
        return;
    }
    let mut dirs = Dirs::new();
    dirs.options = UnionOptions { user_marks: true, ownership: Ownership::Inode, ..options() };
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, dirs.path("lower/p"), fifo, 0o644.into(), 0).unwrap();
    dirs.put("lower/other", "");
    dirs.mount();
    let held = dirs.look("p").unwrap().id;
    dirs.chmod(held, 0o600);
    assert_eq!(dirs.look("p").unwrap().id, held);
    dirs.rename("p", "moved");
    dirs.rename("other", "p");
    let before = dirs.look("p").unwrap().stat;
    dirs.chmod(held, 0o666);
    assert_eq!(dirs.look("p").unwrap().stat, before);
    assert_eq!(dirs.look("moved").unwrap().stat.perm, 0o666);
}

/// The kernel breaks hard links; both names then come from one lower node.
#[test]
fn each_name_of_a_broken_link_is_one_node_before_and_after_its_copy() {
    let mut dirs = Dirs::new();
    dirs.put("lower/f", "lower");
    fs::hard_link(dirs.path("lower/f"), dirs.path("lower/link")).unwrap();
    dirs.put("upper/f", "empty");
    let metacopy = File::open(dirs.path("upper/f")).unwrap();
    dirs.marks().set(metacopy, Mark::Metacopy, b"").unwrap();
    dirs.mount();
    let (f, held) = (dirs.look("f").unwrap().id, dirs.look("link").unwrap().id);
    assert_ne!(f, held);
    dirs.append("link", " more");
    assert_eq!((dirs.look("f").unwrap().id, dirs.look("link").unwrap().id), (f, held));
    dirs.rename("link", "moved");
    dirs.rename("f", "link");
    let before = dirs.look("link").unwrap().stat;
    dirs.chmod(held, 0o666);
    assert_eq!(dirs.look("link").unwrap().stat, before);
    assert_eq!(
        (dirs.look("moved").unwrap().stat.perm, dirs.read("moved").as_str()),
        (0o666, "lower more")
    );
}

#[test]
fn a_name_that_cannot_be_found_stops_no_copy_of_a_hard_link() {
    let mut dirs = Dirs::new();
    fs::create_dir(dirs.path("lower/d")).unwrap();
    fs::create_dir(dirs.path("lower/twice")).unwrap();
    dirs.put("lower/f", "lower");
    fs::hard_link(dirs.path("lower/f"), dirs.path("lower/d/link")).unwrap();
    dirs.mount();
    dirs.rename("twice", "once");
    dirs.rename("d", "moved");
    dirs.end();
    dirs.copy_upper("upper/once", "upper/again");
    dirs.mount();
    dirs.look("once").unwrap();
    assert_eq!(refused(dirs.look("again")), Some(Errno::STALE));
    dirs.append("f", " more");
    assert_eq!(dirs.look("f").unwrap().stat.nlink, 2);
    assert_eq!(dirs.read("moved/link"), "lower more");
}

/// What an inode of ext4 holds of attributes is one block at most; other file systems have room.
#[test]
fn a_file_without_room_for_a_mark_can_be_written() {
    use crate::writable::types::SetMode;
    let mut dirs = Dirs::new();
    dirs.put("lower/f", "lower");
    let union = dirs.mount();
    let id = union.lookup(NodeId::ROOT, b"f").unwrap().unwrap().id;
    let set = |name: &str, len| {
        union.set_xattr(id, name.as_bytes(), &vec![b'x'; len], SetMode::Either).is_ok()
    };
    assert!((0..4096).rev().step_by(64).any(|len| set("user.big", len)));
    for n in 0..100 {
        set(&format!("user.{n}"), 0);
    }
    dirs.append("f", " more");
    assert_eq!((dirs.look("f").unwrap().id, dirs.read("f").as_str()), (id, "lower more"));
    dirs.mount();
    assert_eq!(dirs.read("f"), "lower more");
}

#[test]
fn a_metacopy_whose_content_is_gone_can_be_changed_and_removed() {
    let mut dirs = Dirs::new();
    dirs.put("lower/f", "lower");
    dirs.mount();
    dirs.chmod(dirs.look("f").unwrap().id, 0o600);
    dirs.end();
    fs::remove_file(dirs.path("lower/f")).unwrap();
    dirs.mount();
    let id = dirs.look("f").unwrap().id;
    dirs.chmod(id, 0o640);
    let stat = dirs.look("f").unwrap().stat;
    assert_eq!((stat.perm, stat.size), (0o640, 5));
    let union = dirs.union.as_ref().unwrap();
    for how in [READ, WRITE] {
        assert_eq!(refused(union.open_file(id, how)), Some(Errno::IO));
    }
    let cut = Changes { size: Some(1), ..Changes::default() };
    assert_eq!(refused(union.set_attr(id, &cut)), Some(Errno::IO));
    let (from, to) = ((NodeId::ROOT, &b"f"[..]), (NodeId::ROOT, &b"g"[..]));
    assert_eq!(refused(union.rename(from, to, RenameMode::Replace, false)), Some(Errno::IO));
    union.unlink(NodeId::ROOT, b"f").unwrap();
    assert!(union.lookup(NodeId::ROOT, b"f").unwrap().is_none());
}
