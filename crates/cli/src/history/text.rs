//! The difference of one file's contents, unified, as `diff -u` writes it.
//!
//! Invariants: a file that is no text is not shown, only reported as different; on a terminal
//! control characters are escaped; the time for finding a short difference is bounded, after it a
//! longer one is shown, which is right too.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result};
use similar::{Algorithm, TextDiff};
use strata_content::FileTree;
use strata_tree::{Kind, Node};

use crate::look::escaped;

/// Larger files are not compared line by line.
const MOST: u64 = 32 << 20;

/// Where a NUL byte makes a file no text, as git looks for one.
const LOOKED_AT: usize = 8000;

/// How long lines are matched before a coarser way is taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file's bytes, and their label in the output; no bytes where there is no file.
pub(super) struct File {
    pub(super) label: String,
    pub(super) bytes: Option<Vec<u8>>,
}

impl File {
    /// Reads a file; `None` where it is too large.
    pub(super) fn read(tree: &FileTree, node: Option<&Node>, label: &str) -> Result<Self> {
        let Some(node) = node.filter(|node| node.stat.kind == Kind::Regular) else {
            return Ok(Self { label: "/dev/null".to_owned(), bytes: Some(Vec::new()) });
        };
        let label = label.to_owned();
        if node.stat.size > MOST {
            return Ok(Self { label, bytes: None });
        }
        let bytes = tree.read(node.id).with_context(|| format!("cannot read {label}"))?;
        Ok(Self { label, bytes: Some(bytes) })
    }

    fn text(&self) -> Option<&[u8]> {
        let bytes = self.bytes.as_deref()?;
        let head = &bytes[..bytes.len().min(LOOKED_AT)];
        (!head.contains(&0)).then_some(bytes)
    }
}

/// The unified difference; `None` where one of them is no text or too large.
pub(super) fn unified(old: &File, new: &File) -> Option<Vec<u8>> {
    let (before, after) = (old.text()?, new.text()?);
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Patience)
        .timeout(PATIENCE)
        .diff_lines(before, after);
    let mut out = Vec::new();
    let mut unified = diff.unified_diff();
    // Writing to a Vec cannot fail.
    let _ = unified.header(&old.label, &new.label).to_writer(&mut out);
    Some(out)
}

/// Writes it, or that the files differ.
pub(super) fn print(old: &File, new: &File, terminal: bool, out: &mut impl Write) -> Result<()> {
    let Some(text) = unified(old, new) else {
        return Ok(writeln!(out, "Binary files {} and {} differ", old.label, new.label)?);
    };
    if !terminal {
        return Ok(out.write_all(&text)?);
    }
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (body, end) = match line.strip_suffix(b"\n") {
            Some(body) => (body, "\n"),
            None => (line, ""),
        };
        let parts = body.split(|byte| *byte == b'\t').map(shown);
        write!(out, "{}{end}", parts.collect::<Vec<_>>().join("\t"))?;
    }
    Ok(())
}

/// Text as it is, but for what a terminal would obey.
fn shown(bytes: &[u8]) -> String {
    // Backslashes alone do no harm, and doubled they would not be the file's.
    bytes.split(|byte| *byte == b'\\').map(escaped).collect::<Vec<_>>().join("\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(label: &str, bytes: &[u8]) -> File {
        File { label: label.to_owned(), bytes: Some(bytes.to_vec()) }
    }

    fn printed(old: &[u8], new: &[u8], terminal: bool) -> String {
        let mut out = Vec::new();
        print(&file("a", old), &file("b", new), terminal, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_compared() {
        let text = printed(b"one\ntwo\nthree\n", b"one\n2\nthree\n", false);
        assert_eq!(text, "--- a\n+++ b\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
        assert!(printed(b"x", b"x\n", false).contains("\\ No newline at end of file"));
        assert_eq!(printed(b"x\n", b"x\n", false), "");
    }

    #[test]
    fn what_is_no_text_only_differs() {
        assert_eq!(printed(b"\0", b"x", false), "Binary files a and b differ\n");
        let large = File { label: "c".to_owned(), bytes: None };
        assert!(unified(&file("a", b""), &large).is_none());
    }

    #[test]
    fn terminals_obey_nothing() {
        let text = printed(b"", b"a\tb\\c\x1b[31m\n", true);
        assert!(text.ends_with("+a\tb\\c\\033[31m\n"), "{text}");
        assert!(printed(b"", b"\x1b\n", false).contains('\x1b'));
    }
}
