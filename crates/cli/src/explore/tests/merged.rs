//! The image, layer by layer, against the merge that mounts use: random stacks of layers, put
//! through a store.
//!
//! A layer that the store refuses (a link to nothing, a file in the way) is left out of its stack.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use strata_analysis::history::Chain;
use strata_analysis::image_tree::{ImageTree, PathId, Span, SpanChange, TreeAt};
use strata_content::FileTree;
use strata_layer::{ImageRecord, LayerInput, LeasedLayer, Store};
use strata_tree::{Entry, ImageId, Kind, Lower, NodeId, TreePath, list};
use strata_union::Stack;

use super::Silent;
use strata_testkit::tars::{Head, Tar};

/// A member of a layer's tar: a path of up to three names and what is there.
#[derive(Debug, Clone)]
enum Member {
    File(Vec<u8>, u8, u8),
    Dir(Vec<u8>, u8),
    Symlink(Vec<u8>, u8),
    Link(Vec<u8>, Vec<u8>),
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..3_u8, 1..4)
        .prop_map(|names| names.iter().map(|name| [b'a' + name]).collect::<Vec<_>>().join(&b'/'))
}

fn member() -> impl Strategy<Value = Member> {
    prop_oneof![
        4 => (path(), 0..3_u8, 0..2_u8).prop_map(|(p, body, mode)| Member::File(p, body, mode)),
        3 => (path(), 0..2_u8).prop_map(|(p, mode)| Member::Dir(p, mode)),
        1 => (path(), any::<u8>()).prop_map(|(p, to)| Member::Symlink(p, to)),
        2 => (path(), path()).prop_map(|(p, to)| Member::Link(p, to)),
        3 => path().prop_map(Member::Whiteout),
        1 => path().prop_map(Member::Opaque),
    ]
}

fn tar(members: &[Member]) -> Vec<u8> {
    let mode = |bits: u8| if bits == 0 { b"0000755\0" } else { b"0000700\0" };
    let mut tar = Tar::default();
    for member in members {
        tar = match member {
            Member::File(path, body, bits) => {
                let body = vec![b'x'; usize::from(*body) * 5];
                tar.add(Head::new(b'0', path).put(100, mode(*bits)), &body)
            }
            Member::Dir(path, bits) => tar.add(Head::new(b'5', path).put(100, mode(*bits)), b""),
            Member::Symlink(path, to) => {
                tar.add(Head::new(b'2', path).link(to.to_string().as_bytes()), b"")
            }
            Member::Link(path, to) => tar.add(Head::new(b'1', path).link(to), b""),
            Member::Whiteout(path) => {
                let (dir, name) = path.split_at(path.len() - 1);
                tar.file(&[dir, b".wh.", name].concat(), b"")
            }
            Member::Opaque(path) => tar.file(&[&path[..], b"/.wh..wh..opq"].concat(), b""),
        };
    }
    tar.end()
}

/// All facts of a tree but node numbers: path, stat, target, attributes, bytes, and the first path
/// of the same inode.
fn told(tree: &FileTree) -> Result<BTreeMap<String, String>, strata_tree::Error> {
    let mut told = BTreeMap::new();
    let mut firsts: BTreeMap<NodeId, TreePath> = BTreeMap::new();
    let mut open = vec![(TreePath::root(), tree.node(tree.root())?)];
    while let Some((path, node)) = open.pop() {
        let first = firsts.entry(node.id).or_insert_with(|| path.clone()).clone();
        let mut bytes = Vec::new();
        match node.stat.kind {
            Kind::Directory => {
                let mut children = list(&**tree, node.id)?;
                children.sort_by(|(a, _), (b, _)| b.cmp(a));
                for (name, entry) in children {
                    let Entry::Node(child) = entry else { panic!("{path}: {entry:?}") };
                    open.push((path.join(name.as_name()), child));
                }
            }
            Kind::Regular => bytes = tree.read(node.id)?,
            Kind::Symlink => bytes = tree.read_link(node.id)?,
            other => panic!("{path}: {other:?}"),
        }
        let xattrs = tree.xattrs(node.id)?;
        let text = format!("{:?} {xattrs:?} {first} {}", node.stat, bytes.escape_ascii());
        told.insert(path.to_string(), text);
    }
    Ok(told)
}

/// The layers that the store takes, and their merge after each.
struct Stacked {
    leased: Vec<LeasedLayer>,
    merged: Vec<BTreeMap<String, String>>,
}

fn stacked(store: &Store, layers: &[Vec<Member>]) -> Stacked {
    let mut stacked = Stacked { leased: Vec::new(), merged: Vec::new() };
    for members in layers {
        let bytes = tar(members);
        let reader = Box::new(&bytes[..]);
        let input = LayerInput { label: "random".into(), diff_id: None, blob: None, reader };
        let Ok(unpacked) = store.unpack(input, &Silent) else { continue };
        stacked.leased.push(unpacked.layer);
        let lowers = stacked.leased.iter().map(|leased| {
            let lower: Arc<dyn Lower> = Arc::new(store.lower(leased).unwrap());
            lower
        });
        let file = tempfile::tempfile().unwrap();
        let merged = strata_tree::compile(&Stack::new(lowers.collect()), &file).and_then(|()| {
            let files = LeasedLayer::files(&stacked.leased).unwrap();
            let flat = strata_tree::FlatTree::open(file, "test".into())?;
            told(&FileTree::new(Arc::new(flat), Arc::new(files)))
        });
        match merged {
            Ok(merged) => stacked.merged.push(merged),
            Err(_) => {
                stacked.leased.pop();
            }
        }
    }
    stacked
}

/// Paths that a difference of two merges names, against those that the image tells.
fn check_changes(tree: &ImageTree, span: Span, before: &Told, after: &Told) {
    for path in tree.paths() {
        let change = tree.change(path, span);
        let path = tree.path(path).to_string();
        let expected = match (before.get(&path), after.get(&path)) {
            (None, None) => change.is_none(),
            (None, Some(_)) => change == Some(SpanChange::Added),
            (Some(_), None) => change == Some(SpanChange::Removed),
            // Link counts differ where another name came or went: no change of this one.
            (Some(_), Some(_)) => !matches!(change, Some(SpanChange::Added | SpanChange::Removed)),
        };
        assert!(expected, "{path}: {change:?}");
    }
}

type Told = BTreeMap<String, String>;

/// The image of these layers, whose sums are counted in two ways.
fn tree_of(store: &Store, leased: &[LeasedLayer]) -> Arc<ImageTree> {
    let diff_ids = leased.iter().map(|leased| *leased.diff_id()).collect();
    let id = ImageId::from_bytes(*store.put_blob(b"config").unwrap().as_bytes());
    let image = ImageRecord { id, manifest: None, layers: diff_ids };
    store.images().commit(&image, &[], None, leased).unwrap();
    let tree = Arc::new(ImageTree::read(store, &image, leased, &mut |_| {}).unwrap());
    // Two ways to count, one of them path by path, one layer by layer.
    let (efficiency, waste) = (tree.efficiency(), Chain::open(store, &id).unwrap());
    let waste = waste.waste(&id).unwrap();
    assert_eq!(efficiency.wasted, waste.wasted);
    assert_eq!(efficiency.score, waste.dive);
    tree
}

/// The image of these layers, path by path and sum by sum.
fn check(layers: &[Vec<Member>]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let Stacked { leased, merged } = stacked(&store, layers);
    let tree = tree_of(&store, &leased);
    let mut before = Told::new();
    for (layer, after) in merged.into_iter().enumerate() {
        let at = TreeAt::new(Arc::clone(&tree), layer + 1);
        let shown = told(&FileTree::new(Arc::new(at), tree.contents())).unwrap();
        assert_eq!(shown, after);
        check_changes(&tree, Span::of(layer), &before, &after);
        let totals = tree.totals(Span::of(layer));
        assert_eq!(totals.of(PathId::ROOT).entries as usize, after.len());
        before = after;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn an_image_layer_by_layer_is_the_merge_that_mounts_show(
        layers in prop::collection::vec(prop::collection::vec(member(), 0..8), 1..5)
    ) {
        check(&layers);
    }
}

fn file(path: &str) -> Member {
    Member::File(path.into(), 1, 0)
}

#[test]
fn an_opaque_mark_on_nothing_counts_where_a_later_layer_has_a_file() {
    check(&[vec![Member::Opaque("a/b/c".into())], vec![file("a/b/c")]]);
}

#[test]
fn a_whiteout_of_nothing_counts_where_a_later_layer_has_a_file() {
    check(&[vec![Member::Whiteout("a/b".into())], vec![file("a/b")]]);
}

#[test]
fn a_link_to_the_file_below_at_its_own_path_counts() {
    check(&[vec![file("b")], vec![Member::Link("b".into(), "b".into())]]);
}

#[test]
fn a_link_to_the_file_below_counts_where_its_directory_was_made_anew() {
    let link = |path: &str| Member::Link(path.into(), "a/a".into());
    check(&[vec![file("a/a")], vec![link("a"), link("a/a")]]);
}

#[test]
fn a_link_to_nothing_that_a_later_layer_hides_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let base = vec![file("a"), file("b")];
    let links = [b"b", b"c"].map(|path| Member::Link(path.to_vec(), b"d".to_vec()));
    let hidden = [b"b", b"c"].map(|path| Member::Whiteout(path.to_vec()));
    let unpack = |members: &[Member]| {
        let (bytes, label) = (tar(members), "layer".to_owned());
        let input = LayerInput { label, diff_id: None, blob: None, reader: Box::new(&bytes[..]) };
        store.unpack(input, &Silent).unwrap().layer
    };
    let leased = [unpack(&base), unpack(&links), unpack(&hidden)];
    let tree = tree_of(&store, &leased);
    for (layers, names) in [(1, &["a", "b"][..]), (2, &["a"]), (3, &["a"])] {
        let at = TreeAt::new(Arc::clone(&tree), layers);
        let shown = told(&FileTree::new(Arc::new(at), tree.contents())).unwrap();
        let names: Vec<String> = [""].iter().chain(names).map(|name| format!("/{name}")).collect();
        assert_eq!(shown.into_keys().collect::<Vec<_>>(), names);
    }
}
