//! `strata explore`: an image in a terminal, layer by layer.
//!
//! ```text
//! facts: the image, read once -> model: state, keys -> view: draws it
//!                                  │ effects
//!                                  └> this loop: views files, extracts, leaves
//! ```
//!
//! [`screen`] takes the terminal and gives it back; [`mod@print`] prints the same without one.
//!
//! Invariants: the loop waits for events and draws after them, it never polls while nothing runs;
//! an image is leased, and none of it is changed.

mod extract;
mod facts;
mod model;
mod print;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ratatui::Frame;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use strata_analysis::image_tree::{PathId, Span};

use crate::context::{Context, Format};
use crate::look::render::escaped;
use facts::ExploredImage;
use model::filter::Filter;
use model::pager::Pager;
use model::{Effect, Key, Model, ModelEvent};
use print::Printed;
use screen::TerminalScreen;
use view::Theme;

/// How often the loop looks for the end of a job while it waits for keys.
const WHILE_RUNNING: Duration = Duration::from_millis(50);

/// Explore an image in the terminal, layer by layer
///
/// Layers on the left, the tree that they make on the right, with what each layer added (A),
/// modified (M) and removed (D), how large directories are and how much of that no other image or
/// layer holds. Files can be read and extracted. Press ? for the keys. NO_COLOR is respected.
#[derive(Debug, Args)]
pub(crate) struct ExploreArgs {
    /// The image
    #[arg(value_name = "REF")]
    reference: String,
    /// Print the tree instead: mark, mode, owner, bytes, unique bytes and path; with
    /// --format json more
    #[arg(long)]
    print: bool,
    /// Print the tree as it is with this layer, counted from the base, 0 [default: the top one]
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// Print only what the layer changed
    #[arg(long)]
    changes: bool,
    /// Print only names that match a part of a name, a glob, or with a slash those of a path
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// Take clicks and the wheel; selecting text then needs Shift
    #[arg(long)]
    mouse: bool,
}

/// Shows the image until the user leaves.
///
/// # Errors
/// There is no such image, or standard output is no terminal.
pub(crate) fn run(context: &Context, args: &ExploreArgs, out: &mut dyn Write) -> Result<()> {
    let json = context.format == Format::Json;
    let prints =
        args.print || json || args.layer.is_some() || args.changes || args.filter.is_some();
    if !prints && !std::io::stdout().is_terminal() {
        bail!("explore needs a terminal; --print or --format json writes the same facts elsewhere");
    }
    if !prints {
        return show(context, args);
    }
    let image = ExploredImage::open(context, &args.reference, &mut |_, _| {})?;
    let top = image.layers.len().saturating_sub(1);
    let layer = args.layer.unwrap_or(top);
    if layer > top {
        bail!("{} has no layer {layer}; its layers are 0 to {top}", args.reference);
    }
    let printed = Printed {
        image: &image,
        span: Span::of(layer),
        only_changes: args.changes,
        filter: args.filter.as_deref().and_then(Filter::new),
    };
    if json { printed.json(out) } else { printed.lines(out) }
}

fn show(context: &Context, args: &ExploreArgs) -> Result<()> {
    let bar = crate::progress::reading(context.shown);
    let image = ExploredImage::open(context, &args.reference, &mut |read, count| {
        bar.set_message(format!("{}: read {read} of {count} layers", args.reference));
        bar.tick();
    });
    bar.finish_and_clear();
    let image = image?;
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = TerminalScreen::take(args.mouse).context("cannot take the terminal")?;
    let (width, height) = screen.size()?;
    let mut explorer = Explorer { model: Model::new(image, width, height), job: None };
    explorer.run(&mut screen, Theme { colours }).context("the terminal does not answer")
}

struct Explorer {
    model: Model,
    /// How the job that runs will have gone.
    job: Option<Receiver<ModelEvent>>,
}

impl Explorer {
    fn run(&mut self, screen: &mut TerminalScreen, theme: Theme) -> std::io::Result<()> {
        loop {
            screen.draw(|frame| draw(&mut self.model, theme, frame))?;
            if let Some(event) = self.ended() {
                self.model.update(event);
                continue;
            }
            if self.job.is_some() && !event::poll(WHILE_RUNNING)? {
                continue;
            }
            // All that has come meanwhile, for one drawing.
            loop {
                let effect = match translate(event::read()?) {
                    Some(event) => self.model.update(event),
                    None => None,
                };
                match effect {
                    Some(Effect::Quit) => return Ok(()),
                    Some(Effect::Suspend) => screen.suspend()?,
                    Some(other) => self.act(other),
                    None => {}
                }
                if !event::poll(Duration::ZERO)? {
                    break;
                }
            }
        }
    }

    /// The end of the job, if it has come.
    fn ended(&mut self) -> Option<ModelEvent> {
        let event = match self.job.as_ref()?.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Ok(event) => event,
            Err(TryRecvError::Disconnected) => ModelEvent::Told("extracting broke off".to_owned()),
        };
        self.job = None;
        self.model.running = None;
        Some(event)
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::View(path) => {
                let event = self.view(path);
                self.model.update(event);
            }
            Effect::Extract(_) if self.job.is_some() => {
                let text = "wait until the other extraction has ended".to_owned();
                self.model.update(ModelEvent::Told(text));
            }
            Effect::Extract(extract) => {
                let (tree, name) =
                    (Arc::clone(&self.model.image.tree), self.model.image.name.clone());
                let dest = extract.dest.clone();
                let (end, ended) = channel();
                let run = move || {
                    // Nobody listens where the view has been left.
                    let _ = end.send(extract::run(&tree, &name, extract));
                };
                match std::thread::Builder::new().spawn(run) {
                    Ok(_) => {
                        self.model.running = Some(format!("extracting to {dest} ..."));
                        self.job = Some(ended);
                    }
                    Err(error) => {
                        let text = format!("cannot start a thread to extract {dest}: {error}");
                        self.model.update(ModelEvent::Told(text));
                    }
                }
            }
            Effect::Quit | Effect::Suspend => {}
        }
    }

    fn view(&self, path: PathId) -> ModelEvent {
        let (tree, span) = (&self.model.image.tree, self.model.span());
        let version = tree.at(path, span.to).or_else(|| tree.at(path, span.below));
        let path = escaped(tree.path(path).as_bytes()).into_owned();
        let Some(version) = version else {
            return ModelEvent::Told(format!("/{path} is not there"));
        };
        let file = tree.open(version).map_err(std::io::Error::other);
        match file.and_then(|file| Pager::new(format!("/{path}"), file)) {
            Ok(pager) => ModelEvent::Viewed(Box::new(pager)),
            Err(error) => ModelEvent::Told(format!("cannot read /{path}: {error}")),
        }
    }
}

/// Draws the model at the size that the terminal has now: it gets smaller before it says so.
fn draw(model: &mut Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    if (area.width, area.height) != (model.layout.width, model.layout.height) {
        model.update(ModelEvent::Resize(area.width, area.height));
    }
    view::draw(model, theme, frame);
}

/// What the terminal says, as the model knows it.
fn translate(event: event::Event) -> Option<ModelEvent> {
    Some(match event {
        event::Event::Key(key) if key.kind != KeyEventKind::Release => {
            ModelEvent::Key(self::key(key)?)
        }
        event::Event::Paste(text) => ModelEvent::Paste(text),
        event::Event::Resize(width, height) => ModelEvent::Resize(width, height),
        event::Event::Mouse(MouseEvent { kind, column, row, .. }) => match kind {
            MouseEventKind::Down(MouseButton::Left) => ModelEvent::Click(column, row),
            MouseEventKind::ScrollDown => ModelEvent::Wheel { column, row, down: true },
            MouseEventKind::ScrollUp => ModelEvent::Wheel { column, row, down: false },
            _ => return None,
        },
        _ => return None,
    })
}

fn key(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Ctrl(c),
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}
