//! The names of one layer, each with its content's holders: what a walk through a layer shows.
//!
//! Invariants: names come in node order, a directory before what is in it; a content that has
//! several names in the layer counts at the first of them, as `du` counts inodes, so the bytes
//! add up to what the layer stores, [`Usage::stored`](super::Usage::stored).

use std::collections::{HashMap, HashSet};

use strata_tree::DiffId;

use super::sharing::Sharing;
use crate::error::{Error, Result};
use crate::index::rows::{KIND_DIRECTORY, KIND_HARD_LINK, KIND_REGULAR};
use crate::index::shared::SharedIndex;
use crate::index::{self, holders};

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

/// The names of a store's layers, with the groups of one [`Sharing`].
pub struct HeldNames<'s> {
    index: &'s SharedIndex,
    /// Positions in [`Sharing::groups`] by `holders.id`.
    groups: HashMap<i64, usize>,
}

impl<'s> HeldNames<'s> {
    /// Prepares to read the names of layers; `sharing` is that of the same index.
    pub(super) fn new(shared: &'s SharedIndex, sharing: &Sharing) -> Result<Self> {
        let by_layers: HashMap<&[usize], usize> =
            sharing.groups.iter().enumerate().map(|(at, group)| (&*group.layers, at)).collect();
        let positions: HashMap<DiffId, usize> =
            sharing.layers.iter().enumerate().map(|(at, layer)| (*layer, at)).collect();
        let index = shared.lock();
        let layers: HashMap<i64, usize> = index::layers(&index.db)?
            .into_iter()
            .filter_map(|record| Some((record.id, *positions.get(&record.diff_id)?)))
            .collect();
        let mut statement = index.db.prepare_cached("SELECT id, layers FROM holders")?;
        let mut rows = statement.query([])?;
        let mut groups = HashMap::new();
        while let Some(row) = rows.next()? {
            let (id, held): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let held = holders::decode(&held)
                .ok_or_else(|| Error::damaged("index.db", format!("the holder set {id}")))?;
            let mut held: Vec<usize> =
                held.iter().filter_map(|layer| layers.get(layer).copied()).collect();
            held.sort_unstable();
            groups.extend(by_layers.get(&*held).map(|group| (id, *group)));
        }
        Ok(Self { index: shared, groups })
    }

    /// The names of a layer in node order.
    ///
    /// # Errors
    /// `NoLayer`; `Damaged` where the index contradicts itself, or if layers came or went since
    /// the account was made; `Sqlite`.
    pub fn of(&self, layer: &DiffId) -> Result<Vec<HeldName>> {
        let index = self.index.lock();
        let record = index::find_layer(&index.db, layer)?.ok_or(Error::NoLayer(*layer))?;
        let damaged = |node: i64| {
            Error::damaged("index.db", format!("layer {layer}, node {node}, in the account of it"))
        };
        let mut statement = index.db.prepare_cached(
            "SELECT node, parent, name, kind, content, contents.size, contents.holders
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
                (KIND_REGULAR, Some(content)) if seen.insert(content) => {
                    let holders = row.get::<_, Option<i64>>(6)?;
                    let group = holders.and_then(|set| self.groups.get(&set).copied());
                    HeldKind::Content {
                        bytes: row.get::<_, i64>(5)? as u64,
                        group: group.ok_or_else(|| damaged(node))?,
                    }
                }
                (KIND_REGULAR | KIND_HARD_LINK, _) => HeldKind::Again,
                _ => HeldKind::Other,
            };
            names.push(HeldName { name: row.get::<_, Vec<u8>>(2)?.into(), parent, kind });
        }
        Ok(names)
    }
}
