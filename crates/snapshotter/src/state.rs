//! The record of snapshots: what containerd has asked for, in SQLite.
//!
//! ```text
//! ROOT/containerd/snapshots.db
//!   snapshots   one row a snapshot: name, parent, kind, times, labels, the layers it adds
//!   images      those of the store that were fetched for containerd, and go with its snapshots
//!   image_names names that those were given for containerd
//!   takes       layers that the files of an upper are just becoming, or have become
//!   fetches     images that are being fetched, and which the store had before
//!   chains      which layers containerd's own unpack of a chain came to
//!   unneeded    layers that the last snapshot of went, and when
//!   blobs       which diff id a blob of a registry turned out to have
//! ```
//!
//! A snapshot is its parent's layers and its own: none for an unchanged one, one as a rule, two for
//! a diff that was applied and then changed. Names are unique over all namespaces, for containerd
//! writes the namespace into them.
//!
//! Invariants: `synchronous=FULL`, so what containerd was told survives a power cut; a row of a
//! committed snapshot changes its labels alone; a parent is committed, and stays as long as it has
//! children.

mod images;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use strata_tree::{BlobDigest, DiffId, ImageId};

use crate::error::{Error, Result, is_full};

/// The number of a snapshot, which names its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SnapshotId(pub(crate) i64);

/// Labels, sorted.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotKind {
    /// To be read.
    View,
    /// To be written.
    Active,
    /// To be a parent.
    Committed,
}

impl SnapshotKind {
    const fn number(self) -> i64 {
        match self {
            Self::View => 1,
            Self::Active => 2,
            Self::Committed => 3,
        }
    }

    fn of(number: i64) -> Result<Self> {
        match number {
            1 => Ok(Self::View),
            2 => Ok(Self::Active),
            3 => Ok(Self::Committed),
            other => Err(Error::Damaged(format!("a snapshot of kind {other}"))),
        }
    }

    /// As containerd's filters have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// What a snapshot takes on disk beside its parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SnapshotUsage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotRow {
    pub(crate) id: SnapshotId,
    pub(crate) name: String,
    /// The parent's name; empty for none.
    pub(crate) parent: String,
    pub(crate) kind: SnapshotKind,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) labels: Labels,
    /// The layers that it adds to its parent's, base first.
    pub(crate) layers: Vec<DiffId>,
    /// Of a committed one.
    pub(crate) usage: SnapshotUsage,
}

/// A snapshot that is to be made.
pub(crate) struct NewSnapshot<'a> {
    pub(crate) name: &'a str,
    pub(crate) parent: &'a str,
    pub(crate) kind: SnapshotKind,
    pub(crate) labels: &'a Labels,
    pub(crate) layers: &'a [DiffId],
    pub(crate) usage: SnapshotUsage,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS snapshots (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT NOT NULL UNIQUE,
    parent  INTEGER REFERENCES snapshots (id),
    kind    INTEGER NOT NULL,  -- 1 view, 2 active, 3 committed
    created INTEGER NOT NULL,  -- nanoseconds since 1970
    updated INTEGER NOT NULL,
    labels  TEXT NOT NULL,     -- a JSON object
    layers  BLOB NOT NULL,     -- diff ids, 32 bytes each, base first
    bytes   INTEGER NOT NULL,
    inodes  INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS snapshots_parent ON snapshots (parent);
CREATE TABLE IF NOT EXISTS blobs (
    blob    BLOB PRIMARY KEY CHECK (length(blob) = 32),
    diff_id BLOB NOT NULL CHECK (length(diff_id) = 32)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    id BLOB PRIMARY KEY CHECK (length(id) = 32)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chains (
    chain  TEXT NOT NULL,
    below  BLOB NOT NULL,      -- diff ids, as in snapshots
    layers BLOB NOT NULL,
    PRIMARY KEY (chain, below)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unneeded (
    diff_id BLOB PRIMARY KEY CHECK (length(diff_id) = 32),
    since   INTEGER NOT NULL   -- nanoseconds since 1970
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS takes (
    snapshot INTEGER PRIMARY KEY REFERENCES snapshots (id) ON DELETE CASCADE,
    diff_id  BLOB NOT NULL CHECK (length(diff_id) = 32)
) STRICT;
CREATE TABLE IF NOT EXISTS fetches (
    reference TEXT PRIMARY KEY,
    before    BLOB NOT NULL    -- ids of images, 32 bytes each
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_names (
    name TEXT PRIMARY KEY,
    id   BLOB NOT NULL CHECK (length(id) = 32)
) STRICT, WITHOUT ROWID;
";

const COLUMNS: &str = "s.id, s.name, coalesce(p.name, ''), s.kind, s.created, s.updated, s.labels,
    s.layers, s.bytes, s.inodes FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent";

/// Pages of the log until it is written from its beginning again. To sync a log that grows the file
/// system writes its own journal too, so it has its size from the start.
const LOG_PAGES: u32 = 512;

/// The record, open.
pub(crate) struct State {
    db: Connection,
}

impl State {
    /// Opens the record, or begins one. `tags` gives those of the store, where the record is of a
    /// version that did not note names of images.
    pub(crate) fn open(
        path: &Path,
        tags: impl FnOnce() -> Result<Vec<(String, ImageId)>>,
    ) -> Result<Self> {
        let mut db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        db.pragma_update(None, "foreign_keys", true)?;
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > 1 {
            let why = format!("it is of version {version}, from a newer strata-snapshotter");
            return Err(Error::Damaged(why));
        }
        let tx = db.transaction()?;
        let notes_names = images::notes_names(&tx)?;
        tx.execute_batch(SCHEMA)?;
        if !notes_names {
            images::note_names_of_before(&tx, tags)?;
        }
        tx.commit()?;
        // A record that is there is not written to, for which there may be no room.
        if version == 0 {
            db.pragma_update(None, "user_version", 1)?;
        }
        Ok(Self { db })
    }

    /// Gives the log its size; says whether there is room for that. If not, it is slower at first.
    pub(crate) fn lengthen_log(&self) -> Result<bool> {
        let filled = self.db.execute_batch(&format!(
            "DROP TABLE IF EXISTS filling;
             CREATE TABLE filling (bytes BLOB);
             INSERT INTO filling VALUES (zeroblob({LOG_PAGES} * 4096));
             DROP TABLE filling;"
        ));
        match filled {
            Err(error) if is_full(&error) => Ok(false),
            filled => Ok(filled.map(|()| true)?),
        }
    }

    /// The snapshot of that name.
    pub(crate) fn get(&self, name: &str) -> Result<SnapshotRow> {
        self.find(name)?.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// The same; `None` if there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Option<SnapshotRow>> {
        let sql = format!("SELECT {COLUMNS} WHERE s.name = ?1");
        let mut statement = self.db.prepare_cached(&sql)?;
        statement.query_row([name], |row| Ok(read(row))).optional()?.transpose()
    }

    /// The snapshot of that number.
    pub(crate) fn numbered(&self, id: SnapshotId) -> Result<Option<SnapshotRow>> {
        let sql = format!("SELECT {COLUMNS} WHERE s.id = ?1");
        let mut statement = self.db.prepare_cached(&sql)?;
        statement.query_row([id.0], |row| Ok(read(row))).optional()?.transpose()
    }

    /// All snapshots, in the order in which they were made.
    pub(crate) fn all(&self) -> Result<Vec<SnapshotRow>> {
        let sql = format!("SELECT {COLUMNS} ORDER BY s.id");
        let mut statement = self.db.prepare_cached(&sql)?;
        statement.query_map([], |row| Ok(read(row)))?.map(|row| row?).collect()
    }

    /// The kind of each snapshot.
    pub(crate) fn kinds(&self) -> Result<Vec<SnapshotKind>> {
        let mut statement = self.db.prepare_cached("SELECT kind FROM snapshots")?;
        statement.query_map([], |row| row.get(0))?.map(|kind| SnapshotKind::of(kind?)).collect()
    }

    /// The children of the snapshot of that name; of none, for the empty name.
    pub(crate) fn children(&self, parent: &str) -> Result<Vec<SnapshotRow>> {
        let which = match parent {
            "" => "s.parent IS NULL AND ?1 = ''",
            _ => "s.parent = (SELECT id FROM snapshots WHERE name = ?1)",
        };
        let sql = format!("SELECT {COLUMNS} WHERE {which}");
        let mut statement = self.db.prepare_cached(&sql)?;
        statement.query_map([parent], |row| Ok(read(row)))?.map(|row| row?).collect()
    }

    /// All layers of a snapshot, its parents' first.
    pub(crate) fn chain(&self, name: &str) -> Result<Vec<DiffId>> {
        let mut statement = self.db.prepare_cached(
            "WITH RECURSIVE up (id, parent, layers, depth) AS (
                SELECT id, parent, layers, 0 FROM snapshots WHERE name = ?1
                UNION ALL
                SELECT s.id, s.parent, s.layers, depth + 1 FROM snapshots s, up
                WHERE s.id = up.parent)
             SELECT layers FROM up ORDER BY depth DESC",
        )?;
        let mut layers = Vec::new();
        for own in statement.query_map([name], |row| row.get::<_, Vec<u8>>(0))? {
            layers.extend(unpacked(&own?)?);
        }
        Ok(layers)
    }

    /// Makes a snapshot. `before` is told its number before it is there, and may refuse.
    pub(crate) fn insert(
        &mut self,
        new: &NewSnapshot<'_>,
        before: impl FnOnce(SnapshotId) -> Result<()>,
    ) -> Result<SnapshotRow> {
        if new.name.is_empty() {
            return Err(Error::InvalidArgument("a snapshot needs a name".to_owned()));
        }
        if self.find(new.name)?.is_some() {
            return Err(Error::AlreadyExists(new.name.to_owned()));
        }
        let parent = self.parent(new.parent)?;
        let now = now();
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.prepare_cached(
            "INSERT INTO snapshots (name, parent, kind, created, updated, labels, layers, bytes,
                inodes) VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new.name,
            parent.map(|parent| parent.id.0),
            new.kind.number(),
            now,
            text_of(new.labels),
            packed(new.layers),
            number(new.usage.bytes),
            number(new.usage.inodes),
        ])?;
        before(SnapshotId(tx.last_insert_rowid()))?;
        tx.commit()?;
        self.get(new.name)
    }

    /// The committed snapshot of that name; `None` for the empty name.
    pub(crate) fn parent(&self, name: &str) -> Result<Option<SnapshotRow>> {
        if name.is_empty() {
            return Ok(None);
        }
        let parent = self.get(name)?;
        match parent.kind {
            SnapshotKind::Committed => Ok(Some(parent)),
            SnapshotKind::View | SnapshotKind::Active => {
                Err(Error::InvalidArgument(format!("parent {name} is not committed")))
            }
        }
    }

    /// Makes an active snapshot a committed one of another name.
    pub(crate) fn commit(&mut self, active: SnapshotId, new: &NewSnapshot<'_>) -> Result<()> {
        if self.find(new.name)?.is_some() {
            return Err(Error::AlreadyExists(new.name.to_owned()));
        }
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.prepare_cached("DELETE FROM takes WHERE snapshot = ?1")?.execute([active.0])?;
        tx.prepare_cached(
            "UPDATE snapshots SET name = ?2, kind = ?3, created = ?4, updated = ?4,
                    labels = ?5, layers = ?6, bytes = ?7, inodes = ?8 WHERE id = ?1",
        )?
        .execute(params![
            active.0,
            new.name,
            new.kind.number(),
            now(),
            text_of(new.labels),
            packed(new.layers),
            number(new.usage.bytes),
            number(new.usage.inodes),
        ])?;
        tx.commit()?;
        Ok(())
    }

    /// Notes which layer the files of an upper are to become.
    pub(crate) fn begin_take(&mut self, id: SnapshotId, layer: &DiffId) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO takes (snapshot, diff_id) VALUES (?1, ?2)")?
            .execute(params![id.0, &layer.as_bytes()[..]])?;
        Ok(())
    }

    /// All such notes.
    pub(crate) fn takes(&self) -> Result<Vec<(SnapshotId, DiffId)>> {
        let mut statement = self.db.prepare_cached("SELECT snapshot, diff_id FROM takes")?;
        let read = |row: &Row<'_>| Ok((SnapshotId(row.get(0)?), row.get::<_, [u8; 32]>(1)?));
        let found = statement.query_map([], read)?;
        found
            .map(|one| one.map(|(id, layer)| (id, DiffId::from_bytes(layer))))
            .collect::<std::result::Result<_, _>>()
            .map_err(Error::from)
    }

    /// Forgets one of them; these are the layers of its snapshot now.
    pub(crate) fn end_take(&mut self, id: SnapshotId, layers: &[DiffId]) -> Result<()> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("DELETE FROM takes WHERE snapshot = ?1", [id.0])?;
        tx.execute(
            "UPDATE snapshots SET layers = ?2 WHERE id = ?1",
            params![id.0, packed(layers)],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// Adds a layer to an active snapshot.
    pub(crate) fn set_layers(&mut self, id: SnapshotId, layers: &[DiffId]) -> Result<()> {
        self.db
            .prepare_cached("UPDATE snapshots SET layers = ?2 WHERE id = ?1")?
            .execute(params![id.0, packed(layers)])?;
        Ok(())
    }

    /// Gives a snapshot other labels.
    pub(crate) fn set_labels(&mut self, id: SnapshotId, labels: &Labels) -> Result<()> {
        self.db
            .prepare_cached("UPDATE snapshots SET labels = ?2, updated = ?3 WHERE id = ?1")?
            .execute(params![id.0, text_of(labels), now()])?;
        Ok(())
    }

    /// Removes a snapshot without children.
    pub(crate) fn remove(&mut self, name: &str) -> Result<SnapshotRow> {
        let snapshot = self.get(name)?;
        if !self.children(name)?.is_empty() {
            let why = format!("cannot remove snapshot {name}: it has children");
            return Err(Error::FailedPrecondition(why));
        }
        self.db.prepare_cached("DELETE FROM snapshots WHERE id = ?1")?.execute([snapshot.id.0])?;
        Ok(snapshot)
    }

    /// Whether a snapshot has that layer for its own, or is about to.
    pub(crate) fn uses(&self, layer: &DiffId) -> Result<bool> {
        // Few snapshots have more than one: the blob is the layer, or contains it.
        let mut statement = self.db.prepare_cached(
            "SELECT 1 FROM snapshots WHERE instr(layers, ?1) > 0
             UNION ALL SELECT 1 FROM takes WHERE diff_id = ?1",
        )?;
        Ok(statement.exists([&layer.as_bytes()[..]])?)
    }

    /// Notes which layers a chain came to, above those below it: where containerd unpacks, an upper
    /// becomes a layer that has another diff id than the image's.
    pub(crate) fn note_chain(
        &mut self,
        chain: &str,
        below: &[DiffId],
        layers: &[DiffId],
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO chains (chain, below, layers) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![chain, packed(below), packed(layers)])?;
        Ok(())
    }

    /// Which layers a chain came to, above those.
    pub(crate) fn layers_of_chain(
        &self,
        chain: &str,
        below: &[DiffId],
    ) -> Result<Option<Vec<DiffId>>> {
        let mut statement =
            self.db.prepare_cached("SELECT layers FROM chains WHERE chain = ?1 AND below = ?2")?;
        let read = |row: &Row<'_>| row.get::<_, Vec<u8>>(0);
        let found = statement.query_row(params![chain, packed(below)], read).optional()?;
        found.map(|layers| unpacked(&layers)).transpose()
    }

    /// Forgets what chains came to that had this layer.
    pub(crate) fn forget_chains(&mut self, layer: &DiffId) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM chains WHERE instr(layers, ?1) + instr(below, ?1) > 0")?
            .execute([&layer.as_bytes()[..]])?;
        Ok(())
    }

    /// Notes that no snapshot has a layer any more.
    pub(crate) fn note_unneeded(&mut self, layer: &DiffId) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO unneeded (diff_id, since) VALUES (?1, ?2)")?
            .execute(params![&layer.as_bytes()[..], now()])?;
        Ok(())
    }

    /// Notes that no snapshot has a layer, unless that is noted: it counts from then on.
    pub(crate) fn note_unneeded_once(&mut self, layer: &DiffId) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR IGNORE INTO unneeded (diff_id, since) VALUES (?1, ?2)")?
            .execute(params![&layer.as_bytes()[..], now()])?;
        Ok(())
    }

    /// Layers that have not been needed for as long as that. What was noted while the clock was
    /// ahead counts as old: the clock may be right for years until then.
    pub(crate) fn unneeded(&self, kept: Duration) -> Result<Vec<DiffId>> {
        let kept = i64::try_from(kept.as_nanos()).unwrap_or(i64::MAX);
        let mut statement = self
            .db
            .prepare_cached("SELECT diff_id FROM unneeded WHERE since <= ?1 OR since > ?2")?;
        let read = |row: &Row<'_>| Ok(DiffId::from_bytes(row.get(0)?));
        let now = now();
        let found = statement.query_map([now.saturating_sub(kept), now], read)?;
        Ok(found.collect::<std::result::Result<_, _>>()?)
    }

    /// Forgets that no snapshot has a layer: one has it again, or it is gone.
    pub(crate) fn forget_unneeded(&mut self, layer: &DiffId) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM unneeded WHERE diff_id = ?1")?
            .execute([&layer.as_bytes()[..]])?;
        Ok(())
    }

    /// Which diff id a blob turned out to have.
    pub(crate) fn diff_id_of(&self, blob: &BlobDigest) -> Result<Option<DiffId>> {
        let mut statement = self.db.prepare_cached("SELECT diff_id FROM blobs WHERE blob = ?1")?;
        let found: Option<[u8; 32]> =
            statement.query_row([&blob.as_bytes()[..]], |row| row.get(0)).optional()?;
        Ok(found.map(DiffId::from_bytes))
    }

    /// Notes that.
    pub(crate) fn note_blob(&mut self, blob: &BlobDigest, diff_id: &DiffId) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO blobs (blob, diff_id) VALUES (?1, ?2)")?
            .execute(params![&blob.as_bytes()[..], &diff_id.as_bytes()[..]])?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> Result<SnapshotRow> {
    let labels: String = row.get(6)?;
    let layers: Vec<u8> = row.get(7)?;
    let name: String = row.get(1)?;
    Ok(SnapshotRow {
        id: SnapshotId(row.get(0)?),
        parent: row.get(2)?,
        kind: SnapshotKind::of(row.get(3)?)?,
        created: row.get(4)?,
        updated: row.get(5)?,
        labels: serde_json::from_str(&labels)
            .map_err(|error| Error::Damaged(format!("labels of {name}: {error}")))?,
        layers: unpacked(&layers)?,
        usage: SnapshotUsage {
            bytes: row.get::<_, i64>(8)?.unsigned_abs(),
            inodes: row.get::<_, i64>(9)?.unsigned_abs(),
        },
        name,
    })
}

fn packed(layers: &[DiffId]) -> Vec<u8> {
    layers.iter().flat_map(|layer| *layer.as_bytes()).collect()
}

fn unpacked(bytes: &[u8]) -> Result<Vec<DiffId>> {
    let (layers, rest) = bytes.as_chunks::<32>();
    match rest {
        [] => Ok(layers.iter().map(|layer| DiffId::from_bytes(*layer)).collect()),
        _ => Err(Error::Damaged(format!("layers of {} bytes", bytes.len()))),
    }
}

fn text_of(labels: &Labels) -> String {
    serde_json::json!(labels).to_string()
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
