//! The digest of a document in memory.

use sha2::{Digest, Sha256};
use strata_tree::BlobDigest;

/// The digest of bytes in memory.
pub(crate) fn sha256(bytes: &[u8]) -> BlobDigest {
    BlobDigest::from_bytes(Sha256::digest(bytes).into())
}
