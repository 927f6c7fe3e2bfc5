//! `index.db` is derived: without it, or with a damaged one, the same comes back.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use strata_diff::Limits;
use strata_diff::headers::{Keeper, StoredBody, StreamWriter};
use strata_diff::stream::Hashed;
use strata_diff::tar::DiffReader;
use strata_layer::{Error, Ledger, Store, StoreOptions};

use crate::common::{
    Silent, TempStore, assert_clean, copy_store, diff_id, dump, files, fsck, load, members,
    stored_files, unpack,
};

fn filled(place: &TempStore) {
    let store = place.open();
    let base = members(&[
        "d a",
        "f a/one one",
        "h a/link => a/one",
        "s l -> a/one",
        "c null",
        "p pipe",
        "f same/1 same",
        "f same/2 same",
        "f gone bytes",
        "f gone others",
    ]);
    let over = members(&["f a/.wh.one", "f b/.wh..wh..opq", "h c => same/1", "f other same"]);
    let one = load(&store, "one:1", &[&base, &over]);
    load(&store, "two:1", &[&base, &over, &over]);
    load(&store, "three:1", &[&files(&[("x", b"same"), ("y", b"own")])]);
    store.images().tag("one:latest", &one).unwrap();
    store.images().untag("three:1").unwrap();
}

fn repair(place: &TempStore) -> strata_layer::FsckReport {
    Store::fsck(&place.root(), true, StoreOptions::default(), &Silent).unwrap()
}

#[test]
fn a_deleted_index_comes_back_with_the_same_rows_images_and_tags() {
    let place = TempStore::in_memory();
    filled(&place);
    let before = (dump(&place.root()), stored_files(&place.root()));
    assert!(before.0.len() > 25);
    std::fs::remove_file(place.root().join("index.db")).unwrap();
    assert!(matches!(Store::open(&place.root()), Err(Error::NoIndex(_))));
    let report = fsck(&place.root());
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].to_string().contains("index.db: is gone"));
    let report = repair(&place);
    assert_eq!(report.problems, []);
    assert_eq!((dump(&place.root()), stored_files(&place.root())), before);
    assert_clean(&place.root());
    let store = place.open();
    let tags: Vec<_> = store.images().tags().unwrap().into_iter().map(|(tag, _)| tag).collect();
    assert_eq!(tags, ["one:1", "one:latest", "two:1"]);
}

#[test]
fn an_index_that_is_no_database_comes_back_too() {
    for (name, bytes) in
        [("empty", Vec::new()), ("text", b"text".repeat(3000)), ("zeros", vec![0; 40960])]
    {
        let place = TempStore::in_memory();
        filled(&place);
        let before = dump(&place.root());
        std::fs::write(place.root().join("index.db"), bytes).unwrap();
        assert_eq!(fsck(&place.root()).problems.len(), 1, "{name}");
        assert_eq!(repair(&place).problems, [], "{name}");
        assert_eq!(dump(&place.root()), before, "{name}");
        assert_clean(&place.root());
    }
}

/// SQLite takes such a file for a new database, and all layers would be garbage then.
#[test]
fn an_index_with_nothing_in_it_is_a_lost_one() {
    let without_tables: fn(&Path) = |path| {
        let db = rusqlite::Connection::open(path).unwrap();
        db.pragma_update(None, "page_size", 2048).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
    };
    let empty: fn(&Path) = |path| drop(std::fs::File::create(path).unwrap());
    for (name, make) in [("empty", empty), ("without tables", without_tables)] {
        let place = TempStore::in_memory();
        filled(&place);
        let root = place.root();
        let before = (dump(&root), stored_files(&root));
        std::fs::remove_file(root.join("index.db")).unwrap();
        make(&root.join("index.db"));
        let options = StoreOptions::default;
        assert!(matches!(Store::open(&root), Err(Error::NoIndex(_))), "{name}");
        assert!(matches!(Store::open_existing(&root, options()), Err(Error::NoIndex(_))), "{name}");
        assert_eq!(fsck(&root).problems.len(), 1, "{name}");
        assert_eq!(repair(&place).problems, [], "{name}");
        assert_eq!((dump(&root), stored_files(&root)), before, "{name}");
        assert_clean(&root);

        // What a process has left that ended while it was making a store is a new one.
        let new = place.beside("new");
        std::fs::create_dir_all(new.join("layers")).unwrap();
        make(&new.join("index.db"));
        assert_eq!(Store::open_existing(&new, options()).unwrap().layers().unwrap(), [], "{name}");
        assert_clean(&new);
    }
}

/// An older `facts --work` took whatever directory it was given.
#[test]
fn an_index_that_facts_have_taken_is_a_lost_one() {
    let place = TempStore::in_memory();
    filled(&place);
    let root = place.root();
    let before = (dump(&root), stored_files(&root));
    let db = rusqlite::Connection::open(root.join("index.db")).unwrap();
    db.execute_batch(
        "CREATE TABLE documents (digest BLOB PRIMARY KEY, bytes BLOB NOT NULL);
         DELETE FROM tags; DELETE FROM image_layers; DELETE FROM images;
         DROP INDEX entries_content; DROP INDEX entries_lower_links;",
    )
    .unwrap();
    drop(db);
    let options = StoreOptions::default;
    assert!(matches!(Store::open_existing(&root, options()), Err(Error::NoIndex(_))));
    assert!(matches!(Ledger::open(&root), Err(Error::NotALedger(_))));
    let problems = fsck(&root).problems;
    assert!(problems.len() == 1 && problems[0].to_string().contains("facts"), "{problems:?}");
    assert_eq!(repair(&place).problems, []);
    assert_eq!((dump(&root), stored_files(&root)), before);
    assert_clean(&root);
}

/// A link below a directory that its own layer hides once led into the lower layers.
#[test]
fn a_layer_that_an_earlier_version_accepted_stays() {
    let place = TempStore::in_memory();
    let root = place.root();
    let now = members(&["f .wh.b", "f a/new", "h hl => a/x"]);
    let earlier = members(&["f .wh.a", "f a/new", "h hl => a/x"]);
    assert!(unpack(&place.open(), &earlier).is_err());
    unpack(&place.open(), &now).unwrap();
    let layer = root.join("layers").join(diff_id(&earlier).hex());
    std::fs::rename(root.join("layers").join(diff_id(&now).hex()), &layer).unwrap();
    write_headers(&layer.join("headers.zst"), &earlier);
    std::fs::remove_file(root.join("index.db")).unwrap();
    assert_eq!(repair(&place).problems, []);
    assert_clean(&root);
    assert_eq!(place.open().layers().unwrap().len(), 1);
}

/// Replaces the file by that of a tar without bodies.
fn write_headers(path: &Path, tar: &[u8]) {
    let keeper = Keeper(Some(StreamWriter::new(tempfile::tempfile().unwrap()).unwrap()));
    let mut tar = Hashed::new(tar);
    let mut reader = DiffReader::new(&mut tar, "a layer".to_owned(), Limits::NONE, keeper);
    while reader.next().unwrap().is_some() {}
    let writer = reader.finish().unwrap().1.0.unwrap();
    std::fs::remove_file(path).unwrap();
    let mut out = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let no_bodies = std::iter::empty::<Result<StoredBody, strata_diff::Error>>();
    writer.finish(0, no_bodies, &mut out, &mut |_| Ok(())).unwrap();
    out.set_permissions(Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn what_facts_keep_is_no_store() {
    let place = TempStore::new();
    let ledger = Ledger::open(&place.root()).unwrap();
    drop(ledger);
    let opened = Store::open(&place.root());
    assert!(matches!(opened, Err(Error::NotAStore(_))));
    let repaired = Store::fsck(&place.root(), true, StoreOptions::default(), &Silent);
    assert!(matches!(repaired, Err(Error::NotAStore(_))));
    // It still is what it was.
    Ledger::open(&place.root()).unwrap();
}

#[test]
fn facts_keep_nothing_in_a_store() {
    let place = TempStore::in_memory();
    filled(&place);
    let root = place.root();
    let before = dump(&root);
    let refused = |dir: &Path| matches!(Ledger::open(dir), Err(Error::NotALedger(_)));
    assert!(refused(&root));
    assert_eq!(dump(&root), before);
    assert_clean(&root);
    // The index alone, and the store without it.
    let aside = place.beside("aside");
    std::fs::create_dir(&aside).unwrap();
    std::fs::rename(root.join("index.db"), aside.join("index.db")).unwrap();
    assert!(refused(&root) && refused(&aside));
    assert!(!root.join("index.db").exists());
    assert_eq!(dump(&aside), before);
}

/// The old log must not be replayed into the new index, whatever the root is called.
#[test]
fn a_log_that_was_left_does_not_survive_the_rebuild() {
    let place = TempStore::in_memory();
    filled(&place);
    let before = dump(&place.root());
    let odd = place.root().with_file_name(OsStr::from_bytes(b"st\xffre"));
    copy_store(&place.root(), &odd);
    // A log as a killed process leaves it: copied while the store is open.
    let crashed = place.beside("crashed");
    let store = place.open();
    store.images().tag("in the log", &store.images().all().unwrap()[0].id).unwrap();
    copy_store(&place.root(), &crashed);
    assert!(crashed.join("index.db-wal").metadata().unwrap().len() > 0);
    store.images().untag("in the log").unwrap();
    drop(store);
    for root in [place.root(), odd] {
        std::fs::copy(crashed.join("index.db-wal"), root.join("index.db-wal")).unwrap();
        std::fs::write(root.join("index.db"), b"no database").unwrap();
        let report = Store::fsck(&root, true, StoreOptions::default(), &Silent).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(dump(&root), before);
        assert_clean(&root);
    }
}

#[test]
fn the_listing_comes_back_from_the_index() {
    for damage in ["gone", "cut", "flipped", "blank"] {
        let place = TempStore::in_memory();
        filled(&place);
        let before = dump(&place.root());
        let path = place.root().join("images.json");
        let text = std::fs::read(&path).unwrap();
        match damage {
            "gone" => std::fs::remove_file(&path).unwrap(),
            "cut" => std::fs::write(&path, &text[..text.len() / 2]).unwrap(),
            "flipped" => {
                let at = text.windows(5).position(|bytes| bytes == b"one:1").unwrap();
                crate::common::change(&path, at as u64 + 4, |_| b'7');
            }
            _ => {
                let at = text.iter().position(|byte| *byte == b' ').unwrap();
                crate::common::change(&path, at as u64, |_| b'\t');
            }
        }
        let report = fsck(&place.root());
        assert_eq!(report.problems.len(), 1, "{damage}");
        assert!(report.problems[0].to_string().contains("images.json"), "{damage}");
        assert_eq!(repair(&place).problems, [], "{damage}");
        assert_eq!(std::fs::read(&path).unwrap().len(), text.len(), "{damage}");
        assert_eq!(dump(&place.root()), before, "{damage}");
        assert_clean(&place.root());
    }
}

#[test]
fn nothing_is_replaced_under_somebody_who_has_the_store_open() {
    let place = TempStore::in_memory();
    filled(&place);
    let before = dump(&place.root());
    let aside = place.beside("index.db");
    let store = place.open();
    std::fs::rename(place.root().join("index.db"), &aside).unwrap();
    let error = Store::fsck(&place.root(), true, StoreOptions::default(), &Silent).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    std::fs::rename(&aside, place.root().join("index.db")).unwrap();
    drop(store);
    assert_eq!(dump(&place.root()), before);
}

#[test]
fn a_newer_store_is_left_alone() {
    let place = TempStore::in_memory();
    filled(&place);
    let db = rusqlite::Connection::open(place.root().join("index.db")).unwrap();
    db.execute_batch("CREATE TABLE more (x INTEGER); PRAGMA user_version = 99").unwrap();
    drop(db);
    let before = dump(&place.root());
    for repair in [false, true] {
        let done = Store::fsck(&place.root(), repair, StoreOptions::default(), &Silent);
        assert!(matches!(done, Err(Error::NewerStore { found: 99, .. })));
    }
    assert!(matches!(Store::open(&place.root()), Err(Error::NewerStore { found: 99, .. })));
    assert_eq!(dump(&place.root()), before);
}
