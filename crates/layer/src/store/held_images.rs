//! [`HeldImages`]: the layers that engines have, by the names that they came with.
//!
//! Invariant: a layer that an engine has without a name is in the group of that engine that has
//! none, and in no other of it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use strata_tree::{DiffId, ImageId};

use super::dir::StoreDir;
use crate::error::Result;
use crate::index::ImageRecord;

/// What an engine has under one name, or without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldImage {
    /// The engine, for people.
    pub by: String,
    /// The name of the image.
    pub name: Option<String>,
    /// The layers, in no order that means anything.
    pub layers: Vec<DiffId>,
}

/// All that engines have, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldImages(Vec<HeldImage>);

impl HeldImages {
    pub(super) fn of(dir: &StoreDir) -> Result<Self> {
        let mut groups: BTreeMap<(Option<String>, String), BTreeSet<DiffId>> = BTreeMap::new();
        for holds in dir.holders()? {
            for hold in holds.all()? {
                let mut names: Vec<Option<String>> = hold.images.into_iter().map(Some).collect();
                if names.is_empty() {
                    names.push(None);
                }
                for name in names {
                    groups.entry((name, hold.by.clone())).or_default().extend(&hold.layers);
                }
            }
        }
        let groups = groups.into_iter();
        let held = groups.map(|((name, by), layers)| HeldImage {
            by,
            name,
            layers: layers.into_iter().collect(),
        });
        Ok(Self(held.collect()))
    }

    /// All of them.
    pub fn all(&self) -> &[HeldImage] {
        &self.0
    }

    /// The layers that any engine has: they stay when the images go that have them too.
    pub fn layers(&self) -> BTreeSet<DiffId> {
        self.0.iter().flat_map(|held| &held.layers).copied().collect()
    }

    /// The engines that have all of `layers`, sorted.
    pub fn holders_of(&self, layers: &[DiffId]) -> Vec<&str> {
        let mut by: BTreeMap<&str, BTreeSet<&DiffId>> = BTreeMap::new();
        for held in &self.0 {
            by.entry(&held.by).or_default().extend(&held.layers);
        }
        let has_all = |has: &BTreeSet<&DiffId>| layers.iter().all(|layer| has.contains(layer));
        by.iter().filter(|(_, has)| !layers.is_empty() && has_all(has)).map(|(by, _)| *by).collect()
    }

    /// What engines have that none of `images` has: the rest of each of them.
    pub fn beside(&self, images: &[ImageRecord]) -> Vec<HeldImage> {
        let known: BTreeSet<&DiffId> = images.iter().flat_map(|image| &image.layers).collect();
        let mut rest = self.0.clone();
        for held in &mut rest {
            held.layers.retain(|layer| !known.contains(layer));
        }
        rest.retain(|held| !held.layers.is_empty());
        rest
    }
}

impl HeldImage {
    /// As people know it: its name with the engine, or the engine alone.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.by),
            None => self.by.clone(),
        }
    }

    /// An image of these layers, for accounts. Its id is no digest of anything.
    pub fn record(&self) -> ImageRecord {
        let id = ImageId::from_bytes(Sha256::digest(self.shown()).into());
        ImageRecord { id, manifest: None, layers: self.layers.clone() }
    }
}
