//! `strata diff --stat`: differences counted by directory.
//!
//! Invariants: every difference is counted in one row; the bytes of a file with several names are
//! counted once on each side.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use strata_analysis::history::Difference;
use strata_tree::{Kind, Node, NodeId, TreePath};

use super::words::{path_json, shown};
use crate::{table, units};

/// The counts of one directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    added: u64,
    removed: u64,
    changed: u64,
    more: u64,
    less: u64,
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.added += other.added;
        self.removed += other.removed;
        self.changed += other.changed;
        self.more += other.more;
        self.less += other.less;
    }

    /// `+1.2MB -3kB`.
    fn bytes(&self) -> String {
        let part = |sign: &str, bytes: u64| match bytes {
            0 => String::new(),
            bytes => format!("{sign}{}", units::size(bytes)),
        };
        let (more, less) = (part("+", self.more), part("-", self.less));
        [more, less].iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    }

    fn json(&self) -> Value {
        json!({
            "added": self.added, "removed": self.removed, "changed": self.changed,
            "bytes_added": self.more, "bytes_removed": self.less,
        })
    }
}

/// The counts so far.
pub(super) struct DiffStat {
    depth: usize,
    rows: BTreeMap<TreePath, Row>,
    /// Files with several names that were counted, on either side.
    seen: [HashSet<NodeId>; 2],
}

impl DiffStat {
    /// Counts directories down to `depth` names below `top`.
    pub(super) fn new(top: &TreePath, depth: usize) -> Self {
        let depth = top.depth() + depth;
        Self { depth, rows: BTreeMap::new(), seen: [HashSet::new(), HashSet::new()] }
    }

    pub(super) fn count(&mut self, one: &Difference) {
        let mut row = Row::default();
        match (&one.old, &one.new) {
            (None, _) => row.added = 1,
            (_, None) => row.removed = 1,
            _ => row.changed = 1,
        }
        if one.facts.data() || row.changed == 0 {
            row.less = self.bytes(0, one.old.as_ref());
            row.more = self.bytes(1, one.new.as_ref());
        }
        let mut dir = TreePath::root();
        let depth = one.path.depth().saturating_sub(1).min(self.depth);
        one.path.names().take(depth).for_each(|name| dir.push(name));
        self.rows.entry(dir).or_default().add(&row);
    }

    fn bytes(&mut self, side: usize, node: Option<&Node>) -> u64 {
        match node {
            Some(node) if node.stat.kind == Kind::Regular => {
                let new = node.stat.nlink < 2 || self.seen[side].insert(node.id);
                if new { node.stat.size } else { 0 }
            }
            _ => 0,
        }
    }

    fn total(&self) -> Row {
        let mut total = Row::default();
        self.rows.values().for_each(|row| total.add(row));
        total
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(dir, row)| {
            let mut value = row.json();
            value["directory"] = path_json(dir);
            value
        });
        json!({ "directories": rows.collect::<Vec<_>>(), "total": self.total().json() })
    }

    pub(super) fn print(&self, out: &mut impl Write) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut lines =
            vec![["DIRECTORY", "ADDED", "REMOVED", "CHANGED", "BYTES"].map(String::from)];
        let cells = |name: String, row: &Row| {
            let number = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
            [name, number(row.added), number(row.removed), number(row.changed), row.bytes()]
        };
        lines.extend(self.rows.iter().map(|(dir, row)| cells(shown(dir), row)));
        lines.push(cells("total".to_owned(), &self.total()));
        table::print(&lines, out)
    }
}
