//! The house rules, checked: which crate may use which, how long files and lines are, what every
//! file opens with, that every file is compiled, where `unsafe` and printing are allowed.
//!
//! Invariant: a rule with exceptions lists them here by file, each with its reason.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_LINES: usize = 600;
const MAX_COLUMNS: usize = 100;

/// What each crate may depend on: the arrows of the design.
const ARROWS: [(&str, &[&str]); 8] = [
    ("sha256", &[]),
    ("tree", &[]),
    ("union", &["tree"]),
    ("layer", &["sha256", "tree"]),
    ("image", &["layer", "tree"]),
    ("fuse", &["tree", "union"]),
    ("kernel", &["tree"]),
    ("cli", &["fuse", "image", "kernel", "layer", "tree", "union"]),
];

/// Where `unsafe` is allowed: one small module for each need.
const UNSAFE: [&str; 7] = [
    "crates/sha256/src/twin.rs",
    "crates/tree/src/file_handle.rs",
    "crates/tree/src/inode_flags.rs",
    "crates/tree/src/mmap.rs",
    "crates/union/src/writable/access_times.rs",
    "crates/cli/src/mounts/trim.rs",
    "crates/fuse/tests/common/mapping.rs",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files of the project, relative to its top; what is ignored is left out.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(top().join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            let skipped = ["target", ".git", "tests/fixtures"].iter().any(|s| path == Path::new(s));
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

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn read(path: &Path) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

/// Reports all that is wrong at once.
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A source's text without comments and the contents of string literals, line by line.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if first == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        rest = &rest[skip..];
    }
    out
}

/// The part of a library's file that is in the library: up to its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn is_test(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    text.contains("/tests/")
        || text.starts_with("tests/")
        || text.ends_with("/tests.rs")
        || text.ends_with("/testkit.rs")
}

#[test]
fn the_parser_of_this_test_sees_code_alone() {
    let text = "let a = \"x // y \\\" z\"; // unsafe\nlet b = '\"'; r#\"un\nsafe\"#; c";
    assert_eq!(code(text), "let a = ; \nlet b = ; \n; c");
}

#[test]
fn files_open_with_their_model_and_are_not_too_long() {
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_rust(path)) {
        let text = read(path);
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: does not open with `//! `", path.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, {MAX_LINES} are allowed", path.display()));
        }
    }
    none(wrong);
}

#[test]
fn lines_are_not_too_long_and_end_cleanly() {
    let mut wrong = Vec::new();
    for path in files() {
        let name = path.to_str().unwrap();
        // Scripts have their own eye for a long pipeline; generated files have no eye at all.
        let script = name.starts_with("scripts/") || path.extension().is_none();
        if name.contains("snapshots/") || name == "Cargo.lock" {
            continue;
        }
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let at = format!("{name}:{}", number + 1);
            if line.chars().count() > MAX_COLUMNS && is_rust(&path) && !script {
                wrong.push(format!("{at}: longer than {MAX_COLUMNS} columns"));
            }
            if line.ends_with([' ', '\t', '\r']) {
                wrong.push(format!("{at}: blanks at its end"));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            wrong.push(format!("{name}: no newline at its end"));
        }
    }
    none(wrong);
}

#[test]
fn crates_depend_one_way() {
    let mut wrong = Vec::new();
    let found: BTreeSet<String> = fs::read_dir(top().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "each crate has its arrows");
    for (name, allowed) in ARROWS {
        let manifest = read(&Path::new("crates").join(name).join("Cargo.toml"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let Some(other) = dependency.strip_prefix("strata-") else { continue };
            if section == "[dependencies]" && !allowed.contains(&other) {
                wrong.push(format!("crates/{name} must not depend on {other}"));
            }
            if line.contains("path") {
                wrong.push(format!("crates/{name}: {line}: by path, not by the workspace"));
            }
        }
    }
    none(wrong);
}

/// The file that `mod name` in `from` means, or the module itself if it is inline.
fn module_file(from: &Path, name: &str, given: Option<&str>) -> Vec<PathBuf> {
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

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
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

#[test]
fn unsafe_is_where_it_is_audited() {
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_rust(path)) {
        let name = path.to_str().unwrap();
        let text = read(path);
        let code = code(&text);
        let uses = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == "unsafe");
        match (uses, UNSAFE.contains(&name)) {
            (true, false) => wrong.push(format!("{name}: unsafe, and not in the list")),
            (false, true) => wrong.push(format!("{name}: in the list, and without unsafe")),
            (true, true) if !text.contains("// SAFETY:") => {
                wrong.push(format!("{name}: unsafe without a SAFETY line"));
            }
            _ => {}
        }
    }
    none(wrong);
}

#[test]
fn libraries_do_not_print_panic_or_read_the_environment() {
    let banned = [
        "println!",
        "print!(",
        "eprintln!",
        "eprint!(",
        "panic!(",
        "process::exit",
        "env::var",
        "env::args",
        "unimplemented!",
        "todo!",
    ];
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_rust(path) && !is_test(path)) {
        let name = path.to_str().unwrap();
        let library = name.starts_with("crates/")
            && !name.starts_with("crates/cli/")
            && !name.contains("/examples/");
        let text = read(path);
        for (number, line) in code(without_tests(&text)).lines().enumerate() {
            for word in banned.iter().filter(|_| library) {
                if line.contains(word) {
                    wrong.push(format!("{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    none(wrong);
}

#[test]
fn nothing_is_left_to_do_or_to_debug() {
    // Written in halves, for this file is read too.
    let banned =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!("), concat!("HA", "CK")];
    let mut wrong = Vec::new();
    for path in files() {
        let name = path.to_str().unwrap();
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    none(wrong);
}

#[test]
fn scripts_can_be_run_and_parsed() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut all = files();
    all.push("tests/fixtures/make".into());
    for path in all {
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        let Some(first) = text.lines().next().and_then(|line| line.strip_prefix("#!")) else {
            continue;
        };
        let name = path.display();
        seen += 1;
        if fs::metadata(top().join(&path)).unwrap().permissions().mode() & 0o111 != 0o111 {
            wrong.push(format!("{name}: cannot be run"));
        }
        if text.lines().nth(1).is_none_or(|line| !line.starts_with(['#', '"'])) {
            wrong.push(format!("{name}: its second line does not say what it is for"));
        }
        if first.ends_with("bash") {
            let parsed = Command::new("bash").arg("-n").arg(top().join(&path)).output().unwrap();
            if !parsed.status.success() {
                wrong.push(format!("{name}: {}", String::from_utf8_lossy(&parsed.stderr)));
            }
        }
    }
    assert!(seen >= 8, "only {seen} scripts were found");
    none(wrong);
}
