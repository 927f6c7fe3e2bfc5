//! Work whose instructions `scripts/bench --instructions` counts under callgrind.
//!
//! The model: `instructions WORK ROUNDS` prepares the same things whatever ROUNDS is, and does one
//! kind of work that number of times. Of two runs with different rounds the difference is the work
//! alone. Nothing is timed, no thread is started and nothing depends on the machine's load.
//!
//! lookup   a name in a compiled tree of 10,000 files
//! listing  one entry of a listing with stat, as READDIRPLUS asks for it
//! diff     one member of a diff with its body
//! hash     one KiB of a file into the digests of the diff and of the content

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::io::{self, Read};
use std::ops::ControlFlow;

use strata_diff::Limits;
use strata_diff::sha256::{Sha256, update_both};
use strata_diff::tar::{DiffReader, RawSink};
use strata_tree::{Entry, FlatTree, Lower, MemTree, Name, NodeId, Spec, compile};

const DIRS: usize = 100;
const FILES: usize = 100;
const MEMBERS: usize = 1000;

fn main() {
    let mut args = std::env::args().skip(1);
    let work = args.next().expect("which work");
    let rounds = args.next().and_then(|text| text.parse().ok()).expect("how many rounds");
    match work.as_str() {
        "lookup" => lookup(rounds),
        "listing" => listing(rounds),
        "diff" => diff(rounds),
        "hash" => hash(rounds),
        _ => unreachable!("no such work: {work}"),
    }
}

/// A compiled tree of metadata, and its directories.
fn tree() -> (FlatTree, Vec<NodeId>) {
    let mut spec = Spec::new();
    for dir in 0..DIRS {
        spec = spec.dir(format!("dir-{dir:03}"));
        for file in 0..FILES {
            spec = spec.symlink(format!("dir-{dir:03}/file-{file:03}"), "target");
        }
    }
    let file = tempfile::tempfile().expect("a scratch file");
    compile(&MemTree::new(&spec).expect("a tree"), &file).expect("compiled");
    let tree = FlatTree::open(file, "measured".to_owned()).expect("opened");
    let mut dirs = Vec::new();
    tree.read_dir(tree.root(), 0, &mut |item| {
        if let Entry::Node(node) = item.entry {
            dirs.push(node.id);
        }
        ControlFlow::Continue(())
    })
    .expect("listed");
    assert_eq!(dirs.len(), DIRS);
    (tree, dirs)
}

fn lookup(rounds: usize) {
    let (tree, dirs) = tree();
    let names: Vec<String> = (0..FILES).map(|file| format!("file-{file:03}")).collect();
    for round in 0..rounds {
        // 37 and 100 have no common divisor, so all names come.
        let name = Name::new(names[round * 37 % FILES].as_bytes()).expect("a name");
        let found = tree.lookup(dirs[round % DIRS], black_box(name)).expect("looked up");
        assert!(found.is_some());
    }
}

fn listing(rounds: usize) {
    let (tree, dirs) = tree();
    for round in 0..rounds / FILES {
        let mut seen = 0;
        tree.read_dir(dirs[round % DIRS], 0, &mut |item| {
            black_box(&item);
            seen += 1;
            ControlFlow::Continue(())
        })
        .expect("listed");
        assert_eq!(seen, FILES);
    }
}

struct Nowhere;

impl RawSink for Nowhere {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }
}

fn diff(rounds: usize) {
    let mut builder = tar::Builder::new(Vec::new());
    for member in 0..MEMBERS {
        let mut header = tar::Header::new_ustar();
        header.set_size(700);
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        builder
            .append_data(&mut header, format!("dir/file-{member}"), &[b'x'; 700][..])
            .expect("written");
    }
    let tar = builder.into_inner().expect("written");
    let mut body = Vec::new();
    for _ in 0..rounds / MEMBERS {
        let mut reader =
            DiffReader::new(tar.as_slice(), "measured".to_owned(), Limits::default(), Nowhere);
        let mut seen = 0;
        while let Some(member) = reader.next().expect("read") {
            black_box(member);
            body.clear();
            reader.body().read_to_end(&mut body).expect("read");
            seen += 1;
        }
        assert_eq!(seen, MEMBERS);
    }
}

fn hash(rounds: usize) {
    let block = [7; 1024];
    let (mut diff, mut content) = (Sha256::new(), Sha256::new());
    for _ in 0..rounds {
        update_both(&mut diff, &mut content, black_box(&block));
    }
    black_box((diff.finish(), content.finish()));
}
