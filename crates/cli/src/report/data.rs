//! The facts on the page, as the document that is embedded in it.
//!
//! The model: everything comes from the store's accounts; the page adds nothing up that `strata df`
//! does not say too. Images are in the order of what they hold alone, the largest first; texts that
//! repeat (the steps of a history) stand once and are named by number.
//!
//! Invariants: what the images are charged and what no shown image is charged add up to the bytes
//! stored; every text is escaped for people (no control characters, no invalid UTF-8); the
//! document grows with the images and layers, not with the files, which are cut to a budget.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use strata_layer::{DiskUsage, ImageRecord, LayerUsage, Sharing, Store};
use strata_tree::{DiffId, ImageId};

use super::matrix::{Matrix, ROWS};
use super::shares::Shares;
use super::tree::{self, Shown};
use crate::images::Known;
use crate::look::escaped;

/// Nodes of all layers' trees together: a megabyte or two.
const NODES: usize = 24_000;

/// Names of layers that are read to be shown, largest layers first: some seconds' worth.
const NAMES: u64 = 2_000_000;

/// A layer with fewer nodes than this to spend is not opened.
const FEWEST: usize = 6;

/// Characters of a history step that are kept.
const STEP: usize = 300;

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    strata: &'static str,
    created: String,
    /// How many images the store has, shown or not.
    in_store: usize,
    totals: Totals,
    /// Bytes charged to images that are not shown, and of layers without an image.
    elsewhere: u64,
    images: Vec<Image>,
    layers: Vec<Layer>,
    texts: Vec<String>,
    matrix: Matrix,
}

impl Report {
    /// How many images are shown.
    pub(super) fn images(&self) -> usize {
        self.images.len()
    }
}

/// The store as a whole, in bytes; as `strata df` has it.
#[derive(Debug, Serialize)]
struct Totals {
    entries: u64,
    apparent: u64,
    layered: u64,
    stored: u64,
    shared: u64,
    headers: u64,
    directories: u64,
    index: u64,
    files: u64,
    layers: usize,
}

#[derive(Debug, Serialize)]
struct Image {
    id: String,
    names: Vec<String>,
    created: Option<String>,
    platform: String,
    apparent: u64,
    stored: u64,
    unique: u64,
    charged: u64,
    files: u64,
    layers: Vec<Part>,
}

/// A layer of an image; see [`super::shares`].
#[derive(Debug, Serialize)]
struct Part {
    layer: usize,
    only: u64,
    shared: u64,
    charged: u64,
    /// The history step that made it, in `texts`.
    step: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Layer {
    diff_id: String,
    entries: u64,
    apparent: u64,
    stored: u64,
    shared: u64,
    /// How many images of the store have it.
    images: u32,
    /// What is in it, the large things; nothing if it is too small to be opened.
    tree: Option<Shown>,
}

/// Texts that many things name.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    known: HashMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        let text: String = escaped(text.as_bytes()).chars().take(STEP).collect();
        if let Some(at) = self.known.get(&text) {
            return *at;
        }
        self.all.push(text.clone());
        self.known.insert(text, self.all.len() - 1);
        self.all.len() - 1
    }
}

/// Collects the facts; of the images in `wanted` only, if there are any.
pub(super) fn collect(store: &Store, wanted: &BTreeSet<ImageId>) -> Result<Report> {
    let usage = store.disk_usage()?;
    let sharing = store.sharing()?;
    let known = Known::all(store)?;
    let records: Vec<ImageRecord> = known.iter().map(|image| image.record.clone()).collect();
    let accounts = sharing.images(&records);
    let shares = Shares::of(&sharing, &records);

    let mut shown: Vec<usize> = (0..known.len())
        .filter(|at| wanted.is_empty() || wanted.contains(&records[*at].id))
        .collect();
    shown.sort_by_key(|at| Reverse((accounts[*at].unique, accounts[*at].stored)));
    let mut layers = Layers::of(&usage, &records);
    let mut texts = Texts::default();
    let images: Vec<Image> = shown
        .iter()
        .map(|at| {
            let (image, account) = (&known[*at], &accounts[*at]);
            let steps = image.config.history();
            let parts = image.record.layers.iter().zip(&shares.parts[*at]).enumerate();
            let parts = parts.filter_map(|(index, (layer, part))| {
                let step = steps.iter().find(|step| step.layer.is_some_and(|l| l.0 == index));
                let said = step.and_then(|step| step.created_by.or(step.comment));
                Some(Part {
                    layer: layers.number(layer)?,
                    only: part.only,
                    shared: part.shared,
                    charged: part.charged,
                    step: said.map(|said| texts.number(said)),
                })
            });
            Image {
                layers: parts.collect(),
                id: image.record.id.to_string(),
                names: image.familiar_names(),
                created: image.config.created().map(|time| time.to_string()),
                platform: image.config.platform().to_string(),
                apparent: layers.apparent(&image.record),
                stored: account.stored,
                unique: account.unique,
                charged: shares.parts[*at].iter().map(|part| part.charged).sum(),
                files: account.files,
            }
        })
        .collect();
    let charged: u64 = images.iter().map(|image| image.charged).sum();
    let in_images: u64 = records.iter().map(|image| layers.apparent(image)).sum();
    Ok(Report {
        strata: env!("CARGO_PKG_VERSION"),
        created: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        in_store: known.len(),
        totals: Totals {
            entries: usage.entries,
            apparent: in_images + layers.nobodys(),
            layered: usage.apparent,
            stored: usage.stored,
            shared: usage.shared,
            headers: usage.headers,
            directories: usage.directories,
            index: usage.index,
            files: sharing.groups.iter().map(|group| group.files).sum(),
            layers: usage.layers.len(),
        },
        elsewhere: usage.stored - charged,
        layers: layers.rows(store, &sharing, &shares)?,
        matrix: Matrix::of(&shares.sets, &shown, rows(shown.len())),
        images,
        texts: texts.all,
    })
}

/// The layers of the images that are shown, numbered as they are first named.
struct Layers<'a> {
    usage: HashMap<DiffId, (&'a LayerUsage, u32)>,
    numbers: HashMap<DiffId, usize>,
    order: Vec<DiffId>,
}

impl<'a> Layers<'a> {
    fn of(usage: &'a DiskUsage, images: &[ImageRecord]) -> Self {
        let mut by_id: HashMap<DiffId, (&LayerUsage, u32)> =
            usage.layers.iter().map(|layer| (layer.diff_id, (layer, 0))).collect();
        for image in images {
            for layer in image.layers.iter().collect::<BTreeSet<_>>() {
                by_id.entry(*layer).and_modify(|(_, images)| *images += 1);
            }
        }
        Self { usage: by_id, numbers: HashMap::new(), order: Vec::new() }
    }

    /// Bytes of the files of an image's layers, as the image has them.
    fn apparent(&self, image: &ImageRecord) -> u64 {
        let usage = image.layers.iter().filter_map(|layer| self.usage.get(layer));
        usage.map(|(layer, _)| layer.apparent).sum()
    }

    /// The same of the layers that no image has.
    fn nobodys(&self) -> u64 {
        let unused = self.usage.values().filter(|(_, images)| *images == 0);
        unused.map(|(layer, _)| layer.apparent).sum()
    }

    fn number(&mut self, layer: &DiffId) -> Option<usize> {
        if let Some(number) = self.numbers.get(layer) {
            return Some(*number);
        }
        self.usage.get(layer)?;
        self.numbers.insert(*layer, self.order.len());
        self.order.push(*layer);
        Some(self.order.len() - 1)
    }

    /// The numbered layers, each with as much of its tree as its part of the bytes allows.
    fn rows(&self, store: &Store, sharing: &Sharing, shares: &Shares) -> Result<Vec<Layer>> {
        let all: Vec<(&LayerUsage, u32)> =
            self.order.iter().filter_map(|layer| self.usage.get(layer).copied()).collect();
        let whole: u64 = all.iter().map(|(usage, _)| usage.stored).sum();
        let mut largest: Vec<usize> = (0..all.len()).collect();
        largest.sort_by_key(|at| Reverse(all[*at].0.stored));
        let (mut trees, mut names): (HashMap<usize, Shown>, u64) = (HashMap::new(), 0);
        for at in largest {
            let usage = all[at].0;
            let part = u128::from(usage.stored) * NODES as u128 / u128::from(whole.max(1));
            let budget = usize::try_from(part).unwrap_or(NODES).min(NODES / 4);
            names += usage.entries;
            if budget < FEWEST || names > NAMES {
                continue;
            }
            let held = store.held_names(&usage.diff_id, sharing)?;
            trees.insert(at, tree::cut(&held, &shares.holders, budget));
        }
        let rows = all.iter().enumerate().map(|(at, (usage, images))| Layer {
            diff_id: usage.diff_id.to_string(),
            entries: usage.entries,
            apparent: usage.apparent,
            stored: usage.stored,
            shared: usage.shared,
            images: *images,
            tree: trees.remove(&at),
        });
        Ok(rows.collect())
    }
}

/// Which images share a row of the matrix.
fn rows(images: usize) -> Vec<Vec<u32>> {
    let all: Vec<u32> = (0..images as u32).collect();
    let size = all.len().div_ceil(ROWS).max(1);
    all.chunks(size).map(<[u32]>::to_vec).collect()
}
