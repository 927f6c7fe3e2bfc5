//! Sessions: commands in one store, and what they said.
//!
//! Invariant: what differs from run to run or from one file system to the next (the sandbox's
//! path, ages, bytes of directories and of the index) is replaced by a word in brackets, and
//! nothing else is.

use std::fmt::Write as _;
use std::process::Output;

use crate::sandbox::Sandbox;
use crate::{fixture, top};

/// A store and what was said.
pub struct Talk {
    pub sandbox: Sandbox,
    pub said: String,
}

impl Talk {
    pub fn new() -> Self {
        Self { sandbox: Sandbox::new(), said: String::new() }
    }

    /// Runs a command line (split at blanks; `FIX` stands for the fixtures).
    pub fn say(&mut self, line: &str) -> &mut Self {
        let output = self.sandbox.run(&split(line).iter().map(String::as_str).collect::<Vec<_>>());
        self.note(line, &output);
        self
    }

    pub fn note(&mut self, line: &str, output: &Output) {
        writeln!(self.said, "$ strata {line}").unwrap();
        self.said.push_str(&String::from_utf8_lossy(&output.stdout));
        for error in String::from_utf8_lossy(&output.stderr).lines() {
            writeln!(self.said, "! {error}").unwrap();
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => writeln!(self.said, "= {code}").unwrap(),
            None => panic!("{line}: {}", output.status),
        }
        self.said.push('\n');
    }

    pub fn transcript(&self) -> String {
        let here = self.sandbox.path().to_str().unwrap();
        let fixtures = top().join("tests/fixtures");
        let text = self.said.replace(fixtures.to_str().unwrap(), "FIX").replace(here, "[DIR]");
        text.lines().map(|line| steady(line) + "\n").collect()
    }
}

/// The words of a command line.
fn split(line: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| word.replace("FIX", fixture("").to_str().unwrap().trim_end_matches('/')))
        .collect()
}

/// A line without what changes by itself.
fn steady(line: &str) -> String {
    if let Some((before, rest)) = line.split_once("\"CreatedSince\":\"")
        && let Some((_, after)) = rest.split_once('"')
    {
        return format!("{before}\"CreatedSince\":\"[AGE]\"{after}");
    }
    let cells: Vec<&str> =
        line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    if cells.iter().any(|cell| cell.ends_with(" ago") || *cell == "CREATED") {
        let age = |cell: &str| cell.ends_with(" ago") || cell.starts_with("Up ");
        let cells = cells.iter().map(|cell| if age(cell) { "[AGE]" } else { cell });
        return cells.collect::<Vec<_>>().join("   ");
    }
    // The parts of `df`, which the compressor and the file system decide.
    const PARTS: [&str; 14] = [
        "contents",
        "headers",
        "directories",
        "trees",
        "names",
        "blobs",
        "uppers",
        "mounts",
        "leftovers",
        "images.json",
        "reserve",
        "index.db",
        "root",
        "TOTAL",
    ];
    match cells[..] {
        ["contents", files, size, _] => return format!("contents   {files}   {size}   [SIZE]"),
        ["contents", size, _] => return format!("contents   {size}   [SIZE]"),
        [part, _, _] if PARTS.contains(&part) => return format!("{part}   [SIZES]"),
        _ => {}
    }
    line.to_owned()
}
