//! `fsck`: `index.db` as a file and as a database, and what it says of images.
//!
//! SQLite checks what it reads; what it does not need, it does not check. So the header and the
//! schema are compared with what strata writes, and rows (elsewhere) column by column. No check
//! sees bytes that mean nothing: unallocated ones inside pages, pages on the free list, the
//! version number of the SQLite that wrote last (96..100), keys of inner pages that separate the
//! same rows, counters of `sqlite_sequence` that are larger than they need be, the place in a row
//! of a column that is the row's own number, and which copy of its bytes a content is, as long as
//! that can be: the ones before it may be gone.
//!
//! Invariant: a damaged index is a problem that is reported, never an error that ends the check.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use strata_tree::{BlobDigest, DiffId, FlatTree};

use super::checker::Checker;
use super::dir::{NAMES_ENDING, has_layers};
use super::fsck_report::Problem;
use super::listing::{Found, ImageList, Listing};
use super::names_images;
use crate::error::{Error, IoContext, Result, second_look};
use crate::index::{self, Index, NEWEST, PAGE, Tables, images};

/// Bytes of the header that never change: offset and value ("Database File Format", section 1.3).
const HEADER: [(u64, &[u8]); 7] = [
    (0, b"SQLite format 3\0"),
    (18, &[2, 2, 0, 64, 32, 32]), // write-ahead log, no reserved space, payload fractions
    (44, &4_u32.to_be_bytes()),   // schema format
    (48, &[0; 8]),                // cache size, largest root page
    (56, &1_u32.to_be_bytes()),   // UTF-8
    (64, &[0; 8]),                // incremental vacuum, application id
    (72, &[0; 20]),               // reserved
];

/// Bytes of its pages, in the header at 16: of an index that was made now, or before.
const PAGES: [u16; 2] = [PAGE, 4096];

/// Why the index cannot be opened and checked; `None` if it can.
///
/// # Errors
/// `NewerStore`, `NotAStore`; `Io`, `Sqlite` where that says nothing of the file.
pub(super) fn unreadable(root: &Path) -> Result<Option<String>> {
    let path = root.join("index.db");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let nothing = !has_layers(root)?;
            return Ok((!nothing).then(|| "is gone".to_owned()));
        }
        Err(error) => return Err(error).doing(|| format!("cannot open {}", path.display())),
    };
    // Before SQLite opens it: it mends some of these bytes without a word.
    if let Some(what) = check_header(root, &file)? {
        return Ok(Some(what));
    }
    drop(file);
    match check_schema(root, &path) {
        Ok(what) => Ok(what),
        Err(error @ (Error::NewerStore { .. } | Error::NotAStore(_))) => Err(error),
        // What can only be read is checked by reading it.
        Err(error) if error.is_refused_write() => Ok(None),
        Err(error) => damage(error).map(Some),
    }
}

/// What an error of SQLite says of the index, if it does.
///
/// # Errors
/// The same error, if it says nothing of it.
pub(super) fn damage(error: Error) -> Result<String> {
    match &error {
        Error::Sqlite(rusqlite::Error::SqliteFailure(cause, _)) => match cause.code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory => Err(error),
            _ => Ok(error.to_string()),
        },
        Error::Sqlite(_) | Error::Damaged { .. } => Ok(error.to_string()),
        _ => Err(error),
    }
}

fn check_header(root: &Path, file: &File) -> Result<Option<String>> {
    let doing = || "cannot read index.db".to_owned();
    let size = file.metadata().doing(doing)?.len();
    let mut header = [0; 100];
    if size < 512 {
        return Ok(Some(format!("has {size} bytes, too few for a database")));
    }
    file.read_exact_at(&mut header, 0).doing(doing)?;
    for (at, expected) in HEADER {
        let found = &header[at as usize..][..expected.len()];
        if let Some(n) = found.iter().zip(expected).position(|(a, b)| a != b) {
            return Ok(Some(format!("byte {} of its header is wrong", at + n as u64)));
        }
    }
    let page = u16::from_be_bytes([header[16], header[17]]);
    if !PAGES.contains(&page) {
        return Ok(Some(format!("its header says that a page has {page} bytes")));
    }
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|n| header[at + n]));
    if word(24) != word(92) {
        return Ok(Some("its change counters (bytes 24 and 92) differ".to_owned()));
    }
    // With a log, pages may be on their way.
    let log = std::fs::metadata(root.join("index.db-wal")).map_or(0, |meta| meta.len());
    if log == 0 && u64::from(word(28)) * u64::from(page) != size {
        let what = format!("has {size} bytes, its header says {} pages", word(28));
        return Ok(Some(what));
    }
    Ok(None)
}

/// Type, name, table and text of everything in a database, and its schema's number. A root page
/// is only a number: those of tables that a migration added are where there was room; a wrong one
/// is found by SQLite's own check.
fn schema(db: &Connection) -> Result<(i64, Vec<(i64, String)>)> {
    let cookie = db.pragma_query_value(None, "schema_version", |row| row.get(0))?;
    let mut statement = db.prepare(
        "SELECT rowid, json_array(type, name, tbl_name, typeof(rootpage), sql) FROM sqlite_schema
         ORDER BY rowid",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((cookie, rows.collect::<std::result::Result<_, _>>()?))
}

fn check_schema(root: &Path, path: &Path) -> Result<Option<String>> {
    let index = Index::open_existing(path)?;
    match Tables::of(&index.db)? {
        Tables::OfStore => {}
        Tables::OfLedger if has_layers(root)? => {
            return Ok(Some("is what an older `strata facts --work` made of it".to_owned()));
        }
        Tables::OfLedger => return Err(Error::NotAStore(root.to_owned())),
        Tables::None => return Ok(has_layers(root)?.then(|| "has no tables".to_owned())),
    }
    let found = index.version()?;
    let same = schema(&index.db)? == schema(&Index::reference()?.db)?;
    Ok(match (same, found == NEWEST) {
        (true, true) => None,
        (true, false) => Some(format!("says it has version {found}, it has {NEWEST}")),
        (false, true) => Some("its schema is not the one that strata writes".to_owned()),
        (false, false) if found > NEWEST => {
            return Err(Error::NewerStore { found, newest: NEWEST });
        }
        // An older one, which is migrated when it is opened.
        (false, false) => None,
    })
}

impl Checker<'_> {
    /// What SQLite and counting can tell.
    pub(super) fn check_sqlite(&mut self) -> Result<()> {
        let index = self.index.lock();
        let mut statement = index.db.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        for line in lines.collect::<std::result::Result<Vec<_>, _>>()? {
            if line != "ok" {
                self.report.index_problem(line);
            }
        }
        let mut statement = index.db.prepare("PRAGMA foreign_key_check")?;
        let broken = statement.query_map([], |_| Ok(()))?.count();
        if broken > 0 {
            self.report.index_problem(format!("{broken} rows refer to none"));
        }
        for (what, count) in [
            (
                "contents have no entry",
                "SELECT count(*) FROM contents
                 WHERE NOT EXISTS (SELECT 1 FROM entries WHERE content = contents.id)",
            ),
            (
                "contents have another size than their entries",
                "SELECT count(*) FROM contents JOIN entries ON content = contents.id
                 WHERE entries.size IS NOT NULL AND entries.size <> contents.size",
            ),
            (
                // Each copy before it came earlier, so it had a smaller id.
                "contents are copies that there cannot be",
                "SELECT count(*) FROM contents WHERE copy < 0 OR copy >= id",
            ),
            (
                "images have layers in places that they do not have",
                "SELECT count(*) FROM (SELECT 1 FROM image_layers GROUP BY image
                    HAVING min(position) <> 0 OR max(position) <> count(*) - 1)",
            ),
            (
                "counters are wrong",
                "SELECT count(*) FROM (SELECT 'layers' AS name, max(id) AS id FROM layers
                                 UNION SELECT 'contents', max(id) FROM contents) AS used
                 WHERE used.id IS NOT NULL AND 1 <> (SELECT count(*) FROM sqlite_sequence AS s
                    WHERE s.name = used.name AND typeof(seq) = 'integer' AND seq >= used.id)",
            ),
            (
                "counters are of no table",
                "SELECT count(*) FROM sqlite_sequence
                 WHERE typeof(name) <> 'text' OR name NOT IN ('layers', 'contents')
                    OR typeof(seq) <> 'integer' OR seq < 0",
            ),
        ] {
            let n: i64 = index.db.query_row(count, [], |row| row.get(0))?;
            if n > 0 {
                self.report.index_problem(format!("{n} {what}"));
            }
        }
        Ok(())
    }

    /// Images and tags against their copy, and their blobs.
    pub(super) fn check_images(&mut self) -> Result<()> {
        let expected = ImageList::of(&self.index.lock().db)?;
        let state = expected.state();
        match Listing::read(&self.dir.listing())? {
            Found::Listing(listing) if listing.images == expected => {}
            Found::Listing(listing) if listing.is_ahead_of(&state) => {
                self.report.notes.push("images.json has a change that a crash kept out".to_owned());
            }
            Found::Listing(_) => {
                self.report.index_problem("its images and tags are not those of images.json");
            }
            Found::Absent if expected == ImageList::default() => {}
            Found::Absent => self.report.problems.push(Problem::Listing("is gone".to_owned())),
            Found::Damaged(why, _) => self.report.problems.push(Problem::Listing(why)),
        }
        let images = images::all(&self.index.lock().db)?;
        for image in images {
            let blobs = [Some(BlobDigest::from(image.id)), image.manifest];
            for digest in blobs.into_iter().flatten() {
                match second_look(|| self.dir.blob(&digest)) {
                    Ok(_) => {}
                    Err(error) if error.may_be_damage() => {
                        let what = error.to_string();
                        self.report.problems.push(Problem::Image { id: image.id, what });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Directories without a row, and compiled trees.
    pub(super) fn check_leftovers(&mut self) -> Result<()> {
        for (name, path) in self.dir.list("layers")? {
            let known = match DiffId::from_hex(&name) {
                Ok(diff_id) => index::find_layer(&self.index.lock().db, &diff_id)?.is_some(),
                Err(_) => false,
            };
            if !known {
                let what = "is in no image and not in the index; `strata gc` removes it";
                self.report.notes.push(format!("{} {what}", path.display()));
            }
        }
        for (_, path) in self.dir.list("trees")? {
            let fault = match path.to_string_lossy().ends_with(NAMES_ENDING) {
                true => names_images::fault(&path),
                false => tree_fault(&path),
            };
            // A tree goes with the last image that has it, which may be now.
            if let Some(what) = fault.filter(|_| path.exists()) {
                self.report.problems.push(Problem::Tree { path, what });
            }
        }
        Ok(())
    }
}

/// What is wrong with a compiled tree; `None` if nothing is.
fn tree_fault(path: &Path) -> Option<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(error.to_string()),
    };
    let tree = FlatTree::open(file, path.display().to_string());
    tree.and_then(|tree| tree.verify()).err().map(|error| error.to_string())
}
