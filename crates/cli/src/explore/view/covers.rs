//! What lies over the panes: help, facts, a file, a question.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{Paragraph, Wrap};

use super::{Theme, counted, framed, put, row};
use crate::explore::model::Model;
use crate::explore::model::filter::position;
use crate::explore::model::pager::{HEX_LINE, Pager, PagerMode};

const HELP: [(&str, &str); 20] = [
    ("Tab, z", "layers or tree; one of them alone"),
    ("arrows h j k l", "move; right opens, left closes"),
    ("Page, g G", "a page; first, last"),
    ("[ ]", "the layer below, above"),
    ("Enter Space", "open or close; Enter shows a file, follows a link"),
    ("i", "facts: owner, xattrs, digest, history, who else has it"),
    ("E C", "open all, close all"),
    ("c", "only changes, or the whole tree"),
    ("a", "changes since the base, or of one layer"),
    ("s", "by name or by size"),
    ("/", "filter: part of a name, *.glob, a/path; Esc clears"),
    ("x or m, u", "mark; unmark all"),
    ("e", "extract what is marked, or the path here"),
    ("t", "the image: totals, what is wasted"),
    ("in a file", "/ search, n N next and previous, x hex"),
    ("q, Ctrl-C", "back or leave; Ctrl-Z suspends"),
    ("A M D", "added, modified, removed by the layer (SIZE: what was)"),
    ("= .", "stored again, the same; changes below"),
    ("+IMG", "how many other images have the layer"),
    ("SIZE UNIQUE", "bytes of files; those that no one else holds"),
];

pub(super) fn help(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let inner = framed(" Help: any key goes back ", true, model.layout.cover(), frame);
    for (at, (key, text)) in HELP.iter().enumerate() {
        let Some(area) = row(inner, at) else { break };
        let key = Piece::styled(format!(" {key:<16}"), theme.tinted(Color::Cyan));
        put(frame, area, &Line::from(vec![key, Piece::raw(*text)]));
    }
}

pub(super) fn lines(
    title: &str,
    lines: &[(&'static str, String)],
    top: usize,
    model: &Model,
    theme: Theme,
    frame: &mut Frame<'_>,
) {
    let inner = framed(&format!(" {title}: q goes back "), true, model.layout.cover(), frame);
    let shown: Vec<Line<'_>> = lines
        .iter()
        .skip(top)
        .take(usize::from(inner.height))
        .map(|(label, text)| match label.is_empty() {
            true => Line::raw(text.as_str()),
            false => Line::from(vec![
                Piece::styled(format!("{label:<11}"), theme.label()),
                Piece::raw(text.as_str()),
            ]),
        })
        .collect();
    frame.render_widget(Paragraph::new(shown).wrap(Wrap { trim: false }), inner);
}

pub(super) fn replace(name: &str, model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let all = model.layout.cover();
    let area = Rect { y: all.y + all.height / 3, height: all.height.min(5), ..all };
    let inner = framed(" Replace? ", true, area, frame);
    let text = format!("{name} exists already.\nReplace it?  y: yes   n: no");
    let style = theme.tinted(Color::Yellow);
    frame.render_widget(Paragraph::new(text).style(style).wrap(Wrap { trim: false }), inner);
}

pub(super) fn file(pager: &Pager, model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let last = (pager.top() + pager.height as u64).min(pager.lines());
    let unit = if pager.mode() == PagerMode::Text { "lines" } else { "rows" };
    let title = format!(
        " {}  {}  {unit} {}-{last} of {} ",
        pager.title,
        counted(pager.size(), "byte"),
        (pager.top() + 1).min(last),
        pager.lines()
    );
    let inner = framed(&title, true, model.layout.cover(), frame);
    // A character has at most four bytes, a tab eight columns.
    let width = pager.left + usize::from(inner.width);
    let lines = match pager.window(width * 4) {
        Ok(lines) => lines,
        Err(error) => {
            let text = Line::styled(format!(" cannot read: {error}"), theme.tinted(Color::Red));
            return put(frame, inner, &text);
        }
    };
    for (at, line) in lines.iter().enumerate() {
        let Some(area) = row(inner, at) else { break };
        let drawn = match pager.mode() {
            PagerMode::Hex => hex_line(line.offset, &line.bytes, pager, theme),
            PagerMode::Text => text_line(line.offset, &line.bytes, pager),
        };
        put(frame, area, &drawn);
    }
}

/// Where the last hit is in a line, as far as it is in it.
fn hit_in(pager: &Pager, offset: u64, length: usize) -> std::ops::Range<usize> {
    let Some(hit) = pager.hit else { return 0..0 };
    let from = hit.saturating_sub(offset).min(length as u64) as usize;
    let end = (hit + pager.wanted.len() as u64).saturating_sub(offset).min(length as u64) as usize;
    from..end
}

fn text_line(offset: u64, bytes: &[u8], pager: &Pager) -> Line<'static> {
    let hit = hit_in(pager, offset, bytes.len());
    let found = Style::new().add_modifier(Modifier::REVERSED);
    let other = Style::new().add_modifier(Modifier::UNDERLINED);
    let mut pieces = Vec::new();
    let (mut column, mut at) = (0, 0);
    while at < bytes.len() {
        // The next stretch: the hit, another place that matches, or what lies between.
        let next = position(&bytes[at..], pager.wanted.to_string().as_bytes(), pager.any_case());
        let next = next.map_or(bytes.len(), |found| at + found);
        let (end, style) = if next > at {
            (next, Style::new())
        } else {
            let end = at + pager.wanted.len();
            (end, if at == hit.start { found } else { other })
        };
        let text = printable(&bytes[at..end], &mut column);
        pieces.push(Piece::styled(text, style));
        at = end;
    }
    scrolled(pieces, pager.left)
}

/// The pieces without their first columns.
fn scrolled(pieces: Vec<Piece<'static>>, mut left: usize) -> Line<'static> {
    let mut line = Line::default();
    for piece in pieces {
        let mut text: &str = &piece.content;
        while left > 0 {
            let Some(c) = text.chars().next() else { break };
            left = left.saturating_sub(Line::raw(c.to_string()).width());
            text = &text[c.len_utf8()..];
        }
        line.push_span(Piece::styled(text.to_owned(), piece.style));
    }
    line
}

/// Bytes as a terminal can show them: tabs as blanks, control characters as `^X`, what is no
/// UTF-8 as `\xNN`.
fn printable(bytes: &[u8], column: &mut usize) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let before = out.len();
            match c {
                '\t' => out.extend(std::iter::repeat_n(' ', 8 - *column % 8)),
                '\r' => {}
                c if c.is_ascii_control() => {
                    out.push('^');
                    out.push(char::from(c as u8 ^ 0x40));
                }
                c => out.push_str(&crate::look::render::escaped_char(c)),
            }
            *column += Line::raw(&out[before..]).width();
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
            *column += 4;
        }
    }
    out
}

fn hex_line(offset: u64, bytes: &[u8], pager: &Pager, theme: Theme) -> Line<'static> {
    let hit = hit_in(pager, offset, bytes.len());
    let style = |at: usize| match hit.contains(&at) {
        true => Style::new().add_modifier(Modifier::REVERSED),
        false => Style::new(),
    };
    let mut pieces = vec![Piece::styled(format!("{offset:08x}  "), theme.label())];
    for at in 0..HEX_LINE as usize {
        match bytes.get(at) {
            Some(byte) => pieces.push(Piece::styled(format!("{byte:02x}"), style(at))),
            None => pieces.push(Piece::raw("  ")),
        }
        pieces.push(Piece::raw(if at % 8 == 7 { "  " } else { " " }));
    }
    for (at, byte) in bytes.iter().enumerate() {
        let c = if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        pieces.push(Piece::styled(c.to_string(), style(at)));
    }
    Line::from(pieces)
}
