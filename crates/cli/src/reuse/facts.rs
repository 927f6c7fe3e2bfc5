//! What is known of the images, read once.
//!
//! Invariant: images stand in one order everywhere: as they were named, or else by name.

use std::collections::HashMap;

use anyhow::Result;
use strata_analysis::reuse::chunks::Measured;
use strata_analysis::reuse::{
    Added, CountedLayer, Levels, Matrix, Relative, levels, matrix, relatives,
};
use strata_image::resolve_image;
use strata_layer::{ImageRecord, Sharing, Store};
use strata_registry::Reference;
use strata_tree::ImageId;

/// An image with its names.
pub(crate) struct ReuseImage {
    pub(crate) id: ImageId,
    /// As people say them.
    pub(crate) names: Vec<String>,
}

impl ReuseImage {
    /// Its first name, else its short id.
    pub(crate) fn title(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.id.short())
    }
}

/// The images and what they hold.
pub(crate) struct ReuseFacts {
    pub(crate) images: Vec<ReuseImage>,
    pub(crate) records: Vec<ImageRecord>,
    pub(crate) sharing: Sharing,
    pub(crate) levels: Levels,
    /// If one image was asked about: its position, for all others are here too.
    pub(crate) one: Option<usize>,
    /// The pieces of the files, if they were to be measured; its layers are `levels.counted`.
    pub(crate) measured: Option<Measured>,
    /// For images in no store: what loading them would add to it.
    pub(crate) added: Option<Added>,
}

impl ReuseFacts {
    /// The facts of the images named, or of all; for a single one all are read, too.
    pub(crate) fn of_store(store: &Store, named: &[String]) -> Result<Self> {
        let tags = store.images().tags()?;
        let mut names: HashMap<ImageId, Vec<String>> = HashMap::new();
        for (name, id) in tags {
            // A digest that it was pulled by is not a name of its own.
            if !name.contains('@') {
                let said = name.parse::<Reference>().map(|reference| reference.familiar());
                names.entry(id).or_default().push(said.unwrap_or(name));
            }
        }
        let mut chosen: Vec<ImageRecord> = Vec::new();
        for text in named {
            let record = resolve_image(store, text)?;
            if !chosen.contains(&record) {
                chosen.push(record);
            }
        }
        let only = match chosen.as_slice() {
            [one] => Some(one.id),
            _ => None,
        };
        let several = chosen.len() > 1;
        let mut all: Vec<(ReuseImage, ImageRecord)> = match several {
            false => store.images().all()?,
            true => chosen,
        }
        .into_iter()
        .map(|record| {
            let names = names.remove(&record.id).unwrap_or_default();
            (ReuseImage { id: record.id, names }, record)
        })
        .collect();
        if !several {
            all.sort_by_key(|(image, _)| (image.names.is_empty(), image.title(), image.id));
        }
        let (images, records): (Vec<ReuseImage>, Vec<ImageRecord>) = all.into_iter().unzip();
        let one = images.iter().position(|image| Some(image.id) == only);
        Ok(Self::new(images, records, store.accounts().sharing()?, one))
    }

    /// The facts of these images; `one` is the position of the one that was asked about.
    pub(crate) fn new(
        images: Vec<ReuseImage>,
        records: Vec<ImageRecord>,
        sharing: Sharing,
        one: Option<usize>,
    ) -> Self {
        let counted = match one {
            Some(one) => &records[one..=one],
            None => &records,
        };
        let levels = levels(&sharing, counted);
        Self { images, records, sharing, levels, one, measured: None, added: None }
    }

    /// Bytes of compressed layers, each as often as `times` says; `None` without compression.
    pub(crate) fn packed_layers(&self, times: fn(&CountedLayer) -> u64) -> Option<u64> {
        let packed = &self.measured.as_ref()?.layers;
        let all = self.levels.counted.iter().zip(packed);
        (!packed.is_empty()).then(|| all.map(|(layer, packed)| times(layer) * packed).sum())
    }

    pub(crate) fn matrix(&self) -> Matrix {
        matrix(&self.sharing, &self.records)
    }

    /// The images most like that one.
    pub(crate) fn relatives(&self, one: usize, most: usize) -> Vec<Relative> {
        relatives(&self.sharing, &self.records, one, most)
    }
}
