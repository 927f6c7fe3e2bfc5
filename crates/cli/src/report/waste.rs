//! Files that one layer of an image adds and a later one deletes or writes anew.
//!
//! The model: images that have layers in common waste the same files, and the page tells of them
//! once, with the number of images. Images are asked in the order of the page until enough names
//! have been read; the page says how many were.
//!
//! Invariant: the totals are of all files, those that are not shown too.

use std::cmp::Reverse;
use std::collections::HashMap;

use anyhow::Result;
use serde::Serialize;
use strata_layer::history::{Chain, Gone, Kept};
use strata_layer::{ImageRecord, Store};
use strata_tree::{DiffId, TreePath};

use crate::look::escaped;

/// Files that are shown at most.
const SHOWN: usize = 60;

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
    /// The part of them that nothing else holds.
    lost: u64,
    /// Those first, the largest of them first.
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    path: String,
    bytes: u64,
    /// The image that it was first seen in, by its position on the page.
    image: usize,
    /// The layer that added it and the one that took it away, by their positions in that image.
    added: usize,
    removed: usize,
    /// What became of it.
    how: &'static str,
    /// Whether the bytes would be stored all the same.
    kept: &'static str,
    /// How many images waste it.
    images: usize,
}

impl File {
    /// What stands first; the same on every page of a store.
    fn rank(&self) -> (bool, Reverse<u64>, &str, usize, usize, usize) {
        let place = (self.image, self.added, self.removed);
        let lost = self.kept == NOWHERE;
        (!lost, Reverse(self.bytes), &self.path, place.0, place.1, place.2)
    }
}

/// Asks `images`, in the order of the page; `names` is how many names each of them has to be read.
pub(super) fn wasted(store: &Store, images: &[(&ImageRecord, u64)]) -> Result<Wasted> {
    let mut known: HashMap<(DiffId, DiffId, TreePath), File> = HashMap::new();
    let (mut asked, mut read) = (0, 0);
    for (at, (image, names)) in images.iter().enumerate() {
        if read > 0 && read + names > NAMES {
            break;
        }
        (asked, read) = (asked + 1, read + names);
        // What a single layer adds stays.
        if image.layers.len() < 2 {
            continue;
        }
        for file in Chain::open(store, &image.id)?.waste(&image.id)?.files {
            let layers = (image.layers[file.added], image.layers[file.removed]);
            let key = (layers.0, layers.1, file.path);
            if let Some(file) = known.get_mut(&key) {
                file.images += 1;
                continue;
            }
            let path = format!("/{}", escaped(key.2.as_bytes()));
            let file = File {
                path,
                bytes: file.bytes,
                image: at,
                added: file.added,
                removed: file.removed,
                how: match file.how {
                    Gone::Deleted { .. } => "deleted",
                    Gone::Rewritten(facts) if !facts.data() => "metadata changed",
                    Gone::Rewritten(_) => "rewritten",
                },
                kept: match file.kept {
                    Kept::Here => "the image still shows its bytes",
                    Kept::Elsewhere => "another image holds its bytes",
                    Kept::Nowhere => NOWHERE,
                },
                images: 1,
            };
            known.insert(key, file);
        }
    }
    let mut files: Vec<File> = known.into_values().filter(|file| file.bytes > 0).collect();
    files.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let (count, bytes) = (files.len(), files.iter().map(|file| file.bytes).sum());
    let lost = files.iter().filter(|file| file.kept == NOWHERE).map(|file| file.bytes).sum();
    files.truncate(SHOWN);
    Ok(Wasted { images: asked, count, bytes, lost, files })
}
