//! Holder sets: which layers hold a content, kept so that sharing is a question about sets.
//!
//! ```text
//! contents a b c d e f ...   each is held by a set of layers: contents.holders
//!          └┬─┘ └──┬─┘
//!        {1, 3}  {2}         a row of `holders` for each set that occurs, with the number, the
//!                            bytes and the blocks of all contents that exactly these layers hold
//! ```
//!
//! A new layer has the largest id, so it is always appended to a set: contents that move from a
//! set together take the row with them if nothing is left behind, and else get a new one. A layer
//! that goes leaves each of its sets as a whole, so a set is renamed, or joins the one that is
//! the same without it.
//!
//! Invariants: each content is in exactly one set, no set is empty, no set occurs twice; the
//! numbers of a set are sums over its contents. All of it can be derived again from `entries`.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::error::{Error, Result};
use crate::measure::add;

/// A number of contents with their bytes and blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks of 512 bytes that they take on disk.
    pub blocks: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, other: Self) {
        add(&mut self.files, other.files);
        add(&mut self.bytes, other.bytes);
        add(&mut self.blocks, other.blocks);
    }
}

/// Ids of layers, ascending, as differences: the first id, then how much each is above the one
/// before; each number in groups of seven bits, the lowest first, the top bit says "more".
pub(crate) fn encode(layers: &[i64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(layers.len() * 2);
    let mut before = 0;
    for layer in layers {
        let mut step = (layer - before) as u64;
        before = *layer;
        while step >= 0x80 {
            out.push(step as u8 | 0x80);
            step >>= 7;
        }
        out.push(step as u8);
    }
    out
}

/// The reverse; `None` for what [`encode`] does not write.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<i64>> {
    let mut layers = Vec::new();
    let (mut before, mut step, mut shift) = (0_i64, 0_u64, 0);
    for byte in bytes {
        step |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            before = before.checked_add(i64::try_from(step).ok().filter(|step| *step > 0)?)?;
            layers.push(before);
            (step, shift) = (0, 0);
        }
    }
    (encode(&layers) == bytes && !layers.is_empty()).then_some(layers)
}

/// Adds a set; its sums follow with [`NewHolder::settle`].
pub(crate) fn insert(db: &Connection, layers: &[i64], sum: Sum) -> Result<i64> {
    let mut statement = db.prepare_cached(
        "INSERT INTO holders (layers, files, bytes, blocks) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let Sum { files, bytes, blocks } = sum;
    Ok(statement.insert((encode(layers), files as i64, bytes as i64, blocks as i64))?)
}

/// What a layer that is being published brings.
pub(crate) struct NewHolder {
    layer: i64,
    /// The set of this layer alone: that of its new contents.
    pub own: i64,
    new: Sum,
    /// Whether there is a known one, in the table `temp.held`: there may be millions.
    has_known: bool,
}

impl NewHolder {
    /// For a layer whose row is in the index.
    pub(crate) fn new(db: &Connection, layer: i64) -> Result<Self> {
        let own = insert(db, &[layer], Sum::default())?;
        Ok(Self { layer, own, new: Sum::default(), has_known: false })
    }

    /// Notes a content that was inserted with the set [`NewHolder::own`].
    pub(crate) fn note_new(&mut self, bytes: u64, blocks: u64) {
        self.new.add(Sum { files: 1, bytes, blocks });
    }

    /// Notes a content that other layers hold.
    pub(crate) fn note_known(&mut self, db: &Connection, content: i64) -> Result<()> {
        if !std::mem::replace(&mut self.has_known, true) {
            temporary(db)?;
        }
        let mut statement =
            db.prepare_cached("INSERT OR IGNORE INTO temp.held (content) VALUES (?1)")?;
        statement.execute([content])?;
        Ok(())
    }

    /// Moves the known contents into sets with this layer, and writes all sums.
    pub(crate) fn settle(self, db: &Connection) -> Result<()> {
        match self.new.files {
            0 => delete(db, self.own)?,
            _ => grow(db, self.own, self.new)?,
        }
        if !self.has_known {
            return Ok(());
        }
        for (set, moving) in touched(db)? {
            let (mut layers, all) = get(db, set)?;
            layers.push(self.layer);
            if all == moving {
                rename(db, set, &layers)?;
            } else {
                shrink(db, set, moving)?;
                will_move(db, set, insert(db, &layers, moving)?)?;
            }
        }
        move_contents(db)
    }
}

/// Takes a layer, whose rows are still there, out of all sets, with the contents that only it
/// held; its rows go too.
pub(crate) fn remove_layer(db: &Connection, layer: i64) -> Result<()> {
    temporary(db)?;
    db.execute(
        "INSERT OR IGNORE INTO temp.held
         SELECT content FROM entries WHERE layer = ?1 AND content IS NOT NULL",
        [layer],
    )?;
    db.execute("DELETE FROM entries WHERE layer = ?1", [layer])?;
    for (set, moving) in touched(db)? {
        let (mut layers, _) = get(db, set)?;
        if !layers.contains(&layer) {
            let what = format!("holder set {set} lacks layer {layer}");
            return Err(Error::damaged("index.db", what));
        }
        layers.retain(|holder| *holder != layer);
        let other = db
            .prepare_cached("SELECT id FROM holders WHERE layers = ?1")?
            .query_row([encode(&layers)], |row| row.get(0))
            .optional()?;
        match other {
            _ if layers.is_empty() => {
                db.execute(
                    "DELETE FROM contents
                     WHERE id IN (SELECT content FROM temp.held) AND holders = ?1",
                    [set],
                )?;
                delete(db, set)?;
            }
            None => rename(db, set, &layers)?,
            Some(other) => {
                grow(db, other, moving)?;
                delete(db, set)?;
                will_move(db, set, other)?;
            }
        }
    }
    move_contents(db)
}

fn temporary(db: &Connection) -> Result<()> {
    db.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS held (content INTEGER PRIMARY KEY);
         CREATE TEMP TABLE IF NOT EXISTS moved (old INTEGER PRIMARY KEY, new INTEGER NOT NULL);
         DELETE FROM temp.held; DELETE FROM temp.moved",
    )?;
    Ok(())
}

/// The sets of the contents in `held`, with what of each is there.
fn touched(db: &Connection) -> Result<Vec<(i64, Sum)>> {
    let mut statement = db.prepare_cached(
        "SELECT holders, count(*), sum(size), sum(blocks) FROM temp.held
         JOIN contents ON contents.id = held.content GROUP BY holders",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, Option<i64>>(0)?, sum(row, 1)?)))?;
    let mut touched = Vec::new();
    for row in rows {
        let (set, sum) = row?;
        let damaged = || Error::damaged("index.db", "a content is in no holder set");
        touched.push((set.ok_or_else(damaged)?, sum));
    }
    Ok(touched)
}

fn sum(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Sum> {
    Ok(Sum { files: row.get(at)?, bytes: row.get(at + 1)?, blocks: row.get(at + 2)? })
}

fn get(db: &Connection, set: i64) -> Result<(Vec<i64>, Sum)> {
    let found = db
        .prepare_cached("SELECT layers, files, bytes, blocks FROM holders WHERE id = ?1")?
        .query_row([set], |row| Ok((row.get::<_, Vec<u8>>(0)?, sum(row, 1)?)))
        .optional()?;
    let decoded = found.and_then(|(layers, sum)| Some((decode(&layers)?, sum)));
    decoded.ok_or_else(|| Error::damaged("index.db", format!("the row of holder set {set}")))
}

fn rename(db: &Connection, set: i64, layers: &[i64]) -> Result<()> {
    db.prepare_cached("UPDATE holders SET layers = ?2 WHERE id = ?1")?
        .execute((set, encode(layers)))?;
    Ok(())
}

fn delete(db: &Connection, set: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM holders WHERE id = ?1")?.execute([set])?;
    Ok(())
}

fn grow(db: &Connection, set: i64, by: Sum) -> Result<()> {
    db.prepare_cached(
        "UPDATE holders SET files = files + ?2, bytes = bytes + ?3, blocks = blocks + ?4
         WHERE id = ?1",
    )?
    .execute((set, by.files as i64, by.bytes as i64, by.blocks as i64))?;
    Ok(())
}

fn shrink(db: &Connection, set: i64, by: Sum) -> Result<()> {
    db.prepare_cached(
        "UPDATE holders SET files = files - ?2, bytes = bytes - ?3, blocks = blocks - ?4
         WHERE id = ?1",
    )?
    .execute((set, by.files as i64, by.bytes as i64, by.blocks as i64))?;
    Ok(())
}

fn will_move(db: &Connection, old: i64, new: i64) -> Result<()> {
    db.prepare_cached("INSERT INTO temp.moved VALUES (?1, ?2)")?.execute([old, new])?;
    Ok(())
}

/// Gives the contents in `held` the sets that `moved` says.
fn move_contents(db: &Connection) -> Result<()> {
    db.execute(
        "UPDATE contents
         SET holders = (SELECT new FROM temp.moved WHERE old = contents.holders)
         WHERE id IN (SELECT content FROM temp.held)
           AND holders IN (SELECT old FROM temp.moved)",
        [],
    )?;
    Ok(())
}

/// All sets with their sums.
pub(crate) fn all(db: &Connection) -> Result<Vec<(i64, Vec<i64>, Sum)>> {
    let mut statement =
        db.prepare_cached("SELECT id, layers, files, bytes, blocks FROM holders")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, sum(row, 2)?))
    })?;
    let mut all = Vec::new();
    for row in rows {
        let (set, layers, sum) = row?;
        let layers = decode(&layers)
            .ok_or_else(|| Error::damaged("index.db", format!("the row of holder set {set}")))?;
        all.push((set, layers, sum));
    }
    Ok(all)
}

/// Each content with its size, blocks, set and holders, in the order of their ids, from one pass
/// over the index of `entries` by content, where the names of a content stand together.
pub(crate) fn derive(
    db: &Connection,
    mut each: impl FnMut(i64, Sum, Option<i64>, &[i64]),
) -> Result<()> {
    let mut statement = db.prepare(
        "SELECT entries.content, entries.layer, contents.size, blocks, holders
         FROM entries INDEXED BY entries_content JOIN contents ON contents.id = entries.content
         WHERE entries.content IS NOT NULL ORDER BY entries.content, entries.layer",
    )?;
    let mut rows = statement.query([])?;
    let mut current: Option<(i64, Sum, Option<i64>)> = None;
    let mut layers: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if current.is_none_or(|(known, ..)| known != id) {
            if let Some((content, sum, set)) = current {
                each(content, sum, set, &layers);
            }
            let sum = Sum { files: 1, bytes: row.get(2)?, blocks: row.get(3)? };
            current = Some((id, sum, row.get(4)?));
            layers.clear();
        }
        let layer: i64 = row.get(1)?;
        if layers.last() != Some(&layer) {
            layers.push(layer);
        }
    }
    if let Some((content, sum, set)) = current {
        each(content, sum, set, &layers);
    }
    Ok(())
}

/// Makes all sets again from `entries`.
pub(crate) fn rebuild(db: &Connection) -> Result<()> {
    let mut sets: HashMap<Vec<i64>, (usize, Sum)> = HashMap::new();
    let mut of = Vec::new();
    derive(db, |content, one, _, layers| {
        let next = sets.len();
        let set = match sets.get_mut(layers) {
            Some(set) => set,
            None => sets.entry(layers.to_vec()).or_insert((next, Sum::default())),
        };
        set.1.add(one);
        of.push((content, set.0));
    })?;
    db.execute("DELETE FROM holders", [])?;
    let mut ordered: Vec<_> = sets.into_iter().collect();
    ordered.sort_by_key(|(_, (at, _))| *at);
    let mut ids = Vec::with_capacity(ordered.len());
    for (layers, (_, sum)) in &ordered {
        ids.push(insert(db, layers, *sum)?);
    }
    let mut statement = db.prepare("UPDATE contents SET holders = ?2 WHERE id = ?1")?;
    for (content, at) in of {
        statement.execute([content, ids[at]])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn sets_of_layers_are_read_as_they_were_written() {
        for layers in [vec![1], vec![1, 2, 3], vec![5, 200, 70_000, 1 << 40], vec![i64::MAX]] {
            assert_eq!(decode(&encode(&layers)), Some(layers));
        }
        assert_eq!(encode(&[1, 3, 300]), [1, 2, 0xa9, 2]);
    }

    #[test]
    fn what_no_strata_writes_is_refused() {
        for bytes in [&[][..], &[0], &[1, 0], &[0x80], &[0x81, 0], &[0xff; 12]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
