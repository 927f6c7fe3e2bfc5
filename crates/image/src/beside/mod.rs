//! What stands beside an image: signatures, attestations, bills of materials.
//!
//! ```text
//! sha256-<hex>.sig, .att, .sbom   tags of the same repository or layout: cosign
//! subject                         manifests that refer to the image's: OCI 1.1; a registry that
//!                                 does not know them lists them under the tag sha256-<hex>
//! ```
//! (cosign, SIGNATURE_SPEC.md, "Storage"; image specification 1.1, manifest.md, `subject`;
//! distribution specification 1.1, "Referrers Tag Schema".)
//!
//! Invariants: every manifest and blob is verified by digest and size; their number and sizes are
//! bounded; nothing here says whether a signature is good.

mod carry;
mod check;
mod gate;
mod layout;
mod registry;

use serde::Deserialize;
use strata_registry::or_default;
use strata_tree::BlobDigest;
use strata_trust::{Attachment, Signature, is_bundle};

pub use check::{TrustQuestion, check_trust, check_trust_of_all};

pub(crate) use carry::{Companions, companions};
pub(crate) use gate::{admit_files, admit_registry};
pub(crate) use layout::LayoutSide;
pub(crate) use registry::RegistrySide;

use crate::error::{Error, Result};
use crate::json;
use crate::oci::Descriptor;

/// Bytes of one signature, as containers/image bounds them.
const SIGNATURE_MAX: u64 = 4 << 20;
/// Signatures of one image, and manifests beside it, from each source.
const COUNT_MAX: usize = 128;
/// The endings of cosign's tags.
const ENDINGS: [&str; 3] = ["sig", "att", "sbom"];

/// A manifest that stands beside an image.
#[derive(Debug, Clone)]
pub(crate) struct Companion {
    /// The tag by which it is found; none for a referrer.
    pub(crate) tag: Option<String>,
    pub(crate) digest: BlobDigest,
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) manifest: Vec<u8>,
    pub(crate) parts: CompanionParts,
}

/// Manifests that refer to another.
#[derive(Debug, Default)]
pub(crate) struct Referring {
    /// Not more than [`COUNT_MAX`].
    pub(crate) found: Vec<Companion>,
    /// There are others, which nobody looked at.
    pub(crate) is_cut: bool,
}

/// What its manifest says.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CompanionParts {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default)]
    pub(crate) artifact_type: Option<String>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
}

/// Where such manifests are.
pub(crate) trait Beside {
    /// What the user calls the place.
    fn label(&self) -> &str;

    /// The manifest of a tag; `None` if there is none.
    ///
    /// # Errors
    /// Those of fetching, and of damaged documents.
    fn tagged(&self, tag: &str) -> Result<Option<Companion>>;

    /// The manifests that refer to one.
    ///
    /// # Errors
    /// As [`Beside::tagged`].
    fn referrers(&self, subject: BlobDigest) -> Result<Referring>;

    /// A blob of at most `most` bytes, verified.
    ///
    /// # Errors
    /// As [`Beside::tagged`]; `Limit`.
    fn bytes(&self, what: &Descriptor, most: u64) -> Result<Vec<u8>>;
}

impl Companion {
    /// Reads a manifest whose digest has been verified.
    ///
    /// # Errors
    /// `Document`.
    pub(crate) fn read(
        label: &str,
        tag: Option<&str>,
        digest: BlobDigest,
        manifest: Vec<u8>,
    ) -> Result<Self> {
        let name = format!("manifest {digest}");
        let parts: CompanionParts = json::from_slice(&manifest)
            .map_err(|error| Error::document(label, &name, error.to_string()))?;
        let media_type = match parts.media_type.as_str() {
            "" => crate::media::OCI_MANIFEST.to_owned(),
            said => said.to_owned(),
        };
        Ok(Self { tag: tag.map(str::to_owned), digest, media_type, manifest, parts })
    }

    /// What an index says of its kind.
    pub(crate) fn artifact_type(&self) -> Option<&str> {
        let config = self.parts.config.as_ref().map(|config| config.media_type.as_str());
        self.parts.artifact_type.as_deref().or(config).filter(|kind| !kind.is_empty())
    }

    /// Whether it refers to that manifest.
    pub(crate) fn is_about(&self, subject: BlobDigest) -> bool {
        let said = self.parts.subject.as_ref();
        said.is_some_and(|said| said.digest.parse() == Ok(subject))
    }

    /// The blobs that it names.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.parts.config.iter().chain(&self.parts.layers)
    }
}

/// The tag under which a digest has something, without the ending.
fn tag_of(digest: BlobDigest) -> String {
    format!("sha256-{}", digest.hex())
}

/// The digest of a blob beside an image, if it is not larger than `most` bytes.
fn checked(label: &str, what: &Descriptor, most: u64) -> Result<BlobDigest> {
    let digest = what.check(label, "a manifest beside the image")?;
    match what.size.unsigned_abs() > most {
        false => Ok(digest),
        true => Err(Error::Limit {
            label: label.to_owned(),
            what: format!("the size of blob {digest}, {} bytes,", what.size),
            limit: most,
            option: "--signatures none or --insecure-policy",
        }),
    }
}

/// All signatures of an image that stand beside it.
fn signatures(side: &dyn Beside, manifest: BlobDigest) -> Result<Vec<Signature>> {
    let mut found = Vec::new();
    let mut all: Vec<Companion> =
        side.tagged(&format!("{}.sig", tag_of(manifest)))?.into_iter().collect();
    // Of many any may be the one that is asked for, and where none is the image is refused.
    all.extend(side.referrers(manifest)?.found);
    for companion in all {
        let is_tagged = companion.tag.is_some();
        for layer in &companion.parts.layers {
            let media_type = layer.media_type.clone();
            let bundle = is_bundle(&media_type);
            if !bundle && !is_tagged && !media_type.contains("simplesigning") {
                continue;
            }
            if found.len() >= COUNT_MAX {
                return Err(Error::Limit {
                    label: side.label().to_owned(),
                    what: "the number of signatures".to_owned(),
                    limit: COUNT_MAX as u64,
                    option: "--insecure-policy",
                });
            }
            let payload = side.bytes(layer, SIGNATURE_MAX)?;
            found.push(match bundle {
                true => Signature::Bundle(payload),
                false => Signature::Attachment(Attachment {
                    media_type,
                    payload,
                    annotations: layer.all_annotations(),
                }),
            });
        }
    }
    Ok(found)
}
