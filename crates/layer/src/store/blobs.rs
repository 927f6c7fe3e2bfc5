//! Manifests and configs: small blobs named by their sha256.
//!
//! Invariant: a blob is written aside, synced and renamed, so one that is there is whole; every
//! read is checked against its name.

use std::io::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use strata_tree::BlobDigest;

use super::{Step, Store};
use crate::error::{Error, IoContext, Result};

impl Store {
    pub(super) fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Keeps a blob, durably.
    ///
    /// # Errors
    /// `Io`.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<BlobDigest> {
        let digest = BlobDigest::from_bytes(Sha256::digest(bytes).into());
        let path = self.blob_path(&digest);
        // One that is there and damaged is replaced.
        if std::fs::read(&path).ok().as_deref() != Some(bytes) {
            self.write_aside(&path, bytes)?;
        }
        self.step(Step::BlobWritten);
        Ok(digest)
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// `NoBlob`, `Damaged` if its bytes are not those of its name, `Io`.
    pub fn blob(&self, digest: &BlobDigest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoBlob(*digest));
            }
            Err(error) => return Err(error).doing(|| format!("cannot read {}", path.display())),
        };
        let actual = BlobDigest::from_bytes(Sha256::digest(&bytes).into());
        if actual != *digest {
            return Err(Error::damaged(
                format!("blob {digest}"),
                format!("its sha256 is {actual}"),
            ));
        }
        Ok(bytes)
    }

    /// Replaces a file in one durable step.
    pub(super) fn write_aside(&self, path: &std::path::Path, bytes: &[u8]) -> Result<()> {
        let doing = || format!("cannot write {}", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (temporary, mut file) = self.aside(&name)?;
        file.write_all(bytes).doing(doing)?;
        file.sync_all().doing(doing)?;
        std::fs::rename(&temporary, path).doing(doing)?;
        if let Some(parent) = path.parent() {
            let parent = std::fs::File::open(parent).doing(doing)?;
            parent.sync_all().doing(doing)?;
        }
        Ok(())
    }
}
