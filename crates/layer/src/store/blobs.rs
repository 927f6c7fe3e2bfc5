//! Manifests and configs: small blobs named by their sha256.
//!
//! Invariant: a blob is written aside, synced and renamed, so one that is there is whole; every
//! read is checked against its name.

use sha2::{Digest, Sha256};
use strata_tree::BlobDigest;

use super::dir::StoreDir;
use super::steps::Step;
use crate::error::{Error, IoContext, Result};

impl StoreDir {
    /// Keeps a blob, durably.
    pub(super) fn put_blob(&self, bytes: &[u8]) -> Result<BlobDigest> {
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
    pub(super) fn blob(&self, digest: &BlobDigest) -> Result<Vec<u8>> {
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
}
