//! Tests of the view: its model, what it draws, and the facts under it.

mod drawn;
mod merged;
mod paging;
mod states;
mod totals;

use std::sync::Arc;

use strata_analysis::image_tree::{ImageTree, PathId, Span};
use strata_layer::{Event as Progressed, ImageRecord, LayerInput, Progress, Store};
use strata_tree::{DiffId, ImageId, TreePath};

use super::facts::{ExploredImage, ExploredLayer};
use super::model::{Effect, Key, Model, ModelEvent};
use strata_testkit::tars::{Head, Tar};

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Progressed) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// A store with images of layers given as tars.
struct Shelf {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(dir.path()).unwrap(), _dir: dir }
    }

    /// Adds an image; gives its id and what the view knows of it.
    fn image(&self, name: &str, layers: &[(&str, Tar)]) -> ExploredImage {
        let mut leased = Vec::new();
        for (_, tar) in layers {
            let bytes = tar.clone().end();
            let reader = Box::new(&bytes[..]);
            let input = LayerInput { label: "test".into(), diff_id: None, blob: None, reader };
            leased.push(self.store.unpack(input, &Silent).unwrap().layer);
        }
        let diff_ids: Vec<DiffId> = leased.iter().map(|leased| *leased.diff_id()).collect();
        let config = self.store.put_blob(name.as_bytes()).unwrap();
        let id = ImageId::from_bytes(*config.as_bytes());
        let record = ImageRecord { id, manifest: None, layers: diff_ids };
        self.store.images().commit(&record, &[name.to_owned()], None, &leased).unwrap();
        let tree = ImageTree::read(&self.store, &record, &leased, &mut |_| {}).unwrap();
        let images = self.store.images().all().unwrap();
        let facts = record.layers.iter().zip(layers).map(|(diff_id, (step, _))| {
            let found = self.store.layer(diff_id).unwrap().unwrap();
            let others = images.iter().filter(|other| other.id != id);
            ExploredLayer {
                diff_id: *diff_id,
                size: found.apparent,
                entries: found.entries,
                created_by: (*step).to_owned(),
                other_images: others.filter(|other| other.layers.contains(diff_id)).count(),
            }
        });
        let names = [(id, name.to_owned()), (images[0].id, images_name(&self.store))].into();
        ExploredImage {
            name: name.to_owned(),
            id,
            layers: facts.collect(),
            efficiency: tree.efficiency(),
            tree: Arc::new(tree),
            names,
            engines: std::collections::HashMap::new(),
            leased: None,
        }
    }
}

fn images_name(store: &Store) -> String {
    store.images().tags().unwrap()[0].0.clone()
}

fn dir(tar: Tar, name: &str) -> Tar {
    tar.add(Head::new(b'5', name.as_bytes()), b"")
}

fn sized(tar: Tar, name: &str, bytes: usize, seed: u8) -> Tar {
    tar.file(name.as_bytes(), &vec![seed; bytes])
}

/// What most tests look at: three layers, the base shared with another image.
///
/// ```text
/// 0  etc/{passwd,hosts} usr/bin/{tool,old} usr/lib/{a.so,b.so} var/cache/list link -> usr/bin/tool
/// 1  etc/passwd (other bytes) etc/hosts (the same once more) app/{main.py,data/x} .wh.usr/bin/old
/// 2  .wh.var/cache app/main.py (other bytes) app/copy.so (usr/lib/a.so once more)
/// ```
fn example(shelf: &Shelf) -> ExploredImage {
    let mut base = Tar::default();
    for name in ["etc/", "usr/", "usr/bin/", "usr/lib/", "var/", "var/cache/"] {
        base = dir(base, name);
    }
    base = sized(base, "etc/passwd", 100, 1);
    base = sized(base, "etc/hosts", 50, 2);
    base = sized(base, "usr/bin/tool", 70_000, 3);
    base = sized(base, "usr/bin/old", 3000, 4);
    base = sized(base, "usr/lib/a.so", 20_000, 5);
    base = sized(base, "usr/lib/b.so", 1500, 6);
    base = sized(base, "var/cache/list", 9000, 7);
    base = base.add(Head::new(b'2', b"link").link(b"usr/bin/tool"), b"");
    let mut one = dir(dir(Tar::default(), "app/"), "app/data/");
    one = sized(one, "etc/passwd", 120, 8);
    one = sized(one, "etc/hosts", 50, 2);
    one = one.file(b"app/main.py", b"print('hello')\nprint('two')\n");
    one = sized(one, "app/data/x", 500, 9).file(b"usr/bin/.wh.old", b"");
    let mut two = Tar::default().file(b"var/.wh.cache", b"");
    two = two.file(b"app/main.py", b"print('other')\n");
    two = sized(two, "app/copy.so", 20_000, 5);
    shelf.image("docker.io/library/base:1", &[("FROM scratch", base.clone())]);
    let layers =
        [("FROM scratch", base), ("COPY app /app", one), ("RUN rm -r /var/cache && make", two)];
    shelf.image("example:1", &layers)
}

fn model(width: u16, height: u16) -> (Shelf, Model) {
    let shelf = Shelf::new();
    let image = example(&shelf);
    (shelf, Model::new(image, width, height))
}

fn at(model: &Model, path: &str) -> PathId {
    let path = TreePath::clamped(path.as_bytes()).unwrap();
    model.image.tree.find(&path).unwrap_or_else(|| panic!("no {path}"))
}

/// Presses keys: a character each; the effect of the last.
fn press(model: &mut Model, keys: &str) -> Option<Effect> {
    let mut effect = None;
    for c in keys.chars() {
        effect = key(model, Key::Char(c));
    }
    effect
}

fn key(model: &mut Model, key: Key) -> Option<Effect> {
    model.update(ModelEvent::Key(key))
}

/// The paths on the screen.
fn shown(model: &Model) -> Vec<String> {
    let (_, rows) = model.rows.window();
    rows.iter().map(|row| model.image.tree.path(row.path).to_string()).collect()
}

fn here(model: &Model) -> String {
    model.image.tree.path(model.rows.current()).to_string()
}

/// All layers.
fn whole(model: &Model) -> Span {
    Span { below: 0, to: model.image.layers.len() }
}
