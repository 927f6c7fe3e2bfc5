//! Rows of a layer ([`EntryRow`]) as SQLite keeps them, in the table `entries`.
//!
//! Invariant: what [`insert`] wrote for some rows, [`select`] gives back as the same rows.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};
pub(crate) use strata_diff::rows::{EntryRow, Meta, RowKind, directories, with_paths};
use strata_tree::{ContentDigest, Device, DirMarks, NodeId, Presence, Timestamp, TreePath, Xattr};

use crate::error::{Error, Result};

pub(crate) const KIND_REGULAR: i64 = 0;
pub(crate) const KIND_DIRECTORY: i64 = 1;
const KIND_SYMLINK: i64 = 2;
const KIND_CHAR: i64 = 3;
const KIND_BLOCK: i64 = 4;
const KIND_FIFO: i64 = 5;
pub(crate) const KIND_HARD_LINK: i64 = 6;
const KIND_WHITEOUT: i64 = 7;
const KIND_LOWER_LINK: i64 = 8;

/// Whether a layer has a link into lower layers.
pub(crate) fn has_lower_links(db: &Connection, layer: i64) -> Result<bool> {
    // The number is spelt out: the partial index of them is for that very expression.
    let mut statement = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM entries INDEXED BY entries_lower_links
                        WHERE layer = ?1 AND kind = 8)",
    )?;
    Ok(statement.query_row([layer], |row| row.get(0))?)
}

const MARK_OPAQUE: i64 = 1;
const MARK_IMPLIED: i64 = 2;
const MARK_PHANTOM: i64 = 4;

fn marks_to_int(marks: DirMarks) -> i64 {
    let presence = match marks.presence {
        Presence::Explicit => 0,
        Presence::Implied => MARK_IMPLIED,
        Presence::Phantom => MARK_PHANTOM,
    };
    presence | if marks.opaque { MARK_OPAQUE } else { 0 }
}

fn marks_from_int(bits: i64) -> Option<DirMarks> {
    let presence = match bits & !MARK_OPAQUE {
        0 => Presence::Explicit,
        MARK_IMPLIED => Presence::Implied,
        MARK_PHANTOM => Presence::Phantom,
        _ => return None,
    };
    Some(DirMarks { opaque: bits & MARK_OPAQUE != 0, presence })
}

/// Xattrs as `u32 name length, name, u32 value length, value`, little-endian, one after another.
fn encode_xattrs(xattrs: &[Xattr]) -> Option<Vec<u8>> {
    if xattrs.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    Some(out)
}

fn decode_xattrs(mut bytes: &[u8]) -> Option<Vec<Xattr>> {
    fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *bytes = rest;
        Some(part)
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let name = part(&mut bytes)?.to_vec();
        out.push((name, part(&mut bytes)?.to_vec()));
    }
    Some(out)
}

/// Writes `count` rows of a layer: `row` gives each, and its `contents.id` if it is a name of a
/// regular file.
///
/// # Errors
/// Whatever SQLite or `row` says.
pub(crate) fn insert(
    db: &Connection,
    layer: i64,
    count: u64,
    mut row: impl FnMut(u64) -> Result<(EntryRow, Option<i64>)>,
) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO entries VALUES
         (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21)",
    )?;
    for i in 0..count {
        let (row, content) = row(i)?;
        let xattrs = row.meta.as_ref().and_then(|meta| encode_xattrs(&meta.xattrs));
        let mut columns = columns(layer, i as usize, &row, xattrs.as_deref());
        columns[CONTENT] = integer(content);
        statement.execute(params_from_iter(columns.map(ToSqlOutput::Borrowed)))?;
    }
    Ok(())
}

/// The columns of `entries`.
const COLUMNS: usize = 21;
/// The one that names the content.
const CONTENT: usize = 15;

fn integer(number: Option<i64>) -> ValueRef<'static> {
    number.map_or(ValueRef::Null, ValueRef::Integer)
}

/// Row `i` as SQLite keeps it, but for its content.
fn columns<'a>(
    layer: i64,
    i: usize,
    row: &'a EntryRow,
    xattrs: Option<&'a [u8]>,
) -> [ValueRef<'a>; COLUMNS] {
    let (mut device, mut link, mut target) = (None, None, None);
    let (mut first, mut children, mut marks) = (None, None, None);
    let kind = match &row.kind {
        RowKind::Regular(_) => KIND_REGULAR,
        RowKind::Directory { marks: m, first: f, children: n } => {
            marks = Some(marks_to_int(*m)).filter(|bits| *bits != 0);
            if *n > 0 {
                (first, children) = (Some(*f as i64), Some(*n as i64));
            }
            KIND_DIRECTORY
        }
        RowKind::Symlink(to) => {
            link = Some(to.as_slice());
            KIND_SYMLINK
        }
        RowKind::CharDevice(d) => {
            device = Some(*d);
            KIND_CHAR
        }
        RowKind::BlockDevice(d) => {
            device = Some(*d);
            KIND_BLOCK
        }
        RowKind::Fifo => KIND_FIFO,
        RowKind::HardLink(node) => {
            target = Some(node.0 as i64);
            KIND_HARD_LINK
        }
        RowKind::Whiteout => KIND_WHITEOUT,
        RowKind::LowerLink(path) => {
            link = Some(path.as_bytes());
            KIND_LOWER_LINK
        }
    };
    let meta = row.meta.as_ref();
    let bytes = |bytes: Option<&'a [u8]>| bytes.map_or(ValueRef::Null, ValueRef::Blob);
    [
        integer(Some(layer)),
        integer(Some(i as i64 + 1)),
        integer(Some(row.parent.0 as i64)),
        ValueRef::Blob(&row.name),
        integer(Some(kind)),
        integer(meta.map(|m| i64::from(m.perm))),
        integer(meta.map(|m| i64::from(m.uid))),
        integer(meta.map(|m| i64::from(m.gid))),
        integer(meta.map(|m| m.size as i64)),
        integer(meta.map(|m| i64::from(m.nlink)).filter(|n| *n != 1)),
        integer(meta.map(|m| m.mtime.seconds)),
        integer(meta.map(|m| i64::from(m.mtime.nanos)).filter(|n| *n != 0)),
        integer(device.map(|d| i64::from(d.major) << 32 | i64::from(d.minor))),
        bytes(link),
        integer(target),
        ValueRef::Null,
        integer(first),
        integer(children),
        integer(marks),
        integer(row.position.map(|p| p as i64)),
        bytes(xattrs),
    ]
}

/// Whether the row is a name of a regular file.
fn has_content(rows: &dyn Fn(u64) -> Result<EntryRow>, row: &EntryRow) -> Result<bool> {
    Ok(match &row.kind {
        RowKind::HardLink(target) => {
            matches!(rows(target.0.wrapping_sub(1))?.kind, RowKind::Regular(_))
        }
        kind => matches!(kind, RowKind::Regular(_)),
    })
}

/// The numbers of stored rows, `most` of them at most, that are not, column by column, what
/// [`insert`] writes for the `count` rows, contents aside: [`each`] reads two encodings of one fact
/// as the same, this does not.
///
/// # Errors
/// Those of `rows`; whatever SQLite says.
pub(crate) fn unlike(
    db: &Connection,
    layer: i64,
    count: u64,
    rows: &dyn Fn(u64) -> Result<EntryRow>,
    most: usize,
) -> Result<Vec<u64>> {
    let mut statement =
        db.prepare_cached("SELECT * FROM entries WHERE layer = ?1 ORDER BY node")?;
    let mut found = statement.query([layer])?;
    let mut unlike = Vec::new();
    for i in 0..count {
        let Some(stored) = found.next()?.filter(|_| unlike.len() < most) else {
            break;
        };
        let row = rows(i)?;
        let xattrs = row.meta.as_ref().and_then(|meta| encode_xattrs(&meta.xattrs));
        let columns = columns(layer, i as usize, &row, xattrs.as_deref());
        for (at, expected) in columns.into_iter().enumerate() {
            let right = match (at, stored.get_ref(at)?) {
                (CONTENT, ValueRef::Integer(_)) => has_content(rows, &row)?,
                (CONTENT, actual) => actual == ValueRef::Null && !has_content(rows, &row)?,
                (_, actual) => actual == expected,
            };
            if !right {
                unlike.push(i);
                break;
            }
        }
    }
    Ok(unlike)
}

/// Reads all rows of a layer in node order, with the `contents.id` of each.
///
/// # Errors
/// As [`each`].
pub(crate) fn select(db: &Connection, layer: i64) -> Result<(Vec<EntryRow>, Vec<Option<i64>>)> {
    let (mut rows, mut contents) = (Vec::new(), Vec::new());
    each::<Error>(db, layer, &mut |row, content| {
        rows.push(row);
        contents.push(content);
        Ok(())
    })?;
    Ok((rows, contents))
}

/// What [`parse`] reads, and the number of the content.
const SELECT: &str = "SELECT node, parent, name, kind, perm, uid, gid, entries.size, nlink, mtime,
    mtime_ns, device, link, target, content, first, children, marks, position, xattrs, digest
    FROM entries LEFT JOIN contents ON contents.id = entries.content WHERE layer = ?1";

/// Hands over all rows of a layer in node order, each with its `contents.id`, one at a time.
///
/// # Errors
/// `Damaged` where a column holds what no strata writes; whatever SQLite or `take` says.
pub(crate) fn each<E: From<Error>>(
    db: &Connection,
    layer: i64,
    take: &mut dyn FnMut(EntryRow, Option<i64>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let statement = db.prepare_cached(&format!("{SELECT} ORDER BY node"));
    let mut statement = statement.map_err(Error::from)?;
    let mut found = statement.query([layer]).map_err(Error::from)?;
    let mut expected = 0;
    while let Some(row) = found.next().map_err(Error::from)? {
        expected += 1;
        let (row, content) = read(row, layer, expected)?;
        take(row, content)?;
    }
    Ok(())
}

/// One row of a layer, if it has that many.
///
/// # Errors
/// As [`each`].
pub(crate) fn one(db: &Connection, layer: i64, node: NodeId) -> Result<Option<EntryRow>> {
    let mut statement = db.prepare_cached(&format!("{SELECT} AND node = ?2"))?;
    let mut found = statement.query((layer, node.0 as i64))?;
    match found.next()? {
        Some(row) => Ok(Some(read(row, layer, node.0 as i64)?.0)),
        None => Ok(None),
    }
}

/// A row that should have the number `expected`, and the number of its content.
fn read(row: &Row<'_>, layer: i64, expected: i64) -> Result<(EntryRow, Option<i64>)> {
    let node: i64 = row.get(0)?;
    let damaged = |why: String| {
        let what = format!("the row of layer {layer}, node {node} (expected {expected})");
        Error::damaged("index.db", what + &why)
    };
    let parsed = match parse(row) {
        Ok(Some(parsed)) if node == expected => parsed,
        Ok(_) => return Err(damaged(String::new())),
        Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(error.into()),
        Err(error) => return Err(damaged(format!(": {error}"))),
    };
    Ok((parsed, row.get(14)?))
}

fn parse(row: &Row<'_>) -> rusqlite::Result<Option<EntryRow>> {
    // Each column costs a call: what only some kinds have is asked of those.
    let device = || {
        let device = row.get::<_, Option<i64>>(11)?;
        Ok::<_, rusqlite::Error>(
            device.map(|d| Device { major: (d >> 32) as u32, minor: d as u32 }),
        )
    };
    let link = || row.get::<_, Option<Vec<u8>>>(12);
    let unsigned = |i| row.get::<_, Option<u64>>(i);
    let kind = match row.get::<_, i64>(3)? {
        KIND_REGULAR => row
            .get::<_, Option<[u8; 32]>>(20)?
            .map(|digest| RowKind::Regular(ContentDigest::from_bytes(digest))),
        KIND_DIRECTORY => {
            let marks = marks_from_int(row.get::<_, Option<i64>>(17)?.unwrap_or(0));
            let (first, children) = (unsigned(15)?.unwrap_or(0), unsigned(16)?.unwrap_or(0));
            marks.map(|marks| RowKind::Directory { marks, first, children })
        }
        KIND_SYMLINK => link()?.map(RowKind::Symlink),
        KIND_CHAR => device()?.map(RowKind::CharDevice),
        KIND_BLOCK => device()?.map(RowKind::BlockDevice),
        KIND_FIFO => Some(RowKind::Fifo),
        KIND_HARD_LINK => unsigned(13)?.map(|node| RowKind::HardLink(NodeId(node))),
        KIND_WHITEOUT => Some(RowKind::Whiteout),
        KIND_LOWER_LINK => {
            link()?.and_then(|path| TreePath::clamped(&path).ok()).map(RowKind::LowerLink)
        }
        _ => None,
    };
    let (Some(kind), Some(parent)) = (kind, unsigned(1)?) else { return Ok(None) };
    let xattrs = match row.get::<_, Option<Vec<u8>>>(19)? {
        Some(bytes) => decode_xattrs(&bytes),
        None => Some(Vec::new()),
    };
    let Some(xattrs) = xattrs else { return Ok(None) };
    let meta = match row.get::<_, Option<u16>>(4)? {
        Some(perm) => Some(Meta {
            perm,
            uid: row.get(5)?,
            gid: row.get(6)?,
            size: unsigned(7)?.unwrap_or(0),
            nlink: row.get::<_, Option<u32>>(8)?.unwrap_or(1),
            mtime: Timestamp {
                seconds: row.get(9)?,
                nanos: row.get::<_, Option<u32>>(10)?.unwrap_or(0),
            },
            xattrs,
        }),
        None => None,
    };
    let name = row.get::<_, Vec<u8>>(2)?.into();
    let parsed = EntryRow { parent: NodeId(parent), name, kind, meta, position: unsigned(18)? };
    let has_meta =
        !matches!(parsed.kind, RowKind::HardLink(_) | RowKind::Whiteout | RowKind::LowerLink(_));
    Ok((has_meta == parsed.meta.is_some()).then_some(parsed))
}
