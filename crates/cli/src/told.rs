//! An error as one line for a person, and a line on standard error.
//!
//! The model: the `Display` of an error of the libraries says everything, its causes included,
//! because it also stands alone in a log or in a report of `fsck`; and it has its causes as
//! `source()`, for programs that look for one. Some other crates do the same, some do not.
//!
//! Invariants: each cause is told once, the outermost first; a line is one write, so that lines of
//! processes that share a terminal or a log do not mix.

use std::fmt::Display;
use std::io::{self, Write};

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
    io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap_or_default();
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
}
