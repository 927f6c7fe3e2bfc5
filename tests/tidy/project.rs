//! The files of the project, as all rules of this test see them.
//!
//! Invariant: paths are relative to the project's top; what git ignores is not seen.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The project's top; `scripts/counts` names another one.
pub(crate) fn top() -> PathBuf {
    if let Some(other) = std::env::var_os("STRATA_COUNTS_OF") {
        return PathBuf::from(other).canonicalize().unwrap();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files of the project, relative to its top; what is ignored is left out.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(top().join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            let skipped =
                ["target", ".git", "tests/fixtures", "crates/fuzz/corpus", "crates/fuzz/found"]
                    .iter()
                    .any(|s| path == Path::new(s));
            if skipped {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "the project was not found");
    found
}

pub(crate) fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

/// Reports all that is wrong at once.
pub(crate) fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

pub(crate) fn is_test(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    text.contains("/tests/")
        || text.starts_with("tests/")
        || text.starts_with("crates/testkit/")
        || text.ends_with("/tests.rs")
        || text.ends_with("/testkit.rs")
}

pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
