//! Random stacks of small layers, lazily merged, compiled, and applied one by one: all equal.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use strata_content::FileTree;
use strata_content::conformance::lay_out;
use strata_tree::{FlatTree, Item, Presence, Spec, TreePath, compile};

use super::reference::Reference;
use super::stack;

/// A random layer's entry; links pick their targets from what there is when it is written down.
#[derive(Debug, Clone)]
enum Grown {
    File(u8),
    Symlink(u8),
    Device(u8),
    Whiteout,
    Link(prop::sample::Index),
    LowerLink(prop::sample::Index),
    Dir { marks: Marks, perm: u8, children: BTreeMap<u8, Grown> },
}

#[derive(Debug, Clone, Copy)]
struct Marks {
    presence: Presence,
    opaque: bool,
}

fn whiteouts() -> impl Strategy<Value = Grown> {
    Just(Grown::Whiteout).prop_recursive(2, 8, 3, |inner| {
        (prop::bool::weighted(0.2), prop::collection::btree_map(0..3_u8, inner, 0..3)).prop_map(
            |(opaque, children)| Grown::Dir {
                marks: Marks { presence: Presence::Phantom, opaque },
                perm: 0,
                children,
            },
        )
    })
}

fn marks() -> impl Strategy<Value = Marks> {
    let presence = prop_oneof![2 => Just(Presence::Explicit), 2 => Just(Presence::Implied)];
    (presence, prop::bool::weighted(0.2)).prop_map(|(presence, opaque)| Marks { presence, opaque })
}

fn entry() -> impl Strategy<Value = Grown> {
    let leaf = prop_oneof![
        3 => any::<u8>().prop_map(Grown::File),
        1 => any::<u8>().prop_map(Grown::Symlink),
        1 => any::<u8>().prop_map(Grown::Device),
        3 => whiteouts(),
        1 => any::<prop::sample::Index>().prop_map(Grown::Link),
        2 => any::<prop::sample::Index>().prop_map(Grown::LowerLink),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        (marks(), any::<u8>(), prop::collection::btree_map(0..3_u8, inner, 0..4))
            .prop_map(|(marks, perm, children)| Grown::Dir { marks, perm, children })
    })
}

/// A root with children, of any presence.
fn layer() -> impl Strategy<Value = Grown> {
    let root = (marks(), any::<u8>(), prop::collection::btree_map(0..3_u8, entry(), 0..4));
    let real = root.prop_map(|(marks, perm, children)| Grown::Dir { marks, perm, children });
    let phantom = whiteouts().prop_filter("a root", |root| matches!(root, Grown::Dir { .. }));
    prop_oneof![8 => real, 1 => phantom]
}

/// Writes a layer down; `below` is what its links may lead to.
fn write(layer: &Grown, below: &Reference) -> Spec {
    let mut spec = Spec::new();
    let mut own: Vec<TreePath> = Vec::new();
    let mut todo = vec![(TreePath::root(), layer)];
    while let Some((path, grown)) = todo.pop() {
        let at = path.as_bytes();
        spec = match grown {
            Grown::Whiteout => spec.whiteout(at),
            Grown::Link(index) if !own.is_empty() => spec.link(at, index.get(&own)),
            Grown::LowerLink(index) if !below.leaves().is_empty() => {
                spec.lower_link(at, index.get(&below.leaves()))
            }
            Grown::Link(_) | Grown::LowerLink(_) => spec.file(at, "instead of a link"),
            Grown::File(seed) => spec
                .file(at, seed.to_string())
                .mtime(i64::from(*seed) - 100, u32::from(*seed))
                .owner(u32::from(*seed), 1),
            Grown::Symlink(seed) => spec.symlink(at, format!("../{seed}")),
            Grown::Device(seed) => spec.char_device(at, u32::from(*seed), 0),
            Grown::Dir { marks, perm, children } => {
                for (name, child) in children {
                    let name = NAMES[usize::from(*name)];
                    todo.push((path.join(strata_tree::Name::new(name).unwrap()), child));
                }
                if !path.is_root() {
                    spec = spec.dir(at);
                }
                // On what is only implied these must not show.
                spec = spec.perm(u16::from(*perm)).xattr("user.seed", [*perm]);
                spec = spec.presence(marks.presence);
                if marks.opaque { spec.opaque() } else { spec }
            }
        };
        let inode = spec.items().last().map(|(_, item)| item.clone());
        if matches!(inode, Some(Item::Inode(inode)) if !inode.kind.is_dir()) {
            own.push(path);
        }
    }
    spec
}

const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];

fn merged(layers: &[Grown]) -> (Vec<Spec>, Reference) {
    let mut reference = Reference::new();
    let mut specs = Vec::new();
    for layer in layers {
        let spec = write(layer, &reference);
        reference.apply(&spec);
        specs.push(spec);
    }
    (specs, reference)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_stack_is_its_layers_applied_one_by_one(
        layers in prop::collection::vec(layer(), 1..=5),
    ) {
        let (specs, reference) = merged(&layers);
        reference.compare(&stack(&specs), false);

        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        let stack = stack(&specs);
        compile(&*stack, &file).unwrap();
        let contents = lay_out(&stack, dir.path()).unwrap();
        let flat = FlatTree::open(file, "random".to_owned()).unwrap();
        flat.verify().unwrap();
        reference.compare(&FileTree::new(Arc::new(flat), Arc::new(contents)), true);
    }
}

/// The generator reaches what it is for: else the test above proves little.
#[test]
fn random_layers_are_varied() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let layers = prop::collection::vec(layer(), 1..=5).new_tree(&mut runner).unwrap().current();
        let (specs, reference) = merged(&layers);
        for (path, item) in specs.iter().flat_map(Spec::items) {
            seen.insert(match item {
                Item::Inode(inode) if !inode.kind.is_dir() => "a leaf",
                Item::Inode(inode) if inode.marks.opaque => match inode.marks.presence {
                    Presence::Explicit => "an opaque directory",
                    Presence::Implied => "an implied opaque directory",
                    Presence::Phantom => "an opaque phantom",
                },
                Item::Inode(inode) => match inode.marks.presence {
                    Presence::Explicit => "a directory",
                    Presence::Implied => "an implied directory",
                    Presence::Phantom if path.is_empty() => "a phantom root",
                    Presence::Phantom => "a phantom",
                },
                Item::Link(_) => "a link",
                Item::Whiteout => "a whiteout",
                Item::LowerLink(_) => "a link to a lower layer",
            });
        }
        if reference.leaves().len() > 5 {
            seen.insert("a merged tree with several leaves");
        }
    }
    assert_eq!(seen.len(), 12, "{seen:?}");
}
