//! Where things are on the screen, from its size alone.
//!
//! ```text
//! title
//! layers │ tree         narrower than 70 columns: the pane with the keys, alone
//! ───────│
//! layer  │
//! keys, or what was said
//! ```
//!
//! Invariant: every size has a layout, if only of nothing.

use ratatui::layout::{Constraint, Layout as Split, Rect};

use super::Pane;

/// Below this both panes do not fit.
const NARROW: u16 = 70;

/// The parts of the screen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScreenLayout {
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) title: Rect,
    /// The list of layers, with its border; empty if it is hidden.
    pub(crate) layers: Rect,
    /// Facts of the layer, below the list.
    pub(crate) facts: Rect,
    /// The tree, with its border; empty if it is hidden.
    pub(crate) tree: Rect,
    pub(crate) status: Rect,
}

/// What was clicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClickTarget {
    /// A layer of those on the screen.
    Layer(usize),
    /// A row of those on the screen.
    Row(usize),
}

impl ScreenLayout {
    pub(crate) fn of(width: u16, height: u16, pane: Pane, zoomed: bool) -> Self {
        let all = Rect { x: 0, y: 0, width, height };
        let [title, body, status] =
            Split::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
                .areas(all);
        let (left, tree) = match (pane, zoomed || width < NARROW) {
            (Pane::Tree, true) => (Rect::default(), body),
            (Pane::Layers, true) => (body, Rect::default()),
            (_, false) => {
                // A third, and what a wide screen can spare.
                let [left, tree] = Split::horizontal([
                    Constraint::Length((width / 3).clamp(28, 60)),
                    Constraint::Min(0),
                ])
                .areas(body);
                (left, tree)
            }
        };
        let facts_height = if left.height >= 16 { 9 } else { 0 };
        let [layers, facts] =
            Split::vertical([Constraint::Min(0), Constraint::Length(facts_height)]).areas(left);
        Self { width, height, title, layers, facts, tree, status }
    }

    /// Rows of the tree: without borders and heading.
    pub(crate) fn tree_rows(&self) -> u16 {
        self.tree.height.saturating_sub(3)
    }

    /// Rows of the list of layers.
    pub(crate) fn layer_rows(&self) -> u16 {
        self.layers.height.saturating_sub(3)
    }

    /// What covers the panes, with its border.
    pub(crate) fn cover(&self) -> Rect {
        Rect { y: 1, height: self.height.saturating_sub(2), x: 0, width: self.width }
    }

    /// Lines in it.
    pub(crate) fn cover_height(&self) -> usize {
        usize::from(self.cover().height.saturating_sub(2))
    }

    pub(crate) fn target(&self, column: u16, row: u16) -> Option<ClickTarget> {
        let within = |area: Rect, rows: u16| {
            let first = area.y + 2;
            let inside = (area.x..area.x + area.width).contains(&column);
            (inside && row >= first && row - first < rows).then(|| usize::from(row - first))
        };
        let layer = within(self.layers, self.layer_rows()).map(ClickTarget::Layer);
        layer.or_else(|| within(self.tree, self.tree_rows()).map(ClickTarget::Row))
    }
}
