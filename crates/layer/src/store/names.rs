//! The names of one layer, each with its content's holders: what a walk through a layer shows.
//!
//! Invariants: names come in node order, a directory before what is in it; a content that has
//! several names in the layer counts at the first of them, as `du` counts inodes, so the bytes
//! add up to the layer's [`LayerUsage::stored`](super::df::LayerUsage::stored).

use std::collections::{HashMap, HashSet};

use strata_tree::DiffId;

use super::Store;
use super::sharing::Sharing;
use crate::error::{Error, Result};
use crate::index;
use crate::index::rows::{KIND_DIRECTORY, KIND_HARD_LINK, KIND_REGULAR};

/// One name of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldName {
    /// The name's bytes; empty for the root.
    pub name: Box<[u8]>,
    /// The position, in the layer's names, of the directory that holds it; the root's own is 0.
    pub parent: usize,
    /// What it is.
    pub kind: HeldKind,
}

/// What a name of a layer is, as far as bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldKind {
    /// A directory.
    Directory,
    /// The first name of a content in this layer.
    Content {
        /// Its bytes.
        bytes: u64,
        /// The group of [`Sharing::groups`] that it is in.
        group: usize,
    },
    /// A further name of a content that this layer has: a hard link, or an equal file.
    Again,
    /// What has no content: a symbolic link, a device, a whiteout.
    Other,
}

impl Store {
    /// The names of a layer in node order, with the groups of `sharing`, which is the store's.
    ///
    /// # Errors
    /// `NoLayer`; `Damaged` where the index contradicts itself, or if layers came or went since
    /// `sharing` was made; `Sqlite`.
    pub fn held_names(&self, layer: &DiffId, sharing: &Sharing) -> Result<Vec<HeldName>> {
        let index = self.index();
        let db = &index.db;
        let record = index::find_layer(db, layer)?.ok_or(Error::NoLayer(*layer))?;
        let damaged = |node: i64| {
            Error::damaged("index.db", format!("layer {layer}, node {node}, in the account of it"))
        };
        let groups = groups_of(db, record.id, sharing)?;
        let mut statement = db.prepare_cached(
            "SELECT node, parent, name, kind, content, contents.size
             FROM entries LEFT JOIN contents ON contents.id = entries.content
             WHERE layer = ?1 ORDER BY node",
        )?;
        let mut rows = statement.query([record.id])?;
        let (mut names, mut seen) = (Vec::new(), HashSet::new());
        while let Some(row) = rows.next()? {
            let (node, parent): (i64, i64) = (row.get(0)?, row.get(1)?);
            let parent = usize::try_from(parent - 1).ok();
            let parent = parent.filter(|at| *at < names.len().max(1));
            let parent = parent.ok_or_else(|| damaged(node))?;
            let content: Option<i64> = row.get(4)?;
            let kind = match (row.get::<_, i64>(3)?, content) {
                (KIND_DIRECTORY, _) => HeldKind::Directory,
                (KIND_REGULAR, Some(content)) if seen.insert(content) => HeldKind::Content {
                    bytes: row.get::<_, i64>(5)? as u64,
                    group: *groups.get(&content).ok_or_else(|| damaged(node))?,
                },
                (KIND_REGULAR | KIND_HARD_LINK, _) => HeldKind::Again,
                _ => HeldKind::Other,
            };
            names.push(HeldName { name: row.get::<_, Vec<u8>>(2)?.into(), parent, kind });
        }
        Ok(names)
    }
}

/// The group of each content of a layer.
fn groups_of(
    db: &rusqlite::Connection,
    layer: i64,
    sharing: &Sharing,
) -> Result<HashMap<i64, usize>> {
    let by_layers: HashMap<&[usize], usize> =
        sharing.groups.iter().enumerate().map(|(at, group)| (&*group.layers, at)).collect();
    let positions: HashMap<DiffId, usize> =
        sharing.layers.iter().enumerate().map(|(at, layer)| (*layer, at)).collect();
    let layers: HashMap<i64, usize> = index::layers(db)?
        .into_iter()
        .filter_map(|record| Some((record.id, *positions.get(&record.diff_id)?)))
        .collect();
    let mut statement = db.prepare_cached(
        "SELECT DISTINCT held.content, held.layer
         FROM (SELECT DISTINCT content FROM entries WHERE layer = ?1 AND content IS NOT NULL) AS own
         JOIN entries AS held INDEXED BY entries_content ON held.content = own.content
         ORDER BY held.content, held.layer",
    )?;
    let mut rows = statement.query([layer])?;
    let mut groups = HashMap::new();
    let (mut content, mut holders) = (0, Vec::new());
    let mut close = |content: i64, holders: &mut Vec<usize>| {
        if let Some(group) = by_layers.get(&**holders) {
            groups.insert(content, *group);
        }
        holders.clear();
    };
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if id != content {
            close(content, &mut holders);
            content = id;
        }
        holders.extend(layers.get(&row.get(1)?));
    }
    close(content, &mut holders);
    Ok(groups)
}
