//! The data sets of small stores, read back with the reader of `parquet`.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use strata_diff::rows::{EntryRow, RowKind, with_paths};
use strata_facts::schema::{ColumnKind, PATHS_KEY, TABLES, VERSION, VERSION_KEY};
use strata_facts::{FactsOptions, HashKey, PathPolicy, Place, WrittenFacts, write};
use strata_image::{CheckedStore, LoadOptions, SourceSpec, load};
use strata_layer::{Event, Progress, Store};
use strata_testkit::{fixture, top};

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

const IMAGES: [&str; 3] =
    ["cases-docker25.docker.tar", "busybox-gzip.oci.tar", "lowerlink.oci.tar"];

/// A store with the images of these fixtures.
fn store(dir: &Path, images: &[&str]) -> Store {
    let store = Store::open(&dir.join("store")).unwrap();
    for image in images {
        let spec: SourceSpec = fixture(image).to_str().unwrap().parse().unwrap();
        let options = LoadOptions { platform: None, ..LoadOptions::default() };
        load(CheckedStore::unchecked(&store), &spec, &options, &Silent).unwrap();
    }
    store
}

fn options(paths: PathPolicy) -> FactsOptions {
    let place = Place { store: "one".parse().unwrap(), day: "2026-01-31".parse().unwrap() };
    FactsOptions { place, paths }
}

fn written(store: &Store, dir: &Path, paths: PathPolicy) -> WrittenFacts {
    write(store, dir, &options(paths), &mut |_, _| {}).unwrap()
}

fn open(facts: &WrittenFacts, table: &str) -> SerializedFileReader<File> {
    let file = File::open(facts.path.join(format!("{table}.parquet"))).unwrap();
    SerializedFileReader::new(file).unwrap()
}

/// The rows of a table, each by column.
fn rows(facts: &WrittenFacts, table: &str) -> Vec<BTreeMap<String, Field>> {
    let row = |row: Row| {
        row.get_column_iter().map(|(name, field)| (name.clone(), field.clone())).collect()
    };
    open(facts, table).get_row_iter(None).unwrap().map(|found| row(found.unwrap())).collect()
}

fn bytes(field: &Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        Field::Null => None,
        other => panic!("{other:?}"),
    }
}

fn text(field: &Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text.clone()),
        Field::Null => None,
        other => panic!("{other:?}"),
    }
}

fn long(field: &Field) -> Option<i64> {
    match field {
        Field::Long(number) => Some(*number),
        Field::Int(number) => Some(i64::from(*number)),
        Field::Null => None,
        other => panic!("{other:?}"),
    }
}

fn files(facts: &WrittenFacts) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(&facts.path).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

#[test]
fn every_file_has_the_columns_of_the_schema_and_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let facts = written(&store(dir.path(), &IMAGES), &dir.path().join("out"), PathPolicy::Plain);
    assert_eq!(files(&facts).len(), TABLES.len());
    for (table, said) in TABLES.iter().zip(&facts.tables) {
        let reader = open(&facts, table.name);
        let meta = reader.metadata().file_metadata();
        let found = meta.schema_descr().columns().iter();
        let found: Vec<(&str, bool)> =
            found.map(|column| (column.name(), column.max_def_level() == 1)).collect();
        let columns = table.columns.iter().map(|column| (column.name, column.optional));
        assert_eq!(found, columns.collect::<Vec<_>>(), "{}", table.name);
        let keys = meta.key_value_metadata().unwrap();
        let key = |key: &str| keys.iter().find(|pair| pair.key == key).unwrap().value.clone();
        assert_eq!(key(VERSION_KEY), Some(VERSION.to_string()));
        assert_eq!(key(PATHS_KEY).as_deref(), Some("plain"));
        let size = fs::metadata(facts.path.join(format!("{}.parquet", table.name))).unwrap().len();
        assert_eq!((said.name, said.bytes), (table.name, size));
        assert_eq!(said.rows, rows(&facts, table.name).len() as u64);
        assert!(said.rows > 0, "{} has no row, so nothing of it was checked", table.name);
    }
}

#[test]
fn the_document_lists_every_column() {
    let text = fs::read_to_string(top().join("docs/FACTS.md")).unwrap();
    assert!(text.contains(&format!("version {VERSION}")), "the version");
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            table = heading.trim_matches('`');
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() == 5 && cells[1].starts_with('`') {
            let column = format!("{} {}", cells[1].trim_matches('`'), cells[2]);
            said.entry(table).or_default().push(column);
        }
    }
    for table in &TABLES {
        let columns = table.columns.iter().map(|column| {
            let kind = match column.kind {
                ColumnKind::Digest => "digest",
                ColumnKind::Bytes => "bytes",
                ColumnKind::Text => "text",
                ColumnKind::Long => "int64",
                ColumnKind::Int => "int32",
                ColumnKind::Flag => "boolean",
                ColumnKind::Time => "timestamp",
            };
            let null = if column.optional { ", or NULL" } else { "" };
            format!("{} {kind}{null}", column.name)
        });
        assert_eq!(said.get(table.name), Some(&columns.collect()), "{}", table.name);
    }
    assert_eq!(said.len(), TABLES.len());
}

#[test]
fn entries_are_those_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES);
    let facts = written(&store, &dir.path().join("out"), PathPolicy::Plain);
    let mut by_layer: BTreeMap<Vec<u8>, Vec<BTreeMap<String, Field>>> = BTreeMap::new();
    for row in rows(&facts, "entries") {
        by_layer.entry(bytes(&row["diff_id"]).unwrap()).or_default().push(row);
    }
    let mut kinds = BTreeSet::new();
    for layer in store.layers().unwrap() {
        let mut expected: Vec<EntryRow> = Vec::new();
        let reader = store.reader();
        reader
            .each_row(&layer.diff_id, &mut |row, _| {
                expected.push(row);
                Ok(())
            })
            .unwrap();
        let found = &by_layer[layer.diff_id.as_bytes().as_slice()];
        assert_eq!(found.len(), expected.len());
        assert_eq!(text(&found[0]["path_text"]).as_deref(), Some("/"));
        for (path, at, row) in with_paths(&expected) {
            let one = &found[at];
            let full = [b"/", path.as_bytes()].concat();
            assert_eq!(bytes(&one["path"]), Some(full.clone()));
            assert_eq!(text(&one["path_text"]), Some(String::from_utf8_lossy(&full).into_owned()));
            assert_eq!(long(&one["node"]), Some(at as i64 + 1));
            assert_eq!(long(&one["parent"]), Some(row.parent.0 as i64));
            // A hard link tells what it names.
            let inode = match &row.kind {
                RowKind::HardLink(node) => {
                    assert_eq!(long(&one["target"]), Some(node.0 as i64));
                    &expected[node.0 as usize - 1]
                }
                _ => row,
            };
            let meta = inode.meta.as_ref();
            assert_eq!(long(&one["mode"]), meta.map(|meta| i64::from(meta.perm)));
            assert_eq!(long(&one["uid"]), meta.map(|meta| i64::from(meta.uid)));
            assert_eq!(long(&one["gid"]), meta.map(|meta| i64::from(meta.gid)));
            assert_eq!(long(&one["size"]), meta.map(|meta| meta.size as i64));
            assert_eq!(long(&one["mtime"]), meta.map(|meta| meta.mtime.seconds));
            let digest = match &inode.kind {
                RowKind::Regular(digest) => Some(digest.as_bytes().to_vec()),
                _ => None,
            };
            assert_eq!(long(&one["copy"]), digest.as_ref().map(|_| 0));
            assert_eq!(bytes(&one["digest"]), digest);
            let link = match &inode.kind {
                RowKind::Symlink(target) => Some(target.clone()),
                RowKind::LowerLink(path) => Some([b"/", path.as_bytes()].concat()),
                _ => None,
            };
            assert_eq!(bytes(&one["link"]), link);
            kinds.insert(text(&one["kind"]).unwrap());
        }
    }
    let all = ["directory", "file", "hard link", "lower link", "symlink", "whiteout"];
    for kind in all {
        assert!(kinds.contains(kind), "no fixture has a {kind}: {kinds:?}");
    }
}

#[test]
fn sums_are_those_of_df() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES);
    let facts = written(&store, &dir.path().join("out"), PathPolicy::Plain);
    let usage = store.accounts().disk_usage().unwrap();
    let sum = |rows: &[BTreeMap<String, Field>], column: &str| -> u64 {
        rows.iter().map(|row| long(&row[column]).unwrap() as u64).sum()
    };
    let (contents, layers) = (rows(&facts, "contents"), rows(&facts, "layers"));
    assert_eq!(sum(&contents, "size"), usage.stored);
    assert_eq!(sum(&contents, "blocks"), usage.disk.contents.blocks);
    assert_eq!(contents.len() as u64, usage.files);
    assert_eq!(sum(&layers, "entries"), usage.entries);
    assert_eq!(sum(&layers, "headers_size"), usage.disk.headers.bytes);
    // Layers shared and nothing else: each once for each chain id.
    let apparent: BTreeMap<_, _> = layers
        .iter()
        .map(|row| (bytes(&row["diff_id"]), long(&row["apparent"]).unwrap() as u64))
        .collect();
    let chains: BTreeSet<_> = rows(&facts, "image_layers")
        .iter()
        .map(|row| (bytes(&row["chain_id"]), bytes(&row["diff_id"])))
        .collect();
    assert_eq!(chains.iter().map(|(_, layer)| apparent[layer]).sum::<u64>(), usage.layered);
    let names: Vec<String> =
        rows(&facts, "names").iter().map(|row| text(&row["name"]).unwrap()).collect();
    let tags: Vec<String> =
        store.images().tags().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, tags);
}

#[test]
fn the_order_in_which_images_came_is_not_seen() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut backwards = IMAGES;
    backwards.reverse();
    let first = store(dirs[0].path(), &IMAGES);
    let facts = written(&first, &dirs[0].path().join("out"), PathPolicy::Plain);
    let again = written(&first, &dirs[0].path().join("again"), PathPolicy::Plain);
    assert!(files(&facts) == files(&again), "the same store");
    let other = store(dirs[1].path(), &backwards);
    let other = written(&other, &dirs[1].path().join("out"), PathPolicy::Plain);
    assert!(files(&facts) == files(&other), "the same images in another order");
}

/// Bytes of the fixtures' paths, targets and commands.
const TOLD: [&[u8]; 3] = [b"busybox", b"passwd", b"/bin/sh"];

#[test]
fn without_paths_none_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES);
    let facts = written(&store, &dir.path().join("out"), PathPolicy::Nothing);
    let plain = written(&store, &dir.path().join("plain"), PathPolicy::Plain);
    let (entries, with) = (rows(&facts, "entries"), rows(&plain, "entries"));
    assert_eq!(entries.len(), with.len());
    for (row, with) in entries.iter().zip(with) {
        for (column, field) in row {
            match column.as_str() {
                "path" | "path_text" | "link" | "link_text" => assert_eq!(*field, Field::Null),
                other => assert_eq!(*field, with[other]),
            }
        }
    }
    for row in rows(&facts, "history") {
        assert_eq!((&row["created_by"], &row["comment"]), (&Field::Null, &Field::Null));
    }
    // Also not in a statistic.
    let told = |facts: &WrittenFacts, text: &[u8]| {
        let tables = ["entries.parquet", "history.parquet"];
        let found = files(facts);
        tables.iter().any(|name| found[*name].windows(text.len()).any(|bytes| bytes == text))
    };
    assert!(TOLD.iter().any(|text| told(&plain, text)), "the search finds what is there");
    assert!(!TOLD.iter().any(|text| told(&facts, text)));
}

#[test]
fn hashed_paths_are_equal_where_paths_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES);
    let key = HashKey::new(b"a key").unwrap();
    let hashed = PathPolicy::Hashed(key.clone());
    let facts = written(&store, &dir.path().join("out"), hashed);
    let plain = written(&store, &dir.path().join("plain"), PathPolicy::Plain);
    for (row, with) in rows(&facts, "entries").iter().zip(rows(&plain, "entries")) {
        for (column, hex) in [("path", "path_text"), ("link", "link_text")] {
            let hash = bytes(&with[column]).map(|path| key.hash(&path).to_vec());
            let digits = hash
                .as_deref()
                .map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            assert_eq!((bytes(&row[column]), text(&row[hex])), (hash, digits));
        }
        assert_eq!(row["digest"], with["digest"]);
    }
    let other = PathPolicy::Hashed(HashKey::new(b"another key").unwrap());
    let other = written(&store, &dir.path().join("other"), other);
    assert!(rows(&facts, "entries")[0]["path"] != rows(&other, "entries")[0]["path"]);
}

#[test]
fn a_later_one_of_the_same_day_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES[..1]);
    let out = dir.path().join("out");
    let first = written(&store, &out, PathPolicy::Plain);
    let images = store.images().all().unwrap();
    store.images().remove(&images[0].id).unwrap();
    let second = written(&store, &out, PathPolicy::Plain);
    assert_eq!((first.replaced, second.replaced), (false, true));
    assert_eq!(first.path, second.path);
    assert_eq!(rows(&second, "images").len(), images.len() - 1);
}

#[test]
fn a_store_that_cannot_be_read_leaves_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES[..1]);
    let out = dir.path().join("out");
    let before = files(&written(&store, &out, PathPolicy::Plain));
    fs::remove_dir_all(store.root().join("blobs")).unwrap();
    let refused = write(&store, &out, &options(PathPolicy::Plain), &mut |_, _| {});
    assert!(matches!(refused, Err(strata_facts::Error::Image(_))), "{refused:?}");
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [out.join("store=one")]);
    let path = out.join("store=one/day=2026-01-31");
    let after = WrittenFacts { path, replaced: false, tables: Vec::new() };
    assert!(files(&after) == before);
}

#[test]
fn progress_ends_with_all_entries() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &IMAGES);
    let mut last = (0, 0);
    let mut heard = |done, total| last = (done, total);
    let facts = write(&store, dir.path(), &options(PathPolicy::Plain), &mut heard).unwrap();
    let entries = facts.tables.iter().find(|table| table.name == "entries").unwrap().rows;
    assert_eq!(last, (entries, entries));
}
