//! Equal contents are one inode: within a layer, between layers, between layers that are being
//! unpacked at the same moment, in one process or in two.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use strata_layer::{LayerInput, Store, Unpacked};

use crate::common::{
    Silent, TempStore, assert_clean, assert_one_inode_each, child, diff_id, files, finish, load,
    stored_files, unpack,
};
use strata_testkit::tars::Tar;

/// Bytes of the tar that the pipeline may have read ahead of the reader of members, amply.
const AHEAD: usize = 4 << 20;

/// A layer that stops in the middle: when its reader comes to the gate, everything that lies
/// [`AHEAD`] bytes before it has been unpacked.
pub struct Gated {
    bytes: io::Cursor<Vec<u8>>,
    gate: u64,
    reached: Option<Sender<()>>,
    open: Receiver<()>,
}

/// The other end.
pub struct Gate {
    reached: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    pub fn wait(&self) {
        self.reached.recv().unwrap();
    }

    pub fn open(self) {
        self.open.send(()).unwrap();
    }
}

impl Read for Gated {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.gate.saturating_sub(self.bytes.position()) as usize;
        if left > 0 {
            let n = buf.len().min(left);
            return self.bytes.read(&mut buf[..n]);
        }
        if let Some(reached) = self.reached.take() {
            reached.send(()).unwrap();
            self.open.recv().unwrap();
        }
        self.bytes.read(buf)
    }
}

/// `before`, then a gate, then `after`; with the whole tar.
pub fn gated(before: Tar, after: Tar) -> (Vec<u8>, Gated, Gate) {
    let mut tar = before.file(b"filler", &vec![0; AHEAD]).0;
    let gate = tar.len() as u64;
    tar.extend_from_slice(&after.end());
    let (reached, was_reached) = channel();
    let (open, was_opened) = channel();
    let bytes = io::Cursor::new(tar.clone());
    let gated = Gated { bytes, gate, reached: Some(reached), open: was_opened };
    (tar, gated, Gate { reached: was_reached, open })
}

pub fn unpack_gated(store: &Store, tar: &[u8], gated: Gated) -> Unpacked {
    let input = LayerInput {
        label: "gated".to_owned(),
        diff_id: Some(diff_id(tar)),
        blob: None,
        reader: Box::new(gated),
    };
    store.unpack(input, &Silent).unwrap()
}

const BIG: usize = (1 << 20) + 17;

#[test]
fn within_a_layer() {
    let place = TempStore::new();
    let big = vec![7; BIG];
    let tar = files(&[("a", b"same"), ("d/b", b"same"), ("c", b"other"), ("x", &big), ("y", &big)]);
    let store = place.open();
    load(&store, "one", &[&tar]);
    assert_eq!(stored_files(&place.root()).len(), 5);
    assert_eq!(assert_one_inode_each(&place.root()), 3);
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn between_layers_and_empty_files_too() {
    let place = TempStore::new();
    let big = vec![7; BIG];
    let store = place.open();
    let one = files(&[("a", b"same"), ("empty", b""), ("x", &big)]);
    let two = files(&[("b", b"same"), ("none", b""), ("y", &big), ("own", b"own")]);
    load(&store, "one", &[&one]);
    load(&store, "two", &[&two]);
    assert_eq!(assert_one_inode_each(&place.root()), 4);
    let usage = store.accounts().disk_usage().unwrap();
    assert_eq!(usage.stored, 4 + BIG as u64 + 3);
    assert_eq!(usage.shared, 4 + BIG as u64);
    assert!(unpack(&store, &one).unwrap().existed);
}

/// Tars with contents of their own, contents that all have, and contents that two have.
fn overlapping(n: usize) -> Vec<Vec<u8>> {
    let big = vec![9; BIG];
    (0..n)
        .map(|i| {
            let mut tar = Tar::default();
            for k in 0..40 {
                tar = tar
                    .file(format!("all/{k}").as_bytes(), format!("all {k}").as_bytes())
                    .file(format!("own/{k}").as_bytes(), format!("own {i} {k}").as_bytes())
                    .file(format!("two/{k}").as_bytes(), format!("two {} {k}", i / 2).as_bytes());
            }
            tar.file(b"big", &big).file(b"big-too", &big).end()
        })
        .collect()
}

#[test]
fn between_layers_unpacked_at_once_in_one_process() {
    let place = TempStore::new();
    let store = place.open();
    let tars = overlapping(6);
    let start = Barrier::new(tars.len());
    thread::scope(|scope| {
        for tar in &tars {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                start.wait();
                assert!(!unpack(store, tar).unwrap().existed);
            });
        }
    });
    assert_eq!(assert_one_inode_each(&place.root()), 40 + 6 * 40 + 3 * 40 + 1);
    drop(store);
    assert_clean(&place.root());
}

#[test]
fn the_same_layer_at_once_is_unpacked_once() {
    let place = TempStore::new();
    let store = place.open();
    let tar = overlapping(1).remove(0);
    let start = Barrier::new(4);
    let existed: Vec<bool> = thread::scope(|scope| {
        let handles: Vec<_> = (0..4)
            .map(|i| {
                let (store, start, tar, root) = (&store, &start, &tar, place.root());
                scope.spawn(move || {
                    let own = (i % 2 == 0).then(|| Store::open(&root).unwrap());
                    start.wait();
                    unpack(own.as_ref().unwrap_or(store), tar).unwrap().existed
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert_eq!(existed.iter().filter(|existed| !**existed).count(), 1);
    assert_eq!(store.layers().unwrap().len(), 1);
}

/// Both have written the content before either is published: the second takes the first's.
#[test]
fn contents_written_by_both_meet_at_publishing() {
    let place = TempStore::new();
    let (one, other) = (place.open(), place.open());
    let same = |name: &[u8]| Tar::default().file(name, b"same").file(b"big", &vec![1; BIG]);
    let (tar, reader, gate) = gated(same(b"a").file(b"a2", b"same"), Tar::default());
    thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack_gated(&one, &tar, reader));
        gate.wait();
        unpack(&other, &same(b"b").end()).unwrap();
        gate.open();
        unpacking.join().unwrap();
    });
    assert_eq!(assert_one_inode_each(&place.root()), 3);
    drop((one, other));
    assert_clean(&place.root());
}

/// A path of a running unpack may change its bytes; nobody may link the new ones for the old.
#[test]
fn a_content_that_was_replaced_is_not_offered_under_its_old_path() {
    let big = vec![b'B'; BIG];
    let replace = |tar: Tar| {
        tar.file(b"a", b"old")
            .file(b"a", b"new")
            .file(b"d/b", b"deep old")
            .file(b"d", b"a file now")
            .file(b"d/b", b"deep new")
            .file(b"x", &big)
            .file(b"x", &vec![b'C'; BIG])
    };
    let place = TempStore::new();
    let store = place.open();
    let (tar, reader, gate) = gated(replace(Tar::default()), Tar::default().file(b"z", b"z"));
    let other = files(&[("p", b"old"), ("q", b"deep old"), ("r", b"new"), ("s", &big)]);
    thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack_gated(&store, &tar, reader));
        gate.wait();
        unpack(&store, &other).unwrap();
        gate.open();
        unpacking.join().unwrap();
    });
    drop(store);
    assert_clean(&place.root());
    assert_one_inode_each(&place.root());
}

/// The layer whose contents another one linked fails: the other one keeps them.
#[test]
fn contents_linked_from_a_layer_that_fails() {
    let place = TempStore::new();
    let store = place.open();
    let (tar, reader, gate) = gated(Tar::default().file(b"a", b"same"), Tar::default());
    thread::scope(|scope| {
        let unpacking = scope.spawn(|| {
            let wrong = Some(diff_id(b"something else"));
            let reader = Box::new(reader);
            let input = LayerInput { label: "wrong".into(), diff_id: wrong, blob: None, reader };
            store.unpack(input, &Silent).unwrap_err()
        });
        gate.wait();
        unpack(&store, &files(&[("b", b"same")])).unwrap();
        gate.open();
        let error = unpacking.join().unwrap().to_string();
        assert!(error.contains(&diff_id(&tar).to_string()), "{error}");
    });
    load(&store, "later", &[&files(&[("b", b"same")]), &files(&[("c", b"same")])]);
    assert_eq!(assert_one_inode_each(&place.root()), 1);
    drop(store);
    assert_clean(&place.root());
}

#[test]
#[ignore = "the other process of the tests here"]
fn child_loads() {
    let root = std::env::var("STRATA_TEST_ROOT").unwrap();
    let take: Vec<usize> = std::env::var("STRATA_TEST_LAYERS")
        .unwrap()
        .split(',')
        .map(|n| n.parse().unwrap())
        .collect();
    let tars = overlapping(6);
    let store = Store::open(Path::new(&root)).unwrap();
    let layers: Vec<&[u8]> = take.iter().map(|i| tars[*i].as_slice()).collect();
    load(&store, &format!("image {take:?}"), &layers);
}

#[test]
fn two_processes_at_once_from_an_absent_store_on() {
    for (one, two, layers) in
        [("0,1,2", "0,1,2", 3), ("0,2,4", "1,3,5", 6), ("0,1,2,3", "3,2,1,0", 4)]
    {
        let place = TempStore::new();
        let root = place.root();
        let root_text = root.to_str().unwrap();
        let children: Vec<_> = [one, two, one]
            .map(|take| {
                let env = [("STRATA_TEST_ROOT", root_text), ("STRATA_TEST_LAYERS", take)];
                child("sharing::child_loads", &env)
            })
            .into_iter()
            .map(finish)
            .collect();
        assert!(children.iter().all(|status| status.success()), "{one} and {two}");
        let store = place.open();
        assert_eq!(store.layers().unwrap().len(), layers);
        assert_one_inode_each(&root);
        let images: BTreeSet<_> = [one, two].into_iter().collect();
        assert_eq!(store.images().all().unwrap().len(), images.len());
        drop(store);
        assert_clean(&root);
        let links: u64 = stored_files(&root)
            .keys()
            .map(|path| root.join("layers").join(path).metadata().unwrap().nlink())
            .max()
            .unwrap();
        assert_eq!(links, 2 * layers as u64, "the big one, twice in each layer");
    }
}

/// Opening is safe while others open: nobody sees a half made index.
#[test]
fn many_open_an_absent_store_at_once() {
    for _ in 0..20 {
        let place = TempStore::new();
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    assert_eq!(place.open().layers().unwrap(), []);
                });
            }
        });
        assert_clean(&place.root());
    }
}
