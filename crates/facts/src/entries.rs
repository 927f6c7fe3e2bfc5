//! The rows of `entries`: every name of every layer.
//!
//! A layer's rows come breadth first: the children of a directory follow each other, and the
//! directories follow each other in the order of their parents. So a path is known from the
//! directories whose children have not come yet, and no others are kept.
//!
//! Invariants: a hard link has the owner, mode, size, time and content of the file that it names;
//! what a layer does not say is NULL.

use std::collections::VecDeque;

use strata_diff::rows::{EntryRow, RowKind};
use strata_layer::{Snapshot, SnapshotEntry};
use strata_tree::{DiffId, NodeId, Presence};

use crate::error::{Error, Result};
use crate::paths::PathPolicy;
use crate::table::{FactCell, TableWriter};

/// How many entries are written between two calls of `progress`.
const STEP: u64 = 4096;

/// A row for each name of each layer, the layers sorted by diff id, their names in node order.
pub(crate) fn write_entries(
    snapshot: &Snapshot,
    paths: &PathPolicy,
    rows: &mut TableWriter,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let layers = snapshot.layers()?;
    // The layers' own counts leave the roots out.
    let total = layers.iter().map(|layer| layer.entries + 1).sum();
    let mut done = 0_u64;
    for layer in layers {
        let mut directories = Directories::default();
        let mut node = 0;
        snapshot.each_entry::<Error>(&layer.diff_id, &mut |entry| {
            node += 1;
            let path = directories.path_of(NodeId(node), &entry.row, &layer.diff_id)?;
            write_entry(rows, paths, &layer.diff_id, node, path, &entry)?;
            done += 1;
            if done.is_multiple_of(STEP) {
                progress(done, total);
            }
            Ok(())
        })?;
    }
    progress(done, total);
    Ok(())
}

/// The directories of a layer whose children have not all come, in node order.
#[derive(Default)]
struct Directories {
    waiting: VecDeque<(NodeId, Box<[u8]>)>,
    /// The path made last.
    path: Vec<u8>,
}

impl Directories {
    /// The path of the row `node`.
    fn path_of(&mut self, node: NodeId, row: &EntryRow, layer: &DiffId) -> Result<&[u8]> {
        self.path.clear();
        if node != NodeId::ROOT {
            while self.waiting.front().is_some_and(|(directory, _)| *directory < row.parent) {
                self.waiting.pop_front();
            }
            match self.waiting.front() {
                Some((directory, path)) if *directory == row.parent => {
                    self.path.extend_from_slice(path);
                }
                _ => {
                    let why = format!("layer {layer}: the directory of node {}", node.0);
                    let what = "index.db".to_owned();
                    return Err(strata_layer::Error::Damaged { what, why }.into());
                }
            }
            self.path.push(b'/');
            self.path.extend_from_slice(&row.name);
        }
        if matches!(row.kind, RowKind::Directory { children: 1.., .. }) {
            self.waiting.push_back((node, self.path.as_slice().into()));
        }
        if self.path.is_empty() {
            self.path.push(b'/');
        }
        Ok(&self.path)
    }
}

fn write_entry(
    rows: &mut TableWriter,
    paths: &PathPolicy,
    layer: &DiffId,
    node: u64,
    path: &[u8],
    entry: &SnapshotEntry,
) -> Result<()> {
    let row = &entry.row;
    // What a hard link names.
    let inode = entry.target.as_ref().unwrap_or(row);
    let meta = inode.meta.as_ref();
    let path = paths.path(path);
    let lower;
    let link = match &inode.kind {
        RowKind::Symlink(target) => paths.path(target),
        RowKind::LowerLink(target) => {
            lower = [b"/", target.as_bytes()].concat();
            paths.path(&lower)
        }
        _ => crate::paths::SharedPath::default(),
    };
    let digest = match &inode.kind {
        RowKind::Regular(digest) => Some(digest.as_bytes()),
        _ => None,
    };
    let device = match &inode.kind {
        RowKind::CharDevice(device) | RowKind::BlockDevice(device) => Some(device),
        _ => None,
    };
    let (target, marks) = match &row.kind {
        RowKind::HardLink(node) => (Some(node.0 as i64), None),
        RowKind::Directory { marks, .. } => (None, Some(marks)),
        _ => (None, None),
    };
    rows.push(&[
        FactCell::Digest(layer.as_bytes()),
        FactCell::count(node),
        FactCell::count(row.parent.0),
        path.bytes(),
        path.text(),
        FactCell::Text(kind(&row.kind)),
        FactCell::int(meta.map(|meta| i32::from(meta.perm))),
        FactCell::long(meta.map(|meta| i64::from(meta.uid))),
        FactCell::long(meta.map(|meta| i64::from(meta.gid))),
        meta.map_or(FactCell::Null, |meta| FactCell::count(meta.size)),
        FactCell::long(meta.map(|meta| meta.mtime.seconds)),
        FactCell::int(meta.map(|meta| meta.mtime.nanos as i32)),
        FactCell::digest(digest),
        FactCell::int(entry.copy.map(|copy| i32::try_from(copy).unwrap_or(i32::MAX))),
        FactCell::long(target),
        link.bytes(),
        link.text(),
        FactCell::long(device.map(|device| i64::from(device.major))),
        FactCell::long(device.map(|device| i64::from(device.minor))),
        marks.map_or(FactCell::Null, |marks| FactCell::Flag(marks.opaque)),
        FactCell::text(marks.map(|marks| match marks.presence {
            Presence::Explicit => "explicit",
            Presence::Implied => "implied",
            Presence::Phantom => "phantom",
        })),
    ])
}

/// What a name is, in a word.
fn kind(kind: &RowKind) -> &'static str {
    match kind {
        RowKind::Regular(_) => "file",
        RowKind::Directory { .. } => "directory",
        RowKind::Symlink(_) => "symlink",
        RowKind::CharDevice(_) => "char",
        RowKind::BlockDevice(_) => "block",
        RowKind::Fifo => "fifo",
        RowKind::HardLink(_) => "hard link",
        RowKind::Whiteout => "whiteout",
        RowKind::LowerLink(_) => "lower link",
    }
}
