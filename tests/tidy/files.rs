//! What every file keeps to: its first line, its length, the length and the end of its lines.

use std::fs;

use crate::project::{files, is_rust, none, read, top};

const MAX_LINES: usize = 600;
const MAX_COLUMNS: usize = 100;
const MAX_README: usize = 160;

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
fn the_readme_is_short() {
    let lines = read("README.md".as_ref()).lines().count();
    let wrong =
        (lines > MAX_README).then(|| format!("README.md: {lines} lines, {MAX_README} are allowed"));
    none(wrong.into_iter().collect());
}
