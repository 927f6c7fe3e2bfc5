//! Labels that mean something here, and names that containerd gives.
//!
//! Invariant: these are containerd's words (its packages `snapshots` and `pkg/cri`), not ours.

use crate::state::Labels;

/// The chain id that a snapshot will have once it is committed.
pub(crate) const REF: &str = "containerd.io/snapshot.ref";
/// The layer was not fetched by containerd.
pub(crate) const REMOTE: &str = "containerd.io/snapshot/remote";
/// On a blob: its diff id.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// On a blob, with a word behind it: another blob that it needs.
pub(crate) const GC_CONTENT: &str = "containerd.io/gc.ref.content.";
/// On a blob, with a snapshotter behind it: a snapshot that it needs.
pub(crate) const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// By CRI: the image that the layer is of, as it was asked for.
pub(crate) const CRI_IMAGE: &str = "containerd.io/snapshot/cri.image-ref";
/// By CRI: the digest of the layer's blob.
pub(crate) const CRI_LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
/// By CRI: the digests of the blobs of this layer and those above it, with commas between.
pub(crate) const CRI_LAYERS: &str = "containerd.io/snapshot/cri.image-layers";
/// By CRI: the digest of the image's manifest.
pub(crate) const CRI_MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";

/// What begins the last part of the key of a snapshot that a layer is unpacked into.
pub(crate) const UNPACK: &str = "extract-";

/// Whether a snapshot is there to unpack a layer into it: `NAMESPACE/NUMBER/extract-...`.
pub(crate) fn is_unpack(key: &str) -> bool {
    key.splitn(3, '/').last().is_some_and(|name| name.starts_with(UNPACK))
}

/// The chain that a layer was unpacked to, by the keys before and after: containerd names the
/// snapshot by it.
pub(crate) fn unpacked_chain<'n>(key: &str, name: &'n str) -> Option<&'n str> {
    is_unpack(key).then(|| chain_in(name)).flatten()
}

/// The chain that a committed snapshot is to its image, as its label or its name says it.
pub(crate) fn chain_of<'n>(name: &'n str, labels: &'n Labels) -> Option<&'n str> {
    labels.get(REF).map(String::as_str).or_else(|| chain_in(name))
}

fn chain_in(name: &str) -> Option<&str> {
    name.splitn(3, '/').last().filter(|chain| chain.starts_with("sha256:"))
}

/// Whether the labels say that the layer is the last of its image.
pub(crate) fn is_top(labels: &Labels) -> bool {
    labels.get(CRI_LAYER).is_some_and(|layer| labels.get(CRI_LAYERS) == Some(layer))
}

/// The namespace in a key.
pub(crate) fn namespace(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

/// Whether the labels name that chain.
pub(crate) fn names(labels: &Labels, chain: &str) -> bool {
    labels.get(REF).is_some_and(|label| label == chain)
}
