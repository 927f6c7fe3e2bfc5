//! The page of many stores, from the facts that they wrote.
//!
//! The model: a host stands where an image stands on the page of one store. What it holds are the
//! layers of all its images, each once, so the same sums serve: who holds what alone, with whom,
//! and its part of the whole. Under a host are its layers, each with the images that have it; where
//! there are many hosts, the small layers of each are one.
//!
//! Invariants: what the hosts are charged adds up to what one store of all would hold; the document
//! grows with the hosts and the layers that are shown, which a budget bounds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use strata_analysis::reuse::{LayerContents, sharing_of};
use strata_facts::{Fleet, FleetImage, FleetStore};
use strata_layer::{ImageRecord, Sharing, Usage};
use strata_tree::{DiffId, ImageId};

use super::data::{Image, PageData, PageLayer, PagePart, PageTotals, Texts};
use super::levels::Level;
use super::matrix::{self, PageMatrix};
use super::shares::Shares;
use crate::look::escaped;

/// Layers of all hosts together that are shown one by one.
const PARTS: usize = 20_000;
/// Layers of one host that are shown one by one, however many hosts there are.
const FEWEST: usize = 8;
/// Names of images that a layer is called by.
const NAMED: usize = 2;

/// Sums over images, nothing shared and layers shared.
#[derive(Default)]
struct Stacks {
    apparent: u64,
    layered: u64,
}

/// The document of these stores.
pub(super) fn collect(fleet: Fleet, dirs: &[PathBuf]) -> PageData {
    let Fleet { stores, layers } = fleet;
    let known: HashMap<DiffId, (u64, u64)> =
        layers.iter().map(|layer| (layer.diff_id, (layer.entries, layer.apparent))).collect();
    let sharing = sharing_of(layers.into_iter().map(|layer| LayerContents {
        diff_id: layer.diff_id,
        apparent: layer.apparent,
        contents: layer.contents,
    }));
    let records: Vec<ImageRecord> = stores.iter().map(record).collect();
    let accounts = sharing.images(&records);
    let shares = Shares::of(&sharing, &records);
    let every = stores.iter().flat_map(|store| &store.images);
    let total = stacks(every, &stores, &known);
    let mut shown: Vec<usize> = (0..stores.len()).collect();
    shown.sort_by_key(|at| Reverse((accounts[*at].unique, accounts[*at].stored)));
    let usage: Vec<Usage> = sharing.layer_usage(&records);
    let mut rows = Rows::new(&sharing, &usage, &known, &records, stores.len());
    let images: Vec<Image> = shown
        .iter()
        .map(|at| {
            let store = &stores[*at];
            let own = stacks(store.images.iter(), std::slice::from_ref(store), &known);
            let mut image = host(store, &records[*at], &accounts[*at], &own);
            image.layers = rows.of(store, &records[*at], &shares.parts[*at]);
            image
        })
        .collect();
    let alone: u64 = stores.iter().map(|store| store.stored).sum();
    let blocks: u64 = stores.iter().map(|store| store.blocks).sum();
    let chosen: Vec<ImageRecord> = shown.iter().map(|at| records[*at].clone()).collect();
    let alike = strata_analysis::reuse::matrix(&sharing, &chosen);
    let stored = sharing.groups.iter().map(|group| group.bytes).sum();
    let places: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    PageData {
        strata: env!("CARGO_PKG_VERSION"),
        created: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        root: escaped(places.join(", ").as_bytes()).into_owned(),
        in_store: stores.len(),
        hosts: true,
        totals: PageTotals {
            apparent: total.apparent,
            layered: total.layered,
            stored,
            entries: known.values().map(|(entries, _)| entries).sum(),
            files: sharing.groups.iter().map(|group| group.files).sum(),
            layers: sharing.layers.len(),
            disk: vec![("files of all hosts", alone, blocks * 512)],
        },
        elsewhere: 0,
        images,
        layers: rows.rows,
        texts: rows.texts.all,
        matrix: PageMatrix::of(&shares.sets, &shown, matrix::rows(&alike)),
        waste: Default::default(),
        levels: vec![Level::new("Files, by host", alone, "each host for itself, as they are now")],
    }
}

/// A host with its layers, each once, in the place of an image.
fn record(store: &FleetStore) -> ImageRecord {
    let mut seen = HashSet::new();
    let stacked = store.images.iter().flat_map(|image| image.layers.iter().map(|(id, _)| id));
    let layers = stacked.chain(&store.layers).copied().filter(|layer| seen.insert(*layer));
    let id = ImageId::from_bytes(Sha256::digest(store.name.to_string().as_bytes()).into());
    ImageRecord { id, manifest: None, layers: layers.collect() }
}

/// What images take with nothing shared, and with layers shared; one that several stores have
/// counts once. A layer that no image has counts by itself.
fn stacks<'a>(
    images: impl Iterator<Item = &'a FleetImage>,
    stores: &[FleetStore],
    known: &HashMap<DiffId, (u64, u64)>,
) -> Stacks {
    let bytes = |layer: &DiffId| known.get(layer).map_or(0, |(_, apparent)| *apparent);
    let (mut ids, mut chains, mut used) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut all = Stacks::default();
    for image in images.filter(|image| ids.insert(image.id)) {
        for (layer, chain) in &image.layers {
            used.insert(*layer);
            all.apparent += bytes(layer);
            if chains.insert(*chain) {
                all.layered += bytes(layer);
            }
        }
    }
    for layer in stores.iter().flat_map(|store| &store.layers) {
        if used.insert(*layer) {
            all.apparent += bytes(layer);
            all.layered += bytes(layer);
        }
    }
    all
}

fn host(store: &FleetStore, record: &ImageRecord, of: &Usage, own: &Stacks) -> Image {
    Image {
        id: record.id.to_string(),
        names: vec![store.name.to_string()],
        created: Some(format!("{}T00:00:00Z", store.day)),
        platform: String::new(),
        apparent: own.apparent,
        layered: own.layered,
        stored: of.stored,
        unique: of.unique,
        shared: of.shared,
        attributed: of.attributed,
        files: of.files,
        layers: Vec::new(),
    }
}

/// The layers of the page.
struct Rows<'a> {
    positions: HashMap<DiffId, usize>,
    usage: &'a [Usage],
    known: &'a HashMap<DiffId, (u64, u64)>,
    /// How many hosts have each layer.
    hosts: HashMap<DiffId, u64>,
    numbers: HashMap<DiffId, usize>,
    rows: Vec<PageLayer>,
    texts: Texts,
    /// Layers of a host that are shown one by one.
    most: usize,
}

impl<'a> Rows<'a> {
    fn new(
        sharing: &Sharing,
        usage: &'a [Usage],
        known: &'a HashMap<DiffId, (u64, u64)>,
        records: &[ImageRecord],
        stores: usize,
    ) -> Self {
        let mut hosts = HashMap::new();
        for layer in records.iter().flat_map(|record| &record.layers) {
            *hosts.entry(*layer).or_default() += 1;
        }
        let positions = sharing.layers.iter().enumerate();
        Self {
            positions: positions.map(|(at, layer)| (*layer, at)).collect(),
            usage,
            known,
            hosts,
            numbers: HashMap::new(),
            rows: Vec::new(),
            texts: Texts::default(),
            most: (PARTS / stores.max(1)).max(FEWEST),
        }
    }

    /// The layers of a host, those with the largest parts one by one.
    fn of(
        &mut self,
        store: &FleetStore,
        record: &ImageRecord,
        shares: &[super::shares::LayerPart],
    ) -> Vec<PagePart> {
        let mut called: BTreeMap<DiffId, BTreeSet<String>> = BTreeMap::new();
        for image in &store.images {
            let name = image.names.iter().find(|name| !name.contains('@'));
            let name = name.cloned().unwrap_or_else(|| image.id.short());
            for (layer, _) in &image.layers {
                called.entry(*layer).or_default().insert(name.clone());
            }
        }
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by_key(|at| Reverse((shares[*at].charged, shares[*at].shared)));
        let apart = if order.len() <= self.most + 1 { order.len() } else { self.most };
        let (large, small) = order.split_at(apart);
        let mut parts: Vec<PagePart> = large
            .iter()
            .map(|at| {
                let layer = record.layers[*at];
                let names = called.get(&layer).map(words).unwrap_or_default();
                let of = &shares[*at];
                let step = (!names.is_empty()).then(|| self.texts.number(&names));
                let (layer, only) = (self.number(layer), of.only);
                PagePart { layer, only, shared: of.shared, charged: of.charged, step }
            })
            .collect();
        if !small.is_empty() {
            let sum = |value: fn(&super::shares::LayerPart) -> u64| {
                small.iter().map(|at| value(&shares[*at])).sum::<u64>()
            };
            let entries = small.iter().filter_map(|at| self.known.get(&record.layers[*at]));
            let stored = sum(|part| part.only) + sum(|part| part.shared);
            self.rows.push(PageLayer {
                diff_id: format!("{} layers", small.len()),
                entries: entries.map(|(entries, _)| entries).sum(),
                apparent: stored,
                stored,
                shared: sum(|part| part.shared),
                images: 1,
                tree: None,
            });
            parts.push(PagePart {
                layer: self.rows.len() - 1,
                only: sum(|part| part.only),
                shared: sum(|part| part.shared),
                charged: sum(|part| part.charged),
                step: Some(self.texts.number(&format!("{} smaller layers", small.len()))),
            });
        }
        parts
    }

    fn number(&mut self, layer: DiffId) -> usize {
        if let Some(number) = self.numbers.get(&layer) {
            return *number;
        }
        let usage = self.positions.get(&layer).map(|at| self.usage[*at]).unwrap_or_default();
        let (entries, apparent) = self.known.get(&layer).copied().unwrap_or_default();
        self.rows.push(PageLayer {
            diff_id: layer.to_string(),
            entries,
            apparent,
            stored: usage.stored,
            shared: usage.shared,
            images: self.hosts.get(&layer).copied().unwrap_or_default(),
            tree: None,
        });
        self.numbers.insert(layer, self.rows.len() - 1);
        self.rows.len() - 1
    }
}

/// The names of the images that have a layer.
fn words(names: &BTreeSet<String>) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" +{}", names.len() - NAMED));
    }
    text
}
