//! `images.json`: images and tags once more, so that a rebuild without `index.db` has them.
//!
//! It is replaced, durably, just before the index is committed. A crash in between leaves it one
//! change ahead; it says of which state it is the successor, so that this is not taken for damage.
//!
//! ```text
//! {"replaces": sha256 of the images before, "images": [...], "sha256": of both}
//! ```
//!
//! Invariants: its images equal those of the index, or it replaces exactly those; its bytes are
//! exactly what this module writes, so a wrong byte is noticed.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strata_tree::{ContentDigest, DiffId};

use crate::error::{Error, IoContext, Result, second_look};
use crate::index::images;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listing {
    replaces: String,
    pub images: ImageList,
    sha256: String,
}

/// All images of a store, sorted by id.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub(super) struct ImageList(pub Vec<ListedImage>);

/// One of them.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct ListedImage {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<String>,
    pub layers: Vec<String>,
    pub tags: Vec<String>,
    /// By tag: why the image was let in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub verdicts: BTreeMap<String, String>,
}

/// How `images.json` was found.
pub(super) enum Found {
    /// Whole.
    Listing(Listing),
    /// Not at all.
    Absent,
    /// With wrong bytes, in words; with its images if those can be read.
    Damaged(String, Option<ImageList>),
}

impl ImageList {
    /// Those of the index.
    pub(super) fn of(db: &Connection) -> Result<Self> {
        let tags = images::tags(db)?;
        let verdicts = images::verdicts(db)?;
        let images = images::all(db)?.into_iter().map(|image| ListedImage {
            id: image.id.to_string(),
            manifest: image.manifest.map(|digest| digest.to_string()),
            layers: image.layers.iter().map(DiffId::to_string).collect(),
            tags: tags
                .iter()
                .filter(|(_, id)| *id == image.id)
                .map(|(reference, _)| reference.clone())
                .collect(),
            verdicts: verdicts
                .iter()
                .filter(|(_, id, _)| *id == image.id)
                .map(|(reference, _, verdict)| (reference.clone(), verdict.clone()))
                .collect(),
        });
        Ok(Self(images.collect()))
    }

    /// What names this state.
    pub(super) fn state(&self) -> String {
        // Strings and lists of strings always become JSON.
        let text = serde_json::to_vec(self).unwrap_or_default();
        ContentDigest::from_bytes(Sha256::digest(text).into()).to_string()
    }
}

impl Listing {
    /// The file for `images`, which follow the state `replaces`.
    pub(super) fn new(images: ImageList, replaces: String) -> Self {
        let sha256 = Self::digest(&images, &replaces);
        Self { replaces, images, sha256 }
    }

    fn digest(images: &ImageList, replaces: &str) -> String {
        let text = format!("{replaces} {}", images.state());
        ContentDigest::from_bytes(Sha256::digest(text).into()).to_string()
    }

    /// Its bytes.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Whether it was written for a change of `state` that has not come about.
    pub(super) fn is_ahead_of(&self, state: &str) -> bool {
        self.replaces == state
    }

    /// Reads the file; one that cannot be read twice is damaged.
    ///
    /// # Errors
    /// `Io` that says nothing of the file.
    pub(super) fn read(path: &Path) -> Result<Found> {
        let doing = || format!("cannot read {}", path.display());
        let text = match second_look(|| std::fs::read(path).doing(doing)) {
            Ok(text) => text,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Found::Absent);
            }
            Err(error) if error.may_be_damage() => {
                return Ok(Found::Damaged(error.to_string(), None));
            }
            Err(error) => return Err(error),
        };
        Ok(match serde_json::from_slice::<Self>(&text) {
            Ok(listing) if listing.sha256 != Self::digest(&listing.images, &listing.replaces) => {
                let what = "its checksum does not fit".to_owned();
                Found::Damaged(what, Some(listing.images))
            }
            Ok(listing) if listing.text() != text => {
                let what = "it is not as strata writes it".to_owned();
                Found::Damaged(what, Some(listing.images))
            }
            Ok(listing) => Found::Listing(listing),
            Err(error) => Found::Damaged(error.to_string(), None),
        })
    }
}
