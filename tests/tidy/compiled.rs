//! Every file is part of a program: none is left behind when its `mod` goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::project::{files, is_rust, none, normal, read};

/// The file that `mod name` in `from` means, or the module itself if it is inline.
pub(crate) fn module_file(from: &Path, name: &str, given: Option<&str>) -> Vec<PathBuf> {
    let dir = from.parent().unwrap();
    if let Some(given) = given {
        return vec![normal(&dir.join(given))];
    }
    let stem = from.file_stem().unwrap().to_str().unwrap();
    let root = matches!(stem, "lib" | "main" | "mod" | "build")
        // Each file right below a tests directory is a program of its own.
        || dir.file_name().is_some_and(|dir| dir == "tests") && dir.parent().is_some_and(|up| {
            up == Path::new("") || up.parent() == Some(Path::new("crates"))
        });
    let base = if root { dir.to_owned() } else { dir.join(stem) };
    vec![base.join(format!("{name}.rs")), base.join(name).join("mod.rs")]
}

#[test]
fn every_file_is_compiled() {
    let all: BTreeSet<PathBuf> = files().into_iter().filter(|path| is_rust(path)).collect();
    // Cargo's own roots, and the tests that crates/cli names.
    let mut open: Vec<PathBuf> = all
        .iter()
        .filter(|path| {
            let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
            matches!(
                parts.as_slice(),
                ["crates", _, "src", "lib.rs" | "main.rs"]
                    | ["crates", _, "src", "bin", _]
                    | ["crates", _, "tests" | "benches" | "examples", _]
                    | ["crates", _, "tests", _, "main.rs"]
                    | ["crates", _, "build.rs"]
            )
        })
        .cloned()
        .collect();
    for line in read(Path::new("crates/cli/Cargo.toml")).lines() {
        if let Some(path) = line.strip_prefix("path = \"../../") {
            open.push(path.trim_end_matches('"').into());
        } else if let Some(path) = line.strip_prefix("path = \"") {
            open.push(Path::new("crates/cli").join(path.trim_end_matches('"')));
        }
    }
    // What a script gives to rustc itself.
    let scripts = read(Path::new("scripts/bench"));
    open.extend(all.iter().filter(|path| scripts.contains(path.to_str().unwrap())).cloned());
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let text = read(&path);
        let mut given = None;
        for line in text.lines().map(str::trim) {
            if let Some(path) = line.strip_prefix("#[path = \"") {
                given = path.split('"').next();
            }
            let declared = line.strip_suffix(';').and_then(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let at = words.iter().position(|word| *word == "mod")?;
                (at + 2 == words.len()).then(|| words[at + 1])
            });
            if let Some(name) = declared {
                open.extend(
                    module_file(&path, name, given.take())
                        .into_iter()
                        .filter(|file| all.contains(file)),
                );
            }
        }
    }
    let dead = all.difference(&reached).map(|path| format!("{}: not compiled", path.display()));
    none(dead.collect());
}
