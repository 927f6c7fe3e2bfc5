//! One line on standard error that is written again and again, on a terminal alone.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line.
pub(crate) struct StatusLine {
    shown: Option<Instant>,
    is_terminal: bool,
}

impl StatusLine {
    pub(crate) fn new() -> Self {
        Self { shown: None, is_terminal: std::io::stderr().is_terminal() }
    }

    /// Shows a text, five times a second at most.
    pub(crate) fn show(&mut self, text: &str) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(200));
        if self.is_terminal && due {
            // Progress that cannot be shown is no failure.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            self.shown = Some(Instant::now());
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
