//! Images and tags: the index is the truth, `images.json` its copy for a rebuild.
//!
//! Invariants: an image is committed only while all its layers are held and in the index; the
//! copy is replaced, durably, before the commit, so it may name an image too many, never too few.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, ChainId, DiffId, ImageId};

use super::{HeldLayer, Step, Store};
use crate::error::{Error, IoContext, Result};
use crate::index::{self, ImageRecord, images};
use crate::lock::{Lock, Locked, lock_path};

/// `images.json`.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Listing {
    pub images: Vec<ListedImage>,
}

/// One image of it.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct ListedImage {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<String>,
    pub layers: Vec<String>,
    pub tags: Vec<String>,
}

/// The name of a stack of layers, base first (OCI config.md, "Layer ChainID"); `None` for none.
pub fn chain_id(layers: &[DiffId]) -> Option<ChainId> {
    let (base, rest) = layers.split_first()?;
    let mut chain = ChainId::from_bytes(*base.as_bytes());
    for layer in rest {
        let text = format!("{chain} {layer}");
        chain = ChainId::from_bytes(Sha256::digest(text.as_bytes()).into());
    }
    Some(chain)
}

pub(super) fn listing(db: &Connection) -> Result<Listing> {
    let tags = images::tags(db)?;
    let images = images::all(db)?.into_iter().map(|image| ListedImage {
        id: image.id.to_string(),
        manifest: image.manifest.map(|digest| digest.to_string()),
        layers: image.layers.iter().map(DiffId::to_string).collect(),
        tags: tags
            .iter()
            .filter(|(_, id)| *id == image.id)
            .map(|(reference, _)| reference.clone())
            .collect(),
    });
    Ok(Listing { images: images.collect() })
}

impl Store {
    /// Adds an image whose layers are all held and whose config is in `blobs/`, with tags; a tag
    /// that another image had moves.
    ///
    /// # Errors
    /// `NoLayer` if a layer is not held or not in the index; `NoBlob` without the config or the
    /// manifest (a removal came between: put them again).
    pub fn commit_image(
        &self,
        image: &ImageRecord,
        tags: &[String],
        held: &[HeldLayer],
    ) -> Result<()> {
        for layer in &image.layers {
            if !held.iter().any(|held| held.diff_id == *layer) {
                return Err(Error::NoLayer(*layer));
            }
        }
        let mut index = self.index();
        let tx = index.write()?;
        self.blob(&image.id.into())?;
        if let Some(manifest) = &image.manifest {
            self.blob(manifest)?;
        }
        let replaced = images::find(&tx, &image.id)?.and_then(|old| old.manifest);
        images::put(&tx, image)?;
        for reference in tags {
            images::tag(&tx, reference, &image.id)?;
        }
        self.write_listing(&tx)?;
        tx.commit()?;
        drop(index);
        self.step(Step::ImageCommitted);
        self.drop_blobs(replaced.into_iter().filter(|old| Some(*old) != image.manifest))
    }

    /// Removes blobs that no image names (any more).
    fn drop_blobs(&self, digests: impl Iterator<Item = BlobDigest>) -> Result<()> {
        let digests: Vec<BlobDigest> = digests.collect();
        if digests.is_empty() {
            return Ok(());
        }
        // Under the write lock, where a commit makes sure of its blobs.
        let mut index = self.index();
        let tx = index.write()?;
        let images = images::all(&tx)?;
        for digest in digests {
            let named = |image: &ImageRecord| {
                BlobDigest::from(image.id) == digest || image.manifest == Some(digest)
            };
            if !images.iter().any(named) {
                self.remove_file_if_there(&self.blob_path(&digest))?;
            }
        }
        Ok(())
    }

    pub(super) fn write_listing(&self, db: &Connection) -> Result<()> {
        let text = serde_json::to_vec_pretty(&listing(db)?)
            .map_err(std::io::Error::from)
            .doing(|| "cannot write images.json".into())?;
        self.write_aside(&self.root.join("images.json"), &text)?;
        self.step(Step::ImageListed);
        Ok(())
    }

    /// All images.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        images::all(&self.index().db)
    }

    /// One image.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        images::find(&self.index().db, id)
    }

    /// All tags: reference and image, sorted by reference.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn tags(&self) -> Result<Vec<(String, ImageId)>> {
        images::tags(&self.index().db)
    }

    /// All layers, in the order in which they came.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn layers(&self) -> Result<Vec<index::LayerRecord>> {
        index::layers(&self.index().db)
    }

    /// One layer.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<index::LayerRecord>> {
        index::find_layer(&self.index().db, diff_id)
    }

    /// Gives an image a further name; the name leaves the image that had it.
    ///
    /// # Errors
    /// `NoImage`.
    pub fn tag(&self, reference: &str, image: &ImageId) -> Result<()> {
        let mut index = self.index();
        let tx = index.write()?;
        images::tag(&tx, reference, image)?;
        self.write_listing(&tx)?;
        Ok(tx.commit()?)
    }

    /// Takes a name away; says whose it was.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn untag(&self, reference: &str) -> Result<Option<ImageId>> {
        let mut index = self.index();
        let tx = index.write()?;
        let image = images::untag(&tx, reference)?;
        self.write_listing(&tx)?;
        tx.commit()?;
        Ok(image)
    }

    /// Removes an image, its names, and the layers that no other image has; returns those, top
    /// first.
    ///
    /// # Errors
    /// `NoImage`; `InUse` if a mount holds the image or one of those layers: then nothing happened.
    pub fn remove_image(&self, id: &ImageId) -> Result<Vec<DiffId>> {
        let config = BlobDigest::from(*id);
        let mut index = self.index();
        let tx = index.write()?;
        let Some(image) = images::find(&tx, id)? else { return Err(Error::NoImage(*id)) };
        let _config = match lock_path(&self.blob_path(&config), Lock::TryExclusive)? {
            Locked::Busy => return Err(Error::InUse { what: format!("image {}", id.short()) }),
            Locked::Held(lock) => Some(lock),
            Locked::Absent => None,
        };
        let freed = images::remove(&tx, id)?;
        let locks = self.lock_for_removal(&freed)?;
        for layer in &freed {
            if let Some(record) = index::find_layer(&tx, layer)? {
                index::remove_layer(&tx, record.id)?;
            }
        }
        self.write_listing(&tx)?;
        tx.commit()?;
        self.step(Step::Unreferenced);
        let others = images::all(&index.db)?;
        drop(index);
        self.trash_layers(locks)?;
        let chain_left = others.iter().any(|other| other.layers == image.layers);
        if let Some(chain) = chain_id(&image.layers).filter(|_| !chain_left) {
            self.remove_file_if_there(&self.tree_path(&chain))?;
        }
        self.drop_blobs(image.manifest.into_iter().chain([config]))?;
        Ok(freed.into_iter().rev().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_committed_only_with_its_config_and_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let config = store.put_blob(b"{}").unwrap();
        let absent = BlobDigest::from_bytes([7; 32]);
        let commit = |id: BlobDigest, manifest| {
            let image = ImageRecord {
                id: ImageId::from_bytes(*id.as_bytes()),
                manifest: Some(manifest),
                layers: Vec::new(),
            };
            store.commit_image(&image, &["x:1".to_owned()], &[])
        };
        assert!(matches!(commit(absent, config), Err(Error::NoBlob(blob)) if blob == absent));
        assert!(matches!(commit(config, absent), Err(Error::NoBlob(blob)) if blob == absent));
        assert_eq!((store.images().unwrap().len(), store.tags().unwrap().len()), (0, 0));
        let manifest = store.put_blob(b"[]").unwrap();
        commit(config, manifest).unwrap();
        assert_eq!(store.images().unwrap().len(), 1);
    }
}
