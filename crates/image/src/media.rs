//! Media types: what a descriptor says that its blob is, in OCI's and in docker's words.
//!
//! Invariant: the compression that a media type claims is never believed; the bytes decide
//! (plain data under `+gzip` and zstd under docker's types both exist). A media type decides
//! only what kind of document or blob to expect.

/// What a blob is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A list of manifests (OCI index, docker manifest list).
    Index,
    /// One image's manifest.
    Manifest,
    /// An image's config.
    Config,
    /// The diff of a layer, compressed or not.
    Layer,
    /// The same, not to be stored with the image but fetched from its urls.
    ForeignLayer,
    /// An encrypted diff.
    EncryptedLayer,
    /// Docker's manifest before version 2.2: no config, no diff ids.
    Schema1,
    /// Nothing said.
    Unsaid,
    /// Something that is not part of an image: an attestation, a signature, an artifact.
    Other,
}

impl MediaKind {
    /// What `media_type` means.
    pub fn of(media_type: &str) -> Self {
        let base = without_parameters(media_type);
        match base {
            // Registries and old tools write the second where they know nothing better.
            "" | "application/octet-stream" => Self::Unsaid,
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Self::Index,
            "application/vnd.oci.image.manifest.v1+json" | DOCKER_MANIFEST => Self::Manifest,
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => Self::Config,
            "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Self::Schema1,
            _ => Self::of_layer(base),
        }
    }

    fn of_layer(base: &str) -> Self {
        const FOREIGN: [&str; 2] = [
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ];
        const ORDINARY: [&str; 2] = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar",
        ];
        // `+gzip`, `+zstd`, `.gzip`, `.zstd`, or whatever compression comes next.
        let is_one = |stems: [&str; 2]| {
            stems.iter().any(|stem| {
                base.strip_prefix(stem)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '.']))
            })
        };
        match () {
            () if base.ends_with("+encrypted") => Self::EncryptedLayer,
            () if is_one(FOREIGN) => Self::ForeignLayer,
            () if is_one(ORDINARY) => Self::Layer,
            () => Self::Other,
        }
    }
}

/// The media type of a manifest in answers: the one that it says of itself, without the parameters
/// in which it may say anything, else OCI's.
pub(crate) fn manifest_type(said: Option<&str>) -> &'static str {
    match said.map(without_parameters) {
        Some(DOCKER_MANIFEST) => DOCKER_MANIFEST,
        _ => OCI_MANIFEST,
    }
}

fn without_parameters(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What `strata import` writes.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What lists manifests.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What `strata import` writes.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What `strata import` writes: the diff itself, uncompressed.
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_vocabularies_are_known() {
        use MediaKind as M;
        for (text, kind) in [
            ("", M::Unsaid),
            ("application/octet-stream", M::Unsaid),
            ("application/vnd.oci.image.index.v1+json", M::Index),
            ("application/vnd.docker.distribution.manifest.list.v2+json", M::Index),
            (OCI_MANIFEST, M::Manifest),
            ("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8", M::Manifest),
            (OCI_CONFIG, M::Config),
            ("application/vnd.docker.container.image.v1+json", M::Config),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", M::Schema1),
            (OCI_LAYER, M::Layer),
            ("application/vnd.oci.image.layer.v1.tar+gzip", M::Layer),
            ("application/vnd.oci.image.layer.v1.tar+zstd", M::Layer),
            ("application/vnd.docker.image.rootfs.diff.tar", M::Layer),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", M::Layer),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", M::Layer),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", M::ForeignLayer),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", M::ForeignLayer),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", M::EncryptedLayer),
            ("application/vnd.in-toto+json", M::Other),
            ("application/vnd.dev.cosign.simplesigning.v1+json", M::Other),
            ("application/vnd.oci.image.layer.v1.tart", M::Other),
        ] {
            assert_eq!(MediaKind::of(text), kind, "{text}");
        }
    }
}
