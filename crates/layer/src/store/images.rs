//! Images and tags: the index is the truth, `images.json` its copy for a rebuild.
//!
//! Invariants: an image is committed only while all its layers are leased and in the index; the
//! copy is replaced, durably, before the commit, so it may name an image too many, never too few.

use std::collections::BTreeSet;

use rusqlite::Transaction;
use sha2::{Digest, Sha256};
use strata_tree::{BlobDigest, ChainId, DiffId, ImageId};

use super::dir::StoreDir;
use super::leases::LeasedLayer;
use super::listing::{ImageList, Listing};
use super::steps::Step;
use super::sweep::remove_file_if_there;
use crate::error::{Error, Result};
use crate::index::shared::SharedIndex;
use crate::index::{self, ImageRecord, images};
use crate::lock::{Lock, Locked, lock_path};

/// The name of a stack of layers, base first (OCI config.md, "Layer ChainID"); `None` for none.
pub fn chain_id(layers: &[DiffId]) -> Option<ChainId> {
    let (base, rest) = layers.split_first()?;
    let base = chain_above(None, base);
    Some(rest.iter().fold(base, |below, layer| chain_above(Some(&below), layer)))
}

/// The chain of a layer on top of another chain, or on nothing (OCI config.md, "Layer ChainID").
pub fn chain_above(below: Option<&ChainId>, layer: &DiffId) -> ChainId {
    ChainId::from_bytes(match below {
        Some(below) => Sha256::digest(format!("{below} {layer}")).into(),
        None => *layer.as_bytes(),
    })
}

/// Images and tags of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedImages {
    /// By id.
    pub images: Vec<ImageRecord>,
    /// Reference and image, by reference.
    pub tags: Vec<(String, ImageId)>,
}

/// The images of a store, with their tags.
#[derive(Clone, Copy)]
pub struct Images<'s> {
    dir: &'s StoreDir,
    index: &'s SharedIndex,
}

impl<'s> Images<'s> {
    pub(super) fn new(dir: &'s StoreDir, index: &'s SharedIndex) -> Self {
        Self { dir, index }
    }

    /// All images.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn all(&self) -> Result<Vec<ImageRecord>> {
        images::all(&self.index.lock().db)
    }

    /// One image.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn get(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        images::find(&self.index.lock().db, id)
    }

    /// All tags: reference and image, sorted by reference.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn tags(&self) -> Result<Vec<(String, ImageId)>> {
        images::tags(&self.index.lock().db)
    }

    /// All images and all tags, as they are at one moment.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn with_tags(&self) -> Result<TaggedImages> {
        let index = self.index.lock();
        let moment = index.db.unchecked_transaction()?;
        Ok(TaggedImages { images: images::all(&moment)?, tags: images::tags(&moment)? })
    }

    /// Why an image was let in: its names that have a verdict, with it, sorted by name.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn verdicts(&self, id: &ImageId) -> Result<Vec<(String, String)>> {
        let all = images::verdicts(&self.index.lock().db)?.into_iter();
        let own = all.filter(|(_, image, _)| image == id);
        Ok(own.map(|(reference, _, verdict)| (reference, verdict)).collect())
    }

    /// Adds an image whose layers are all leased and whose config is in `blobs/`, with tags; a tag
    /// that another image had moves. `verdict` is kept with each of the tags: why the image was let
    /// in, in the words of whoever judged it.
    ///
    /// # Errors
    /// `NoLayer` if a layer is not leased or not in the index; `NoBlob` without config or manifest.
    pub fn commit(
        &self,
        image: &ImageRecord,
        tags: &[String],
        verdict: Option<&str>,
        leased: &[LeasedLayer],
    ) -> Result<()> {
        for layer in &image.layers {
            if !leased.iter().any(|leased| leased.diff_id() == layer) {
                return Err(Error::NoLayer(*layer));
            }
        }
        let replaced = self.change(|tx| {
            // Under the write lock, so no collection takes them away any more.
            self.dir.blob(&image.id.into())?;
            if let Some(manifest) = &image.manifest {
                self.dir.blob(manifest)?;
            }
            let replaced = images::find(tx, &image.id)?.and_then(|old| old.manifest);
            images::put(tx, image)?;
            for reference in tags {
                images::tag(tx, reference, &image.id, verdict)?;
            }
            Ok(replaced)
        })?;
        self.dir.step(Step::ImageCommitted);
        if let Some(old) = replaced.filter(|old| Some(*old) != image.manifest) {
            let mut index = self.index.lock();
            let tx = index.write()?;
            self.drop_blob(&images::all(&tx)?, &old)?;
        }
        Ok(())
    }

    /// One change of images or tags, in the index and in its copy.
    fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut index = self.index.lock();
        let tx = index.write()?;
        let before = ImageList::of(&tx)?.state();
        let value = change(&tx)?;
        let listing = Listing::new(ImageList::of(&tx)?, before);
        self.dir.write_aside(&self.dir.listing(), &listing.text())?;
        self.dir.step(Step::ImageListed);
        tx.commit()?;
        Ok(value)
    }

    /// Gives an image a further name; the name leaves the image that had it, and has no verdict:
    /// nobody judged the image under it.
    ///
    /// # Errors
    /// `NoImage`.
    pub fn tag(&self, reference: &str, image: &ImageId) -> Result<()> {
        self.change(|tx| images::tag(tx, reference, image, None))
    }

    /// Takes a name away; says whose it was.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn untag(&self, reference: &str) -> Result<Option<ImageId>> {
        self.change(|tx| images::untag(tx, reference))
    }

    /// Takes names away from an image that has just the names `known`.
    ///
    /// # Errors
    /// `Renamed` if it has others: then nothing was done.
    pub fn untag_of(&self, id: &ImageId, known: &[&str], gone: &[String]) -> Result<()> {
        self.change(|tx| {
            require_names(tx, id, known)?;
            gone.iter().try_for_each(|name| images::untag(tx, name).map(drop))
        })
    }

    /// Removes an image, its names, and the layers that no other image has and nobody holds;
    /// returns those, top first.
    ///
    /// # Errors
    /// `NoImage`; `InUse` if a mount leases the image or one of those layers: then nothing was
    /// done.
    pub fn remove(&self, id: &ImageId) -> Result<Vec<DiffId>> {
        self.remove_if(id, |_| Ok(()), &|| false)
    }

    /// The same for an image that has just the names `known`: one that somebody gave it meanwhile
    /// is not lost. `used` says whether something needs it that the store does not know, such as a
    /// writable layer, and is asked when nobody can begin to use the image any more.
    ///
    /// # Errors
    /// As [`Images::remove`], with `InUse` for what `used` says too; `Renamed` if it has other
    /// names. Nothing was done then.
    pub fn remove_known(
        &self,
        id: &ImageId,
        known: &[&str],
        used: &dyn Fn() -> bool,
    ) -> Result<Vec<DiffId>> {
        self.remove_if(id, |tx| require_names(tx, id, known), used)
    }

    fn remove_if(
        &self,
        id: &ImageId,
        may: impl FnOnce(&Transaction<'_>) -> Result<()>,
        used: &dyn Fn() -> bool,
    ) -> Result<Vec<DiffId>> {
        let config = self.dir.blob_path(&(*id).into());
        let (image, doomed, _config) = self.change(|tx| {
            may(tx)?;
            let Some(image) = images::find(tx, id)? else { return Err(Error::NoImage(*id)) };
            let config = match lock_path(&config, Lock::SoonExclusive)? {
                Locked::Busy => return Err(Error::InUse { what: format!("image {}", id.short()) }),
                Locked::Held(lock) => Some(lock),
                Locked::Absent => None,
            };
            let mounted = self.dir.kernel_leases().kept()?.iter().any(|mount| mount.image == *id);
            if mounted || used() {
                return Err(Error::InUse { what: format!("image {}", id.short()) });
            }
            let doomed = self.dir.lock_for_removal(&images::remove(tx, id)?)?;
            for layer in doomed.layers() {
                if let Some(record) = index::find_layer(tx, layer)? {
                    index::remove_layer(tx, record.id)?;
                }
            }
            Ok((image, doomed, config))
        })?;
        self.dir.step(Step::Unreferenced);
        let freed = doomed.layers().rev().copied().collect();
        self.dir.remove_layers(doomed)?;
        self.remove_files_of(&image)?;
        Ok(freed)
    }

    /// Removes the blobs and the compiled tree that only this image, which is gone, needed.
    fn remove_files_of(&self, image: &ImageRecord) -> Result<()> {
        // Under the write lock: whoever commits the same image again has asked for its blobs
        // before this, or finds that they are gone.
        let mut index = self.index.lock();
        let tx = index.write()?;
        let others = images::all(&tx)?;
        if let Some(chain) = chain_id(&image.layers)
            && !others.iter().any(|other| other.layers == image.layers)
        {
            remove_file_if_there(&self.dir.tree(&chain))?;
            remove_file_if_there(&self.dir.names_image(&chain))?;
        }
        let blobs = [image.manifest, Some(BlobDigest::from(image.id))];
        blobs.into_iter().flatten().try_for_each(|blob| self.drop_blob(&others, &blob))
    }

    /// Removes a blob that none of `images` names.
    fn drop_blob(&self, images: &[ImageRecord], blob: &BlobDigest) -> Result<()> {
        let needed = |image: &ImageRecord| {
            image.manifest == Some(*blob) || BlobDigest::from(image.id) == *blob
        };
        match images.iter().any(needed) {
            true => Ok(()),
            false => remove_file_if_there(&self.dir.blob_path(blob)),
        }
    }
}

/// Sees that an image has these names and no others.
fn require_names(tx: &Transaction<'_>, id: &ImageId, known: &[&str]) -> Result<()> {
    let tags = images::tags(tx)?;
    let now = tags.iter().filter(|(_, image)| image == id).map(|(name, _)| name.as_str());
    match now.collect::<BTreeSet<_>>() == known.iter().copied().collect() {
        true => Ok(()),
        false => Err(Error::Renamed(*id)),
    }
}
