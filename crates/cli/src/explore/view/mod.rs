//! Draws the model: nothing here changes it.
//!
//! [`panes`] has the layers and the tree, [`covers`] what lies over them. What an image says is
//! escaped before it comes here, or here.
//!
//! Invariants: any size can be drawn, if only in part; every mark that has a colour is a letter
//! too, and nothing depends on colour alone.

mod covers;
mod panes;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{Block, BorderType, Clear};
use strata_analysis::image_tree::SpanChange;

use super::model::{Cover, Model, PromptKind};
use crate::units::{counted, percent, size};

/// How things look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    /// Colours, not only bold, dim and reversed.
    pub(crate) colours: bool,
}

impl Theme {
    fn tinted(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn label(self) -> Style {
        self.tinted(Color::Cyan).add_modifier(Modifier::DIM)
    }

    fn change(self, change: Option<SpanChange>) -> Style {
        match change {
            Some(SpanChange::Added) => self.tinted(Color::Green),
            Some(SpanChange::Modified(_)) => self.tinted(Color::Yellow),
            Some(SpanChange::Removed) => self.tinted(Color::Red).add_modifier(Modifier::DIM),
            Some(SpanChange::Again) => self.tinted(Color::Magenta),
            None => Style::new(),
        }
    }
}

/// Draws everything.
pub(crate) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    title(model, frame);
    match &model.cover {
        Some(Cover::File(pager)) => covers::file(pager, model, theme, frame),
        cover => {
            panes::layers(model, theme, frame);
            panes::layer_facts(model, theme, frame);
            panes::tree(model, theme, frame);
            match cover {
                Some(Cover::Help) => covers::help(model, theme, frame),
                Some(Cover::Lines { title, lines, top }) => {
                    covers::lines(title, lines, *top, model, theme, frame);
                }
                Some(Cover::Replace(_, name)) => covers::replace(name, model, theme, frame),
                Some(Cover::File(_)) | None => {}
            }
        }
    }
    status(model, theme, frame);
}

fn title(model: &Model, frame: &mut Frame<'_>) {
    let image = &model.image;
    let bytes: u64 = image.layers.iter().map(|layer| layer.size).sum();
    let right = format!(
        " {} in {}, {} ({}) wasted ",
        size(bytes),
        counted(image.layers.len() as u64, "layer"),
        size(image.efficiency.wasted),
        percent(image.efficiency.wasted, bytes)
    );
    let area = model.layout.title;
    let room = usize::from(area.width).saturating_sub(right.chars().count());
    let left = shortened(&format!(" {}", image.name), room);
    let line = format!("{left:<room$}{right}");
    put(frame, area, &Line::styled(line, Modifier::REVERSED));
}

const KEYS: &str = " ? help  Tab layers/tree  Enter open  / filter  c changes  e extract  q quit";

fn status(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = model.layout.status;
    let line = if let Some(prompt) = &model.prompt {
        let asked = match &prompt.asked {
            PromptKind::Filter => "Filter".to_owned(),
            PromptKind::Search => "Search".to_owned(),
            PromptKind::Dest(extract) if extract.marked => {
                let marked = counted(extract.paths.len() as u64, "marked path");
                format!("Extract {marked} to (.tar or directory)")
            }
            PromptKind::Dest(_) => "Extract to (.tar or path)".to_owned(),
        };
        let label = format!(" {asked}: ");
        // The end of what is typed stays in sight.
        let room = usize::from(area.width).saturating_sub(label.chars().count() + 1);
        let skip = prompt.text.chars().count().saturating_sub(room);
        let text: String = prompt.text.chars().skip(skip).collect();
        let at = label.chars().count() + Line::raw(text.as_str()).width();
        if area.height > 0 {
            frame.set_cursor_position((area.x + (at as u16).min(area.width), area.y));
        }
        Line::from(vec![Piece::styled(label, Modifier::BOLD), Piece::raw(text)])
    } else if let Some(said) = &model.said {
        Line::styled(format!(" {said}"), theme.tinted(Color::Yellow).add_modifier(Modifier::BOLD))
    } else if let Some(running) = &model.running {
        Line::styled(format!(" {running}"), Modifier::BOLD)
    } else if let Some(Cover::File(_)) = &model.cover {
        Line::styled(
            " q back  / search  n N next, previous  x hex/text  arrows, Page, g G",
            Style::new(),
        )
    } else {
        Line::raw(KEYS)
    };
    put(frame, area, &line);
}

/// Draws a line, cut at the area's width.
fn put(frame: &mut Frame<'_>, area: Rect, line: &Line<'_>) {
    if area.height > 0 {
        frame.buffer_mut().set_line(area.x, area.y, line, area.width);
    }
}

/// The `at`th row inside an area, if it has one.
fn row(area: Rect, at: usize) -> Option<Rect> {
    let at = u16::try_from(at).ok().filter(|at| *at < area.height)?;
    Some(Rect { y: area.y + at, height: 1, ..area })
}

/// A frame with a heading around an area; gives what is inside.
fn framed(title: &str, focus: bool, area: Rect, frame: &mut Frame<'_>) -> Rect {
    let style = if focus { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let border = if focus { BorderType::Thick } else { BorderType::Plain };
    let block = Block::bordered().border_type(border).title(Line::styled(title.to_owned(), style));
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    inner
}

/// At most `room` columns of a text, the end of a longer one marked.
fn shortened(text: &str, room: usize) -> String {
    if Line::raw(text).width() <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if Line::raw(short.as_str()).width() >= room {
            short.pop();
            break;
        }
    }
    if room > 0 {
        short.push('…');
    }
    short
}
