//! The gate: no layer of an image is read before its policy lets it in.
//!
//! ```text
//! registry:  docker   REF    lookaside; tags and referrers where registries.d says so
//! directory: oci      path   tags and referrers of the layout
//! tar:       oci-archive, docker-archive by the list of images that counts
//! ```
//!
//! Invariants: what is judged is the image's own manifest, never an index that leads to it; an
//! image is called as the user called it, mirrors or not.

use strata_registry::{Places, Reference, Registries};
use strata_tree::BlobDigest;
use strata_trust::{
    BoxError, FileTransport, FindSignatures, ImagePlace, NoSignatures, Signature, SignatureSources,
    TrustPolicy, TrustVerdict,
};

use super::{BesideRoom, COUNT_MAX, LayoutSide, RegistrySide, SIGNATURE_MAX, signatures};
use crate::digest::sha256;
use crate::error::Result;
use crate::found::FoundImage;
use crate::location::real_path;
use crate::source::ImageSource;
use crate::spec::{List, SourcePlace, SourceSpec};

/// Asks the policy whether an image of a registry may come in.
///
/// # Errors
/// `Trust`.
pub(crate) fn admit_registry(
    trust: Option<&TrustPolicy>,
    registries: &Registries,
    places: &Places,
    reference: &Reference,
    most: u64,
    found: &mut FoundImage,
) -> Result<()> {
    let Some(trust) = trust else { return Ok(()) };
    let digest = found.manifest.as_deref().map(sha256);
    found.verdict = judge_registry(trust, registries, places, reference, most, digest)?;
    Ok(())
}

/// Asks the policy about a manifest of a registry.
///
/// # Errors
/// What the policy says.
pub(super) fn judge_registry(
    trust: &TrustPolicy,
    registries: &Registries,
    places: &Places,
    reference: &Reference,
    most: u64,
    manifest: Option<BlobDigest>,
) -> strata_trust::Result<Option<TrustVerdict>> {
    let search = RegistrySearch { trust, registries, places, reference, most, manifest };
    trust.judge(&ImagePlace::registry(reference), manifest.as_ref(), &search)
}

/// Asks the policy whether an image of a file or directory may come in.
///
/// # Errors
/// `Trust`.
pub(crate) fn admit_files(
    trust: Option<&TrustPolicy>,
    source: &ImageSource,
    spec: &SourceSpec,
    found: &mut FoundImage,
) -> Result<()> {
    let Some(trust) = trust else { return Ok(()) };
    let path = match spec.place() {
        SourcePlace::Stdin => None,
        SourcePlace::Path(path) => Some(real_path(path)),
    };
    let transport = match (source.is_directory(), spec.list(), &found.manifest) {
        (_, Some(List::Docker), _) | (false, None, None) => FileTransport::DockerArchive,
        (true, ..) => FileTransport::Oci,
        (false, ..) => FileTransport::OciArchive,
    };
    let place = ImagePlace::files(transport, path.as_deref());
    let digest = found.manifest.as_deref().map(sha256);
    found.verdict = match digest.filter(|_| transport != FileTransport::DockerArchive) {
        Some(manifest) => {
            let search = LayoutSearch { source, manifest };
            trust.judge(&place, Some(&manifest), &search)?
        }
        None => trust.judge(&place, digest.as_ref(), &NoSignatures)?,
    };
    Ok(())
}

struct LayoutSearch<'a> {
    source: &'a ImageSource,
    manifest: BlobDigest,
}

impl FindSignatures for LayoutSearch<'_> {
    fn signatures(&self) -> std::result::Result<Vec<Signature>, BoxError> {
        let mut room = BesideRoom::new(&self.source.label, "--insecure-policy");
        Ok(signatures(&LayoutSide::new(self.source)?, self.manifest, &mut room)?)
    }
}

struct RegistrySearch<'a> {
    trust: &'a TrustPolicy,
    registries: &'a Registries,
    places: &'a Places,
    reference: &'a Reference,
    most: u64,
    manifest: Option<BlobDigest>,
}

impl FindSignatures for RegistrySearch<'_> {
    fn signatures(&self) -> std::result::Result<Vec<Signature>, BoxError> {
        let Some(manifest) = self.manifest else { return Ok(Vec::new()) };
        let sources = self.trust.lookaside().sources(self.reference)?;
        let label = self.reference.familiar();
        let mut room = BesideRoom::new(&label, "--insecure-policy");
        let mut found = self.lookaside(&sources, &manifest, &mut room)?;
        if sources.attachments {
            let side = RegistrySide::new(self.places, &label, self.most);
            found.extend(signatures(&side, manifest, &mut room)?);
        }
        Ok(found)
    }
}

impl RegistrySearch<'_> {
    /// The signatures of the lookaside, which are numbered without a gap.
    fn lookaside(
        &self,
        sources: &SignatureSources,
        manifest: &BlobDigest,
        room: &mut BesideRoom<'_>,
    ) -> std::result::Result<Vec<Signature>, BoxError> {
        let Some(base) = &sources.lookaside else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for number in 1.. {
            let url = SignatureSources::signature(base, self.reference, manifest, number);
            let bytes = match url.scheme() {
                "file" => {
                    let path = url.to_file_path();
                    let path = path.map_err(|()| format!("{url} is no path of this machine"))?;
                    match read_file(&path) {
                        Ok(bytes) => Some(bytes),
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                        Err(error) => return Err(format!("{}: {error}", path.display()).into()),
                    }
                }
                "http" | "https" => self.registries.document_at(url.as_str(), SIGNATURE_MAX)?,
                other => return Err(format!("{url}: {other} is no kind of lookaside").into()),
            };
            let Some(bytes) = bytes else { break };
            if number > COUNT_MAX {
                return Err(format!("{base} has more than {COUNT_MAX} signatures").into());
            }
            room.take(bytes.len() as u64)?;
            let one = Signature::from_lookaside(&bytes);
            found.push(one.map_err(|why| format!("the signature {url} is {why}"))?);
        }
        Ok(found)
    }
}

fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SIGNATURE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > SIGNATURE_MAX {
        true => Err(std::io::Error::other(format!("it is larger than {SIGNATURE_MAX} bytes"))),
        false => Ok(bytes),
    }
}
