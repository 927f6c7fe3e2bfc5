//! The view's state and what each key does to it. Knows no terminal.
//!
//! ```text
//! key, click, size, end of a job -> Model::update -> Effect: view a file, extract, leave
//!                                   Model         -> view/ draws it
//! ```
//!
//! Files are read, and written, by the loop that asked for the effect; it tells the model the
//! outcome.
//!
//! Invariants: an update never blocks on a file; every key has an answer in every state; nothing
//! is extracted over something that exists unless the user said so to that very name.

pub(crate) mod filter;
pub(crate) mod layout;
pub(crate) mod pager;
pub(crate) mod rows;

use std::collections::BTreeSet;

use strata_analysis::image_tree::{PathId, Span};
use strata_tree::{Kind, TreePath};

use super::facts::ExploredImage;
use crate::look::render::escaped;
use filter::Filter;
use layout::{ClickTarget, ScreenLayout};
use pager::{Pager, PagerMode};
use rows::{Rows, Sort};

/// A key, as far as any means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Ctrl(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    Tab,
    Backspace,
}

/// What happened.
pub(crate) enum ModelEvent {
    Key(Key),
    /// Text from the clipboard.
    Paste(String),
    /// The mouse, in columns and rows of the screen.
    Click(u16, u16),
    Wheel {
        column: u16,
        row: u16,
        down: bool,
    },
    Resize(u16, u16),
    /// A file that was asked for.
    Viewed(Box<Pager>),
    /// What was to be extracted is there already under this name.
    Exists(Extract, String),
    /// A job has ended, or something could not be done.
    Told(String),
    /// The same in many lines.
    Reported(String, Vec<String>),
}

/// What the loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    Suspend,
    View(PathId),
    Extract(Extract),
}

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extract {
    /// One path, which is written under its own name, or several, under their whole paths.
    pub(crate) paths: BTreeSet<PathId>,
    pub(crate) marked: bool,
    /// How many layers are merged.
    pub(crate) layers: usize,
    /// As the user typed it.
    pub(crate) dest: String,
    /// The user has agreed to replace what is there.
    pub(crate) replace: bool,
}

/// The side that keys go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    Layers,
    Tree,
}

/// What a line is being typed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PromptKind {
    Filter,
    Search,
    Dest(Extract),
}

/// A line being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) asked: PromptKind,
    pub(crate) text: String,
}

/// What lies over the tree.
pub(crate) enum Cover {
    Help,
    /// Lines with a heading, and how far they are scrolled.
    Lines {
        title: String,
        lines: Vec<(&'static str, String)>,
        top: usize,
    },
    File(Box<Pager>),
    /// A yes or no before something is replaced.
    Replace(Extract, String),
}

/// All that the screen shows.
pub(crate) struct Model {
    pub(crate) image: ExploredImage,
    pub(crate) rows: Rows,
    pub(crate) layer: usize,
    /// The first layer on the screen.
    pub(crate) layer_top: usize,
    /// Changes are those since the base layer, not since the layer below.
    pub(crate) since_base: bool,
    pub(crate) pane: Pane,
    /// The tree takes the whole width.
    pub(crate) zoomed: bool,
    pub(crate) marked: BTreeSet<PathId>,
    pub(crate) filter: String,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) cover: Option<Cover>,
    /// What the last key led to, until the next.
    pub(crate) said: Option<String>,
    /// What runs beside, for the last line.
    pub(crate) running: Option<String>,
    pub(crate) layout: ScreenLayout,
}

impl Model {
    pub(crate) fn new(image: ExploredImage, width: u16, height: u16) -> Self {
        let layer = image.layers.len().saturating_sub(1);
        let rows = Rows::new(image.tree.clone(), Span::of(layer));
        let mut model = Self {
            image,
            rows,
            layer,
            layer_top: 0,
            since_base: false,
            pane: Pane::Tree,
            zoomed: false,
            marked: BTreeSet::new(),
            filter: String::new(),
            prompt: None,
            cover: None,
            said: None,
            running: None,
            layout: ScreenLayout::of(width, height, Pane::Tree, false),
        };
        model.relayout(width, height);
        model
    }

    /// Takes what happened; says what is to be done for it.
    pub(crate) fn update(&mut self, event: ModelEvent) -> Option<Effect> {
        match event {
            ModelEvent::Key(key) => return self.key(key),
            ModelEvent::Paste(text) => {
                if let Some(prompt) = &mut self.prompt {
                    prompt.text.extend(text.chars().filter(|c| !c.is_control()));
                    self.typed();
                }
            }
            ModelEvent::Resize(width, height) => self.relayout(width, height),
            ModelEvent::Click(column, row) => return self.click(column, row),
            ModelEvent::Wheel { column, row, down } => self.wheel(column, row, down),
            ModelEvent::Viewed(mut pager) => {
                pager.height = self.layout.cover_height();
                self.cover = Some(Cover::File(pager));
            }
            ModelEvent::Exists(extract, name) => self.cover = Some(Cover::Replace(extract, name)),
            ModelEvent::Told(text) => self.said = Some(text),
            ModelEvent::Reported(title, lines) => {
                let lines = lines.into_iter().map(|line| ("", line)).collect();
                self.cover = Some(Cover::Lines { title, lines, top: 0 });
            }
        }
        None
    }

    fn relayout(&mut self, width: u16, height: u16) {
        self.layout = ScreenLayout::of(width, height, self.pane, self.zoomed);
        self.rows.set_height(usize::from(self.layout.tree_rows()));
        if let Some(Cover::File(pager)) = &mut self.cover {
            pager.height = self.layout.cover_height();
            pager.go(pager.top());
        }
        self.show_layer();
    }

    fn show_layer(&mut self) {
        let height = usize::from(self.layout.layer_rows()).max(1);
        let lowest = (self.layer + 1).saturating_sub(height);
        self.layer_top = self.layer_top.clamp(lowest, self.layer.max(lowest));
        self.layer_top = self.layer_top.min(self.image.layers.len().saturating_sub(height));
    }

    fn key(&mut self, key: Key) -> Option<Effect> {
        self.said = None;
        match key {
            Key::Ctrl('c') => return Some(Effect::Quit),
            Key::Ctrl('z') => return Some(Effect::Suspend),
            _ => {}
        }
        if self.prompt.is_some() {
            return self.prompt_key(key);
        }
        match self.cover.take() {
            Some(Cover::Replace(extract, name)) => match key {
                Key::Char('y' | 'Y') => {
                    return Some(Effect::Extract(Extract { replace: true, ..extract }));
                }
                Key::Char('n' | 'N' | 'q') | Key::Esc | Key::Enter => {
                    self.said = Some(format!("{name} was left as it is"));
                }
                _ => self.cover = Some(Cover::Replace(extract, name)),
            },
            Some(cover) => self.cover_key(cover, key),
            None => return self.pane_key(key),
        }
        None
    }

    fn cover_key(&mut self, cover: Cover, key: Key) {
        let page = self.layout.cover_height();
        let leaves = matches!(key, Key::Char('q') | Key::Esc);
        self.cover = match cover {
            Cover::Help | Cover::Replace(..) => None,
            Cover::Lines { .. } if leaves || matches!(key, Key::Char('i' | 't') | Key::Enter) => {
                None
            }
            Cover::Lines { title, lines, top } => {
                let last = lines.len().saturating_sub(1);
                let top = match key {
                    Key::Up | Key::Char('k') => top.saturating_sub(1),
                    Key::Down | Key::Char('j') => top + 1,
                    Key::PageUp => top.saturating_sub(page),
                    Key::PageDown | Key::Char(' ') => top + page,
                    Key::Home | Key::Char('g') => 0,
                    Key::End | Key::Char('G') => last,
                    _ => top,
                };
                Some(Cover::Lines { title, lines, top: top.min(last) })
            }
            Cover::File(_) if leaves => None,
            Cover::File(mut pager) => {
                if let Err(error) = self.pager_key(&mut pager, key) {
                    self.said = Some(format!("cannot read {}: {error}", pager.title));
                }
                Some(Cover::File(pager))
            }
        };
    }

    fn pager_key(&mut self, pager: &mut Pager, key: Key) -> std::io::Result<()> {
        let page = pager.height.saturating_sub(1).max(1) as u64;
        let mut found = true;
        match key {
            Key::Up | Key::Char('k') => pager.up(1),
            Key::Down | Key::Char('j') | Key::Enter => pager.down(1),
            Key::PageUp | Key::Char('b') => pager.up(page),
            Key::PageDown | Key::Char(' ' | 'f') => pager.down(page),
            Key::Home | Key::Char('g') => pager.go(0),
            Key::End | Key::Char('G') => pager.go(u64::MAX),
            Key::Left | Key::Char('h') => pager.left = pager.left.saturating_sub(8),
            Key::Right | Key::Char('l') if pager.mode() == PagerMode::Text => pager.left += 8,
            Key::Char('x') => pager.toggle()?,
            Key::Char('n') if !pager.wanted.is_empty() => found = pager.find_next()?,
            Key::Char('N') if !pager.wanted.is_empty() => found = pager.find_previous()?,
            Key::Char('/') => {
                self.prompt = Some(Prompt { asked: PromptKind::Search, text: String::new() });
            }
            _ => {}
        }
        if !found {
            self.said = Some(format!("{:?} is not in this file", pager.wanted));
        }
        Ok(())
    }

    fn prompt_key(&mut self, key: Key) -> Option<Effect> {
        let prompt = self.prompt.as_mut()?;
        match key {
            Key::Char(c) => prompt.text.push(c),
            Key::Backspace => {
                prompt.text.pop();
            }
            Key::Ctrl('u') => prompt.text.clear(),
            Key::Ctrl('w') => {
                let kept = prompt.text.trim_end_matches(|c: char| c != '/' && c != ' ');
                let kept = if kept.len() == prompt.text.len() {
                    kept.trim_end_matches(['/', ' ']).trim_end_matches(|c: char| c != '/')
                } else {
                    kept
                };
                prompt.text.truncate(kept.len());
            }
            Key::Esc => {
                let prompt = self.prompt.take()?;
                if prompt.asked == PromptKind::Filter {
                    self.set_filter(String::new());
                }
                return None;
            }
            Key::Enter => return self.entered(),
            // The rows found can be walked while the filter is typed.
            Key::Up if prompt.asked == PromptKind::Filter => self.rows.up(1),
            Key::Down if prompt.asked == PromptKind::Filter => self.rows.down(1),
            _ => {}
        }
        self.typed();
        None
    }

    /// The line being typed is another.
    fn typed(&mut self) {
        if let Some(Prompt { asked: PromptKind::Filter, text }) = &self.prompt {
            let text = text.clone();
            self.set_filter(text);
        }
    }

    fn entered(&mut self) -> Option<Effect> {
        let Prompt { asked, text } = self.prompt.take()?;
        match asked {
            PromptKind::Filter => {}
            PromptKind::Search => {
                if let Some(Cover::File(mut pager)) = self.cover.take() {
                    if !text.is_empty() {
                        pager.wanted = text;
                        pager.hit = None;
                        self.cover_key(Cover::File(pager), Key::Char('n'));
                    } else {
                        self.cover = Some(Cover::File(pager));
                    }
                }
            }
            PromptKind::Dest(_) if text.trim().is_empty() => {}
            PromptKind::Dest(extract) => {
                return Some(Effect::Extract(Extract { dest: text, ..extract }));
            }
        }
        None
    }

    fn set_filter(&mut self, text: String) {
        if text != self.filter {
            self.rows.set_filter(Filter::new(&text));
            self.filter = text;
        }
    }

    fn pane_key(&mut self, key: Key) -> Option<Effect> {
        match key {
            Key::Char('q') => return Some(Effect::Quit),
            Key::Char('?') => self.cover = Some(Cover::Help),
            Key::Tab => {
                self.pane = if self.pane == Pane::Tree { Pane::Layers } else { Pane::Tree };
                self.relayout(self.layout.width, self.layout.height);
            }
            Key::Char('z') => {
                self.zoomed = !self.zoomed;
                self.relayout(self.layout.width, self.layout.height);
            }
            Key::Char('[') => self.set_layer(self.layer.saturating_sub(1)),
            Key::Char(']') => self.set_layer(self.layer + 1),
            Key::Char('a') => {
                self.since_base = !self.since_base;
                self.set_layer(self.layer);
            }
            Key::Char('c') => {
                let only = !self.rows.only_changes();
                self.rows.set_only_changes(only);
            }
            Key::Char('s') => {
                let by_name = self.rows.sort() == Sort::Name;
                self.rows.set_sort(if by_name { Sort::Size } else { Sort::Name });
            }
            Key::Char('/') => {
                let text = self.filter.clone();
                self.prompt = Some(Prompt { asked: PromptKind::Filter, text });
            }
            Key::Char('t') => self.show_totals(),
            Key::Char('u') => self.marked.clear(),
            Key::Char('E') => self.rows.set_all_open(true),
            Key::Char('C') => self.rows.set_all_open(false),
            Key::Char('e') => self.ask_dest(),
            Key::Esc => self.set_filter(String::new()),
            _ if self.pane == Pane::Layers => self.layer_key(key),
            _ => return self.tree_key(key),
        }
        None
    }

    fn layer_key(&mut self, key: Key) {
        let page = usize::from(self.layout.layer_rows());
        match key {
            Key::Up | Key::Char('k') => self.set_layer(self.layer.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.set_layer(self.layer + 1),
            Key::PageUp => self.set_layer(self.layer.saturating_sub(page)),
            Key::PageDown => self.set_layer(self.layer + page),
            Key::Home | Key::Char('g') => self.set_layer(0),
            Key::End | Key::Char('G') => self.set_layer(usize::MAX),
            Key::Enter | Key::Char('i') => self.show_layer_facts(),
            _ => {}
        }
    }

    fn tree_key(&mut self, key: Key) -> Option<Effect> {
        let (path, page) = (self.rows.current(), self.rows.height());
        match key {
            Key::Up | Key::Char('k') => self.rows.up(1),
            Key::Down | Key::Char('j') => self.rows.down(1),
            Key::PageUp => self.rows.up(page),
            Key::PageDown => self.rows.down(page),
            Key::Home | Key::Char('g') => self.rows.select(0),
            Key::End | Key::Char('G') => self.rows.select(usize::MAX),
            Key::Right | Key::Char('l') if self.rows.is_dir(path) => {
                if self.rows.is_open(path) {
                    self.rows.down(1);
                } else {
                    self.rows.set_open(path, true);
                }
            }
            Key::Left | Key::Char('h') => {
                if self.rows.is_dir(path) && self.rows.is_open(path) {
                    self.rows.set_open(path, false);
                } else {
                    let above = self.rows.tree().parent(path);
                    self.rows.reveal(above);
                }
            }
            Key::Enter | Key::Char(' ') if self.rows.is_dir(path) => {
                let open = self.rows.is_open(path);
                self.rows.set_open(path, !open);
            }
            Key::Enter | Key::Char('v') => return self.view(path),
            Key::Char('i') => self.show_facts(path),
            Key::Char('x' | 'm') => {
                if !self.marked.remove(&path) {
                    self.marked.insert(path);
                }
                self.rows.down(1);
            }
            _ => {}
        }
        None
    }

    /// Another layer, or the last.
    fn set_layer(&mut self, layer: usize) {
        self.layer = layer.min(self.image.layers.len().saturating_sub(1));
        self.rows.set_span(self.span());
        self.show_layer();
    }

    /// The layers whose changes are marked.
    pub(crate) fn span(&self) -> Span {
        let below = if self.since_base { self.layer.min(1) } else { self.layer };
        Span { below, to: self.layer + 1 }
    }

    fn view(&mut self, path: PathId) -> Option<Effect> {
        let (tree, span) = (self.rows.tree().clone(), self.rows.span());
        let version = tree.at(path, span.to).or_else(|| tree.at(path, span.below))?;
        match version.kind {
            Kind::Regular => return Some(Effect::View(path)),
            Kind::Symlink => {
                let target = tree.link(version).unwrap_or_default();
                self.follow(path, target);
            }
            _ => self.show_facts(path),
        }
        None
    }

    /// Goes where a symlink leads, as `chroot` would see it but for links on the way.
    fn follow(&mut self, path: PathId, target: &[u8]) {
        let tree = self.rows.tree();
        let mut from = match target.starts_with(b"/") {
            true => Vec::new(),
            false => tree.path(tree.parent(path)).as_bytes().to_vec(),
        };
        from.push(b'/');
        from.extend_from_slice(target);
        let found = TreePath::clamped(&from).ok().and_then(|path| tree.find(&path));
        let Some(found) = found.filter(|found| self.rows.exists(*found)) else {
            self.said = Some(format!("leads to {}, which is not in the image", escaped(target)));
            return;
        };
        if !self.rows.reveal(found) {
            self.set_filter(String::new());
        }
        if !self.rows.reveal(found) {
            self.rows.set_only_changes(false);
            self.rows.reveal(found);
        }
    }

    fn show_facts(&mut self, path: PathId) {
        let lines = self.image.facts(path, self.rows.span());
        self.cover = Some(Cover::Lines { title: "Facts".to_owned(), lines, top: 0 });
    }

    fn show_layer_facts(&mut self) {
        let (title, lines) = (format!("Layer {}", self.layer), self.image.layer_facts(self.layer));
        self.cover = Some(Cover::Lines { title, lines, top: 0 });
    }

    fn show_totals(&mut self) {
        let lines = self.image.totals();
        self.cover = Some(Cover::Lines { title: "Image".to_owned(), lines, top: 0 });
    }

    fn ask_dest(&mut self) {
        let (path, span) = (self.rows.current(), self.rows.span());
        let (marked, tree) = (!self.marked.is_empty(), self.rows.tree());
        let (paths, text) = match marked {
            true => (self.marked.clone(), "selection.tar".to_owned()),
            false if path == PathId::ROOT => {
                self.said = Some("mark what to extract, or use `strata export`".to_owned());
                return;
            }
            false => (BTreeSet::from([path]), escaped(tree.name(path)).into_owned()),
        };
        // What the layer removed is taken from the layers below it.
        let there = paths.iter().any(|path| tree.at(*path, span.to).is_some());
        let layers = if there { span.to } else { span.below };
        let extract = Extract { paths, marked, layers, dest: String::new(), replace: false };
        self.prompt = Some(Prompt { asked: PromptKind::Dest(extract), text: format!("./{text}") });
    }

    fn click(&mut self, column: u16, row: u16) -> Option<Effect> {
        if self.cover.is_some() || self.prompt.is_some() {
            return None;
        }
        match self.layout.target(column, row)? {
            ClickTarget::Layer(at) => {
                self.pane = Pane::Layers;
                self.set_layer(self.layer_top + at);
            }
            ClickTarget::Row(at) => {
                self.pane = Pane::Tree;
                let row = self.rows.window().0 + at;
                if row >= self.rows.len() {
                    return None;
                }
                let again = row == self.rows.cursor();
                self.rows.select(row);
                if again {
                    return self.tree_key(Key::Enter);
                }
            }
        }
        None
    }

    fn wheel(&mut self, column: u16, row: u16, down: bool) {
        if let Some(cover) = self.cover.take() {
            match cover {
                Cover::Help | Cover::Replace(..) => self.cover = Some(cover),
                Cover::Lines { .. } | Cover::File(_) => {
                    self.cover_key(cover, if down { Key::Down } else { Key::Up });
                }
            }
            return;
        }
        match (self.layout.target(column, row), down) {
            (Some(ClickTarget::Layer(_)), true) => self.set_layer(self.layer + 1),
            (Some(ClickTarget::Layer(_)), false) => self.set_layer(self.layer.saturating_sub(1)),
            (_, true) => self.rows.down(3),
            (_, false) => self.rows.up(3),
        }
    }
}
