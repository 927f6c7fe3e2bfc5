//! Files that one layer of an image adds and a later one deletes or writes again.
//!
//! The model: images that have layers in common waste the same files, and the store keeps a content
//! once, however many files of it are wasted. So the page lists contents: a row each, with its
//! files, and the number of images. Images are asked in the order of the page until enough names
//! have been read; the page says how many were.
//!
//! Invariant: the totals are of all files, those that are not shown too; what is stored for nothing
//! counts each content once, as the disk does.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use serde::Serialize;
use strata_analysis::history::{Chain, Gone, Kept};
use strata_layer::{ImageRecord, Store};
use strata_tree::{ContentDigest, DiffId, TreePath};

use crate::look::escaped;

/// Contents that are shown at most.
const SHOWN: usize = 60;

/// Files of one content that are named at most.
const NAMED: usize = 20;

/// Names of layers that are read at most; an image is not begun beyond it.
const NAMES: u64 = 150_000;

/// What the page says of a file that nothing else holds.
const NOWHERE: &str = "stored for nothing";

/// What is written and then hidden, over all images that were asked.
#[derive(Debug, Default, Serialize)]
pub(super) struct Wasted {
    /// How many images were asked.
    images: usize,
    /// Files, each once however many images waste it.
    count: usize,
    /// Their bytes.
    bytes: u64,
    /// Their contents, each once.
    contents: usize,
    /// Bytes of the contents that nothing else holds.
    lost: u64,
    /// Those first, the largest of them first.
    rows: Vec<Row>,
}

/// A content of wasted files.
#[derive(Debug, Serialize)]
struct Row {
    /// Bytes of one file.
    bytes: u64,
    /// Whether the bytes would be stored all the same.
    kept: &'static str,
    /// How many files of it are wasted, each once.
    count: usize,
    /// How many images waste it.
    images: usize,
    /// The first of them.
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    path: String,
    /// The image that it was first seen in, by its position on the page.
    image: usize,
    /// The layer that added it and the one that took it away, by their positions in that image.
    added: usize,
    removed: usize,
    /// What became of it.
    how: &'static str,
}

impl File {
    /// The same on every page of a store.
    fn rank(&self) -> (usize, &str, usize, usize) {
        (self.image, &self.path, self.added, self.removed)
    }
}

impl Row {
    /// What stands first; the same on every page of a store.
    fn rank(&self) -> (bool, Reverse<u64>, Option<&str>) {
        let path = self.files.first().map(|file| file.path.as_str());
        (self.kept != NOWHERE, Reverse(self.bytes), path)
    }
}

/// What is known of a content while images are asked.
#[derive(Debug)]
struct WastedContent {
    bytes: u64,
    kept: &'static str,
    files: HashMap<(DiffId, DiffId, TreePath), File>,
    images: BTreeSet<usize>,
}

impl WastedContent {
    fn row(self) -> Row {
        let mut files: Vec<File> = self.files.into_values().collect();
        files.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let count = files.len();
        files.truncate(NAMED);
        let (bytes, kept, images) = (self.bytes, self.kept, self.images.len());
        Row { bytes, kept, count, images, files }
    }
}

/// Asks `images`, in the order of the page, each with how many names of it have to be read; `None`
/// for what an engine has, whose layers are in no order: none of them hides anything of another.
pub(super) fn wasted(store: &Store, images: &[(&ImageRecord, Option<u64>)]) -> Result<Wasted> {
    let mut known: HashMap<ContentDigest, WastedContent> = HashMap::new();
    let (mut asked, mut read) = (0, 0);
    for (at, (image, names)) in images.iter().enumerate() {
        let Some(names) = names else {
            asked += 1;
            continue;
        };
        if read > 0 && read + names > NAMES {
            break;
        }
        (asked, read) = (asked + 1, read + names);
        // What a single layer adds stays.
        if image.layers.len() < 2 {
            continue;
        }
        let wasted = Chain::open(store, &image.id)?.waste(&image.id)?.files;
        for file in wasted.into_iter().filter(|file| file.bytes > 0) {
            let kept = match file.kept {
                Kept::Here => "the image still shows its bytes",
                Kept::Elsewhere => "another image holds its bytes",
                Kept::Nowhere => NOWHERE,
            };
            let new = || WastedContent {
                bytes: file.bytes,
                kept,
                files: HashMap::new(),
                images: [].into(),
            };
            let content = known.entry(file.content).or_insert_with(new);
            content.images.insert(at);
            let path = format!("/{}", escaped(file.path.as_bytes()));
            let key = (image.layers[file.added], image.layers[file.removed], file.path);
            content.files.entry(key).or_insert_with(|| File {
                path,
                image: at,
                added: file.added,
                removed: file.removed,
                how: match file.how {
                    Gone::Deleted { .. } => "deleted",
                    Gone::Rewritten(facts) if !facts.data() => "metadata changed",
                    Gone::Rewritten(_) => "rewritten",
                },
            });
        }
    }
    let mut rows: Vec<Row> = known.into_values().map(WastedContent::row).collect();
    rows.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let (contents, count) = (rows.len(), rows.iter().map(|row| row.count).sum());
    let bytes = rows.iter().map(|row| row.bytes * row.count as u64).sum();
    let lost = rows.iter().filter(|row| row.kept == NOWHERE).map(|row| row.bytes).sum();
    rows.truncate(SHOWN);
    Ok(Wasted { images: asked, count, bytes, contents, lost, rows })
}
