//! Which contents and which of their names `duplicates` lists does not depend on the order in which
//! the layers came.

#![allow(clippy::unwrap_used)] // Helpers are not #[test] functions.

use strata_analysis::history::{Duplicates, duplicates, occurrences};
use strata_layer::{Event, LayerInput, Progress, Store};
use strata_testkit::tars::Tar;
use strata_tree::{DiffId, TreePath};

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// What is listed: all, the first two, and the first two names of each content.
type Listed = (Duplicates, Duplicates, Vec<Vec<(DiffId, TreePath)>>);

fn listed(layers: &[&[u8]]) -> Listed {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    for tar in layers {
        let reader = Box::new(*tar);
        let input = LayerInput { label: "layer".into(), diff_id: None, blob: None, reader };
        store.unpack(input, &Silent).unwrap();
    }
    let all = duplicates(&store, 10).unwrap();
    let names = all.contents.iter().map(|one| occurrences(&store, &one.content, 2).unwrap().paths);
    let names = names.collect();
    (all, duplicates(&store, 2).unwrap(), names)
}

#[test]
fn the_order_of_layers_does_not_matter() {
    let tar = |letter: &str| {
        // Two files of its own, and three of a content that the other layer has too.
        let own = format!("only {letter}");
        let tar = ["own/1", "own/2"].iter().fold(Tar::default(), |tar, name| {
            tar.file(format!("{letter}/{name}").as_bytes(), own.as_bytes())
        });
        let tar = ["0", "1", "2"].iter().fold(tar, |tar, name| {
            tar.file(format!("{letter}/shared/{name}").as_bytes(), b"in both layers")
        });
        tar.end()
    };
    let (one, two) = (tar("a"), tar("b"));
    let (first, second) = (listed(&[&one, &two]), listed(&[&two, &one]));
    assert_eq!(first, second);
    let (all, _, _) = first;
    let counts: Vec<(u64, usize)> =
        all.contents.iter().map(|one| (one.names, one.paths.len())).collect();
    assert_eq!(counts, [(6, 4), (2, 2), (2, 2)]);
    assert!(all.contents.iter().all(|one| one.paths.is_sorted()));
}

#[test]
fn what_is_counted_is_what_could_be_listed() {
    let tar = Tar::default().file(b"empty/1", b"").file(b"empty/2", b"");
    let tar = tar.file(b"twice/1", b"twice").file(b"twice/2", b"twice").file(b"once", b"once");
    let (all, ..) = listed(&[&tar.end()]);
    assert_eq!((all.contents.len(), all.count), (1, 1));
}
