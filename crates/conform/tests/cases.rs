//! The catalogue as a whole: every case is well formed, says why, and is the same bytes each time.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use strata_conform::Error;
use strata_conform::catalogue::{self, Case, Class};
use strata_conform::image;

fn with(lines: &str) -> String {
    format!("case x\nclass cosmetic\nspec unspecified\nwhy so\n{lines}")
}

#[test]
fn every_case_is_well_formed() {
    let cases = catalogue::all().unwrap();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    for class in Class::ALL {
        assert!(cases.iter().filter(|case| case.class == class).count() >= 5, "{class}");
    }
    for case in &cases {
        let Case { id, trees, may_refuse, .. } = case;
        assert!(case.why.len() >= 10, "{id}: it does not argue");
        assert!(*may_refuse || !trees.is_empty(), "{id}");
        for tree in trees {
            let dirs: BTreeSet<&[u8]> = tree
                .iter()
                .filter(|entry| entry.kind == "dir")
                .map(|entry| entry.path.as_slice())
                .collect();
            for entry in tree {
                let path = &entry.path;
                let clean = path.split(|byte| *byte == b'/');
                let clean = clean.into_iter().all(|name| !name.is_empty() && name != b"..");
                assert!(clean, "{id}: {}", path.escape_ascii());
                if let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
                    let parent = &path[..slash];
                    assert!(dirs.contains(parent), "{id}: no {}", parent.escape_ascii());
                }
            }
        }
        for other in trees.iter().skip(1) {
            assert_ne!(other, &trees[0], "{id}: allows the expected tree");
        }
    }
}

/// All files below `dir`, with their bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_case_is_the_same_bytes_each_time() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        for case in catalogue::all().unwrap() {
            image::write(dir.path(), &case).unwrap();
        }
    }
    let (one, two) = (files(one.path()), files(two.path()));
    assert_eq!(one.len(), two.len());
    assert!(one == two, "the bytes differ");
    for part in ["layout/index.json", "oci.tar", "docker.tar", "expected.json"] {
        assert!(one.iter().any(|(name, _)| *name == format!("whiteout-file/{part}")), "{part}");
    }
    // On every machine: the digest of a layer that no compressor has touched.
    let blob = "blobs/sha256/590088ea300f25c11de21e3d6562c48c252a50408ca0d8e66f34ba3213273a91";
    assert!(one.iter().any(|(name, _)| *name == format!("whiteout-file/layout/{blob}")));
}

#[test]
fn a_case_that_is_not_written_right_is_an_error_with_its_line() {
    let wrong = |text: &str| match catalogue::parse("f", text) {
        Err(Error::Catalogue { line, why, .. }) => (line, why),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(wrong("class cosmetic").0, 1);
    assert_eq!(wrong(&with("tree\n")).1, "x lacks its layers");
    assert_eq!(wrong(&with("layer\n")).1, "x lacks its expectation");
    assert_eq!(wrong(&with("layer\n  door d\ntree\n")).1, "x: door is no member");
    assert_eq!(wrong(&with("layer\ntree\n  file a\n")).1, "x: file lacks an argument");
    assert_eq!(wrong(&with("layer\ntree\n  file \"a\n")), (7, "a quote is not closed".to_owned()));
    assert_eq!(wrong(&with("layer pack=rar\ntree\n")).1, "rar is no form of compression");
    assert_eq!(wrong(&with("layer\nrefuse\n  file a \"\"\n")).1, "after the refusal");
    assert_eq!(wrong(&with("needs luck\n")).1, "luck is nothing that a case can need");
    assert_eq!(wrong("case X\n").1, "\"X\" is no id");
    assert_eq!(wrong("case x\nclass grave\n"), (2, "grave is no class".to_owned()));
    let twice = "layer\ntree\n  file a \"\"\n  file a \"\"\n";
    assert_eq!(wrong(&with(twice)).1, "x: a is there twice");
    assert!(catalogue::parse("f", &with("layer\ntree\nor\nrefuse\n")).is_ok());
    assert!(matches!(catalogue::select(&["absent".to_owned()]), Err(Error::NoCase(_))));
}
