//! `fsck`: the accounts of the index, which say who holds what and what the disk takes for it.
//!
//! Invariant: each wrong number is named with what it should be; holder sets are derived again from
//! `entries`, blocks are those that the check has just met on disk.

use std::collections::HashMap;

use rusqlite::Connection;
use strata_tree::ContentDigest;

use super::checker::{Checker, MetContent, Remembered};
use crate::error::Result;
use crate::index::LayerRecord;
use crate::index::holders::{self, Sum};

/// Wrong numbers of one kind that are named; more are of the same cause.
const MOST: usize = 8;

impl Checker<'_> {
    /// Holder sets against `entries`, blocks of contents against what was met.
    pub(super) fn check_accounts(&mut self) -> Result<()> {
        let index = self.index.lock();
        let mut wrong = Vec::new();
        wrong.extend(wrong_sets(&index.db)?.into_iter().take(MOST));
        wrong.extend(wrong_blocks(&index.db, &self.met)?);
        wrong.into_iter().for_each(|what| self.report.index_problem(what));
        Ok(())
    }
}

fn wrong_sets(db: &Connection) -> Result<Vec<String>> {
    let mut statement = db.prepare("SELECT id, layers, files, bytes, blocks FROM holders")?;
    let mut stored: HashMap<i64, (Option<Vec<i64>>, Sum)> = HashMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let sum = Sum { files: row.get(2)?, bytes: row.get(3)?, blocks: row.get(4)? };
        stored.insert(row.get(0)?, (holders::decode(&row.get::<_, Vec<u8>>(1)?), sum));
    }
    let mut wrong = Vec::new();
    let mut sums: HashMap<i64, Sum> = HashMap::new();
    let mut lost = Vec::new();
    holders::derive(db, |content, one, set, layers| {
        let known = set.and_then(|set| Some((set, stored.get(&set)?.0.as_deref()?)));
        match known {
            Some((set, of_set)) if of_set == layers => sums.entry(set).or_default().add(one),
            Some(_) | None if lost.len() < MOST => lost.push((content, layers.to_vec())),
            Some(_) | None => {}
        }
    })?;
    for (content, layers) in &lost {
        let digest = digest(db, *content)?;
        let set: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let set = set.join(", ");
        wrong.push(format!("content {digest}: its holder set is not that of layers {set}"));
    }
    let mut numbers: Vec<_> = stored.iter().collect();
    numbers.sort_by_key(|(set, _)| **set);
    for (set, (layers, sum)) in numbers {
        let real = sums.get(set).copied().unwrap_or_default();
        if layers.is_none() {
            wrong.push(format!("holder set {set}: its layers are not as strata writes them"));
        } else if real != *sum || real.files == 0 {
            let said = |sum: &Sum| {
                format!("{} contents, {} bytes, {} blocks", sum.files, sum.bytes, sum.blocks)
            };
            wrong.push(format!("holder set {set}: {}, should be {}", said(sum), said(&real)));
        }
    }
    Ok(wrong)
}

fn wrong_blocks(db: &Connection, met: &Remembered<MetContent>) -> Result<Vec<String>> {
    let mut statement = db.prepare("SELECT id, blocks FROM contents ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut wrong = Vec::new();
    while let Some(row) = rows.next()?.filter(|_| wrong.len() < MOST) {
        let (content, blocks): (i64, u64) = (row.get(0)?, row.get(1)?);
        let Some(found) = met.find(content, |met| met.id == content)? else { continue };
        let real = found.blocks;
        if real != blocks {
            let digest = digest(db, content)?;
            wrong.push(format!("content {digest}: {blocks} blocks, should be {real}"));
        }
    }
    Ok(wrong)
}

fn digest(db: &Connection, content: i64) -> Result<ContentDigest> {
    let mut statement = db.prepare_cached("SELECT digest FROM contents WHERE id = ?1")?;
    Ok(ContentDigest::from_bytes(statement.query_row([content], |row| row.get(0))?))
}

/// The numbers of a layer that are not those of its directory.
pub(super) fn wrong_numbers(stored: &LayerRecord, real: &LayerRecord) -> Vec<String> {
    let numbers = |layer: &LayerRecord| {
        [
            ("bytes of the tar", layer.diff_size),
            ("bytes of headers.zst", layer.headers_size),
            ("blocks of headers.zst", layer.headers_blocks),
            ("entries", layer.entries),
            ("bytes of files", layer.apparent),
            ("bytes of directories", layer.directories.bytes),
            ("blocks of directories", layer.directories.blocks),
        ]
    };
    let both = numbers(stored).into_iter().zip(numbers(real));
    let wrong = both.filter(|((_, stored), (_, real))| stored != real);
    wrong.map(|((what, stored), (_, real))| format!("{stored} {what}, should be {real}")).collect()
}
