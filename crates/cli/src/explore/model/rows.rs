//! The tree as rows: what is expanded, filtered and sorted, with a cursor and a window.
//!
//! ```text
//! image, span of layers -> totals      when the layer changes
//! filter                -> kept        when a letter is typed
//! expanded, sorted      -> rows        when a directory is opened or closed
//! ```
//!
//! Rows are numbers of paths and depths; names and sizes are looked up for those on the screen
//! alone. Each directory's order is computed when it is first shown and kept.
//!
//! Invariants: the cursor is on a row; the window holds the cursor; a change of what is shown
//! leaves the cursor on its path, or on the nearest directory above that is still shown.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use strata_analysis::image_tree::{ImageTree, PathId, Span, SpanChange, Total, Totals};

use super::filter::Filter;

/// Changes in a directory up to which it opens by itself where only changes are shown.
const OPENS_ITSELF: u32 = 40;

/// One line of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeRow {
    pub(crate) path: PathId,
    pub(crate) depth: u16,
}

/// The order of a directory's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// By name bytes.
    Name,
    /// The largest first.
    Size,
}

/// Why a path is shown under a filter.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    itself: bool,
    below: bool,
    above: bool,
}

/// The tree on the screen.
pub(crate) struct Rows {
    tree: Arc<ImageTree>,
    span: Span,
    totals: Totals,
    only_changes: bool,
    sort: Sort,
    filter: Option<Filter>,
    kept: Vec<Kept>,
    /// Expanded by hand where nothing opens by itself.
    open: Vec<bool>,
    /// Opened or closed by hand where something does.
    toggled: Vec<bool>,
    sorted: HashMap<PathId, Arc<[PathId]>>,
    rows: Vec<TreeRow>,
    cursor: usize,
    top: usize,
    height: usize,
}

impl Rows {
    pub(crate) fn new(tree: Arc<ImageTree>, span: Span) -> Self {
        let mut open = vec![false; tree.len()];
        open[PathId::ROOT.index()] = true;
        let mut rows = Self {
            totals: tree.totals(span),
            toggled: vec![false; tree.len()],
            tree,
            span,
            only_changes: false,
            sort: Sort::Name,
            filter: None,
            kept: Vec::new(),
            open,
            sorted: HashMap::new(),
            rows: Vec::new(),
            cursor: 0,
            top: 0,
            height: 1,
        };
        rows.lay();
        rows
    }

    pub(crate) fn tree(&self) -> &Arc<ImageTree> {
        &self.tree
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }

    pub(crate) fn total(&self, path: PathId) -> &Total {
        self.totals.of(path)
    }

    pub(crate) fn only_changes(&self) -> bool {
        self.only_changes
    }

    pub(crate) fn sort(&self) -> Sort {
        self.sort
    }

    pub(crate) fn change(&self, path: PathId) -> Option<SpanChange> {
        self.tree.change(path, self.span)
    }

    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the cursor is.
    pub(crate) fn current(&self) -> PathId {
        self.rows.get(self.cursor).map_or(PathId::ROOT, |row| row.path)
    }

    /// The rows on the screen, with the number of the first.
    pub(crate) fn window(&self) -> (usize, &[TreeRow]) {
        let to = (self.top + self.height).min(self.rows.len());
        (self.top, &self.rows[self.top.min(to)..to])
    }

    /// How many paths the filter finds; `None` without one.
    pub(crate) fn found(&self) -> Option<usize> {
        self.filter.as_ref().map(|_| self.kept.iter().filter(|kept| kept.itself).count())
    }

    /// What a row weighs where rows are sorted by it.
    pub(crate) fn weight(&self, path: PathId) -> u64 {
        let total = self.totals.of(path);
        if self.only_changes { total.brought + total.hidden } else { total.size }
    }

    pub(crate) fn set_span(&mut self, span: Span) {
        if span != self.span {
            self.span = span;
            self.totals = self.tree.totals(span);
            self.reset();
        }
    }

    pub(crate) fn set_only_changes(&mut self, only: bool) {
        self.only_changes = only;
        self.reset();
    }

    pub(crate) fn set_sort(&mut self, sort: Sort) {
        self.sort = sort;
        self.sorted.clear();
        self.lay();
    }

    pub(crate) fn set_filter(&mut self, filter: Option<Filter>) {
        self.filter = filter;
        self.reset();
        // A match is better than a directory above it.
        if self.filter.is_some() && !self.kept[self.current().index()].itself {
            let first = self.rows.iter().position(|row| self.kept[row.path.index()].itself);
            self.select(first.unwrap_or(0));
        }
    }

    pub(crate) fn set_height(&mut self, height: usize) {
        self.height = height.max(1);
        self.select(self.cursor);
    }

    /// Moves the cursor to a row, or the last.
    pub(crate) fn select(&mut self, row: usize) {
        self.cursor = row.min(self.rows.len().saturating_sub(1));
        let lowest = (self.cursor + 1).saturating_sub(self.height);
        self.top = self.top.clamp(lowest, self.cursor.max(lowest));
        self.top = self.top.min(self.rows.len().saturating_sub(self.height));
    }

    pub(crate) fn up(&mut self, by: usize) {
        self.select(self.cursor.saturating_sub(by));
    }

    pub(crate) fn down(&mut self, by: usize) {
        self.select(self.cursor.saturating_add(by));
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    /// Whether it is, or was before the span, a directory.
    pub(crate) fn is_dir(&self, path: PathId) -> bool {
        let version = self.tree.at(path, self.span.to);
        let version = version.or_else(|| self.tree.at(path, self.span.below));
        version.is_some_and(|version| version.kind.is_dir())
    }

    /// Whether anything would show below it.
    pub(crate) fn has_children(&self, path: PathId) -> bool {
        self.tree.children(path).iter().any(|kid| self.is_kept(*kid))
    }

    pub(crate) fn is_open(&self, path: PathId) -> bool {
        let itself = if self.filter.is_some() {
            self.kept[path.index()].below
        } else if self.only_changes {
            path == PathId::ROOT || self.totals.of(path).changes <= OPENS_ITSELF
        } else {
            return self.open[path.index()];
        };
        itself != self.toggled[path.index()]
    }

    /// Opens or closes a directory.
    pub(crate) fn set_open(&mut self, path: PathId, open: bool) {
        self.note_open(path, open);
        self.lay();
    }

    /// Opens or closes all of them.
    pub(crate) fn set_all_open(&mut self, open: bool) {
        for path in self.tree.paths() {
            self.note_open(path, open || path == PathId::ROOT);
        }
        self.lay();
    }

    fn note_open(&mut self, path: PathId, open: bool) {
        if self.is_open(path) == open {
            return;
        }
        let by_hand = self.filter.is_none() && !self.only_changes;
        let table = if by_hand { &mut self.open } else { &mut self.toggled };
        table[path.index()] = !table[path.index()];
    }

    /// Whether it is there, or the span removed it, whatever the filter.
    pub(crate) fn exists(&self, path: PathId) -> bool {
        let total = self.totals.of(path);
        total.entries > 0 || total.changes > 0
    }

    /// Opens all above a path and puts the cursor there; `false` if it is not shown.
    pub(crate) fn reveal(&mut self, path: PathId) -> bool {
        if !self.is_kept(path) {
            return false;
        }
        let mut above = path;
        while above != PathId::ROOT {
            above = self.tree.parent(above);
            self.note_open(above, true);
        }
        self.lay();
        let row = self.rows.iter().position(|row| row.path == path);
        row.map(|row| self.select(row)).is_some()
    }

    /// What is shown has changed: what was opened and closed by hand is forgotten.
    fn reset(&mut self) {
        self.toggled.fill(false);
        self.sorted.clear();
        self.kept.clear();
        if let Some(filter) = &self.filter {
            let found = filter.matches(&self.tree, |path| self.is_shown(path));
            self.kept = vec![Kept::default(); self.tree.len()];
            for path in self.tree.paths() {
                let above = self.kept[self.tree.parent(path).index()];
                let kept = &mut self.kept[path.index()];
                kept.itself = found[path.index()];
                kept.above = above.itself || above.above;
            }
            for path in self.tree.paths().rev() {
                let Kept { itself, below, .. } = self.kept[path.index()];
                if path != PathId::ROOT && (itself || below) {
                    self.kept[self.tree.parent(path).index()].below = true;
                }
            }
        }
        self.lay();
    }

    /// Whether it is there, or the span removed it; of changes alone, whether one is there.
    fn is_shown(&self, path: PathId) -> bool {
        let total = self.totals.of(path);
        if self.only_changes { total.changes > 0 } else { total.entries > 0 || total.changes > 0 }
    }

    fn is_kept(&self, path: PathId) -> bool {
        if !self.is_shown(path) {
            return false;
        }
        let Some(kept) = self.kept.get(path.index()) else { return true };
        kept.itself || kept.below || kept.above
    }

    /// A directory's names in the order of the screen.
    fn order(&mut self, dir: PathId) -> Arc<[PathId]> {
        if let Some(known) = self.sorted.get(&dir) {
            return Arc::clone(known);
        }
        let kids = self.tree.children(dir).iter().copied();
        let mut kids: Vec<PathId> = kids.filter(|kid| self.is_kept(*kid)).collect();
        if self.sort == Sort::Size {
            kids.sort_by_cached_key(|kid| Reverse(self.weight(*kid)));
        }
        let kids: Arc<[PathId]> = kids.into();
        self.sorted.insert(dir, Arc::clone(&kids));
        kids
    }

    /// Computes the rows again.
    fn lay(&mut self) {
        let mut stays = self.current();
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let mut todo = vec![TreeRow { path: PathId::ROOT, depth: 0 }];
        while let Some(row) = todo.pop() {
            rows.push(row);
            if self.is_open(row.path) {
                let depth = row.depth.saturating_add(1);
                let kids = self.order(row.path);
                todo.extend(kids.iter().rev().map(|kid| TreeRow { path: *kid, depth }));
            }
        }
        self.rows = rows;
        let at = loop {
            match self.rows.iter().position(|row| row.path == stays) {
                None if stays != PathId::ROOT => stays = self.tree.parent(stays),
                found => break found.unwrap_or(0),
            }
        };
        self.select(at);
    }
}
