//! Leases: as long as a [`LeasedLayer`] lives, nobody removes the layer.
//!
//! Invariant: the lock is the kernel's (`flock`, shared, on the layer directory), so it dies with
//! the process; it is taken on the very directory whose contents are then used.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use strata_content::{Files, LayerDir};
use strata_diff::headers::{DiffAtOffsets, DiffStream};
use strata_tree::{DiffId, ImageId, TreePath};

use super::dir::StoreDir;
use crate::error::{Error, IoContext, Result};
use crate::index::shared::SharedIndex;
use crate::index::{self, images};
use crate::layout::diff_path;
use crate::lock::{Lock, Locked, lock_path};
use crate::stage::open_beneath;

/// A layer that stays as long as this, or a clone of it, lives.
#[derive(Debug, Clone)]
pub struct LeasedLayer {
    diff_id: DiffId,
    dir: Arc<OwnedFd>,
}

impl LeasedLayer {
    /// A layer whose directory is locked, by that descriptor.
    pub(super) fn new(diff_id: DiffId, dir: OwnedFd) -> Self {
        Self { diff_id, dir: Arc::new(dir) }
    }

    /// Leases a layer; `None` if the store does not have it.
    pub(super) fn take(
        store: &StoreDir,
        index: &SharedIndex,
        diff_id: &DiffId,
    ) -> Result<Option<Self>> {
        let path = store.layer(diff_id);
        let mut row_before = None;
        loop {
            let locked = lock_path(&path, Lock::Shared)?;
            // Asked second: a removal in between has taken the row.
            let row = index::find_layer(&index.lock().db, diff_id)?.map(|record| record.id);
            match (locked, row) {
                (_, None) => return Ok(None),
                (Locked::Held(dir), Some(_)) => return Ok(Some(Self::new(*diff_id, dir))),
                // A row before and after, and no directory in between.
                (Locked::Absent | Locked::Busy, row) if row == row_before => {
                    let what = format!("layer {diff_id}");
                    return Err(Error::damaged(what, "its directory is gone"));
                }
                // It may have been published between the two questions.
                (Locked::Absent | Locked::Busy, row) => row_before = row,
            }
        }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Which layer.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// The contents of these layers, base first.
    ///
    /// # Errors
    /// `Io`.
    pub fn files(layers: &[Self]) -> Result<Files> {
        layers.iter().map(Self::contents).collect::<Result<_>>().map(Files::new)
    }

    /// Its directory of contents, `diff/`.
    fn contents(&self) -> Result<LayerDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath(self.dir.as_fd(), Path::new("diff"), flags)
            .doing(|| format!("cannot open diff/ of layer {}", self.diff_id))?;
        Ok(LayerDir::new(dir, format!("layer {}", self.diff_id)))
    }

    /// Opens one of its regular files.
    pub(crate) fn open(&self, path: &TreePath) -> Result<File> {
        open_beneath(self.dir.as_fd(), &diff_path(path), OFlags::RDONLY | OFlags::NONBLOCK)
            .map(File::from)
            .doing(|| format!("cannot open {path} of layer {}", self.diff_id))
    }

    /// Opens its `headers.zst`.
    pub(crate) fn headers(&self) -> Result<File> {
        open_beneath(self.dir.as_fd(), Path::new("headers.zst"), OFlags::RDONLY)
            .map(File::from)
            .doing(|| format!("cannot open headers.zst of layer {}", self.diff_id))
    }

    /// Writes the exact tar of the layer, as it was unpacked; gives its size in bytes.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn write_diff(&self, out: &mut dyn std::io::Write) -> Result<u64> {
        let headers = self.headers()?;
        let open = |path: &TreePath| self.open(path).map_err(std::io::Error::other);
        let mut stream = DiffStream::new(&headers, &open)?;
        std::io::copy(&mut stream, out)
            .doing(|| format!("cannot rebuild the diff of layer {}", self.diff_id))
    }
}

impl LeasedLayer {
    /// The same tar, to be read at offsets; `scratch` is an empty file.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn diff_at_offsets(&self, scratch: File) -> Result<DiffAtOffsets> {
        let files = self.clone();
        let open = move |path: &TreePath| files.open(path).map_err(std::io::Error::other);
        Ok(DiffAtOffsets::new(&self.headers()?, scratch, Box::new(open))?)
    }
}

/// An image that stays as long as this lives: for mounts.
#[derive(Debug)]
pub struct LeasedImage {
    _config: OwnedFd,
}

impl LeasedImage {
    /// Leases an image, and every layer of it, base first.
    pub(super) fn take(
        store: &StoreDir,
        index: &SharedIndex,
        id: &ImageId,
    ) -> Result<(Self, Vec<LeasedLayer>)> {
        let config = match lock_path(&store.blob_path(&(*id).into()), Lock::Shared)? {
            Locked::Held(config) => config,
            Locked::Absent | Locked::Busy => return Err(Error::NoImage(*id)),
        };
        let image = images::find(&index.lock().db, id)?.ok_or(Error::NoImage(*id))?;
        let mut leased = Vec::new();
        for layer in &image.layers {
            leased.push(LeasedLayer::take(store, index, layer)?.ok_or(Error::NoLayer(*layer))?);
        }
        Ok((Self { _config: config }, leased))
    }
}
