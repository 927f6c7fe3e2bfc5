//! What a damaged disk makes of a store's own files.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use strata_layer::{Error, LayerInput, NamesKind, Store, StoreOptions, chain_id};
use strata_tree::{ChainId, DiffId, FlatTree, Kind, Lower, MemTree, Spec, TreePath, compile, list};

use crate::kit::{Nobody, in_memory, place};
use crate::rows::copied_store;

/// Changes `whole` as `edits` say: eight bytes each, a place, a length and what comes there.
fn damaged(whole: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for edit in edits.chunks_exact(8) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % bytes.len().max(1);
        match edit[3] % 8 {
            0 => bytes.truncate(at),
            1..=4 => {
                let end = (at + usize::from(edit[3] % 8)).min(bytes.len());
                bytes[at..end].copy_from_slice(&edit[4..4 + end - at]);
            }
            5 => {
                let to = u32::from_le_bytes([edit[4], edit[5], edit[6], 0]) as usize;
                let to = to % bytes.len().max(1);
                let from = at.min(bytes.len().saturating_sub(1));
                bytes.swap(from, to);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (edit[4] % 8);
                }
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Bytes of a FlatTree's header: its last two words are the checksums of what follows it and of
/// itself.
const TREE_HEADER: usize = 64;

/// Makes the checksums of a compiled tree right.
fn as_if_written_so(tree: &mut [u8]) {
    if tree.len() < TREE_HEADER {
        return;
    }
    let crc = crc32fast::hash(&tree[TREE_HEADER..]).to_le_bytes();
    tree[TREE_HEADER - 8..TREE_HEADER - 4].copy_from_slice(&crc);
    let crc = crc32fast::hash(&tree[..TREE_HEADER - 4]).to_le_bytes();
    tree[TREE_HEADER - 4..TREE_HEADER].copy_from_slice(&crc);
}

/// A compiled tree, damaged, or where bytes are left over written wrong: every node, name,
/// attribute and content reference is asked for. Of one that passes the check, every node and
/// directory can be read.
#[allow(clippy::unwrap_used)]
pub(crate) fn tree(data: &[u8]) {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let whole = WHOLE.get_or_init(|| {
        let long = "n".repeat(255);
        let spec = Spec::new()
            .dir("etc")
            .perm(0o700)
            .file("etc/hosts", "x")
            .owner(1, 2)
            .xattr("user.a", "value")
            .link("etc/again", &TreePath::clamped(b"etc/hosts").unwrap())
            .symlink("etc/to", "../somewhere/else")
            .dir(&long)
            .file(format!("{long}/{long}"), "y")
            .fifo("pipe")
            .dir("etc/empty");
        let tree = MemTree::new(&spec).unwrap();
        let file = in_memory(b"");
        compile(&tree, &file).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    });
    let mut bytes = damaged(whole, data);
    if !data.len().is_multiple_of(8) {
        as_if_written_so(&mut bytes);
    }
    let Ok(tree) = FlatTree::open(in_memory(&bytes), "fuzz".to_owned()) else { return };
    let sound = tree.verify().is_ok();
    let (mut seen, mut todo) = (HashSet::new(), vec![tree.root()]);
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        // Errors are right for one that does not pass, walks without end and panics are not.
        let _ = (tree.read_link(id), tree.content(id), tree.parent(id));
        let (node, xattrs, all) = (tree.node(id), tree.xattrs(id), list(&tree, id));
        assert!(!sound || node.is_ok() && xattrs.is_ok(), "node {id:?}: {node:?}, {xattrs:?}");
        match all {
            Ok(all) => {
                todo.extend(all.iter().filter_map(|(_, entry)| entry.node()).map(|node| node.id));
            }
            Err(error) => {
                let is_dir = node.is_ok_and(|node| node.stat.kind == Kind::Directory);
                assert!(!sound || !is_dir, "directory {id:?}: {error}");
            }
        }
    }
}

/// A store with one layer, in memory.
#[allow(clippy::unwrap_used)]
fn store() -> (tempfile::TempDir, DiffId) {
    let dir = place();
    let store = Store::open(dir.path()).unwrap();
    let tar = vec![0; 1024];
    let input = LayerInput {
        label: "fuzz".to_owned(),
        diff_id: None,
        blob: None,
        reader: Box::new(std::io::Cursor::new(tar)),
    };
    let layer = *store.unpack(input, &Nobody).unwrap().layer.diff_id();
    (dir, layer)
}

/// An image of names, damaged: what is opened has its seal, and a check of the store says what has
/// another digest. Its inside is the kernel's to read.
#[allow(clippy::unwrap_used)]
pub(crate) fn sealed(data: &[u8]) {
    static WHOLE: OnceLock<(tempfile::TempDir, ChainId, Vec<u8>)> = OnceLock::new();
    let (dir, chain, whole) = WHOLE.get_or_init(|| {
        let (dir, layer) = store();
        let chain = chain_id(&[layer]).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = store.names_images();
        let write = |file: &File| {
            file.write_all_at(&[7; 5000], 0).unwrap();
            Ok::<_, Error>(())
        };
        images.put(&chain, NamesKind::Sealed, write).unwrap();
        let bytes = std::fs::read(images.path(&chain)).unwrap();
        (dir, chain, bytes)
    });
    let store = Store::open(dir.path()).unwrap();
    let (images, bytes) = (store.names_images(), damaged(whole, data));
    let path = images.path(chain);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    for kind in [NamesKind::Any, NamesKind::Sealed] {
        if images.open(chain, kind).is_ok_and(|found| found.is_some()) {
            let seal = &bytes[bytes.len() - 4096..];
            assert!(seal.starts_with(format!("strata names 1\n{chain}\n").as_bytes()));
        }
    }
    let report = Store::fsck(dir.path(), false, StoreOptions::default(), &Nobody).unwrap();
    let before_seal = whole.len() - 4096;
    let same = bytes.get(..before_seal) == whole.get(..before_seal);
    assert!(same || !report.problems.is_empty(), "a damaged image passes");
}

/// `index.db`, damaged: opening, listing, and a check of the store.
#[allow(clippy::unwrap_used)]
pub(crate) fn index(data: &[u8]) {
    // A copy for each input: what an index does not name is removed.
    let (dir, whole) = copied_store();
    std::fs::write(dir.path().join("index.db"), damaged(whole, data)).unwrap();
    if let Ok(store) = Store::open_existing(dir.path(), StoreOptions::default()) {
        let _ = store.images().all();
        let _ = store.gc();
    }
    let _ = Store::fsck(dir.path(), false, StoreOptions::default(), &Nobody);
}
