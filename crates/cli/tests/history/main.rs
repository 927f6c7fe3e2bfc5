//! `why`, `diff` and waste on random stacks of layers, against a replay of the layers by the
//! letter of the specification.
//!
//! `stacks` thinks up layers, `model` applies them to plain maps; the same layers, as tars, are
//! unpacked into a store, and what `strata_analysis::history` says of them must be the same.
//! `STRATA_HISTORY_CASES` asks for another number of cases.
//!
//! Invariants: every path that ever was is asked for; nothing is compared with itself.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

mod model;
mod stacks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Deed, Image, Member, Path, below};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use strata_analysis::history::{
    Chain, Duplicate, Gone, Happened, HiddenBy, Kept, NameChange, Shown, Side, compare, duplicates,
    occurrences,
};
use strata_layer::{Event, ImageRecord, LayerInput, Progress, Store};
use strata_testkit::example_tar;
use strata_tree::{ContentDigest, DiffId, ImageId, Kind, Lower, TreePath};
use strata_union::Stack;
use tempfile::TempDir;

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// A store in memory where there is a file system for that.
fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn load(store: &Store, tag: &str, image: &Image) -> ImageId {
    let mut leased = Vec::new();
    let mut layers = Vec::new();
    for members in &image.layers {
        let tar = example_tar::build(&stacks::items(members));
        let diff_id = DiffId::from_bytes(Sha256::digest(&tar).into());
        let input = LayerInput {
            label: "the layer".to_owned(),
            diff_id: Some(diff_id),
            blob: None,
            reader: Box::new(std::io::Cursor::new(tar)),
        };
        let unpacked = store.unpack(input, &Silent);
        leased.push(unpacked.unwrap_or_else(|error| panic!("{error}: {members:?}")).layer);
        layers.push(diff_id);
    }
    let config = store.put_blob(format!("config of {tag}").as_bytes()).unwrap();
    let record = ImageRecord { id: config.into(), manifest: None, layers };
    store.images().commit(&record, &[tag.to_owned()], None, &leased).unwrap();
    record.id
}

fn merged(store: &Store, id: &ImageId) -> Stack {
    let (_image, leased) = store.lease_image(id).unwrap();
    let lowers = leased.iter().map(|layer| Arc::new(store.lower(layer).unwrap()) as Arc<dyn Lower>);
    Stack::new(lowers.collect())
}

fn path(bytes: &[u8]) -> TreePath {
    TreePath::clamped(bytes).unwrap()
}

/// The reason that is given for a removal is one that the layer has.
fn assert_reason(layer: &[Member], gone: &[u8], by: HiddenBy, at: &[u8]) {
    let is = |member: &Member| match (by, member) {
        (HiddenBy::Whiteout, Member::Whiteout { path }) => {
            path == at && (gone == at || below(gone, at))
        }
        (HiddenBy::Opaque, Member::Opaque { path } | Member::Whiteout { path }) => {
            path == at && below(gone, at)
        }
        (HiddenBy::Replaced, Member::Node { path, node }) => {
            path == at && node.kind != "dir" && below(gone, at)
        }
        (HiddenBy::Replaced, Member::Link { path, .. }) => path == at && below(gone, at),
        _ => false,
    };
    assert!(layer.iter().any(is), "{gone:?} removed by {by:?} at {at:?}: {layer:?}");
}

fn check_tree(image: &Image, chain: &Chain<'_>) {
    let mut found: Vec<BTreeMap<Path, Deed>> = vec![BTreeMap::new(); image.layers.len()];
    let merged = chain
        .replay(&mut |event| {
            let deed = match event.what {
                NameChange::Added(_) => Deed::Added,
                NameChange::Changed { facts, .. } => Deed::Changed(facts.words().collect()),
                NameChange::Removed { by, at, .. } => {
                    let layer = &image.layers[event.layer];
                    assert_reason(layer, event.path, by, &event.path[..at]);
                    Deed::Removed
                }
            };
            let known = found[event.layer].insert(event.path.to_vec(), deed);
            assert_eq!(known, None, "{:?} is told twice", event.path);
        })
        .unwrap();
    for (layer, (found, expected)) in found.iter().zip(&image.deeds).enumerate() {
        assert_eq!(found, expected, "layer {layer}: {:?}", image.layers[layer]);
    }
    let mut inodes = BTreeMap::new();
    let mut names = 0;
    merged.walk(&TreePath::root(), &mut |at, shown| {
        names += 1;
        let named = &image.tree[at];
        let facts = chain.facts(shown).unwrap();
        let kind = match facts.stat.kind {
            Kind::Directory => "dir",
            Kind::Regular => "file",
            Kind::Symlink => "symlink",
            _ => "char",
        };
        let node = &named.node;
        assert_eq!(
            (kind, u32::from(facts.stat.perm), facts.stat.uid, facts.stat.mtime.seconds),
            (node.kind, node.mode, node.uid, node.mtime),
            "{at:?}"
        );
        assert_eq!(facts.xattrs.first().map(|(_, value)| value[0]), node.xattr, "{at:?}");
        let digest = facts.content.map(|digest| *digest.as_bytes());
        let body = (kind == "file").then(|| Sha256::digest(&node.body).into());
        assert_eq!(digest, body, "{at:?}");
        if let Shown::Leaf(leaf) = shown {
            assert_eq!(*inodes.entry(leaf).or_insert(named.inode), named.inode, "{at:?}");
        }
    });
    assert_eq!(names, image.tree.len());
    let distinct: BTreeSet<usize> = inodes.values().copied().collect();
    assert_eq!(distinct.len(), inodes.len());
}

fn check_lives(image: &Image, chain: &Chain<'_>) {
    let ever: BTreeSet<&Path> = image.deeds.iter().flat_map(BTreeMap::keys).collect();
    for at in ever {
        let life = chain.life(&path(at)).unwrap();
        let mut told = life.events.iter();
        let mut gone = false;
        for (layer, deeds) in image.deeds.iter().enumerate() {
            let inner: Vec<_> =
                deeds.iter().filter(|(path, _)| below(path, at)).map(|(_, deed)| deed).collect();
            let own = deeds.get(at);
            if own.is_none() && inner.is_empty() {
                continue;
            }
            let event = told.next().unwrap();
            assert_eq!(event.layer, layer);
            match (&event.what, own) {
                (Happened::Below, None) => {}
                (Happened::Added { again }, Some(Deed::Added)) => assert_eq!(*again, gone),
                (Happened::Changed(facts), Some(Deed::Changed(words))) => {
                    assert_eq!(facts.words().collect::<Vec<_>>(), *words);
                }
                (Happened::Removed { by, at: top }, Some(Deed::Removed)) => {
                    assert_reason(&image.layers[layer], at, *by, top.as_bytes());
                    gone = true;
                }
                other => panic!("{at:?} in layer {layer}: {other:?}"),
            }
            let count = |is: fn(&Deed) -> bool| inner.iter().filter(|deed| is(deed)).count() as u64;
            assert_eq!(event.below.added, count(|deed| matches!(deed, Deed::Added)));
            let changed = |deed: &Deed| matches!(deed, Deed::Changed(words) if !words.is_empty());
            assert_eq!(event.below.changed, count(changed));
            let again = |deed: &Deed| matches!(deed, Deed::Changed(words) if words.is_empty());
            assert_eq!(event.below.again, count(again));
            assert_eq!(event.below.removed, count(|deed| matches!(deed, Deed::Removed)));
        }
        assert_eq!(told.next(), None);
        let now = image.tree.get(at);
        assert_eq!(life.now.is_some(), now.is_some(), "{at:?}");
        if let Some(named) = now.filter(|named| named.node.kind != "dir") {
            let names: Vec<Path> = life.names.iter().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(names, image.names(named.inode));
        }
    }
    assert_eq!(chain.life(&path(b"never/was")).unwrap().events, []);
}

fn check_waste(image: &Image, other: &Image, id: &ImageId, chain: &Chain<'_>) {
    let waste = chain.waste(id).unwrap();
    let files = || image.inodes.iter().enumerate().filter(|(_, inode)| inode.node.kind == "file");
    let bytes = |inode: &model::LayerInode| inode.node.body.len() as u64;
    assert_eq!(waste.total, files().map(|(_, inode)| bytes(inode)).sum::<u64>());
    let mut expected = Vec::new();
    for (at, inode) in files() {
        let Some(removed) = image.lost(at) else { continue };
        let shows =
            |named: &model::Named| named.node.kind == "file" && named.node.body == inode.node.body;
        let holds = |member: &Member| {
            matches!(member, Member::Node { node, .. }
                     if node.kind == "file" && node.body == inode.node.body)
        };
        let kept = if image.tree.values().any(shows) {
            Kept::Here
        } else if other.layers.iter().flatten().any(holds) {
            Kept::Elsewhere
        } else {
            Kept::Nowhere
        };
        expected.push((bytes(inode), inode.layer, removed, kept.word(), at));
    }
    assert_eq!(waste.wasted, expected.iter().map(|one| one.0).sum::<u64>());
    assert_eq!(waste.files.len(), expected.len());
    for file in &waste.files {
        let at = file.path.as_bytes();
        let found = expected.iter().position(|(bytes, added, removed, kept, inode)| {
            (file.bytes, file.added, file.removed, file.kept.word())
                == (*bytes, *added, *removed, *kept)
                && image.before[*removed].get(at).is_some_and(|named| named.inode == *inode)
        });
        let found = found.unwrap_or_else(|| panic!("{file:?} is not among {expected:?}"));
        let deed = &image.deeds[file.removed][at];
        match (&file.how, deed) {
            (Gone::Rewritten(facts), Deed::Changed(words)) => {
                assert_eq!(facts.words().collect::<Vec<_>>(), *words);
                let data = words.iter().any(|word| ["type", "content"].contains(word));
                assert_eq!(file.how.is_metadata_only(), !data);
            }
            (Gone::Deleted { by, at: top }, Deed::Removed) => {
                assert_reason(&image.layers[file.removed], at, *by, top.as_bytes());
            }
            wrong => panic!("{wrong:?}"),
        }
        expected.remove(found);
    }
    let (found, expected) = (waste.dive, image.dive());
    assert!((found - expected).abs() < 1e-9, "dive: {found}, expected {expected}");
}

fn check_duplicates(image: &Image, chain: &Chain<'_>) {
    let mut expected: BTreeMap<&[u8], (u64, BTreeSet<usize>)> = BTreeMap::new();
    for named in image.tree.values().filter(|named| named.node.kind == "file") {
        let one = expected.entry(&named.node.body).or_default();
        one.0 += 1;
        one.1.insert(named.inode);
    }
    expected.retain(|_, (_, inodes)| inodes.len() > 1);
    let found = chain.duplicates(100).unwrap();
    assert_eq!(found.count, expected.len() as u64);
    for (body, (names, inodes)) in expected {
        let digest: [u8; 32] = Sha256::digest(body).into();
        let one = found.contents.iter().find(|one| *one.content.as_bytes() == digest).unwrap();
        assert_eq!((one.names, one.files), (names, inodes.len() as u64));
        assert_eq!(one.saved(), body.len() as u64 * (inodes.len() as u64 - 1));
    }
}

/// What the store has of both images: each distinct layer once.
fn check_store(images: [&Image; 2], store: &Store) {
    let mut layers: Vec<&Vec<Member>> = Vec::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    // Files, names, and the layers, by content.
    let mut contents: BTreeMap<&[u8], (u64, u64, Vec<usize>)> = BTreeMap::new();
    for (at, layer) in layers.iter().enumerate() {
        let mut own: BTreeMap<&Path, &[u8]> = BTreeMap::new();
        for member in *layer {
            if let Member::Node { path, node } = member
                && node.kind == "file"
            {
                own.insert(path, &node.body);
                let one = contents.entry(&node.body).or_default();
                (one.0, one.1) = (one.0 + 1, one.1 + 1);
                one.2.push(at);
            }
        }
        for member in *layer {
            if let Member::Link { to, .. } = member
                && let Some(body) = own.get(to)
            {
                contents.entry(body).or_default().1 += 1;
            }
        }
    }
    let found = duplicates(store, 100).unwrap();
    let (mut count, mut saved, mut listed) = (0, 0, 0);
    for (body, (files, names, mut holding)) in contents {
        let digest = ContentDigest::from_bytes(Sha256::digest(body).into());
        count += u64::from(names > 1);
        saved += (files - 1) * body.len() as u64;
        let one = found.contents.iter().find(|one| one.content == digest);
        assert_eq!(one.is_some(), files > 1);
        if let Some(one) = one {
            listed += 1;
            assert_eq!((one.files, one.names), (files, names));
        }
        holding.dedup();
        let holders = occurrences(store, &digest, 100).unwrap();
        assert_eq!(holders.names, names);
        assert_eq!(holders.paths.len() as u64, names);
        assert_eq!(holders.layers.len(), holding.len());
        let has = |image: &&&Image| holding.iter().any(|at| image.layers.contains(layers[*at]));
        assert_eq!(holders.images.len(), images.iter().filter(has).count());
    }
    assert_eq!((found.count, found.saved, found.contents.len()), (count, saved, listed));
    // The first of them are the first of all.
    let first = duplicates(store, 2).unwrap();
    let sizes = |found: &[Duplicate]| found.iter().map(Duplicate::saved).collect::<Vec<_>>();
    assert_eq!(sizes(&first.contents), sizes(&found.contents[..listed.min(2)]));
}

fn check_difference(images: [&Image; 2], trees: [&dyn Lower; 2], chains: [&Chain<'_>; 2]) {
    let side = |at: usize| Side { tree: trees[at], chain: chains[at] };
    let paths: BTreeSet<&Path> = images.iter().flat_map(|image| image.tree.keys()).collect();
    for top in &paths {
        let mut expected: BTreeMap<Path, Vec<&str>> = BTreeMap::new();
        for at in paths.iter().filter(|at| *at == top || below(at, top)) {
            let words = match (images[0].tree.get(*at), images[1].tree.get(*at)) {
                (Some(_), None) => vec!["removed"],
                (None, _) => vec!["added"],
                (Some(old), Some(new)) => old.node.unlike(&new.node),
            };
            if !words.is_empty() {
                expected.insert((*at).clone(), words);
            }
        }
        let mut found: Vec<(Path, Vec<&str>)> = Vec::new();
        compare(side(0), side(1), &path(top), &mut |one| {
            let words = match (one.old, one.new) {
                (_, None) => vec!["removed"],
                (None, _) => vec!["added"],
                _ => one.facts.words().collect(),
            };
            found.push((one.path.as_bytes().to_vec(), words));
            true
        })
        .unwrap();
        let by_names =
            |path: &Path| path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert!(found.is_sorted_by_key(|(path, _)| by_names(path)), "{found:?}");
        assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), expected, "below {top:?}");
    }
}

fn cases() -> u32 {
    std::env::var("STRATA_HISTORY_CASES").map_or(200, |text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_says_what_the_letter_says(
        base in stacks::layers(0..4),
        one in stacks::layers(0..3),
        two in stacks::layers(0..3),
    ) {
        let mut first = Image::empty();
        for wishes in &base {
            first.apply(&stacks::members(wishes, &first));
        }
        let mut second = first.clone();
        for (image, more) in [(&mut first, &one), (&mut second, &two)] {
            for wishes in more {
                let members = stacks::members(wishes, image);
                image.apply(&members);
            }
        }
        let (_dir, store) = store();
        let ids = [load(&store, "one", &first), load(&store, "two", &second)];
        let chains = ids.map(|id| Chain::open(&store, &id).unwrap());
        check_tree(&first, &chains[0]);
        check_lives(&first, &chains[0]);
        check_waste(&first, &second, &ids[0], &chains[0]);
        check_duplicates(&first, &chains[0]);
        check_store([&first, &second], &store);
        let trees = ids.map(|id| merged(&store, &id));
        let trees: [&dyn Lower; 2] = [&trees[0], &trees[1]];
        check_difference([&first, &second], trees, [&chains[0], &chains[1]]);
    }
}
