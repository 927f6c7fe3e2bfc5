//! A wrong byte in `index.db` is found, wherever it means anything.
//!
//! Invariant of the tests: where `fsck` finds nothing, the byte is one that [`pages`] knows to
//! mean nothing, and every row reads as before.
//!
//! [`pages`]: crate::pages

use std::fs;
use std::path::Path;

use strata_layer::{Problem, Store, StoreOptions};

use crate::common::{Silent, TempStore, assert_clean, dump, files, fsck, load, members};
use crate::pages::{PAGE, Rows, used};
use strata_testkit::tars::Tar;

/// Enough rows for inner pages of every table, overflow pages, and pages on the free list.
fn fill(root: &Path) {
    let store = Store::open(root).unwrap();
    let many = |n: usize, tag: &str| {
        (0..n)
            .fold(Tar::default(), |tar, i| {
                tar.file(format!("{tag}/{i}").as_bytes(), format!("{tag} {}", i / 2).as_bytes())
            })
            .end()
    };
    let gone = load(&store, "gone", &[&many(100, "gone")]);
    let big_xattr = Tar::default()
        .pax(&[("SCHILY.xattr.user.big", &[b'v'; 9000])])
        .file(b"x", b"with an attribute")
        .end();
    let kinds = members(&[
        "d d",
        "s l -> t",
        "c n",
        "p p",
        "f .wh.w",
        "h h => low",
        "f d/a a",
        "h b => d/a",
    ]);
    let base = many(150, "kept");
    let one = load(&store, "one:1", &[&base, &kinds]);
    load(&store, "two:1", &[&base, &kinds, &big_xattr, &kinds]);
    load(&store, "three:1", &[&files(&[("a", b"a")])]);
    store.images().tag("one:latest", &one).unwrap();
    store.images().remove(&gone).unwrap();
}

fn meaning(root: &Path) -> Vec<bool> {
    let path = root.join("index.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let mut statement =
        db.prepare("SELECT rootpage, name FROM sqlite_schema WHERE rootpage > 0").unwrap();
    let roots = statement.query_map([], |row| {
        let rows = match row.get::<_, String>(1)?.as_str() {
            "sqlite_sequence" => Rows::Counters,
            "layers" | "contents" | "holders" => Rows::Numbered,
            _ => Rows::Plain,
        };
        Ok((row.get::<_, i64>(0)? as usize, rows))
    });
    let roots: Vec<_> = roots.unwrap().map(Result::unwrap).collect();
    used(fs::read(&path).unwrap(), &roots)
}

/// Flips bits at the offsets, of those without a meaning at one in twenty; gives how many flips
/// were found, how many were not.
fn flip_at(offsets: &dyn Fn(usize) -> bool, masks: &[u8]) -> (usize, usize) {
    let place = TempStore::in_memory();
    let root = place.root();
    fill(&root);
    assert_clean(&root);
    let before = dump(&root);
    let meaning = meaning(&root);
    let path = root.join("index.db");
    let clean = fs::read(&path).unwrap();
    let (mut found, mut unnoticed) = (0, 0);
    for at in (0..clean.len()).filter(|at| offsets(*at)) {
        if !meaning[at] && at > 100 && at / 7 % 20 != 0 {
            continue;
        }
        for mask in masks {
            let mut damaged = clean.clone();
            damaged[at] ^= mask;
            fs::write(&path, &damaged).unwrap();
            let report = fsck(&root);
            let page = at / PAGE + 1;
            if report.problems.is_empty() {
                assert!(!meaning[at], "byte {at} (page {page}) ^ {mask:#x}: not found");
                assert_eq!(dump(&root), before, "byte {at} (page {page}) ^ {mask:#x}");
                unnoticed += 1;
            } else {
                let text: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
                assert!(text.iter().any(|t| t.starts_with("index.db: ")), "byte {at}: {text:?}");
                found += 1;
            }
            for log in ["index.db-wal", "index.db-shm"] {
                let _ = fs::remove_file(root.join(log));
            }
        }
    }
    fs::write(&path, &clean).unwrap();
    assert_clean(&root);
    println!(
        "{} pages, {found} flips found, {unnoticed} in bytes without a meaning",
        clean.len() / PAGE
    );
    (found, unnoticed)
}

#[test]
fn every_bit_of_the_header() {
    let (found, unnoticed) = flip_at(&|at| at < 100, &[1, 2, 4, 8, 16, 32, 64, 128]);
    // The four bytes with the version of the SQLite that wrote last.
    assert_eq!((found, unnoticed), (96 * 8, 4 * 8));
}

#[test]
fn the_beginning_of_every_page() {
    let (found, _) = flip_at(&|at| at % PAGE < 14, &[1, 0x80]);
    assert!(found > 400, "{found}");
}

/// What a column is, and how long, stands in front of its row; a wrong type may have no length.
#[test]
fn bytes_all_over_every_page_once_more() {
    let (found, _) = flip_at(&|at| at % 37 == 11, &[0x08]);
    assert!(found > 600, "{found}");
}

#[test]
fn bytes_all_over_every_page() {
    let (found, _) = flip_at(&|at| at % 61 == 7, &[0x08]);
    assert!(found > 400, "{found}");
}

#[test]
fn bytes_all_over_every_page_otherwise() {
    let (found, _) = flip_at(&|at| at % 67 == 3, &[0x01]);
    assert!(found > 400, "{found}");
}

#[test]
fn damage_is_repaired_from_the_layers() {
    let place = TempStore::in_memory();
    let root = place.root();
    fill(&root);
    let before = dump(&root);
    let path = root.join("index.db");
    let clean = fs::read(&path).unwrap();
    let mut repaired = 0;
    for at in (0..clean.len()).filter(|at| at % 3001 == 20 || [18, 19, 60, 200].contains(at)) {
        let mut damaged = fs::read(&path).unwrap();
        if at >= damaged.len() {
            continue;
        }
        damaged[at] ^= 0x11;
        fs::write(&path, &damaged).unwrap();
        let found = !fsck(&root).problems.is_empty();
        let report = Store::fsck(&root, true, StoreOptions::default(), &Silent).unwrap();
        assert_eq!(report.problems, [], "byte {at}");
        assert_eq!(report.repaired.is_empty(), !found, "byte {at}");
        assert_clean(&root);
        assert_eq!(dump(&root), before, "byte {at}");
        repaired += usize::from(found);
    }
    assert!(repaired > 8, "{repaired}");
}

#[test]
fn a_cut_or_longer_index_is_found_and_repaired() {
    for by in [-1, -(PAGE as i64), 1, PAGE as i64] {
        let place = TempStore::in_memory();
        let root = place.root();
        fill(&root);
        let before = dump(&root);
        let file = fs::File::options().write(true).open(root.join("index.db")).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_add_signed(by)).unwrap();
        assert!(!fsck(&root).problems.is_empty(), "{by}");
        Store::fsck(&root, true, StoreOptions::default(), &Silent).unwrap();
        assert_clean(&root);
        assert_eq!(dump(&root), before, "{by}");
    }
}

#[test]
fn an_index_that_was_made_with_larger_pages_is_sound() {
    let place = TempStore::in_memory();
    let root = place.root();
    drop(Store::open(&root).unwrap());
    let path = root.join("index.db");
    fs::remove_file(&path).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA page_size = 4096; PRAGMA journal_mode = WAL").unwrap();
    drop(db);
    fill(&root);
    assert_eq!(fs::read(&path).unwrap()[16..18], [16, 0]);
    assert_clean(&root);
}

/// Changes the index of a store, against its own rules too.
fn execute(root: &Path, change: &str) {
    let db = rusqlite::Connection::open(root.join("index.db")).unwrap();
    db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {change}")).unwrap();
}

/// Facts that are wrong in the index, though the database is sound.
#[test]
fn wrong_facts_are_found() {
    for (name, change) in [
        ("owner", "UPDATE entries SET uid = 7 WHERE name = x'64'"),
        ("null for zero", "UPDATE entries SET nlink = 1 WHERE nlink IS NULL AND kind = 0"),
        ("column without use", "UPDATE entries SET target = 1 WHERE kind = 2"),
        (
            "content of another",
            "UPDATE entries SET content = (SELECT max(id) FROM contents) WHERE kind = 6",
        ),
        ("content missing", "UPDATE entries SET content = NULL WHERE kind = 6"),
        (
            "size of a content",
            "UPDATE contents SET size = size + 1 WHERE id = (SELECT max(id) FROM contents)",
        ),
        (
            "digest",
            "UPDATE contents SET digest = zeroblob(32) WHERE id = (SELECT max(id) FROM contents)",
        ),
        ("row gone", "DELETE FROM entries WHERE name = x'6c'"),
        ("loose content", "INSERT INTO contents (digest, copy, size) VALUES (zeroblob(32), 0, 0)"),
        (
            "sizes of a layer",
            "UPDATE layers SET headers_size = 1 WHERE id = (SELECT max(id) FROM layers)",
        ),
        ("number of a copy", "UPDATE contents SET copy = 99"),
        ("number below zero of a copy", "UPDATE contents SET copy = -1"),
        (
            "blocks of a content",
            "UPDATE contents SET blocks = blocks + 8 WHERE id = (SELECT max(id) FROM contents)",
        ),
        (
            "content of no set",
            "UPDATE contents SET holders = NULL WHERE id = (SELECT max(id) FROM contents)",
        ),
        ("content of another set", "UPDATE contents SET holders = (SELECT max(id) FROM holders)"),
        (
            "contents of a set",
            "UPDATE holders SET files = files + 1 WHERE id = (SELECT max(id) FROM holders)",
        ),
        (
            "bytes of a set",
            "UPDATE holders SET bytes = bytes - 1 WHERE id = (SELECT max(id) FROM holders)",
        ),
        (
            "blocks of a set",
            "UPDATE holders SET blocks = 0 WHERE id = (SELECT max(id) FROM holders)",
        ),
        (
            "layers of a set",
            "UPDATE holders SET layers = x'09' WHERE id = (SELECT max(id) FROM holders)",
        ),
        (
            "set that is none",
            "UPDATE holders SET layers = x'0100' WHERE id = (SELECT max(id) FROM holders)",
        ),
        (
            "set of nothing",
            "INSERT INTO holders (layers, files, bytes, blocks) VALUES (x'07', 0, 0, 0)",
        ),
        ("blocks of headers", "UPDATE layers SET headers_blocks = 9"),
        ("bytes of directories", "UPDATE layers SET dirs_size = dirs_size + 1"),
        ("blocks of directories", "UPDATE layers SET dirs_blocks = dirs_blocks + 8"),
        ("tag", "UPDATE tags SET reference = 'one:2' WHERE reference = 'one:1'"),
        ("tag of another", "UPDATE tags SET image = (SELECT max(id) FROM images)"),
        ("order of layers", "UPDATE image_layers SET position = 9 - position"),
        ("gap in the layers", "UPDATE image_layers SET position = 9 WHERE position = 1"),
        ("manifest", "UPDATE images SET manifest = NULL"),
        ("counter", "UPDATE sqlite_sequence SET seq = 1"),
        ("counter gone", "DELETE FROM sqlite_sequence WHERE name = 'contents'"),
        ("version", "PRAGMA user_version = 7"),
        ("index gone", "DROP INDEX entries_content"),
        ("more", "CREATE TABLE more (x)"),
    ] {
        let place = TempStore::in_memory();
        let root = place.root();
        fill(&root);
        let before = dump(&root);
        execute(&root, change);
        let found = fsck(&root);
        assert!(!found.problems.is_empty(), "{name}");
        let little = StoreOptions { memory: Some(1), ..StoreOptions::default() };
        let again = Store::fsck(&root, false, little.clone(), &Silent).unwrap();
        assert_eq!(again, found, "{name}: with no memory to speak of");
        let report = Store::fsck(&root, true, little, &Silent).unwrap();
        assert_eq!(report.problems, [], "{name}");
        assert_clean(&root);
        assert_eq!(dump(&root), before, "{name}");
    }
}

/// Found by the fuzz target `rows`: taken as a number without a sign it is larger than any disk.
#[test]
fn a_number_below_zero_is_damage_and_the_error_has_the_way_out() {
    for change in ["UPDATE holders SET bytes = -5", "UPDATE layers SET apparent = -5"] {
        let place = TempStore::in_memory();
        let root = place.root();
        fill(&root);
        execute(&root, change);
        let store = Store::open_existing(&root, StoreOptions::default()).unwrap();
        let error = store.accounts().disk_usage().unwrap_err().to_string();
        assert!(error.contains("-5") && error.ends_with("run `strata fsck`"), "{error}");
    }
}

/// Each number can be, their sum cannot.
#[test]
fn numbers_that_do_not_add_up_are_no_crash() {
    let place = TempStore::in_memory();
    let root = place.root();
    fill(&root);
    execute(&root, "UPDATE holders SET bytes = 9223372036854775807");
    execute(&root, "UPDATE layers SET apparent = 9223372036854775807");
    let store = Store::open_existing(&root, StoreOptions::default()).unwrap();
    let usage = store.accounts().disk_usage().unwrap();
    assert!(usage.layers.len() > 2, "{}", usage.layers.len());
    assert_eq!((usage.stored, usage.apparent), (u64::MAX, u64::MAX));
    assert!(!fsck(&root).problems.is_empty());
}

/// What one number hides from is looked at still.
#[test]
fn a_number_below_zero_hides_nothing_else() {
    for change in [
        "UPDATE layers SET apparent = -5",
        "UPDATE holders SET bytes = -5",
        "UPDATE contents SET blocks = -5",
        "UPDATE entries SET nlink = -5",
    ] {
        let place = TempStore::in_memory();
        let root = place.root();
        fill(&root);
        execute(&root, change);
        fs::remove_file(root.join("images.json")).unwrap();
        let problems = fsck(&root).problems;
        let of = |listing: bool| {
            problems.iter().filter(|one| matches!(one, Problem::Listing(_)) == listing).count()
        };
        assert!(of(true) == 1 && of(false) > 0, "{change}: {problems:?}");
    }
}
