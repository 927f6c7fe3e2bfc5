//! The layers on the left, the tree on the right.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{Paragraph, Wrap};
use strata_analysis::image_tree::{PathId, SpanChange};
use strata_tree::Kind;

use super::{Theme, counted, framed, put, row, shortened};
use crate::explore::model::rows::{Sort, TreeRow};
use crate::explore::model::{Model, Pane};
use crate::look::render::{escaped, mode_string};
use crate::units::size;

/// The list of layers.
pub(super) fn layers(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = model.layout.layers;
    if area.is_empty() {
        return;
    }
    let focus = model.pane == Pane::Layers;
    let inner = framed(" Layers ", focus, area, frame);
    let heading = Line::styled("  #   SIZE +IMG STEP", theme.label());
    row(inner, 0).into_iter().for_each(|area| put(frame, area, &heading));
    let listed = model.image.layers.iter().enumerate().skip(model.layer_top);
    for (at, (number, layer)) in listed.take(usize::from(model.layout.layer_rows())).enumerate() {
        let Some(area) = row(inner, at + 1) else { break };
        let is_marked = model.span().layers().contains(&number) && number != model.layer;
        let mark = if number == model.layer {
            '>'
        } else if is_marked {
            '+'
        } else {
            ' '
        };
        let text = format!(
            "{mark}{number:>2} {:>6} {:>4} {}",
            size(layer.size),
            layer.other_images,
            layer.created_by
        );
        let room = usize::from(area.width);
        let text = format!("{:<room$}", shortened(&text, room));
        let style = selected(number == model.layer, focus);
        // What lies above the chosen layer is not in the tree.
        let style = if number > model.layer { style.add_modifier(Modifier::DIM) } else { style };
        put(frame, area, &Line::styled(text, style));
    }
}

fn selected(is: bool, focus: bool) -> Style {
    match (is, focus) {
        (true, true) => Style::new().add_modifier(Modifier::REVERSED),
        (true, false) => Style::new().add_modifier(Modifier::BOLD),
        (false, _) => Style::new(),
    }
}

/// The chosen layer in words.
pub(super) fn layer_facts(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = model.layout.facts;
    let Some(layer) = model.image.layers.get(model.layer).filter(|_| !area.is_empty()) else {
        return;
    };
    let inner = framed(&format!(" Layer {} ", model.layer), false, area, frame);
    let total = model.rows.total(PathId::ROOT);
    let label =
        |label, text: String| Line::from(vec![Piece::styled(label, theme.label()), text.into()]);
    let lines = vec![
        label("Diff id ", layer.diff_id.short()),
        label("Held by ", counted(layer.other_images as u64, "other image")),
        label("Changes ", total.changes.to_string()),
        label("Brought ", format!("{}, hid {}", size(total.brought), size(total.hidden))),
    ];
    let used = lines.len() as u16;
    frame.render_widget(Paragraph::new(lines), inner);
    let rest = Rect {
        y: inner.y + used.min(inner.height),
        height: inner.height.saturating_sub(used),
        ..inner
    };
    let step = Paragraph::new(layer.created_by.as_str()).wrap(Wrap { trim: true });
    frame.render_widget(step, rest);
}

/// The columns before the names, by the room that there is.
struct Columns {
    mode: bool,
    owner: bool,
    sizes: bool,
}

impl Columns {
    fn of(width: u16) -> Self {
        Self { mode: width >= 64, owner: width >= 76, sizes: width >= 34 }
    }

    fn heading(&self, only_changes: bool) -> String {
        let mut text = "   ".to_owned();
        if self.mode {
            text.push_str("MODE       ");
        }
        if self.owner {
            text.push_str("    OWNER ");
        }
        if self.sizes {
            text.push_str(if only_changes { "   NEW    HID " } else { "  SIZE UNIQUE " });
        }
        text.push_str("NAME");
        text
    }
}

/// The tree.
pub(super) fn tree(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = model.layout.tree;
    if area.is_empty() {
        return;
    }
    let focus = model.pane == Pane::Tree;
    let inner = framed(&tree_title(model), focus, area, frame);
    let columns = Columns::of(inner.width);
    let heading = Line::styled(columns.heading(model.rows.only_changes()), theme.label());
    row(inner, 0).into_iter().for_each(|area| put(frame, area, &heading));
    let footer = Line::styled(tree_footer(model), Modifier::BOLD);
    if let Some(area) = row(area, usize::from(area.height).saturating_sub(1)) {
        put(frame, Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area }, &footer);
    }
    let (first, rows) = model.rows.window();
    for (at, shown) in rows.iter().enumerate() {
        let Some(area) = row(inner, at + 1) else { break };
        let here = first + at == model.rows.cursor();
        let mut line = tree_row(shown, &columns, model, theme);
        // To the edge, so that the cursor is a whole bar.
        let gap = usize::from(area.width).saturating_sub(line.width());
        line.push_span(" ".repeat(gap));
        put(frame, area, &line.patch_style(selected(here, focus)));
    }
    if rows.len() == 1 && model.rows.found() == Some(0) {
        let none = Line::styled("   nothing matches; Esc clears the filter", Modifier::DIM);
        row(inner, 2).into_iter().for_each(|area| put(frame, area, &none));
    }
}

fn tree_title(model: &Model) -> String {
    let span = model.rows.span();
    let layers = match (span.below, span.to) {
        (below, to) if below + 1 == to => format!("layer {below}"),
        (below, to) => format!("layers {below}-{}", to.saturating_sub(1)),
    };
    let mut title = match model.rows.only_changes() {
        true => format!(" Changes of {layers} "),
        false => format!(" Tree, changes of {layers} "),
    };
    if model.rows.sort() == Sort::Size {
        title.push_str("by size ");
    }
    title
}

/// Bytes in six columns; nothing for none, for most directories hide or share nothing.
fn bytes(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { size(bytes) }
}

/// What is marked and filtered, for the lower border: the upper one may be full.
fn tree_footer(model: &Model) -> String {
    let mut footer = String::new();
    if !model.marked.is_empty() {
        footer.push_str(&format!(" [{} marked] ", model.marked.len()));
    }
    if let Some(found) = model.rows.found() {
        footer.push_str(&format!(" [{}: {found} found] ", model.filter));
    }
    footer
}

fn tree_row(row: &TreeRow, columns: &Columns, model: &Model, theme: Theme) -> Line<'static> {
    let (rows, path) = (&model.rows, row.path);
    let (tree, span) = (rows.tree(), rows.span());
    let (change, total) = (rows.change(path), rows.total(path));
    let letter = match change {
        Some(SpanChange::Added) => 'A',
        Some(SpanChange::Modified(_)) => 'M',
        Some(SpanChange::Removed) => 'D',
        Some(SpanChange::Again) => '=',
        None if total.changes > 0 => '.',
        None => ' ',
    };
    let style = theme.change(change);
    let mark = if model.marked.contains(&path) { '*' } else { ' ' };
    let mut before = String::new();
    let version = tree.at(path, span.to).or_else(|| tree.at(path, span.below));
    if let Some(version) = version {
        if columns.mode {
            before.push_str(&format!("{} ", mode_string(&version.stat(1))));
        }
        if columns.owner {
            before.push_str(&format!("{:>9} ", format!("{}:{}", version.uid, version.gid)));
        }
    }
    if columns.sizes {
        let (left, right) = match rows.only_changes() {
            true => (total.brought, total.hidden),
            // What was there: nothing is left to be counted.
            false if change == Some(SpanChange::Removed) => (total.hidden, 0),
            false => (total.size, total.unique()),
        };
        let of_file = version.is_some_and(|v| matches!(v.kind, Kind::Regular | Kind::Directory));
        match of_file {
            true => before.push_str(&format!("{:>6} {:>6} ", bytes(left), bytes(right))),
            false => before.push_str(&" ".repeat(14)),
        }
    }
    let open = match rows.has_children(path) {
        true if rows.is_open(path) => "▾ ",
        true => "▸ ",
        false => "  ",
    };
    let mut name = match path == PathId::ROOT {
        true => "/".to_owned(),
        false => escaped(tree.name(path)).into_owned(),
    };
    let mut pieces = vec![
        Piece::styled(format!("{mark}{letter} "), style.add_modifier(Modifier::BOLD)),
        Piece::raw(before),
        Piece::raw("  ".repeat(usize::from(row.depth).min(40))),
        Piece::raw(open),
    ];
    if rows.is_dir(path) && path != PathId::ROOT {
        name.push('/');
    }
    let is_dir = if rows.is_dir(path) { Modifier::BOLD } else { Modifier::empty() };
    pieces.push(Piece::styled(name, style.add_modifier(is_dir)));
    if let Some(target) = version.and_then(|version| tree.link(version)) {
        let target = format!(" -> {}", escaped(target));
        pieces.push(Piece::styled(target, theme.tinted(Color::Blue)));
    }
    Line::from(pieces)
}
