//! An index whose pages are whole and whose rows are not: any value in any column.
//!
//! A damaged page is what SQLite finds; what a row says, only strata can judge. An input says what
//! comes where; where the store is only read, its tables are without their rules (no `STRICT`, no
//! `NOT NULL`), which a check would find at once.
//!
//! ```text
//! 0      what is done with the store: one way to read it, a check, a repair
//! 1..    changes of 12 bytes: table, column, row (2), kind of value, value (7)
//! ```
//!
//! Invariants: a check finds every change, but for which copy of its bytes a content is; a repair
//! keeps every layer, image and name, for the index says nothing that is not elsewhere too, and a
//! check finds whole what it mended; the store that the next input begins from stays as it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use strata_layer::{Result, Snapshot, Store, StoreOptions};
use stratafs::{Engine, OpenImage};

use crate::kit::{Nobody, place};

/// The tables, with what names a row of each; `entries` has most of them, and most that can go
/// wrong.
const TABLES: [(&str, &str); 9] = [
    ("entries", "layer, node"),
    ("entries", "layer, node"),
    ("entries", "layer, node"),
    ("layers", "id"),
    ("contents", "id"),
    ("holders", "id"),
    ("images", "id"),
    ("image_layers", "image, position"),
    ("tags", "reference"),
];

/// A store of two images and six layers.
struct Whole {
    root: tempfile::TempDir,
    index: Vec<u8>,
    /// The same without its rules.
    loose: Vec<u8>,
    /// All rows of the index.
    rows: String,
    /// What it shows.
    shown: String,
}

#[allow(clippy::unwrap_used)]
fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let root = place();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let engine = Engine::new(root.path());
        for archive in ["cases-docker25.docker.tar", "lowerlink.oci.tar"] {
            engine.load(fixtures.join(archive), &Nobody).unwrap();
        }
        let path = root.path().join("index.db");
        let shown = shown(root.path());
        let index = std::fs::read(&path).unwrap();
        let db = Connection::open(&path).unwrap();
        let rows = rows_of(&db);
        db.execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(replace(replace(sql,
                 'STRICT, WITHOUT ROWID', 'WITHOUT ROWID'), 'STRICT', ''), 'NOT NULL', '')
             WHERE type = 'table';",
        )
        .unwrap();
        db.close().unwrap();
        Whole { loose: std::fs::read(&path).unwrap(), root, index, rows, shown }
    })
}

/// All that the tables hold and a check can judge, as text.
#[allow(clippy::unwrap_used)]
fn rows_of(db: &Connection) -> String {
    let mut text = String::new();
    for (table, key) in &TABLES[2..] {
        let sql = format!("SELECT * FROM {table} ORDER BY {key}");
        let mut statement = db.prepare(&sql).unwrap();
        let judged = |column: &&str| *column != "copy";
        let columns: Vec<String> =
            statement.column_names().filter(judged).map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in &columns {
                write!(text, "{:?} ", row.get_ref(column.as_str()).unwrap()).unwrap();
            }
            text.push('\n');
        }
    }
    text
}

/// What a change puts into a column.
fn value(kind: u8, bytes: &[u8]) -> Value {
    let short = &bytes[1..1 + usize::from(bytes[0] % 7)];
    match kind % 8 {
        0 | 1 => Value::Integer(i64::from(bytes[0].cast_signed())),
        2 => {
            let power = 1_i64.wrapping_shl(u32::from(bytes[0] % 64));
            Value::Integer(power.wrapping_add(i64::from(bytes[1].cast_signed())))
        }
        3 => Value::Blob(short.to_vec()),
        4 => Value::Text(String::from_utf8_lossy(short).into_owned()),
        5 => Value::Blob(vec![bytes[0]; 32]),
        6 => Value::Real(f64::from(bytes[0]) / 3.0),
        _ => Value::Null,
    }
}

/// Makes the changes of an input in the index at `path`.
#[allow(clippy::unwrap_used)]
fn change(path: &Path, changes: &[u8]) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF;
         PRAGMA ignore_check_constraints = ON; BEGIN",
    )
    .unwrap();
    for one in changes.chunks_exact(12).take(8) {
        let (table, key) = TABLES[usize::from(one[0]) % TABLES.len()];
        let columns: Vec<String> = {
            let statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
            statement.column_names().map(|name| format!("\"{name}\"")).collect()
        };
        let column = &columns[usize::from(one[1]) % columns.len()];
        let all: i64 =
            db.query_one(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        let row = i64::from(u16::from_le_bytes([one[2], one[3]])) % all.max(1);
        let here =
            format!("({key}) IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {row})");
        // What SQLite itself refuses is no change.
        let _ = match one[4] % 16 {
            15 => db.execute(&format!("DELETE FROM {table} WHERE {here}"), []),
            14 => {
                let from = i64::from(u16::from_le_bytes([one[5], one[6]])) % all.max(1);
                let there =
                    format!("SELECT {column} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {from}");
                let sql =
                    format!("UPDATE OR REPLACE {table} SET {column} = ({there}) WHERE {here}");
                db.execute(&sql, [])
            }
            kind => db.execute(
                &format!("UPDATE OR REPLACE {table} SET {column} = ?1 WHERE {here}"),
                params_from_iter([value(kind, &one[5..])]),
            ),
        };
    }
    db.execute_batch("COMMIT").unwrap();
    db.close().unwrap();
}

/// Rows of an index, changed: read by all that reads them, checked, or mended.
#[allow(clippy::unwrap_used)]
pub(crate) fn rows(data: &[u8]) {
    let Some((what, changes)) = data.split_first() else { return };
    let whole = whole();
    let root = whole.root.path();
    let path = root.join("index.db");
    for left in ["index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(root.join(left));
    }
    for tree in std::fs::read_dir(root.join("trees")).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(tree.path());
    }
    let judged = what % 8 >= 6;
    std::fs::write(&path, if judged { &whole.index } else { &whole.loose }).unwrap();
    change(&path, changes);
    // Errors are right where it is read; panics, and walks without end, are not.
    let _ = match what % 8 {
        0 | 1 => trees(root),
        2 => diffs(root),
        3 => accounts(root),
        4 => readers(root),
        5 => snapshot(root),
        6 => {
            check(root, &whole.rows);
            Ok(())
        }
        _ => {
            mend(root, &whole.shown);
            Ok(())
        }
    };
}

#[allow(clippy::unwrap_used)]
fn check(root: &Path, rows: &str) {
    let changed = rows_of(&Connection::open(root.join("index.db")).unwrap()) != rows;
    let found = Store::fsck(root, false, StoreOptions::default(), &Nobody).unwrap();
    assert!(!changed || !found.problems.is_empty(), "a change that no check finds");
}

#[allow(clippy::unwrap_used)]
fn mend(root: &Path, whole: &str) {
    let copy = place();
    copy_tree(root, copy.path(), &mut HashMap::new()).unwrap();
    let fsck = |repair| Store::fsck(copy.path(), repair, StoreOptions::default(), &Nobody);
    let mended = fsck(true).unwrap();
    assert_eq!(mended.problems, [], "after {:?}", mended.repaired);
    let found = fsck(false).unwrap();
    assert_eq!(found.problems, [], "what was mended by {:?}", mended.repaired);
    assert_eq!(shown(copy.path()), whole, "after {:?}", mended.repaired);
}

/// What a store has: layers, images, names.
#[allow(clippy::unwrap_used)]
fn shown(root: &Path) -> String {
    let store = opened(root).unwrap();
    let mut layers: Vec<_> = store.layers().unwrap().iter().map(|layer| layer.diff_id).collect();
    layers.sort_unstable();
    let all = store.images().with_tags().unwrap();
    let images: Vec<_> = all.images.iter().map(|image| (image.id, &image.layers)).collect();
    format!("{layers:?} {images:?} {:?}", all.tags)
}

fn opened(root: &Path) -> Result<Store> {
    Store::open_existing(root, StoreOptions::default())
}

/// Every image as a mount and `export` have it.
fn trees(root: &Path) -> Result<()> {
    let store = opened(root)?;
    for image in store.images().all()? {
        let Ok(image) = OpenImage::open(&store, &image.id.to_string()) else { continue };
        let _ = image.walk(&mut |_, _| ControlFlow::Continue(()));
        let _ = image.write_tar(&mut std::io::sink());
    }
    Ok(())
}

/// Every layer as `save` and `push` have it.
fn diffs(root: &Path) -> Result<()> {
    let store = opened(root)?;
    for layer in store.layers()? {
        if let Ok(Some(leased)) = store.lease(&layer.diff_id) {
            let _ = leased.write_diff(&mut std::io::sink());
        }
    }
    Ok(())
}

/// What `df` and `images` have.
fn accounts(root: &Path) -> Result<()> {
    let store = opened(root)?;
    let _ = (store.images().tags(), store.images().with_tags(), store.held_images());
    let (sharing, images) = (store.accounts().sharing()?, store.images().all()?);
    let _ = (sharing.images(&images), sharing.layer_usage(&images), sharing.unheld(&images));
    let ids: Vec<_> = images.iter().map(|image| image.id).collect();
    let _ = store.accounts().removal(&ids, &[]);
    store.into_disk_usage().map(drop)
}

/// What `report` and `find` have.
fn readers(root: &Path) -> Result<()> {
    let store = opened(root)?;
    let reader = store.reader();
    let _ = (reader.repeated(10, 10), reader.holder_sets(), reader.copied());
    for layer in reader.layers()? {
        for named in reader.contents_of(&[layer.diff_id])?.iter().take(10) {
            if let Ok((digest, ..)) = reader.open(named) {
                let _ = (reader.names(&digest, 10), reader.containing(&digest));
            }
        }
        let _ = reader.each_row(&layer.diff_id, &mut |_, _| Ok(()));
    }
    Ok(())
}

/// What `facts` has.
fn snapshot(root: &Path) -> Result<()> {
    let snapshot = Snapshot::of(&opened(root)?)?;
    for layer in snapshot.layers()? {
        let _ = snapshot.each_entry::<strata_layer::Error>(&layer.diff_id, &mut |_| Ok(()));
    }
    snapshot.each_content::<strata_layer::Error>(&mut |_| Ok(()))
}

/// A copy of the store, and the index that it had.
#[allow(clippy::unwrap_used)]
pub(crate) fn copied_store() -> (tempfile::TempDir, &'static [u8]) {
    let whole = whole();
    let copy = place();
    copy_tree(whole.root.path(), copy.path(), &mut HashMap::new()).unwrap();
    for left in ["index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(copy.path().join(left));
    }
    (copy, &whole.index)
}

/// Copies a directory; names of one file are of one file again.
fn copy_tree(from: &Path, to: &Path, copied: &mut HashMap<u64, PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (found, target) = (entry.metadata()?, to.join(entry.file_name()));
        if found.is_dir() {
            std::fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target, copied)?;
            std::fs::set_permissions(&target, found.permissions())?;
        } else if let Some(first) = copied.get(&found.ino()) {
            std::fs::hard_link(first, &target)?;
        } else {
            // The alarm that watches over a run interrupts it.
            while let Err(error) = std::fs::copy(entry.path(), &target) {
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            copied.insert(found.ino(), target);
        }
    }
    Ok(())
}
