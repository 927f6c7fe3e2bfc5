//! Random stacks of layers, as members of tars.
//!
//! Invariants: names are few, so that layers meet; a layer has no path twice and nothing below a
//! non-directory of its own, for what readers make of that is another test's; a link leads to
//! what its layer has or leaves of the layers below.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::model::{Image, Member, Node, Path, below};
use strata_testkit::example::Item;

/// A member before it is known what is there.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    Node(Path, Node),
    Link(Path, Index),
    Whiteout(Path),
    /// A whiteout of what is there.
    WhiteoutOf(Index),
    Opaque(Path),
    OpaqueOf(Index),
    /// The same node again, with other metadata or none.
    Again(Index, Option<u32>),
}

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| names.join("/").into_bytes())
}

fn node() -> impl Strategy<Value = Node> {
    let body = |kind: &'static str| {
        (1..5_usize).prop_map(move |n| match kind {
            "dir" => Vec::new(),
            "char" => format!("1:{n}").into_bytes(),
            _ => vec![b'0' + n as u8; n * 7],
        })
    };
    let kind = prop_oneof![4 => Just("file"), 3 => Just("dir"), 1 => Just("symlink"),
                           1 => Just("char")];
    let facts = (0..2_u32, 0..2_u32, 0..2_i64, prop::option::weighted(0.2, 0..2_u8));
    (kind.prop_flat_map(move |kind| (Just(kind), body(kind))), facts).prop_map(
        |((kind, body), (mode, uid, mtime, xattr))| Node {
            kind,
            body,
            mode: if mode == 0 { 0o644 } else { 0o700 },
            uid,
            mtime,
            xattr,
        },
    )
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        8 => (path(), node()).prop_map(|(path, node)| Wish::Node(path, node)),
        1 => node().prop_map(|node| {
            Wish::Node(Path::new(), Node { kind: "dir", body: Vec::new(), ..node })
        }),
        2 => (path(), any::<Index>()).prop_map(|(path, to)| Wish::Link(path, to)),
        1 => path().prop_map(Wish::Whiteout),
        2 => any::<Index>().prop_map(Wish::WhiteoutOf),
        1 => path().prop_map(Wish::Opaque),
        1 => Just(Wish::Opaque(Vec::new())),
        1 => any::<Index>().prop_map(Wish::OpaqueOf),
        2 => (any::<Index>(), prop::option::of(0..3_u32))
            .prop_map(|(of, mode)| Wish::Again(of, mode)),
    ]
}

pub(crate) fn layers(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<Wish>>> {
    prop::collection::vec(prop::collection::vec(wish(), 0..9), count)
}

/// The members that a layer can have on top of `image`, as far as the wishes agree.
pub(crate) fn members(wishes: &[Wish], image: &Image) -> Vec<Member> {
    let mut layer = Layer { own: BTreeMap::new(), marks: Vec::new(), members: Vec::new() };
    let lower: Vec<Path> = image.tree.keys().cloned().collect();
    for wish in wishes {
        match wish {
            Wish::Node(path, node) => layer.node(path, node.clone()),
            Wish::Whiteout(path) => layer.whiteout(path),
            Wish::WhiteoutOf(of) => layer.whiteout(of.get(&lower)),
            Wish::Opaque(path) => layer.opaque(path),
            Wish::OpaqueOf(of) => layer.opaque(of.get(&lower)),
            Wish::Again(of, mode) => {
                let path = of.get(&lower);
                let mut node = image.tree[path].node.clone();
                node.mode = mode.map_or(node.mode, |mode| 0o600 + mode);
                layer.node(path, node);
            }
            Wish::Link(..) => {}
        }
    }
    let mut targets: Vec<Path> = Vec::new();
    for wish in wishes {
        let Wish::Link(path, to) = wish else { continue };
        let mut choice: Vec<Path> = layer
            .own
            .iter()
            .filter(|(_, kind)| **kind == "leaf")
            .map(|(path, _)| path.clone())
            .collect();
        let leaves = image.tree.iter().filter(|(_, named)| named.node.kind != "dir");
        choice.extend(leaves.map(|(path, _)| path.clone()).filter(|at| layer.leaves(at)));
        choice.retain(|at| at != path && !below(at, path) && !below(path, at));
        let taken = targets.iter().any(|at| at == path || below(at, path) || below(path, at));
        if !choice.is_empty() && !taken && layer.free(path, false) {
            let to = to.get(&choice).clone();
            targets.push(to.clone());
            layer.own.insert(path.clone(), "link");
            layer.members.push(Member::Link { path: path.clone(), to });
        }
    }
    layer.members
}

struct Layer {
    own: BTreeMap<Path, &'static str>,
    /// Whiteouts, and opaque directories with `true`.
    marks: Vec<(Path, bool)>,
    members: Vec<Member>,
}

impl Layer {
    /// Whether a member can be at `path`.
    fn free(&self, path: &Path, dir: bool) -> bool {
        let within = self.own.iter().any(|(at, kind)| *kind != "dir" && below(path, at));
        let above = self.own.keys().any(|at| below(at, path));
        let marked =
            self.marks.iter().any(|(at, opaque)| below(at, path) || (*opaque && at == path));
        !self.own.contains_key(path) && !within && (dir || !(above || marked))
    }

    fn node(&mut self, path: &Path, node: Node) {
        let dir = node.kind == "dir";
        if self.free(path, dir) && (dir || !path.is_empty()) {
            self.own.insert(path.clone(), if dir { "dir" } else { "leaf" });
            self.members.push(Member::Node { path: path.clone(), node });
        }
    }

    fn whiteout(&mut self, path: &Path) {
        let within = self.own.iter().any(|(at, kind)| *kind != "dir" && below(path, at));
        if !path.is_empty() && !within {
            self.marks.push((path.clone(), false));
            self.members.push(Member::Whiteout { path: path.clone() });
        }
    }

    fn opaque(&mut self, path: &Path) {
        let leaf = |at: &Path, kind: &str| kind != "dir" && (at == path || below(path, at));
        if !self.own.iter().any(|(at, kind)| leaf(at, kind)) {
            self.marks.push((path.clone(), true));
            self.members.push(Member::Opaque { path: path.clone() });
        }
    }

    /// Whether the layer leaves a name of the layers below as it is.
    fn leaves(&self, path: &Path) -> bool {
        let hidden =
            self.marks.iter().any(|(at, opaque)| below(path, at) || (!opaque && at == path));
        let own =
            self.own.iter().any(|(at, kind)| at == path || (*kind != "dir" && below(path, at)));
        let above = self.own.keys().any(|at| below(at, path));
        // A mark below it makes it look like a directory to those who read the layer alone.
        let marked =
            self.marks.iter().any(|(at, opaque)| below(at, path) || (*opaque && at == path));
        !hidden && !own && !above && !marked
    }
}

/// The members as lines of a tar.
pub(crate) fn items(members: &[Member]) -> Vec<Item> {
    let item =
        |word: &str, args: Vec<Path>| Item { word: word.to_owned(), args, options: Vec::new() };
    let beside = |path: &Path, prefix: &[u8]| {
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        [&path[..cut], prefix, &path[cut..]].concat()
    };
    let all = members.iter().map(|member| match member {
        Member::Node { path, node } => {
            let path = if path.is_empty() { b"./".to_vec() } else { path.clone() };
            let mut args = vec![path];
            if node.kind != "dir" {
                args.push(node.body.clone());
            }
            let mut item = item(node.kind, args);
            item.options.push(("mode".to_owned(), format!("{:o}", node.mode).into_bytes()));
            item.options.push(("uid".to_owned(), node.uid.to_string().into_bytes()));
            item.options.push(("mtime".to_owned(), node.mtime.to_string().into_bytes()));
            if let Some(value) = node.xattr {
                item.options.push(("user.x".to_owned(), vec![value]));
            }
            item
        }
        Member::Link { path, to } => item("link", vec![path.clone(), to.clone()]),
        Member::Whiteout { path } => item("file", vec![beside(path, b".wh."), Vec::new()]),
        Member::Opaque { path } if path.is_empty() => {
            item("file", vec![b".wh..wh..opq".to_vec(), Vec::new()])
        }
        Member::Opaque { path } => {
            item("file", vec![[path, &b"/.wh..wh..opq"[..]].concat(), Vec::new()])
        }
    });
    all.collect()
}
