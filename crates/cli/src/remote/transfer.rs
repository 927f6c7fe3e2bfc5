//! What docker shows while layers come or go: one line a layer, or one line a change.
//!
//! On a terminal each layer has a line that changes, with a bar as docker draws it. In a pipe
//! each change of status is a line of its own, and bars are not shown.
//!
//! Invariants: everything is on stdout, as docker has it, or on stderr where stdout holds
//! another result; a status that is shown already is not shown again; with `--quiet` nothing is
//! shown but warnings, which go to stderr.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use strata_image::PushEvent;
use strata_layer::{Event, Progress};

use crate::progress::ShowProgress;
use crate::told::tell;
use crate::units::fine_size;

/// Docker's lines, and where they go.
pub(crate) struct Transfer {
    stream: Stream,
    output: Output,
    layers: Mutex<Layers>,
}

/// The layers by name, and their names in the order of their lines.
#[derive(Default)]
struct Layers {
    known: HashMap<String, Layer>,
    order: Vec<String>,
    /// The lines are history; no bar is drawn any more.
    settled: bool,
}

impl Layers {
    fn of(&mut self, name: &str) -> &mut Layer {
        if !self.known.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.known.entry(name.to_owned()).or_default()
    }
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// They are what the command is for.
    Out,
    /// They are said by the way.
    Err,
}

enum Output {
    Nothing,
    Lines,
    Bars { all: MultiProgress, columns: u16 },
}

#[derive(Default)]
struct Layer {
    status: String,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

impl Transfer {
    /// For this run.
    pub(crate) fn new(shown: ShowProgress, stream: Stream) -> Self {
        let (is_terminal, target, size) = match stream {
            Stream::Out => {
                let out = std::io::stdout();
                let size = rustix::termios::tcgetwinsize(&out);
                (out.is_terminal(), ProgressDrawTarget::stdout(), size)
            }
            Stream::Err => {
                let err = std::io::stderr();
                let size = rustix::termios::tcgetwinsize(&err);
                (err.is_terminal(), ProgressDrawTarget::stderr(), size)
            }
        };
        let output = match (shown, shown.is_drawn(is_terminal)) {
            (ShowProgress::Nothing, _) => Output::Nothing,
            (ShowProgress::Auto | ShowProgress::Plain | ShowProgress::Tty, false) => Output::Lines,
            (ShowProgress::Auto | ShowProgress::Plain | ShowProgress::Tty, true) => {
                let all = MultiProgress::with_draw_target(target);
                // What is no known width is docker's 80.
                Output::Bars { all, columns: size.map_or(80, |size| size.ws_col) }
            }
        };
        Self { stream, output, layers: Mutex::default() }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.output {
            Output::Nothing => {}
            Output::Lines | Output::Bars { .. } => self.suspended(|| self.print(text)),
        }
    }

    /// A line of what came of it, below the lines of the layers, which stay as they are.
    pub(crate) fn result(&self, text: &str) {
        let mut layers = self.lock();
        if let (Output::Bars { all, .. }, false) = (&self.output, layers.settled) {
            layers.settled = true;
            // Drawn for the last time as lines: what is written later would come above bars.
            all.clear().unwrap_or_default();
            for name in &layers.order {
                if let Some(layer) = layers.known.get(name) {
                    self.print(&format!("{name}: {}", layer.status));
                }
            }
        }
        drop(layers);
        if !matches!(self.output, Output::Nothing) {
            self.print(text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A closed stream is no reason to stop: what is being done is done for the store.
    fn print(&self, text: &str) {
        match self.stream {
            Stream::Out => writeln!(std::io::stdout(), "{text}").unwrap_or_default(),
            Stream::Err => tell(text),
        }
    }

    fn suspended(&self, act: impl FnOnce()) {
        match &self.output {
            Output::Bars { all, .. } => all.suspend(act),
            Output::Nothing | Output::Lines => act(),
        }
    }

    /// What a layer is at.
    pub(crate) fn status(&self, layer: &str, text: &str, is_last: bool) {
        let mut layers = self.lock();
        let known = layers.of(layer);
        if known.status == text {
            return;
        }
        text.clone_into(&mut known.status);
        match &self.output {
            Output::Nothing => {}
            Output::Lines => self.print(&format!("{layer}: {text}")),
            Output::Bars { all, .. } => {
                let bar = known.bar.get_or_insert_with(|| new_bar(all, layer));
                match is_last {
                    true => bar.finish_with_message(text.to_owned()),
                    false => bar.set_message(text.to_owned()),
                }
            }
        }
    }

    /// How far a layer is.
    pub(crate) fn progress(&self, layer: &str, text: &str, bytes: u64, total: u64) {
        let Output::Bars { all, columns } = &self.output else { return };
        let mut layers = self.lock();
        let known = layers.of(layer);
        text.clone_into(&mut known.status);
        let bar = known.bar.get_or_insert_with(|| new_bar(all, layer));
        bar.set_message(format!("{text} {}", drawn(bytes, total, *columns)));
    }

    fn set_total(&self, layer: &str, total: Option<u64>) {
        self.lock().of(layer).total = total;
    }

    fn total(&self, layer: &str) -> Option<u64> {
        self.lock().known.get(layer)?.total
    }

    fn is_at(&self, layer: &str, text: &str) -> bool {
        self.lock().known.get(layer).is_some_and(|known| known.status == text)
    }

    /// Something that a person should know.
    pub(crate) fn warn(&self, text: &str) {
        self.suspended(|| tell(format_args!("warning: {text}")));
    }
}

fn new_bar(all: &MultiProgress, layer: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}: {msg}");
    let bar =
        ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    all.add(bar.with_prefix(layer.to_owned()))
}

/// Docker's bar (`jsonmessage.JSONProgress`): 50 wide, and only on a terminal wider than 110.
fn drawn(bytes: u64, total: u64, columns: u16) -> String {
    if total == 0 {
        return format!("{:>8}", fine_size(bytes));
    }
    let half = (bytes.min(total).saturating_mul(50) / total) as usize;
    let counts = format!("{:>8}/{}", fine_size(bytes), fine_size(total));
    if columns <= 110 {
        return counts;
    }
    format!("[{}>{}] {counts}", "=".repeat(half), " ".repeat(50 - half))
}

/// The words of a pull.
impl Progress for Transfer {
    fn event(&self, layer: &str, event: Event) {
        match event {
            // This comes once for the line to be there, and again when its turn has come.
            Event::Waiting if self.is_known(layer) => {}
            Event::Waiting => self.status(layer, "Pulling fs layer", false),
            Event::Exists => self.status(layer, "Already exists", true),
            Event::Started { total } => self.set_total(layer, total),
            Event::Read { bytes } => match self.total(layer) {
                Some(total) if bytes >= total => {
                    if !self.is_at(layer, "Extracting") && !self.is_at(layer, "Download complete") {
                        self.status(layer, "Verifying Checksum", false);
                        self.status(layer, "Download complete", false);
                        self.progress(layer, "Extracting", total, total);
                    }
                }
                total => self.progress(layer, "Downloading", bytes, total.unwrap_or_default()),
            },
            Event::Done => self.status(layer, "Pull complete", true),
        }
    }

    fn warning(&self, layer: &str, text: &str) {
        match layer {
            "" => self.warn(text),
            layer => self.warn(&format!("layer {layer}: {text}")),
        }
    }
}

impl Transfer {
    /// The words of a push.
    pub(crate) fn pushing(&self, layer: &str, event: PushEvent<'_>) {
        match event {
            PushEvent::Preparing => self.status(layer, "Preparing", false),
            PushEvent::Exists => self.status(layer, "Layer already exists", true),
            PushEvent::Mounted(from) => self.status(layer, &format!("Mounted from {from}"), true),
            PushEvent::Skipped => self.status(layer, "Skipped foreign layer", true),
            PushEvent::Sending { bytes, total } => self.progress(layer, "Pushing", bytes, total),
            PushEvent::Pushed => self.status(layer, "Pushed", true),
        }
    }

    /// The words of a copy.
    pub(crate) fn copying(&self, layer: &str, event: PushEvent<'_>) {
        match event {
            PushEvent::Sending { bytes, total } => self.progress(layer, "Copying", bytes, total),
            PushEvent::Pushed => self.status(layer, "Copied", true),
            other => self.pushing(layer, other),
        }
    }

    fn is_known(&self, layer: &str) -> bool {
        self.lock().known.contains_key(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_dockers() {
        let arrow = |n: usize| format!("[{}>{}]", "=".repeat(n), " ".repeat(50 - n));
        for (bytes, total, columns, text) in [
            (0, 1000, 120, format!("{}       0B/1kB", arrow(0))),
            (500, 1000, 111, format!("{}     500B/1kB", arrow(25))),
            (12_345_678, 45_678_901, 200, format!("{}  12.35MB/45.68MB", arrow(13))),
            (1000, 1000, 120, format!("{}      1kB/1kB", arrow(50))),
            (2000, 1000, 120, format!("{}      2kB/1kB", arrow(50))),
            (500, 1000, 110, "    500B/1kB".to_owned()),
            (999_999, 0, 120, "   1000kB".trim_start_matches(' ').to_owned()),
        ] {
            assert_eq!(drawn(bytes, total, columns).trim_start(), text.trim_start(), "{bytes}");
        }
    }
}
