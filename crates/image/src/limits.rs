//! Bounds on what a source may make the loader read, keep in memory or write.
//!
//! Invariant: every bound is checked before the memory or disk that it bounds is used.

/// The bounds, each with the option of `strata load` that sets it, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLimits {
    /// Bytes of one index, manifest or config (`--max-manifest-bytes`).
    pub document_bytes: u64,
    /// Members of the outer archive (`--max-members`).
    pub members: u64,
    /// Bytes that a compressed or piped archive may take uncompressed (`--max-archive-bytes`).
    pub archive_bytes: u64,
    /// Uncompressed bytes of such an archive for each compressed one, blocks of zeros left out
    /// (`--max-expansion`).
    pub expansion: u64,
    /// Images in one source (`--max-images`).
    pub images: u64,
    /// Bytes of memory that the manifests and configs of several images of one source may take.
    pub held_bytes: u64,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            members: 100_000,
            archive_bytes: 256 << 30,
            expansion: 2000,
            images: 1000,
            held_bytes: 256 << 20,
        }
    }
}

/// How deep indexes may nest; the specification forbids no depth, real ones have two.
pub(crate) const INDEX_DEPTH: usize = 4;
/// Layers in one image; the kernel's overlayfs stops at 500, docker at 127.
pub(crate) const LAYERS: usize = 4096;
