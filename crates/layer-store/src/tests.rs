//! Forms, beside what the image is; what is found, taken and given back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use strata_fuse::{Heard, LiveTop};
use strata_layer::Store;
use strata_registry::{Reference, Registries, RegistryOptions};
use strata_testkit::layout::{LAYER, Layout, tar_of};
use strata_testkit::registry::Registry;
use strata_tree::dialect::XattrClass;
use strata_tree::{
    BlobDigest, Device, DiffId, Entry, Kind, Lower, Name, NodeId, Stat, TreePath, Xattr, list,
};
use strata_trust::{Gpgv, LookasideConfig, TrustPolicy};
use stratafs::{Engine, OpenImage, Quiet};

use crate::catalogue::InChain;
use crate::form::LowerForm;
use crate::held::HeldLayer;
use crate::mount::fetch_from;
use crate::place::chain_of;
use crate::served::{Numbered, ServedLayers, TOP, reference_name};

/// What one path is: metadata, attributes, and the target or the content's place in the store.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    stat: Stat,
    xattrs: Vec<Xattr>,
    bytes: Vec<u8>,
}

type SeenTree = BTreeMap<String, Seen>;

struct Loaded {
    engine: Engine,
    layers: Vec<DiffId>,
    id: String,
    _place: tempfile::TempDir,
}

fn loaded(fixture: &str) -> Loaded {
    let place = tempfile::tempdir().unwrap();
    let engine = Engine::new(place.path().join("store"));
    let loaded = engine.load(strata_testkit::fixture(fixture), &Quiet).unwrap();
    let image = engine.store().unwrap().images().get(&loaded[0].id).unwrap().unwrap();
    Loaded { engine, layers: image.layers, id: loaded[0].id.to_string(), _place: place }
}

/// Link counts are overlayfs' own matter.
fn seen(tree: &dyn Lower, id: NodeId, bytes: Vec<u8>) -> Seen {
    let stat = Stat { nlink: 0, ..tree.node(id).unwrap().stat };
    Seen { stat, xattrs: tree.xattrs(id).unwrap(), bytes }
}

fn image(loaded: &Loaded) -> SeenTree {
    let image = OpenImage::open(&loaded.engine.store().unwrap(), &loaded.id).unwrap();
    let mut all = SeenTree::new();
    image
        .walk(&mut |path, node| {
            let bytes = match node.stat.kind {
                Kind::Symlink => image.files.read_link(node.id).unwrap(),
                Kind::Regular => image.files.read(node.id).unwrap(),
                _ => Vec::new(),
            };
            all.insert(path.to_string(), seen(&*image.files, node.id, bytes));
            ControlFlow::Continue(())
        })
        .unwrap();
    // What overlayfs takes for a whiteout is in no directory.
    let zero = Kind::CharDevice(Device { major: 0, minor: 0 });
    all.retain(|_, seen| seen.stat.kind != zero);
    all
}

/// The lower directories of one merged directory, top first.
type Parts<'a> = Vec<(&'a LowerForm, NodeId)>;

/// overlayfs' merge of lower directories (overlayfs.rst), in few words.
fn merge(store: &Store, class: XattrClass, parts: &Parts<'_>, path: &TreePath, all: &mut SeenTree) {
    let (top, id) = parts[0];
    let mut dir = seen(top, id, Vec::new());
    dir.xattrs = shown(class, dir.xattrs);
    all.insert(path.to_string(), dir);
    let mut names = BTreeSet::new();
    for (form, id) in parts {
        names.extend(list(*form, *id).unwrap().into_iter().map(|(name, _)| name));
    }
    for name in names {
        let path = path.join(name.as_name());
        let mut below: Parts<'_> = Vec::new();
        for (form, id) in parts {
            let Some(Entry::Node(node)) = form.lookup(*id, name.as_name()).unwrap() else {
                continue;
            };
            if node.stat.kind == Kind::CharDevice(Device { major: 0, minor: 0 }) {
                break;
            }
            if node.stat.kind != Kind::Directory {
                if below.is_empty() {
                    all.insert(path.to_string(), leaf(store, class, form, node.id));
                }
                break;
            }
            below.push((form, node.id));
            let opaque = format!("{}opaque", class.prefix()).into_bytes();
            if form.xattrs(node.id).unwrap().contains(&(opaque, b"y".to_vec())) {
                break;
            }
        }
        if !below.is_empty() {
            merge(store, class, &below, &path, all);
        }
    }
}

fn shown(class: XattrClass, xattrs: Vec<Xattr>) -> Vec<Xattr> {
    let one = |(name, value): Xattr| Some((class.unescape(&name)?.into_owned(), value));
    let mut all: Vec<Xattr> = xattrs.into_iter().filter_map(one).collect();
    all.sort();
    all
}

fn leaf(store: &Store, class: XattrClass, form: &LowerForm, id: NodeId) -> Seen {
    let bytes = match form.node(id).unwrap().stat.kind {
        Kind::Symlink => form.read_link(id).unwrap(),
        Kind::Regular => {
            let place = form.content(id).unwrap().path;
            let place = std::ffi::OsStr::from_bytes(place.as_bytes());
            std::fs::read(store.root().join("layers").join(place)).unwrap()
        }
        _ => Vec::new(),
    };
    let mut leaf = seen(form, id, bytes);
    leaf.xattrs = shown(class, leaf.xattrs);
    leaf
}

#[test]
fn forms_under_overlayfs_are_the_image() {
    for fixture in ["cases-gzip.oci.tar", "lowerlink.oci.tar", "busybox-gzip.oci.tar"] {
        let loaded = loaded(fixture);
        let store = loaded.engine.store().unwrap();
        for class in [XattrClass::Trusted, XattrClass::User] {
            let mut forms = Vec::new();
            for upto in 1..=loaded.layers.len() {
                let chain = InChain { layers: loaded.layers[..upto].to_vec(), size: 0 };
                let (_leased, chain) = chain_of(&store, &chain).unwrap();
                forms.push(LowerForm::new(&chain, class).unwrap());
            }
            let parts = forms.iter().rev().map(|form| (form, NodeId::ROOT)).collect();
            let mut merged = SeenTree::new();
            merge(&store, class, &parts, &TreePath::root(), &mut merged);
            let wanted = image(&loaded);
            assert!(wanted.len() > 3, "{fixture}");
            for (path, seen) in &wanted {
                assert_eq!(merged.get(path), Some(seen), "{fixture}: {path}");
            }
            let more: Vec<_> = merged.keys().filter(|path| !wanted.contains_key(*path)).collect();
            assert!(more.is_empty(), "{fixture}: {more:?}");
        }
    }
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn node(tree: &dyn Lower, dir: NodeId, text: &str) -> NodeId {
    match tree.lookup(dir, name(text)).unwrap() {
        Some(Entry::Node(node)) => node.id,
        other => panic!("{text}: {other:?}"),
    }
}

fn served(loaded: &Loaded) -> Arc<ServedLayers> {
    Arc::new(ServedLayers::new(loaded.engine.store().unwrap(), XattrClass::Trusted, None))
}

/// A name of the image, and the blob of its first layer.
fn first_blob(served: &ServedLayers) -> (Reference, BlobDigest) {
    let catalogue = served.catalogue().unwrap();
    let reference = catalogue.names().next().unwrap();
    let base = |blob: &BlobDigest| {
        catalogue.in_image(&reference, blob).is_some_and(|found| found.layers.len() == 1)
    };
    let blob = catalogue.blobs(&reference).into_iter().find(base).unwrap();
    (reference, blob)
}

#[test]
fn a_layer_is_found_by_name_and_digest_and_by_the_digest_alone() {
    let loaded = loaded("busybox-gzip.oci.tar");
    let served = served(&loaded);
    let (reference, blob) = first_blob(&served);
    let other: Reference = "elsewhere.test/other:1".parse().unwrap();
    let mut seen = BTreeSet::new();
    for reference in [&reference, &other] {
        let dir = node(&*served, NodeId::ROOT, &reference_name(reference));
        let place = node(&*served, dir, &blob.to_string());
        let diff = node(&*served, place, "diff");
        assert!(seen.insert(diff), "no directory has two names");
        assert_eq!(served.parent(diff).unwrap(), Some(place));
        assert!(served.lookup(place, name("use")).unwrap().is_none());
        assert!(served.grows(place) && !served.grows(diff));
    }
    let dir = node(&*served, NodeId::ROOT, &reference_name(&reference));
    let absent = format!("sha256:{}", "0".repeat(64));
    assert!(served.lookup(dir, name(&absent)).unwrap().is_none());
    assert!(served.lookup(NodeId::ROOT, name("x")).unwrap().is_none());
    assert!(served.takes_long(dir, absent.as_bytes()));
    assert!(!served.takes_long(dir, blob.to_string().as_bytes()));
}

/// podman compares nothing of what it is shown: whoever loads an image must not be able to say
/// what another image's blob is.
#[test]
fn a_blob_that_nobody_has_read_is_not_found() {
    let place = tempfile::tempdir().unwrap();
    let engine = Engine::new(place.path().join("store"));
    let layout = Layout::new("claims");
    let tar = tar_of(&[("bin/sh", "evil")]);
    let config = layout.config(&[&tar, &tar], "linux/amd64");
    let blob = layout.blob(LAYER, &tar);
    let claimed = layout.blob(&format!("{LAYER}+gzip"), "the blob of an honest image");
    layout.index(&[layout.manifest(&config, &[blob.clone(), claimed.clone()])]);
    layout.remove(&claimed);
    engine.load(layout.root(), &Quiet).unwrap();
    let store = engine.store().unwrap();
    let catalogue = crate::catalogue::Catalogue::read(&store).unwrap();
    let digest = |descriptor: &serde_json::Value| -> BlobDigest {
        descriptor["digest"].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(catalogue.anywhere(&digest(&claimed)), []);
    // An image that has the layer once, so that overlayfs can take it.
    let honest = Layout::new("honest");
    let config = honest.config(&[&tar], "linux/amd64");
    honest.index(&[honest.manifest(&config, &[honest.blob(LAYER, &tar)])]);
    engine.load(honest.root(), &Quiet).unwrap();
    let catalogue = crate::catalogue::Catalogue::read(&store).unwrap();
    assert_eq!(catalogue.anywhere(&digest(&blob)).len(), 1);
}

/// It is read again after each change of the store, whoever makes it.
#[test]
fn the_catalogue_takes_no_document_of_an_image() {
    let loaded = loaded("busybox-gzip.oci.tar");
    let served = served(&loaded);
    std::fs::remove_dir_all(served.store.root().join("blobs")).unwrap();
    let (_, blob) = first_blob(&served);
    assert_eq!(served.catalogue().unwrap().anywhere(&blob).len(), 1);
}

#[test]
fn the_blob_is_the_diff_at_every_offset() {
    for fixture in ["cases-gzip.oci.tar", "sparse.oci.tar"] {
        let loaded = loaded(fixture);
        let served = served(&loaded);
        let reference: Reference = "elsewhere.test/other:1".parse().unwrap();
        for (at, layer) in loaded.layers.iter().enumerate() {
            let mut diff = Vec::new();
            let store = &served.store;
            store.lease(layer).unwrap().unwrap().write_diff(&mut diff).unwrap();
            let found = InChain { layers: loaded.layers[..=at].to_vec(), size: 1 };
            let blob = BlobDigest::from_bytes(*layer.as_bytes());
            let (_, place) = served.placed(&reference, &blob, found);
            let at = place.diff(store, XattrClass::User).unwrap();
            assert_eq!(at.len(), diff.len() as u64);
            for (offset, size) in
                [(0, diff.len() + 1), (1, 511), (511, 2), (513, 4096), (diff.len() - 1, 9)]
            {
                let mut buffer = vec![0; size];
                let done = at.read_at(&mut buffer, offset as u64).unwrap();
                assert_eq!(buffer[..done], diff[offset..(offset + size).min(diff.len())]);
            }
        }
    }
}

#[test]
fn what_is_taken_stays_and_is_found_by_the_next_one() {
    let loaded = loaded("busybox-gzip.oci.tar");
    let first = served(&loaded);
    let (reference, blob) = first_blob(&first);
    let dir = node(&*first, NodeId::ROOT, &reference_name(&reference));
    let place = node(&*first, dir, &blob.to_string());
    assert_eq!(first.file_made(place, b"use").unwrap(), Heard::Yes);
    assert_eq!(first.file_made(place, b"use").unwrap(), Heard::Yes);
    assert_eq!(first.file_made(place, b"other").unwrap(), Heard::No);
    assert_eq!(first.file_made(dir, b"use").unwrap(), Heard::No);
    drop(first);
    // Nobody serves, and the name has gone.
    let store = loaded.engine.store().unwrap();
    let id = loaded.id.parse().unwrap();
    let error = store.images().remove(&id).unwrap_err();
    assert!(error.is_in_use() && error.to_string().contains("is held by"), "{error}");
    for (tag, _) in store.images().tags().unwrap() {
        store.images().untag(&tag).unwrap();
    }
    let second = served(&loaded);
    let held = HeldLayer::all(&store).unwrap();
    assert_eq!((held.len(), held[0].count), (1, 2));
    assert_eq!((&held[0].reference, held[0].blob), (&reference, blob));
    let dir = node(&*second, NodeId::ROOT, &reference_name(&reference));
    let place = node(&*second, dir, &blob.to_string());
    assert!(matches!(second.numbered(place).unwrap(), Numbered::Place(_)));
    assert_eq!(place.0 & TOP, TOP);
    for left in [1, 0] {
        let name = blob.to_string();
        assert_eq!(second.dir_removed(dir, name.as_bytes()).unwrap(), Heard::Yes);
        let held = HeldLayer::all(&store).unwrap();
        assert_eq!(held.first().map_or(0, |held| held.count), left);
    }
    drop(second);
    store.images().remove(&id).unwrap();
}

#[test]
fn only_what_the_policy_lets_in_is_fetched() {
    let registry = Registry::new();
    registry.layout(&strata_testkit::fixture("cases.oci"), "team/app", "1");
    let reference: Reference = format!("{}/team/app:1", registry.host()).parse().unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let policy = place.path().join("policy.json");
    // One that serves for months goes by the policy that is there now.
    let now = policy.clone();
    let fetch = fetch_from(Box::new(move || {
        let trust = TrustPolicy::load(&now, LookasideConfig::default(), Gpgv::default())?;
        Ok((Registries::new(RegistryOptions::default()), trust))
    }));
    assert!(!fetch(&store, &reference), "there is no policy to be read");
    for (requirement, comes) in
        [("reject", false), ("nothing known", false), ("insecureAcceptAnything", true)]
    {
        std::fs::write(&policy, format!(r#"{{"default": [{{"type": "{requirement}"}}]}}"#))
            .unwrap();
        assert_eq!(fetch(&store, &reference), comes, "{requirement}");
        assert_eq!(store.layers().unwrap().is_empty(), !comes, "{requirement}");
    }
}
