//! What removing images frees, without removing them.
//!
//! The same decisions as [`Images::remove`](super::images::Images::remove) takes, one image after
//! the other: what nobody else needs goes, what somebody leases stays.
//!
//! Invariant: removing just these images then frees just this, by `du` of everything but
//! `index.db`, whose pages are kept for what comes next; directories that only lose names
//! (`layers/`, `trees/`, `blobs/sha256/`) are taken to keep their size, as on ext4 and xfs.

use std::collections::BTreeSet;

use strata_tree::{BlobDigest, ChainId, DiffId, ImageId};

use super::dir::StoreDir;
use super::images::chain_id;
use super::listing::{ImageList, Listing};
use super::sharing::Sharing;
use crate::error::{Error, IoContext, Result};
use crate::index::shared::SharedIndex;
use crate::index::{self, ImageRecord, images};
use crate::lock::{Lock, Locked, lock_path};
use crate::measure::{Space, space};

/// What would go, and what would stay because somebody uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Images that would go, in the order given.
    pub images: Vec<ImageId>,
    /// Images that would stay: they, or a layer that only they have, are in use.
    pub in_use: Vec<ImageId>,
    /// Layers that no image would have any more.
    pub layers: Vec<DiffId>,
    /// Contents that no layer would have any more.
    pub files: u64,
    /// Their bytes and blocks.
    pub contents: Space,
    /// `headers.zst` of those layers.
    pub headers: Space,
    /// Directories of those layers.
    pub directories: Space,
    /// Compiled trees, each of a chain that no image would have any more.
    pub trees: Space,
    /// The kernel's images of names of those chains.
    pub names: Space,
    /// Manifests and configs.
    pub blobs: Space,
    /// By how much `images.json` gets shorter.
    pub listing: Space,
}

impl Removal {
    /// All parts with their names, as in [`Disk::parts`](super::Disk::parts).
    pub fn parts(&self) -> [(&'static str, Space); 7] {
        [
            ("contents", self.contents),
            ("headers", self.headers),
            ("directories", self.directories),
            ("trees", self.trees),
            ("names", self.names),
            ("blobs", self.blobs),
            ("images.json", self.listing),
        ]
    }

    /// What `du` of the store would fall by.
    pub fn total(&self) -> Space {
        self.parts().into_iter().map(|(_, space)| space).sum()
    }
}

/// What removing `wanted`, one after the other, and then the names `untagged` would free.
pub(super) fn removal(
    dir: &StoreDir,
    shared: &SharedIndex,
    wanted: &[ImageId],
    untagged: &[String],
) -> Result<Removal> {
    let sharing = Sharing::read(&shared.lock().db)?;
    let all = images::all(&shared.lock().db)?;
    let mut plan = RemovalPlan::new(dir, &all);
    let mut removal = Removal::default();
    let mut gone: BTreeSet<DiffId> = BTreeSet::new();
    for id in wanted {
        match plan.remove(id)? {
            Some(freed) => {
                removal.images.push(*id);
                gone.extend(freed);
            }
            None => removal.in_use.push(*id),
        }
    }
    let records = index::layers(&shared.lock().db)?;
    for record in records.iter().filter(|record| gone.contains(&record.diff_id)) {
        removal.layers.push(record.diff_id);
        removal.headers += Space { bytes: record.headers_size, blocks: record.headers_blocks };
        removal.directories += record.directories;
    }
    let freed = sharing.freed(&gone);
    removal.files = freed.files;
    removal.contents = Space { bytes: freed.bytes, blocks: freed.blocks };
    let chains = plan.chains();
    removal.trees = plan.space_of(chains.iter().map(|chain| dir.tree(chain)))?;
    removal.names = plan.space_of(chains.iter().map(|chain| dir.names_image(chain)))?;
    removal.blobs = plan.blobs()?;
    let listed = ImageList::of(&shared.lock().db)?;
    removal.listing = plan.listing(listed, untagged)?;
    Ok(removal)
}

/// Images of a store: which would be removed, and which would be left.
struct RemovalPlan<'s> {
    dir: &'s StoreDir,
    removed: Vec<&'s ImageRecord>,
    left: Vec<&'s ImageRecord>,
}

impl<'s> RemovalPlan<'s> {
    fn new(dir: &'s StoreDir, all: &'s [ImageRecord]) -> Self {
        Self { dir, removed: Vec::new(), left: all.iter().collect() }
    }

    /// Removes an image, and says which layers no image has then; `None` if somebody uses it or
    /// one of those layers: it is left.
    fn remove(&mut self, id: &ImageId) -> Result<Option<BTreeSet<DiffId>>> {
        let found = self.left.iter().position(|image| image.id == *id);
        let at = found.ok_or(Error::NoImage(*id))?;
        let image = self.left.remove(at);
        let needed = |layer: &DiffId| self.left.iter().any(|other| other.layers.contains(layer));
        let mut freed = BTreeSet::new();
        for layer in image.layers.iter().filter(|layer| !needed(layer)) {
            if !self.dir.is_held(layer)? {
                freed.insert(*layer);
            }
        }
        if self.is_in_use(image, &freed)? {
            self.left.insert(at, image);
            return Ok(None);
        }
        self.removed.push(image);
        Ok(Some(freed))
    }

    /// Whether removing the image with those layers would be refused.
    fn is_in_use(&self, image: &ImageRecord, freed: &BTreeSet<DiffId>) -> Result<bool> {
        let mounted = self.dir.kernel_leases().kept()?;
        if mounted.iter().any(|mount| mount.image == image.id)
            || mounted.iter().flat_map(|mount| &mount.layers).any(|layer| freed.contains(layer))
        {
            return Ok(true);
        }
        let layers: Vec<DiffId> = freed.iter().copied().collect();
        if self.dir.refuses(&layers)?.is_some() {
            return Ok(true);
        }
        let paths = freed.iter().map(|layer| self.dir.layer(layer));
        for path in [self.dir.blob_path(&image.id.into())].into_iter().chain(paths) {
            // Whoever wants it meanwhile waits: the lock goes at once.
            if matches!(lock_path(&path, Lock::TryExclusive)?, Locked::Busy) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Chains that no image would have any more: nobody reads their compiled trees then.
    fn chains(&self) -> BTreeSet<ChainId> {
        let kept: BTreeSet<&[DiffId]> = self.left.iter().map(|image| &image.layers[..]).collect();
        let gone = self.removed.iter().filter(|image| !kept.contains(&image.layers[..]));
        gone.filter_map(|image| chain_id(&image.layers)).collect()
    }

    /// Manifests and configs that no image would have any more.
    fn blobs(&self) -> Result<Space> {
        let blobs = |images: &[&ImageRecord]| -> BTreeSet<BlobDigest> {
            let of = |image: &&ImageRecord| [Some(BlobDigest::from(image.id)), image.manifest];
            images.iter().flat_map(of).flatten().collect()
        };
        let (gone, kept) = (blobs(&self.removed), blobs(&self.left));
        self.space_of(gone.difference(&kept).map(|blob| self.dir.blob_path(blob)))
    }

    fn space_of(&self, paths: impl Iterator<Item = std::path::PathBuf>) -> Result<Space> {
        let mut all = Space::default();
        for path in paths {
            let below = path.strip_prefix(self.dir.root()).unwrap_or(&path);
            all += space(self.dir.fd(), below)?.unwrap_or_default();
        }
        Ok(all)
    }

    /// What `images.json` loses with the removed images and the names `untagged`.
    fn listing(&self, mut images: ImageList, untagged: &[String]) -> Result<Space> {
        let before = images.state();
        let removed: BTreeSet<String> =
            self.removed.iter().map(|image| image.id.to_string()).collect();
        images.0.retain(|image| !removed.contains(&image.id));
        for image in &mut images.0 {
            image.tags.retain(|name| !untagged.contains(name));
        }
        let after = Listing::new(images, before).text().len() as u64;
        let path = self.dir.listing();
        let now = match removed.is_empty() && untagged.is_empty() {
            true => None,
            false => space(self.dir.fd(), std::path::Path::new("images.json"))?,
        };
        let Some(now) = now else { return Ok(Space::default()) };
        let stat =
            rustix::fs::statvfs(&path).doing(|| format!("cannot stat {}", path.display()))?;
        // The file is small and in one piece: whole blocks of the file system.
        let blocks = after.div_ceil(stat.f_frsize) * (stat.f_frsize / 512);
        Ok(Space {
            bytes: now.bytes.saturating_sub(after),
            blocks: now.blocks.saturating_sub(blocks),
        })
    }
}
