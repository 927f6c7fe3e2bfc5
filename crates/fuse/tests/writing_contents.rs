//! A writable mount: the contents of files, for every way in which they can be open.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use common::mapping::Mapping;
use common::noise;
use common::union::{Rw, can_write, each_mode};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use strata_content::{Content, Contents, FileTree, Memory};
use strata_fuse::WritableOptions;
use strata_tree::{ContentRef, DirEntry, Entry, Lower, MemTree, Name, Node, NodeId, Spec, Xattr};
use strata_union::writable::UnionOptions;

fn at(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut room = vec![0; length];
    let read = file.read_at(&mut room, offset).unwrap();
    room.truncate(read);
    room
}

fn both() -> std::fs::OpenOptions {
    File::options().read(true).write(true).clone()
}

/// Acceptance: hold a lower file open for reading, open it for writing, write.
#[test]
fn whoever_has_a_lower_file_open_sees_what_is_written_and_the_lower_does_not() {
    if !can_write() {
        return;
    }
    let body = noise(3 * 4096 + 100);
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("f", &body), &options);
        let old = File::open(rw.path("f")).unwrap();
        let mapped = Mapping::new(&old, 4096, false);
        assert_eq!(mapped.read(100), &body[..100]);
        assert_eq!(at(&old, 0, 100), &body[..100]);
        let new = both().open(rw.path("f")).unwrap();
        new.write_all_at(b"written", 10).unwrap();
        new.write_all_at(b"behind the pages", 9_000).unwrap();
        assert_eq!(at(&old, 10, 7), b"written");
        assert_eq!(at(&old, 9_000, 16), b"behind the pages");
        assert_eq!(at(&new, 10, 7), b"written");
        assert_eq!(&mapped.read(17)[10..], b"written");
        // One more, of each kind, joins them.
        let third = File::open(rw.path("f")).unwrap();
        assert_eq!(at(&third, 9_000, 6), b"behind");
        let fourth = both().open(rw.path("f")).unwrap();
        fourth.write_all_at(b"WRITTEN", 10).unwrap();
        assert_eq!(&mapped.read(17)[10..], b"WRITTEN");
        for file in [&old, &new, &third, &fourth] {
            assert_eq!(at(file, 10, 7), b"WRITTEN");
        }
        // All of them gone, the next may be in the other mode.
        drop((old, mapped, new, third, fourth));
        let later = both().open(rw.path("f")).unwrap();
        assert_eq!(at(&later, 10, 7), b"WRITTEN");
        later.write_all_at(b"later", 0).unwrap();
        assert_eq!(&fs::read(rw.path("f")).unwrap()[..5], b"later");
        assert_eq!(fs::read(rw.upper("f")).unwrap(), fs::read(rw.path("f")).unwrap());
    }
}

#[test]
fn modes_change_only_when_nobody_is_left() {
    if !can_write() {
        return;
    }
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("f", "lower"), &options);
        // Cached, then through, then cached pages of old must not come back.
        assert_eq!(fs::read(rw.path("f")).unwrap(), b"lower");
        fs::write(rw.path("f"), "upper").unwrap();
        for round in 0..20 {
            let text = format!("round {round}");
            let reader = File::open(rw.path("f")).unwrap();
            let writer = both().open(rw.path("f")).unwrap();
            writer.set_len(0).unwrap();
            writer.write_all_at(text.as_bytes(), 0).unwrap();
            assert_eq!(at(&reader, 0, 100), text.as_bytes());
            drop(writer);
            assert_eq!(fs::metadata(rw.path("f")).unwrap().len(), text.len() as u64);
            let direct = File::options()
                .read(true)
                .custom_flags(OFlags::DIRECT.bits().cast_signed())
                .open(rw.path("f"))
                .unwrap();
            drop(reader);
            assert_eq!(fs::read(rw.path("f")).unwrap(), text.as_bytes());
            drop(direct);
        }
    }
}

#[test]
fn emptying_copies_nothing_and_everyone_sees_it() {
    if !can_write() {
        return;
    }
    let body = noise(4 << 20);
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("f", &body).file("g", &body), &options);
        let old = File::open(rw.path("f")).unwrap();
        assert_eq!(at(&old, 4096, 10), &body[4096..4106]);
        let new = File::create(rw.path("f")).unwrap();
        assert_eq!(old.metadata().unwrap().len(), 0);
        assert_eq!(at(&old, 4096, 10), b"");
        new.write_all_at(b"new", 0).unwrap();
        assert_eq!(at(&old, 0, 10), b"new");
        // Shorter by name, longer by descriptor.
        let cut = Command::new("truncate").args(["-s", "100"]).arg(rw.path("g")).status();
        assert!(cut.unwrap().success());
        assert_eq!(fs::read(rw.path("g")).unwrap(), &body[..100]);
        let file = both().open(rw.path("g")).unwrap();
        file.set_len(200).unwrap();
        assert_eq!(at(&file, 90, 200), [&body[90..100], &[0; 100]].concat());
    }
}

#[test]
fn two_processes_append_without_loss() {
    if !can_write() {
        return;
    }
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("log", ""), &options);
        let script = |who: &str| {
            let path = rw.path("log").display().to_string();
            format!("exec >> {path}; i=0; while [ $i -lt 500 ]; do echo {who} $i; i=$((i+1)); done")
        };
        let start = |who| Command::new("sh").args(["-c", &script(who)]).spawn().unwrap();
        let mut children = [start("one"), start("two")];
        assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
        let text = fs::read_to_string(rw.path("log")).unwrap();
        for who in ["one", "two"] {
            let lines: Vec<_> = text.lines().filter(|line| line.starts_with(who)).collect();
            let wanted: Vec<_> = (0..500).map(|i| format!("{who} {i}")).collect();
            assert_eq!(lines, wanted);
        }
    }
}

#[test]
fn what_is_unlinked_and_open_goes_on() {
    if !can_write() {
        return;
    }
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("low", "low"), &options);
        fs::write(rw.path("up"), "up").unwrap();
        for name in ["low", "up"] {
            let reader = File::open(rw.path(name)).unwrap();
            fs::remove_file(rw.path(name)).unwrap();
            assert_eq!(at(&reader, 0, 9), name.as_bytes());
            assert_eq!(reader.metadata().unwrap().nlink(), 0, "{name}");
            // Another of the same name is another file.
            fs::write(rw.path(name), "other").unwrap();
            assert_eq!(at(&reader, 0, 9), name.as_bytes());
            assert_eq!(fs::read(rw.path(name)).unwrap(), b"other");
            reader.set_permissions(Permissions::from_mode(0o600)).unwrap();
            assert_eq!(reader.metadata().unwrap().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn a_running_program_cannot_be_written() {
    if !can_write() {
        return;
    }
    let sleep = fs::read("/bin/sleep").unwrap();
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("low", &sleep).perm(0o755), &options);
        fs::write(rw.path("up"), &sleep).unwrap();
        fs::set_permissions(rw.path("up"), Permissions::from_mode(0o755)).unwrap();
        for name in ["low", "up"] {
            let mut child = Command::new(rw.path(name)).arg("1000").spawn().unwrap();
            for options in [both(), File::options().write(true).truncate(true).clone()] {
                let error = options.open(rw.path(name)).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::TXTBSY.raw_os_error()), "{name}");
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let writer = both().open(rw.path(name)).unwrap();
            let error = Command::new(rw.path(name)).spawn().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::TXTBSY.raw_os_error()), "{name}");
            drop(writer);
        }
    }
}

#[test]
fn mappings_write_to_the_file() {
    if !can_write() {
        return;
    }
    let body = noise(2 * 4096);
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("low", &body), &options);
        fs::write(rw.path("up"), &body).unwrap();
        for name in ["low", "up"] {
            let file = both().open(rw.path(name)).unwrap();
            let mapped = Mapping::new(&file, 2 * 4096, true);
            drop(file);
            mapped.write(5_000, b"mapped");
            let reader = File::open(rw.path(name)).unwrap();
            assert_eq!(at(&reader, 5_000, 6), b"mapped", "{name}");
            mapped.sync();
            assert_eq!(&fs::read(rw.upper(name)).unwrap()[5_000..5_006], b"mapped");
            mapped.write(0, b"at its end");
            drop((mapped, reader));
            assert_eq!(&fs::read(rw.path(name)).unwrap()[..10], b"at its end");
            assert_eq!(&fs::read(rw.upper(name)).unwrap()[..10], b"at its end");
        }
    }
}

#[test]
fn holes_and_ranges() {
    if !can_write() {
        return;
    }
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("low", noise(300_000)), &options);
        let mut file = both().create_new(true).open(rw.path("f")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"data", 512 * 1024).unwrap();
        file.sync_data().unwrap();
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap(), 512 * 1024);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 0);
        let beyond = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(2 << 20));
        assert_eq!(beyond, Err(Errno::NXIO));
        assert_eq!(file.seek(SeekFrom::End(-4)).unwrap(), (1 << 20) - 4);
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 2 << 20);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 512 * 1024, 4096).unwrap();
        assert_eq!(at(&file, 512 * 1024, 4), [0; 4]);
        let low = File::open(rw.path("low")).unwrap();
        let (mut from, mut to) = (1_000, 0);
        let mut left = 200_000;
        while left > 0 {
            let (from, to) = (Some(&mut from), Some(&mut to));
            let copied = rustix::fs::copy_file_range(&low, from, &file, to, left).unwrap();
            assert_ne!(copied, 0);
            left -= copied;
        }
        assert_eq!(at(&file, 0, 200_000), noise(300_000)[1_000..201_000]);
    }
}

#[test]
fn big_files_are_written_and_read_whole() {
    if !can_write() {
        return;
    }
    let body = noise(24 << 20);
    for options in each_mode() {
        let rw = Rw::new(&Spec::new(), &options);
        let mut file = File::create(rw.path("f")).unwrap();
        for part in body.chunks(3 << 20) {
            file.write_all(part).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        assert!(fs::read(rw.path("f")).unwrap() == body);
        assert!(fs::read(rw.upper("f")).unwrap() == body);
        fs::copy(rw.path("f"), rw.path("g")).unwrap();
        assert!(fs::read(rw.path("g")).unwrap() == body);
    }
}

/// Contents that nobody can open until the gate is open.
struct Gated {
    contents: Memory,
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Contents for Gated {
    fn open(&self, which: &ContentRef) -> strata_tree::Result<Box<dyn Content>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        self.opened.notify_all();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        self.contents.open(which)
    }
    fn prefetch(&self, _which: &[ContentRef]) {}
}

/// A lower that panics when asked for links.
struct Panicking(MemTree);

impl Lower for Panicking {
    fn root(&self) -> NodeId {
        self.0.root()
    }
    fn lookup(&self, dir: NodeId, name: Name<'_>) -> strata_tree::Result<Option<Entry>> {
        self.0.lookup(dir, name)
    }
    fn read_dir(
        &self,
        dir: NodeId,
        from: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> strata_tree::Result<()> {
        self.0.read_dir(dir, from, each)
    }
    fn node(&self, node: NodeId) -> strata_tree::Result<Node> {
        self.0.node(node)
    }
    fn read_link(&self, _node: NodeId) -> strata_tree::Result<Vec<u8>> {
        panic!("on purpose")
    }
    fn xattrs(&self, node: NodeId) -> strata_tree::Result<Vec<Xattr>> {
        self.0.xattrs(node)
    }
    fn content(&self, node: NodeId) -> strata_tree::Result<ContentRef> {
        self.0.content(node)
    }
    fn parent(&self, dir: NodeId) -> strata_tree::Result<Option<NodeId>> {
        self.0.parent(dir)
    }
}

#[test]
fn long_copy_ups_hold_nobody_up_and_panics_end_no_thread() {
    if !can_write() {
        return;
    }
    let mut spec = Spec::new().symlink("l", "x").file("small", "small");
    for index in 0..20 {
        spec = spec.file(format!("big{index}"), vec![7; 2 << 20]);
    }
    let gated = Arc::new(Gated {
        contents: Memory::of(std::slice::from_ref(&spec)).unwrap(),
        open: Mutex::new(false),
        opened: Condvar::new(),
        waiting: AtomicUsize::new(0),
    });
    let names = Panicking(MemTree::new(&spec).unwrap());
    let lower = FileTree::new(Arc::new(names), Arc::clone(&gated) as _);
    let rw = Rw::over(lower, &WritableOptions::default(), UnionOptions::default());
    std::thread::scope(|scope| {
        // Opened also if an assertion fails, or the writers would never end.
        struct Opener<'a>(&'a Gated);
        impl Drop for Opener<'_> {
            fn drop(&mut self) {
                *self.0.open.lock().unwrap() = true;
                self.0.opened.notify_all();
            }
        }
        let opener = Opener(&gated);
        for index in 0..20 {
            let path = rw.path(format!("big{index}"));
            scope.spawn(move || both().open(path).unwrap().write_all_at(b"x", 0).unwrap());
        }
        // As many as there are threads for it are under way.
        let mut open = gated.open.lock().unwrap();
        while gated.waiting.load(Ordering::SeqCst) < 8 {
            open = gated.opened.wait(open).unwrap();
        }
        drop(open);
        // Nor do those who wait for the end of one.
        for index in 0..20 {
            let path = rw.path(format!("big{index}"));
            scope.spawn(move || fs::set_permissions(path, fs::Permissions::from_mode(0o640)));
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        // Everything else goes on, also what concerns those very files.
        for round in 0..20 {
            assert_eq!(fs::read_link(rw.path("l")).unwrap_err().raw_os_error(), Some(5), "EIO");
            fs::write(rw.path(format!("new{round}")), "x").unwrap();
            assert_eq!(fs::metadata(rw.path(format!("big{round}"))).unwrap().len(), 2 << 20);
        }
        fs::rename(rw.path("small"), rw.path("new0")).unwrap();
        fs::remove_file(rw.path("new0")).unwrap();
        assert_eq!(fs::read_dir(&rw.root).unwrap().count(), 40);
        drop(opener);
    });
    for index in 0..20 {
        let bytes = fs::read(rw.path(format!("big{index}"))).unwrap();
        assert!(bytes[0] == b'x' && bytes[1..].iter().all(|byte| *byte == 7));
        let mode = fs::metadata(rw.path(format!("big{index}"))).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }
}

#[test]
fn a_content_that_is_too_short_is_an_error_and_never_copied() {
    if !can_write() {
        return;
    }
    let spec = Spec::new().file("cut", vec![7; 9_000]).file("other", vec![7; 9_000]);
    let (_, tree, contents) = common::flat_tree(&spec);
    for name in ["cut", "other"] {
        let file = File::options().write(true).open(contents.path().join("0").join(name)).unwrap();
        file.set_len(5_000).unwrap();
    }
    for options in each_mode() {
        let rw = Rw::over(tree.clone(), &options, UnionOptions::default());
        assert_eq!(fs::read(rw.path("cut")).unwrap_err().raw_os_error(), Some(5), "EIO");
        let appended = File::options().append(true).open(rw.path("cut"));
        assert_eq!(appended.unwrap_err().raw_os_error(), Some(5), "EIO");
        assert!(!rw.upper("cut").exists());
        // What replaces it does not need it.
        fs::write(rw.path("other"), "new").unwrap();
        assert_eq!(fs::read(rw.path("other")).unwrap(), b"new");
    }
}

#[test]
fn direct_reading_and_writing() {
    if !can_write() {
        return;
    }
    for options in each_mode() {
        let rw = Rw::new(&Spec::new().file("low", noise(1 << 16)), &options);
        for name in ["low", "up"] {
            let direct = OFlags::DIRECT.bits().cast_signed();
            let mut made = both();
            let file = made.create(true).custom_flags(direct).open(rw.path(name)).unwrap();
            // Aligned as devices want it.
            let room = vec![b'd'; 3 * 4096];
            let start = room.as_ptr().align_offset(4096);
            file.write_all_at(&room[start..start + 4096], 4096).unwrap();
            assert_eq!(&fs::read(rw.path(name)).unwrap()[4096..8192], &room[start..start + 4096]);
            let mut back = vec![0; 3 * 4096];
            let start = back.as_ptr().align_offset(4096);
            file.read_exact_at(&mut back[start..start + 4096], 4096).unwrap();
            assert!(back[start..start + 4096].iter().all(|byte| *byte == b'd'));
        }
    }
}
