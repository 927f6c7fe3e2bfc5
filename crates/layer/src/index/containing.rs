//! Who has a content: layers, images and names, by indexed queries alone.
//!
//! Layers are read from the content's holder set.
//!
//! Invariant: the work is bounded by the layers that hold a content, not by its names, except
//! where names are counted; those are read from `entries_content` and nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension};
use strata_tree::{ContentDigest, DiffId, ImageId, TreePath};

use super::contents::path_of;
use super::holders::decode;
use crate::error::{Error, Result};

/// The rows of `contents` with those bytes.
pub(crate) fn copies(db: &Connection, content: &ContentDigest) -> Result<Vec<i64>> {
    let mut statement =
        db.prepare_cached("SELECT id FROM contents WHERE digest = ?1 ORDER BY copy")?;
    let rows = statement.query_map([content.as_bytes()], |row| row.get(0))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// The holder set of a content.
fn set(db: &Connection, id: i64) -> Result<(i64, Vec<i64>)> {
    let mut statement = db.prepare_cached(
        "SELECT holders.id, layers FROM contents JOIN holders ON holders.id = contents.holders
         WHERE contents.id = ?1",
    )?;
    let found: Option<(i64, Vec<u8>)> =
        statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    found
        .and_then(|(set, layers)| Some((set, decode(&layers)?)))
        .ok_or_else(|| Error::damaged("index.db", format!("content {id} is in no holder set")))
}

/// The layers that have a name of one of the contents, by number.
pub(crate) fn layers(db: &Connection, ids: &[i64]) -> Result<Vec<(i64, DiffId)>> {
    let mut found = BTreeSet::new();
    for id in ids {
        found.extend(set(db, *id)?.1);
    }
    let mut statement = db.prepare_cached("SELECT diff_id FROM layers WHERE id = ?1")?;
    let mut layers = Vec::new();
    for layer in found {
        let diff_id = statement.query_row([layer], |row| row.get(0).map(DiffId::from_bytes))?;
        layers.push((layer, diff_id));
    }
    Ok(layers)
}

/// The images that have one of the layers.
pub(crate) fn images(db: &Connection, layers: &[(i64, DiffId)]) -> Result<BTreeSet<ImageId>> {
    let mut statement = db.prepare_cached("SELECT image FROM image_layers WHERE layer = ?1")?;
    let mut images = BTreeSet::new();
    for (layer, _) in layers {
        let rows = statement.query_map([layer], |row| row.get(0).map(ImageId::from_bytes))?;
        for image in rows {
            images.insert(image?);
        }
    }
    Ok(images)
}

/// How many names the contents have.
pub(crate) fn names(db: &Connection, ids: &[i64]) -> Result<u64> {
    let mut statement = db.prepare_cached(
        "SELECT count(*) FROM entries INDEXED BY entries_content WHERE content = ?1",
    )?;
    let mut names = 0;
    for id in ids {
        names += statement.query_row([id], |row| row.get::<_, u64>(0))?;
    }
    Ok(names)
}

/// The first `limit` names of the contents: layers in the order of their diff ids, the names of
/// each in the order of its rows. Two stores with these layers give the same, whichever layer came
/// first.
pub(crate) fn paths(db: &Connection, ids: &[i64], limit: usize) -> Result<Vec<(DiffId, TreePath)>> {
    let mut holders = layers(db, ids)?;
    holders.sort_unstable_by_key(|(_, diff_id)| *diff_id);
    let mut statement = db.prepare_cached(
        "SELECT node, parent, name FROM entries INDEXED BY entries_content
         WHERE content = ?1 AND layer = ?2 ORDER BY node LIMIT ?3",
    )?;
    let mut paths = Vec::new();
    for (layer, diff_id) in holders {
        let left = limit.saturating_sub(paths.len());
        if left == 0 {
            break;
        }
        let mut names: Vec<(i64, i64, Vec<u8>)> = Vec::new();
        for id in ids {
            let rows = statement.query_map([*id, layer, left as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            for row in rows {
                names.push(row?);
            }
        }
        names.sort_unstable();
        for (_, parent, name) in names.into_iter().take(left) {
            paths.push((diff_id, path_of(db, layer, parent, &name)?));
        }
    }
    Ok(paths)
}

/// Which of `contents` are in a layer of an image other than `image`.
pub(crate) fn in_other_images(
    db: &Connection,
    image: &ImageId,
    contents: &HashSet<ContentDigest>,
) -> Result<HashSet<ContentDigest>> {
    if contents.is_empty() {
        return Ok(HashSet::new());
    }
    let mut statement =
        db.prepare_cached("SELECT DISTINCT layer FROM image_layers WHERE image <> ?1")?;
    let others: HashSet<i64> = statement
        .query_map([image.as_bytes()], |row| row.get(0))?
        .collect::<std::result::Result<_, _>>()?;
    let mut found = HashSet::new();
    // Contents are many, their sets few.
    let mut sets: HashMap<i64, bool> = HashMap::new();
    for content in contents {
        for id in copies(db, content)? {
            let (set, layers) = set(db, id)?;
            let other = || layers.iter().any(|layer| others.contains(layer));
            if *sets.entry(set).or_insert_with(other) {
                found.insert(*content);
                break;
            }
        }
    }
    Ok(found)
}
