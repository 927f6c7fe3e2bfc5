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
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use strata_image::{ImageConfig, LayerSteps};
use strata_layer::{DiskUsage, ImageRecord, LayerUsage, Sharing, Store, Usage};
use strata_tree::{DiffId, ImageId};

use super::levels::Level;
use super::matrix::{self, PageMatrix};
use super::shares::{LayerPart, Shares};
use super::tree::{self, ShownNode};
use super::waste::{self, Wasted};
use crate::images::familiar_names;
use crate::look::escaped;

/// Nodes of all layers' trees together: a megabyte or two.
const NODES: usize = 24_000;

/// Names of layers that are read to be shown, largest layers first: below a second's worth.
const NAMES: u64 = 600_000;

/// A layer with fewer nodes than this to spend is not opened.
const FEWEST: usize = 6;

/// Characters of a history step that are kept.
const STEP: usize = 300;

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct PageData {
    pub(super) strata: &'static str,
    pub(super) created: String,
    /// The store's directory.
    pub(super) root: String,
    /// How many images the store has, shown or not.
    pub(super) in_store: usize,
    /// Whether hosts stand where images do.
    pub(super) hosts: bool,
    pub(super) totals: PageTotals,
    /// Bytes charged to images that are not shown, and to layers without an image.
    pub(super) elsewhere: u64,
    pub(super) images: Vec<Image>,
    pub(super) layers: Vec<PageLayer>,
    pub(super) texts: Vec<String>,
    pub(super) matrix: PageMatrix,
    pub(super) waste: Wasted,
    /// What smaller pieces than files would take, if that was measured.
    pub(super) levels: Vec<Level>,
}

impl PageData {
    /// How many images are shown.
    pub(super) fn images(&self) -> usize {
        self.images.len()
    }
}

/// The store as a whole, in bytes; as `strata df` has it.
#[derive(Debug, Serialize)]
pub(super) struct PageTotals {
    pub(super) apparent: u64,
    pub(super) layered: u64,
    pub(super) stored: u64,
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) layers: usize,
    /// The parts on disk: name, bytes, and bytes in whole blocks.
    pub(super) disk: Vec<(&'static str, u64, u64)>,
}

/// An image with its columns of `strata df`.
#[derive(Debug, Serialize)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) created: Option<String>,
    pub(super) platform: String,
    pub(super) apparent: u64,
    pub(super) layered: u64,
    pub(super) stored: u64,
    pub(super) unique: u64,
    pub(super) shared: u64,
    pub(super) attributed: u64,
    pub(super) files: u64,
    pub(super) layers: Vec<PagePart>,
}

impl Image {
    fn of(
        record: &ImageRecord,
        of: &Usage,
        config: Option<&ImageConfig>,
        names: Vec<String>,
        parts: Vec<PagePart>,
    ) -> Self {
        let platform = config.map(|config| config.platform().to_string()).unwrap_or_default();
        Self {
            id: record.id.to_string(),
            names,
            created: config.and_then(ImageConfig::created).map(|time| time.to_string()),
            platform: escaped(platform.as_bytes()).into_owned(),
            apparent: of.apparent,
            layered: of.layered,
            stored: of.stored,
            unique: of.unique,
            shared: of.shared,
            attributed: of.attributed,
            files: of.files,
            layers: parts,
        }
    }
}

/// A layer of an image; see [`super::shares`].
#[derive(Debug, Serialize)]
pub(super) struct PagePart {
    pub(super) layer: usize,
    pub(super) only: u64,
    pub(super) shared: u64,
    pub(super) charged: u64,
    /// The history step that made it, in `texts`.
    pub(super) step: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct PageLayer {
    pub(super) diff_id: String,
    pub(super) entries: u64,
    pub(super) apparent: u64,
    pub(super) stored: u64,
    pub(super) shared: u64,
    /// How many images of the store have it.
    pub(super) images: u64,
    /// What is in it, the large things; nothing if it is too small to be opened.
    pub(super) tree: Option<ShownNode>,
}

/// Texts that many things name.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) all: Vec<String>,
    pub(super) known: HashMap<String, usize>,
}

impl Texts {
    pub(super) fn number(&mut self, text: &str) -> usize {
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
pub(super) fn collect(
    store: Store,
    root: &Path,
    wanted: &BTreeSet<ImageId>,
    levels: Vec<Level>,
) -> Result<PageData> {
    let usage = store.accounts().disk_usage()?;
    let sharing = store.accounts().sharing()?;
    // What engines have beside the images is shown as images are, without a config.
    let engines = usage.engines.iter().map(|(held, of)| (held.record(), *of));
    let all = usage.images.iter().cloned().chain(engines);
    let (records, accounts): (Vec<ImageRecord>, Vec<Usage>) = all.unzip();
    let shares = Shares::of(&sharing, &records);

    let mut shown: Vec<usize> = (0..records.len())
        .filter(|at| wanted.is_empty() || wanted.contains(&records[*at].id))
        .collect();
    shown.sort_by_key(|at| Reverse((accounts[*at].unique, accounts[*at].stored)));
    let (mut layers, mut texts) = (Layers::of(&usage), Texts::default());
    let (mut images, names) = (Vec::new(), familiar_names(&store)?);
    for at in &shown {
        let engine = at.checked_sub(usage.images.len()).and_then(|at| usage.engines.get(at));
        let (config, names) = match engine {
            Some((held, _)) => (None, vec![held.shown()]),
            None => {
                let id = &records[*at].id;
                (ImageConfig::of_listed(&store, id)?, names.get(id).cloned().unwrap_or_default())
            }
        };
        let config = config.as_ref();
        let parts = parts(config, &records[*at], &shares.parts[*at], &mut layers, &mut texts);
        images.push(Image::of(&records[*at], &accounts[*at], config, names, parts));
    }
    let attributed: u64 = images.iter().map(|image| image.attributed).sum();
    let (rows, matrix) = (layers.rows(&store, &sharing, &shares)?, {
        let chosen: Vec<ImageRecord> = shown.iter().map(|at| records[*at].clone()).collect();
        let alike = strata_analysis::reuse::matrix(&sharing, &chosen);
        PageMatrix::of(&shares.sets, &shown, matrix::rows(&alike))
    });
    let asked = shown.iter().map(|at| {
        let (image, is_image) = (&records[*at], *at < usage.images.len());
        (image, is_image.then(|| layers.entries(image)))
    });
    let asked: Vec<_> = asked.collect();
    let waste = waste::wasted(&store, &asked)?;
    // The index has its size only when the store is closed.
    let disk = store.into_disk_usage()?.disk;
    let disk = disk.parts().into_iter().map(|(part, of)| (part, of.bytes, of.blocks * 512));
    Ok(PageData {
        strata: env!("CARGO_PKG_VERSION"),
        root: escaped(root.as_os_str().as_bytes()).into_owned(),
        created: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        in_store: records.len(),
        hosts: false,
        totals: PageTotals {
            apparent: usage.apparent,
            layered: usage.layered,
            stored: usage.stored,
            entries: usage.entries,
            files: usage.files,
            layers: usage.layers.len(),
            disk: disk.collect(),
        },
        elsewhere: usage.stored.saturating_sub(attributed),
        layers: rows,
        matrix,
        waste,
        levels,
        images,
        texts: texts.all,
    })
}

/// The layers of an image that the store has, each with its part of the bytes.
fn parts(
    config: Option<&ImageConfig>,
    record: &ImageRecord,
    shares: &[LayerPart],
    layers: &mut Layers<'_>,
    texts: &mut Texts,
) -> Vec<PagePart> {
    let steps = config.map(|config| LayerSteps::of(config).steps).unwrap_or_default();
    let parts = record.layers.iter().zip(shares).enumerate();
    let parts = parts.filter_map(|(index, (layer, part))| {
        let step = steps.iter().find(|step| step.position == index);
        let said = step.and_then(|step| step.instruction().or_else(|| step.comment.clone()));
        Some(PagePart {
            layer: layers.number(layer)?,
            only: part.only,
            shared: part.shared,
            charged: part.charged,
            step: said.map(|said| texts.number(&said)),
        })
    });
    parts.collect()
}

/// The layers of the images that are shown, numbered as they are first named.
struct Layers<'a> {
    usage: HashMap<DiffId, &'a LayerUsage>,
    numbers: HashMap<DiffId, usize>,
    order: Vec<DiffId>,
}

impl<'a> Layers<'a> {
    fn of(usage: &'a DiskUsage) -> Self {
        let by_id = usage.layers.iter().map(|layer| (layer.diff_id, layer)).collect();
        Self { usage: by_id, numbers: HashMap::new(), order: Vec::new() }
    }

    /// Names in an image's layers.
    fn entries(&self, image: &ImageRecord) -> u64 {
        let layers = image.layers.iter().filter_map(|layer| self.usage.get(layer));
        layers.map(|layer| layer.entries).sum()
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
    fn rows(&self, store: &Store, sharing: &Sharing, shares: &Shares) -> Result<Vec<PageLayer>> {
        let all: Vec<&LayerUsage> =
            self.order.iter().filter_map(|layer| self.usage.get(layer).copied()).collect();
        let whole: u64 = all.iter().map(|layer| layer.usage.stored).sum();
        let mut largest: Vec<usize> = (0..all.len()).collect();
        largest.sort_by_key(|at| Reverse(all[*at].usage.stored));
        let held = store.accounts().held_names(sharing)?;
        let (mut trees, mut names): (HashMap<usize, ShownNode>, u64) = (HashMap::new(), 0);
        for at in largest {
            let layer = all[at];
            let part = u128::from(layer.usage.stored) * NODES as u128 / u128::from(whole.max(1));
            let budget = usize::try_from(part).unwrap_or(NODES).min(NODES / 4);
            names += layer.entries;
            // The largest is opened however large it is.
            if budget < FEWEST || names > NAMES && !trees.is_empty() {
                continue;
            }
            trees.insert(at, tree::cut(&held.of(&layer.diff_id)?, &shares.holders, budget));
        }
        let rows = all.iter().enumerate().map(|(at, layer)| PageLayer {
            diff_id: layer.diff_id.to_string(),
            entries: layer.entries,
            apparent: layer.usage.apparent,
            stored: layer.usage.stored,
            shared: layer.usage.shared,
            images: layer.images,
            tree: trees.remove(&at),
        });
        Ok(rows.collect())
    }
}
