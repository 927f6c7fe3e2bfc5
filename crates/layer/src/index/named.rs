//! The contents with the most bytes in more than one file: one pass over `entries_content`.
//!
//! The pass is cut into ranges of content numbers, one for each thread with a connection of its
//! own; SQLite groups each range in the order of the index and gives only contents with more than
//! one name. Which of a content's names are hard links of one file is in the rows, not in the
//! index, so names first count as files; then the contents are asked exactly, the most promising
//! first, until no other can come before them.
//!
//! Invariants: the list is that of counting every content exactly, in a store that does not
//! change meanwhile; it is the same in every store with the same layers; the rows of `entries` are
//! read for few contents only.

use std::cmp::Reverse;
use std::collections::HashMap;

use rusqlite::Connection;
use strata_content::threads::each;
use strata_tree::ContentDigest;

use super::{Index, containing};
use crate::error::Result;

/// A content and how often it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub content: ContentDigest,
    pub size: u64,
    pub names: u64,
    /// Names that are not further hard links of one file.
    pub files: u64,
    /// Its rows of `contents`.
    pub ids: Vec<i64>,
}

/// What the pass finds.
#[derive(Debug, Default)]
pub(crate) struct MostNamed {
    /// By bytes saved, the most first, then by names, then by digest.
    pub contents: Vec<Named>,
    /// Contents with more than one name.
    pub count: u64,
    /// Bytes of all files of all layers less those of all contents.
    pub saved: u64,
}

/// One row of `contents` with more than one name.
struct Row {
    content: ContentDigest,
    size: u64,
    names: u64,
    copy: i64,
}

/// More names than any link limit in use is low: beyond it there may be a second copy, whose
/// names are counted for themselves.
const MAY_HAVE_COPIES: u64 = 1000;

/// Threads, at most: beyond it the disk cache's memory is what is waited for.
const THREADS: i64 = 4;

/// How another connection to the same index is had.
pub(crate) type Connect<'a> = &'a (dyn Fn() -> Result<Index> + Sync);

/// The `limit` contents with the most bytes in further files, of the index of these connections.
pub(crate) fn most(connect: Connect<'_>, limit: usize) -> Result<MostNamed> {
    let db = connect()?.db;
    let newest: i64 =
        db.query_row("SELECT coalesce(max(id), 0) FROM contents", [], |row| row.get(0))?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
    // Small stores are read faster than threads start.
    let threads = if newest < 50_000 { 1 } else { threads.min(THREADS) };
    let step = newest / threads + 1;
    let found = each(threads as usize - 1, 0..threads, |at| {
        repeated(&connect()?.db, (at * step, (at + 1) * step))
    });
    let mut rows = Vec::new();
    for found in found {
        rows.append(&mut found?);
    }
    let mut rows = joined(rows);
    let count = rows.len() as u64;
    rows.sort_by_key(|row| Reverse(bound(row)));
    let mut contents: Vec<Named> = Vec::new();
    for row in rows {
        let (bound, last) = (bound(&row), contents.last().map_or(u64::MAX, saved));
        // What saves as much as the last may still come before it.
        if bound == 0 || contents.len() >= limit && bound < last {
            break;
        }
        let one = exactly(&db, row)?;
        if saved(&one) > 0 {
            let at = contents.partition_point(|other| rank(other) < rank(&one));
            contents.insert(at, one);
            contents.truncate(limit);
        }
    }
    let total = |query| db.query_row(query, [], |row| row.get::<_, i64>(0));
    let files = total("SELECT coalesce(sum(apparent), 0) FROM layers")?;
    let stored = total("SELECT coalesce(sum(size), 0) FROM contents")?;
    Ok(MostNamed { contents, count, saved: files.saturating_sub(stored).max(0) as u64 })
}

/// What sharing can save at most, in bytes.
fn bound(row: &Row) -> u64 {
    let copies = u64::from(row.copy > 0 || row.names >= MAY_HAVE_COPIES);
    row.size.saturating_mul(row.names - 1 + copies)
}

fn saved(one: &Named) -> u64 {
    one.size.saturating_mul(one.files.saturating_sub(1))
}

/// What comes first. The last word is the digest's: numbers of contents differ between stores that
/// took the same layers in another order.
fn rank(one: &Named) -> (Reverse<u64>, Reverse<u64>, ContentDigest) {
    (Reverse(saved(one)), Reverse(one.names), one.content)
}

/// Contents from number `from` up to `to` that have more than one name.
fn repeated(db: &Connection, (from, to): (i64, i64)) -> Result<Vec<Row>> {
    // The inner query reads the index alone; only what it lets through is looked up.
    let mut statement = db.prepare(
        "SELECT digest, size, names, copy FROM
         (SELECT content, count(*) AS names FROM entries INDEXED BY entries_content
          WHERE content >= ?1 AND content < ?2 GROUP BY content HAVING count(*) > 1)
         CROSS JOIN contents ON contents.id = content",
    )?;
    let rows = statement.query_map([from, to], |row| {
        Ok(Row {
            content: ContentDigest::from_bytes(row.get(0)?),
            size: row.get(1)?,
            names: row.get(2)?,
            copy: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// The copies of one content as one.
fn joined(rows: Vec<Row>) -> Vec<Row> {
    if rows.iter().all(|row| row.copy == 0) {
        return rows;
    }
    let mut all: HashMap<ContentDigest, Row> = HashMap::new();
    for row in rows {
        match all.get_mut(&row.content) {
            Some(known) => {
                known.names += row.names;
                known.copy = known.copy.max(row.copy);
            }
            None => {
                all.insert(row.content, row);
            }
        }
    }
    all.into_values().collect()
}

fn exactly(db: &Connection, row: Row) -> Result<Named> {
    let ids = containing::copies(db, &row.content)?;
    let mut statement =
        db.prepare_cached("SELECT count(*), count(target) FROM entries WHERE content = ?1")?;
    let (mut names, mut links) = (0, 0);
    for id in &ids {
        let (n, l) =
            statement.query_row([id], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)))?;
        names += n;
        links += l;
    }
    let Row { content, size, .. } = row;
    Ok(Named { content, size, names, files: names - links, ids })
}
