//! Progress of loads, checks and unpacking: a bar per layer on a terminal, quiet lines in a pipe.
//!
//! Invariant: everything goes to stderr, so that stdout holds the result alone.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use strata_layer::{Event, Progress};

use crate::told::tell;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShowProgress {
    /// Not at all.
    #[value(skip)]
    Nothing,
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// Lines, as in a pipe
    Plain,
    /// Bars; an error where there is no terminal
    Tty,
}

impl ShowProgress {
    /// Whether there are bars on a stream.
    pub(crate) fn is_drawn(self, is_terminal: bool) -> bool {
        match self {
            Self::Nothing | Self::Plain => false,
            Self::Auto | Self::Tty => is_terminal,
        }
    }

    fn on_stderr(self) -> bool {
        self.is_drawn(std::io::stderr().is_terminal())
    }
}

/// The listener for this run: bars on a terminal, lines in a pipe, only warnings if nothing
/// is to be shown.
pub(crate) fn listener(shown: ShowProgress) -> Box<dyn Progress> {
    match shown.on_stderr() {
        true => Box::new(Bars::default()),
        false => Box::new(Lines { quiet: shown == ShowProgress::Nothing }),
    }
}

/// A bar for what is read and measured, as long as that takes.
pub(crate) fn measuring(shown: ShowProgress) -> ProgressBar {
    if !shown.on_stderr() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(0).with_style(style(
        "Measuring [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
    ))
}

/// A bar for entries that are written, as long as that takes.
pub(crate) fn writing(shown: ShowProgress) -> ProgressBar {
    if !shown.on_stderr() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(0).with_style(style("Writing [{bar:30}] {pos}/{len} entries {eta}"))
}

/// A bar for unpacking `total` bytes of contents; a hidden one if there is none to be shown.
pub(crate) fn unpacking(shown: ShowProgress, total: u64) -> ProgressBar {
    if !shown.on_stderr() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    bar.set_style(style(
        "Unpacking [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
    ));
    bar
}

/// A line for reading an image from the index, which says what its user sets; a hidden one if
/// there is none to be shown.
pub(crate) fn reading(shown: ShowProgress) -> ProgressBar {
    if !shown.on_stderr() {
        return ProgressBar::hidden();
    }
    ProgressBar::no_length().with_style(style("{msg}"))
}

/// One bar a layer.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn bar(&self, layer: &str) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers
            .entry(layer.to_owned())
            .or_insert_with(|| {
                // Styled before it is added, for adding draws it.
                let bar = ProgressBar::no_length().with_style(style("{prefix:12}: {msg}"));
                self.all.add(bar.with_prefix(layer.to_owned()).with_message("Waiting"))
            })
            .clone()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Progress for Bars {
    fn event(&self, layer: &str, event: Event) {
        let bar = self.bar(layer);
        match event {
            Event::Waiting => bar.set_message("Waiting"),
            Event::Exists => bar.finish_with_message("Already exists"),
            Event::Started { total } => {
                let counts = "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
                match total {
                    Some(total) => {
                        bar.set_length(total);
                        bar.set_style(style(&format!(
                            "{{prefix:12}}: {{msg}} [{{bar:30}}] {counts}"
                        )));
                    }
                    None => bar.set_style(style(
                        "{prefix:12}: {msg} {decimal_bytes} {decimal_bytes_per_sec}",
                    )),
                }
                bar.set_message("Extracting");
            }
            Event::Read { bytes } => bar.set_position(bytes),
            Event::Done => {
                bar.set_style(style("{prefix:12}: {msg}"));
                bar.finish_with_message("Done");
            }
        }
    }

    fn warning(&self, layer: &str, text: &str) {
        self.all.suspend(|| warn(layer, text));
    }
}

/// One line when a layer is done.
struct Lines {
    quiet: bool,
}

impl Progress for Lines {
    fn event(&self, layer: &str, event: Event) {
        let what = match event {
            Event::Exists => "Already exists",
            Event::Done => "Done",
            Event::Waiting | Event::Started { .. } | Event::Read { .. } => return,
        };
        if !self.quiet {
            tell(format_args!("{layer}: {what}"));
        }
    }

    fn warning(&self, layer: &str, text: &str) {
        warn(layer, text);
    }
}

fn warn(layer: &str, text: &str) {
    tell(format_args!("warning: layer {layer}: {text}"));
}
