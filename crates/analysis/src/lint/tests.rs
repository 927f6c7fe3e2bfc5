//! Tests of layers that no catalogue of programs' behaviour has.

#![allow(clippy::unwrap_used)] // Helpers are not #[test] functions.

use strata_layer::{Event, LayerInput, Limits, Progress};
use strata_testkit::tars::{Head, Tar};

use super::{ImageLint, LintFinding, ReadThrough};

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

/// What is found in layers, the base first.
fn found(layers: &[Tar]) -> Vec<LintFinding> {
    let mut lint = ImageLint::new();
    for (at, tar) in layers.iter().enumerate() {
        let tar = tar.clone().end();
        let reader = Box::new(ReadThrough(&tar[..]));
        lint.headers(at.to_string(), reader, None, &Limits::default(), &Silent).unwrap();
    }
    lint.finish()
}

/// Layer, path and bytes of what later layers hide.
fn hidden(layers: &[Tar]) -> Vec<(String, String, u64)> {
    let hidden = found(layers).into_iter().filter(|one| one.check.id == "hidden-later");
    let path = |path: Vec<u8>| String::from_utf8(path).unwrap();
    hidden.map(|one| (one.layer, path(one.path), one.bytes)).collect()
}

/// A path of a few compressed bytes may begin as many directories as it has names.
#[test]
fn a_path_beyond_the_bounds_is_refused_before_it_is_kept() {
    let limits = Limits { depth: 100, path_bytes: 300, ..Limits::default() };
    for (path, option) in [
        ("a/".repeat(100) + "f", Some("--max-depth")),
        ("a/".repeat(100) + ".wh.f", Some("--max-depth")),
        ("abcd/".repeat(60) + "f", Some("--max-path")),
        ("a/".repeat(99) + "f", None),
        // Of one name, whatever it says on the way.
        ("a/../".repeat(50) + "f", None),
    ] {
        let tar = Tar::default().long_file(path.as_bytes(), b"").end();
        let quick = ReadThrough(&tar[..]);
        let quick = ImageLint::new().headers("l".into(), Box::new(quick), None, &limits, &Silent);
        let reader = Box::new(&tar[..]);
        let input = LayerInput { label: "l".into(), diff_id: None, blob: None, reader };
        let whole = ImageLint::new().layer(input, &limits, &Silent);
        for judged in [quick, whole] {
            let said = judged.map_err(|error| error.to_string());
            assert_eq!(said.is_err(), option.is_some(), "{path}: {said:?}");
            let told = |said: String| option.is_some_and(|option| said.contains(option));
            assert!(said.map_or_else(told, |()| true), "{path}: {option:?}");
        }
    }
}

#[test]
fn bytes_are_hidden_with_the_last_of_their_names() {
    let link = |tar: Tar, name: &[u8], to: &[u8]| tar.add(Head::new(b'1', name).link(to), b"");
    let base = link(link(Tar::default().file(b"a", &[1; 5000]), b"b", b"a"), b"d/c", b"b");
    let gone = |names: &[&str]| {
        let add = |tar: Tar, name: &&str| tar.file(name.as_bytes(), b"");
        names.iter().fold(Tar::default(), add)
    };
    let last = |path: &str| vec![("0".to_owned(), path.to_owned(), 5000)];
    assert_eq!(hidden(&[base.clone(), gone(&[".wh.a"])]), []);
    assert_eq!(hidden(&[base.clone(), gone(&[".wh.a", "d/.wh.c"])]), []);
    assert_eq!(hidden(&[base.clone(), gone(&[".wh.a", ".wh.b"]), gone(&["d/.wh.c"])]), last("d/c"));
    assert_eq!(hidden(&[base.clone(), gone(&["a", "b", ".wh.d"])]), last("b"));
    // A link of another layer keeps them too, and each file has its own count.
    let across = link(Tar::default().file(b"e", &[2; 10]), b"f", b"a");
    let later = gone(&[".wh.a", ".wh.b", ".wh.d", ".wh.e"]);
    let own = vec![("1".to_owned(), "e".to_owned(), 10)];
    assert_eq!(hidden(&[base.clone(), across.clone(), later.clone()]), own);
    let all = hidden(&[base, across, later, gone(&[".wh.f"])]);
    assert_eq!(all, [own, last("f")].concat());
}
