//! An error as one line for a person, and a line on standard error.
//!
//! The model: the `Display` of an error of the libraries says everything, its causes included,
//! because it also stands alone in a log or in a report of `fsck`; and it has its causes as
//! `source()`, for programs that look for one. Some other crates do the same, some do not.
//!
//! Invariants: each cause is told once, the outermost first; a line is one write, so that lines of
//! processes that share a terminal or a log do not mix; what an image or a registry says of itself
//! does nothing to the terminal.

use std::fmt::Display;
use std::io::{self, Write};

use crate::look::render::escaped_char;

/// The error and its causes, those left out that it has told already.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !tells(&text, &cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Writes `text` and the end of its line to standard error. A closed one is no reason to stop.
pub(crate) fn tell(text: impl Display) {
    let text = format!("{text}\n");
    io::stderr().write_all(harmless(&text).as_bytes()).unwrap_or_default();
}

/// The text with everything escaped that a terminal obeys, but for ends of lines and tabs: there
/// are texts of several lines.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c => escaped_char(c),
    };
    text.chars().map(shown).collect()
}

fn tells(text: &str, cause: &str) -> bool {
    text.ends_with(cause) || text.contains(&format!(": {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[derive(Debug, thiserror::Error)]
    #[error("reading {0}: {1}; try again")]
    struct Both(&'static str, #[source] std::io::Error);

    #[test]
    fn each_cause_is_told_once() {
        let io = || std::io::Error::other("the disk is gone");
        let error = anyhow::Error::new(Both("x", io())).context("cannot load");
        assert_eq!(told(&error), "cannot load: reading x: the disk is gone; try again");
        assert_eq!(format!("{error:#}").matches("gone").count(), 2);

        let plain = Err::<(), _>(io()).context("cannot load").unwrap_err();
        assert_eq!(told(&plain), "cannot load: the disk is gone");
        assert_eq!(told(&anyhow!("a").context("ba").context("c: a")), "c: a: ba");
    }

    #[test]
    fn no_text_moves_the_cursor() {
        for (text, shown) in [
            ("one\n\ttwo: \\n \u{fc}", "one\n\ttwo: \\n \u{fc}"),
            ("linux\x1b[31mRED", "linux\\033[31mRED"),
            (
                "a/\x1b]0;pwn\x07\r\u{9b}\u{202e}",
                "a/\\033]0;pwn\\007\\015\\302\\233\\342\\200\\256",
            ),
        ] {
            assert_eq!(harmless(text), shown);
            assert_eq!(harmless(shown), shown);
        }
    }
}
