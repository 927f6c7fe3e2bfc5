//! Sums, changes and holders of the example, counted by hand.

use strata_analysis::image_tree::{PathId, Span, SpanChange};

use super::{Shelf, at, example, model, whole};

#[test]
fn directories_are_summed_up() {
    let (_shelf, model) = model(80, 24);
    let tree = &model.image.tree;
    let totals = tree.totals(whole(&model));
    let usr = totals.of(at(&model, "usr"));
    assert_eq!((usr.size, usr.entries), (70_000 + 20_000 + 1500, 6));
    // The base is another image's too.
    assert_eq!((usr.shared, usr.unique()), (91_500, 0));
    let app = totals.of(at(&model, "app"));
    assert_eq!(app.size, 15 + 500 + 20_000);
    // The copy's content is the base's.
    assert_eq!((app.shared, app.unique()), (20_000, 515));
    let all = totals.of(PathId::ROOT);
    // /, app/{copy.so,data/x,main.py}, etc/{hosts,passwd}, link, usr with five below, var.
    assert_eq!((all.size, all.entries), (120 + 50 + 91_500 + 20_515, 17));
}

#[test]
fn each_layer_tells_what_it_changed() {
    let (_shelf, model) = model(80, 24);
    let tree = &model.image.tree;
    let change = |path: &str, layer| tree.change(at(&model, path), Span::of(layer));
    assert_eq!(change("etc/passwd", 0), Some(SpanChange::Added));
    let Some(SpanChange::Modified(differences)) = change("etc/passwd", 1) else { panic!() };
    assert_eq!(differences.words().collect::<Vec<_>>(), ["content"]);
    assert_eq!(change("etc/passwd", 2), None);
    assert_eq!(change("etc/hosts", 1), Some(SpanChange::Again));
    assert_eq!(change("usr/bin/old", 1), Some(SpanChange::Removed));
    assert_eq!(change("usr/bin", 1), None);
    assert_eq!(change("var/cache/list", 2), Some(SpanChange::Removed));
    // Since the base: what came and changed again has only come.
    let since = Span { below: 1, to: 3 };
    assert_eq!(tree.change(at(&model, "app/main.py"), since), Some(SpanChange::Added));
    let totals = tree.totals(Span::of(2));
    let all = totals.of(PathId::ROOT);
    assert_eq!((all.changes, all.brought), (4, 15 + 20_000));
    assert_eq!(all.hidden, 9000 + 28);
    assert_eq!(totals.of(at(&model, "var")).hidden, 9000);
}

#[test]
fn efficiency_is_dives() {
    let (_shelf, model) = model(80, 24);
    let efficiency = &model.image.efficiency;
    // Hidden in the end: etc/passwd and etc/hosts, app/main.py, usr/bin/old, var/cache/list.
    assert_eq!(efficiency.wasted, 100 + 50 + 28 + 3000 + 9000);
    let layers: u64 = model.image.layers.iter().map(|layer| layer.size).sum();
    let visible = model.image.tree.totals(whole(&model)).of(PathId::ROOT).size;
    assert_eq!(efficiency.wasted, layers - visible);
    let files: Vec<String> =
        efficiency.files.iter().map(|(path, _)| model.image.tree.path(*path).to_string()).collect();
    let lost = ["/var/cache/list", "/usr/bin/old", "/etc/passwd", "/etc/hosts", "/app/main.py"];
    assert_eq!(files, lost);
    // A directory that is removed counts with what was in it, both times.
    let once = 70_000 + 20_000 + 1500 + 9000 + 9000 + 500 + 20_000;
    // Twice or more: etc/passwd, etc/hosts, app/main.py, usr/bin/old with its whiteout.
    let twice = (100 + 120) + (50 + 50) + (28 + 15) + 3000;
    let (least, all) = (once + 100 + 50 + 15, once + twice);
    assert!((efficiency.score - least as f64 / all as f64).abs() < 1e-12);
}

#[test]
fn contents_know_their_holders() {
    let shelf = Shelf::new();
    let image = example(&shelf);
    let tree = &image.tree;
    let content = |path: &str| {
        let path = strata_tree::TreePath::clamped(path.as_bytes()).unwrap();
        let version = tree.at(tree.find(&path).unwrap(), 3).unwrap();
        tree.holders(tree.content(version).unwrap())
    };
    let copy = content("app/copy.so");
    let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(copy.layers, [diff_ids[0], diff_ids[2]]);
    assert_eq!(copy.other_images.len(), 1);
    let own = content("app/data/x");
    assert_eq!((own.layers.as_slice(), own.is_shared()), (&diff_ids[1..2], false));
}
