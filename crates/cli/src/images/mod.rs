//! Images, in docker's words: list, inspect, history, remove, prune, and what they take.
//!
//! [`KnownImage`] is what the store knows of all images, read once a command.
//!
//! Invariants: two tags of one image are two rows; an image without a tag is one row of `<none>`,
//! with the repository that it was pulled from where there is one. What a name was pulled as is a
//! name `REPOSITORY@DIGEST` of the store beside the tag, as in docker: the digest that `pull`
//! printed, an index's too. `tag` and `load` make none.

mod dry_run;
mod effect;
mod facts;
mod filter;
mod history;
mod inspect;
mod list;
mod prune;
mod remove;
mod system;
mod users;

use std::collections::HashMap;

use anyhow::Result;
use jiff::Timestamp;
use strata_image::ImageConfig;
use strata_layer::{ImageRecord, Store, TaggedImages};
use strata_registry::Reference;
use strata_tree::ImageId;

pub(crate) use history::{HistoryArgs, run_history};
pub(crate) use inspect::{InspectArgs, run_inspect};
pub(crate) use list::{ImagesArgs, run_images};
pub(crate) use prune::{PruneImagesArgs, Sure, run_prune};
pub(crate) use remove::{RmiArgs, TagArgs, run_rmi, run_tag};
pub(crate) use system::{SystemDfArgs, SystemPruneArgs, run_system_df, run_system_prune};

/// What docker shows where there is no name.
const NONE: &str = "<none>";

/// One image of the store.
pub(crate) struct KnownImage {
    pub(crate) record: ImageRecord,
    pub(crate) config: ImageConfig,
    /// Its tags as the store has them.
    pub(crate) tags: Vec<String>,
}

impl KnownImage {
    /// All images.
    pub(crate) fn all(store: &Store) -> Result<Vec<Self>> {
        let TaggedImages { images, tags } = store.images().with_tags()?;
        let mut known = Vec::new();
        for record in images {
            if let Some(config) = ImageConfig::of_listed(store, &record.id)? {
                known.push(Self::new(config, record, &tags));
            }
        }
        Ok(known)
    }

    /// One image.
    pub(crate) fn one(store: &Store, record: ImageRecord) -> Result<Self> {
        let config = ImageConfig::of(store, &record.id)?;
        Ok(Self::new(config, record, &store.images().tags()?))
    }

    fn new(config: ImageConfig, record: ImageRecord, tags: &[(String, ImageId)]) -> Self {
        let tags = tags.iter().filter(|(_, id)| *id == record.id);
        Self { tags: tags.map(|(name, _)| name.clone()).collect(), record, config }
    }

    /// Repository and tag of each name; `<none>` twice if there is no name.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> = Vec::new();
        let (tags, pins): (Vec<_>, Vec<_>) = self.tags.iter().partition(|name| !is_pin(name));
        names.extend(tags.into_iter().map(|name| split(name)));
        for name in pins.into_iter().map(|name| split(name)) {
            // A digest has a row of its own only where its repository has no tag.
            if !names.iter().any(|(repository, _)| *repository == name.0) {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.push((NONE.to_owned(), NONE.to_owned()));
        }
        names
    }

    /// Whether it has a name that is no digest.
    pub(crate) fn is_tagged(&self) -> bool {
        self.tags.iter().any(|name| !is_pin(name))
    }

    /// The digests that a repository's name was pulled as.
    pub(crate) fn digests_in(&self, repository: &str) -> Vec<String> {
        let pins = self.digests().into_iter();
        let pins =
            pins.filter_map(|pin| pin.split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())));
        pins.filter(|(own, _)| own == repository).map(|(_, digest)| digest).collect()
    }

    /// The names as people say them.
    pub(crate) fn familiar_names(&self) -> Vec<String> {
        // A digest that it was pulled by is not a name of its own.
        self.tags.iter().filter(|name| !is_pin(name)).map(|name| familiar(name)).collect()
    }

    /// `REPOSITORY@DIGEST` for each name and digest that it was pulled or pushed as.
    pub(crate) fn digests(&self) -> Vec<String> {
        self.tags.iter().filter(|name| is_pin(name)).map(|name| familiar(name)).collect()
    }

    /// Bytes of the regular files of all its layers, as docker adds them up.
    pub(crate) fn size(&self, store: &Store) -> Result<u64> {
        let mut size = 0;
        for layer in &self.record.layers {
            size += store.layer(layer)?.map_or(0, |record| record.apparent);
        }
        Ok(size)
    }
}

/// The names of all images as people say them, sorted.
pub(crate) fn familiar_names(store: &Store) -> Result<HashMap<ImageId, Vec<String>>> {
    let mut names: HashMap<ImageId, Vec<String>> = HashMap::new();
    for (name, image) in store.images().tags()? {
        // A digest that it was pulled by is not a name of its own.
        if !is_pin(&name) {
            names.entry(image).or_default().push(familiar(&name));
        }
    }
    Ok(names)
}

/// A name of the store as repository and tag.
fn split(name: &str) -> (String, String) {
    let familiar = familiar(name);
    if let Some((repository, _)) = familiar.split_once('@') {
        return (repository.to_owned(), NONE.to_owned());
    }
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (familiar, NONE.to_owned()),
    }
}

/// Whether a name of the store is a digest that an image was pulled as.
pub(crate) fn is_pin(name: &str) -> bool {
    name.contains('@')
}

/// A name of the store as people say it.
pub(crate) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// `2024-05-06 07:08:09 +0000 UTC`, as docker prints times.
pub(crate) fn docker_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

fn shown_id(id: &str, whole: bool) -> &str {
    if whole { id } else { id.get(7..19).unwrap_or(id) }
}
