//! A compiled tree against the suite, and damaged files: found by `verify`, never a panic.

use std::collections::HashSet;
use std::os::unix::fs::FileExt;

use super::*;
use crate::conformance::{check, layer_specs, merged_specs};
use crate::{MemTree, Spec, list};

/// The file of a compiled tree.
fn compiled(tree: &dyn Lower) -> File {
    let out = tempfile::tempfile().unwrap();
    compile(tree, &out).unwrap();
    out
}

fn opened(file: &File) -> Result<FlatTree> {
    FlatTree::open(file.try_clone().unwrap(), "test".to_owned())
}

fn tour() -> MemTree {
    let specs = merged_specs();
    MemTree::new(&specs.iter().find(|(name, _)| *name == "tour").unwrap().1).unwrap()
}

fn bytes(file: &File) -> Vec<u8> {
    let mut all = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// Asks everything that a walk comes by; errors are fine, endless walks and panics are not.
fn ask_everything(tree: &FlatTree) {
    let mut seen = HashSet::new();
    let mut todo = vec![tree.root()];
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let _ = (tree.node(id), tree.xattrs(id), tree.read_link(id), tree.content(id));
        let _ = tree.parent(id);
        let _ = tree.siblings(id, &mut |_| ControlFlow::Continue(()));
        let _ = tree.lookup(id, Name::new(b"names").unwrap());
        if let Ok(all) = list(tree, id) {
            todo.extend(all.iter().filter_map(|(_, entry)| entry.node()).map(|node| node.id));
        }
    }
}

#[test]
fn answers_as_the_tree_that_it_was_compiled_from() {
    for (name, spec) in merged_specs() {
        let source = MemTree::new(&spec).unwrap();
        let flat = opened(&compiled(&source)).unwrap();
        check(&spec, &flat).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        flat.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn totals_and_neighbours() {
    let flat = opened(&compiled(&tour())).unwrap();
    // etc/hosts (20), binary (256), names/* (7), equal-xattrs (1); hard links count once.
    assert_eq!(flat.content_bytes(), 284);
    assert!(flat.has_xattrs());
    assert_eq!(flat.name_count(), flat.node_count() - 1 + 4);
    let find = |path: &str| {
        crate::resolve(&flat, path.as_bytes(), crate::Follow::NotLast).unwrap().unwrap().id
    };
    let mut siblings = Vec::new();
    flat.siblings(find("names/a"), &mut |node| {
        siblings.push(node.id);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(siblings.len(), 6);
    assert!(siblings.contains(&find("names/a.b")) && !siblings.contains(&find("names/a")));
    assert_eq!(flat.parent(find("etc")).unwrap(), Some(NodeId::ROOT));
}

#[test]
fn equal_trees_give_equal_files_and_small_ones() {
    let mut forward = Spec::new();
    let mut backward = Spec::new();
    for n in 0..500 {
        forward = forward.file(format!("file-{n:05}.txt"), "x");
        backward = backward.file(format!("file-{:05}.txt", 499 - n), "x");
    }
    let a = bytes(&compiled(&MemTree::new(&forward).unwrap()));
    let b = bytes(&compiled(&MemTree::new(&backward).unwrap()));
    assert!(a == b);
    assert!(a.len() / 500 < 110, "{} bytes an entry", a.len() / 500);
}

#[test]
fn compiling_replaces_what_the_file_held() {
    let out = file_of(&[0xaa; 100_000]);
    compile(&tour(), &out).unwrap();
    assert!(bytes(&out) == bytes(&compiled(&tour())));
}

#[test]
fn layers_are_not_merged_trees() {
    for (_, spec) in layer_specs() {
        let error = compile(&MemTree::new(&spec).unwrap(), &tempfile::tempfile().unwrap());
        assert!(matches!(error, Err(Error::Corrupt { .. })), "{error:?}");
    }
}

#[test]
fn missing_layers_are_refused() {
    let source = MemTree::new(&Spec::new().file("f", "x")).unwrap();
    let file = compiled(&source);
    let flat = opened(&file).unwrap();
    let f = list(&flat, NodeId::ROOT).unwrap()[0].1.node().unwrap().id;
    assert!(matches!(flat.check_layers(0), Err(Error::Corrupt { .. })));
    assert!(flat.check_layers(1).is_ok() && flat.check_layers(2).is_ok());
    assert_eq!(flat.content(f).unwrap(), source.content(NodeId(1_000_004)).unwrap());
}

#[test]
fn every_flipped_bit_is_found() {
    let good = bytes(&compiled(&tour()));
    // Each byte of header and records, and some of the arena.
    let header = Header::decode(good.first_chunk().unwrap()).unwrap();
    let arena = header.sections().unwrap().arena as usize;
    for at in (0..arena).chain((arena..good.len()).step_by(61)) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        match opened(&file_of(&bad)) {
            Err(Error::Corrupt { .. }) => assert!(at < HEADER, "byte {at}"),
            Err(other) => panic!("byte {at}: {other}"),
            Ok(flat) => {
                assert!(matches!(flat.verify(), Err(Error::Corrupt { .. })), "byte {at}");
                ask_everything(&flat);
            }
        }
    }
}

#[test]
fn records_are_checked_beyond_the_checksum() {
    let good = bytes(&compiled(&tour()));
    let header = Header::decode(good.first_chunk().unwrap()).unwrap();
    let arena = header.sections().unwrap().arena as usize;
    let mut passed = Vec::new();
    for at in HEADER..arena {
        for value in [0, 0x7f, 0xff] {
            let mut bad = good.clone();
            if bad[at] == value {
                continue;
            }
            bad[at] = value;
            // As if written so: both checksums are right.
            let crc = crc32fast::hash(&bad[HEADER..]);
            bad[..HEADER].copy_from_slice(&Header { crc, ..header }.encode());
            let flat = opened(&file_of(&bad)).unwrap();
            ask_everything(&flat);
            if flat.verify().is_ok() {
                passed.push(at);
            }
        }
    }
    // What passes is another tree, but a sound one: owners, times, permissions, numbers of
    // devices, names that are still sorted, sizes only if the total follows.
    for at in passed {
        let in_nodes = at < HEADER + header.nodes as usize * NODE;
        let field = (at - HEADER) % NODE;
        assert!(!in_nodes || !(0..8).contains(&field), "size at {at}");
        assert!(!in_nodes || !(32..36).contains(&field), "nlink at {at}");
    }
}

#[test]
fn cut_and_grown_files_do_not_open() {
    let good = bytes(&compiled(&tour()));
    for length in (0..good.len()).step_by(97).chain([1, 63, 64, 65, good.len() - 1]) {
        let cut = opened(&file_of(&good[..length]));
        assert!(matches!(cut, Err(Error::Corrupt { .. })), "{length} bytes");
    }
    let grown = opened(&file_of(&[good.as_slice(), b"x"].concat()));
    assert!(matches!(grown, Err(Error::Corrupt { .. })));
}

#[test]
fn loops_written_into_a_file_end() {
    let good = bytes(&compiled(&MemTree::new(&Spec::new().dir("a").dir("a/b")).unwrap()));
    let header = Header::decode(good.first_chunk().unwrap()).unwrap();
    let dirents = header.sections().unwrap().dirents as usize;
    let mut bad = good;
    // The name "b" in "a" stands for the root.
    bad[dirents + DIRENT + 4..dirents + DIRENT + 8].copy_from_slice(&1_u32.to_le_bytes());
    let crc = crc32fast::hash(&bad[HEADER..]);
    bad[..HEADER].copy_from_slice(&Header { crc, ..header }.encode());
    let flat = opened(&file_of(&bad)).unwrap();
    assert!(matches!(flat.verify(), Err(Error::Corrupt { .. })));
    ask_everything(&flat);
    // Compiling it ends too, with an error instead of an endless path.
    assert!(compile(&flat, &tempfile::tempfile().unwrap()).is_err());
}
