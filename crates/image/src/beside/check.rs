//! Whether an image would be let in, without bringing it anywhere.
//!
//! Invariant: the same code decides as where an image comes into the store.

use strata_layer::Progress;
use strata_registry::{FetchedManifest, Reference, Registries};
use strata_trust::{TrustPolicy, TrustVerdict};

use super::gate::judge_registry;
use super::{admit_files, admit_registry};
use crate::error::{Error, Result};
use crate::find;
use crate::found::Wanted;
use crate::limits::SourceLimits;
use crate::location::Location;
use crate::media::MediaKind;
use crate::oci::{Top, choices};
use crate::platform::Platform;
use crate::pull::Remote;
use crate::source::ImageSource;
use crate::spool::Scratch;

/// What is asked.
pub struct TrustQuestion<'a> {
    /// Where the image is.
    pub location: &'a Location,
    /// What the image of a registry is called, where that is not how it is fetched.
    pub called: Option<&'a Reference>,
    /// Which image of an index; without it the one for the host.
    pub platform: Option<&'a Platform>,
    /// What sources may make us read.
    pub limits: SourceLimits,
}

/// Asks the policy about an image; `None` is given where there is no policy.
///
/// # Errors
/// `Trust`, and everything that documents are refused for. `NoImage` for one of the store, which
/// has been let in.
pub fn check_trust(
    trust: &TrustPolicy,
    registries: &Registries,
    question: &TrustQuestion<'_>,
    scratch: Scratch<'_>,
    progress: &dyn Progress,
) -> Result<Option<TrustVerdict>> {
    let TrustQuestion { location, called, platform, limits } = question;
    match location {
        Location::Registry(reference) => {
            let places = registries.places(reference)?;
            let source = Remote::new(places, None, reference, limits);
            let top = source.top(reference, progress)?;
            let mut found = source.image(top, *platform)?;
            let places = registries.places(reference)?;
            let (called, most) = (called.unwrap_or(reference), limits.document_bytes);
            admit_registry(Some(trust), registries, &places, called, most, &mut found)?;
            Ok(found.verdict)
        }
        Location::Files { format, path, name } => {
            let spec = Location::source(*format, path, name.as_deref());
            let source = ImageSource::open(&spec, scratch, limits)?;
            let wanted = Wanted { spec: &spec, platform: *platform };
            let mut found = find::one(&source, &wanted)?;
            admit_files(Some(trust), &source, &spec, &mut found)?;
            Ok(found.verdict)
        }
        Location::Stored(text) => Err(Error::NoImage { text: text.clone(), similar: Vec::new() }),
    }
}

/// Asks the policy about every image that a name of a registry leads to, whatever its platform: for
/// a program that chooses for itself which of them it runs. `called` is what the image is called,
/// where that is not how it is fetched. Gives the verdicts, none where there is no policy.
///
/// # Errors
/// `Trust`; `TrustOfOne` for an image of an index; everything that indexes are refused for.
pub fn check_trust_of_all(
    trust: &TrustPolicy,
    registries: &Registries,
    reference: &Reference,
    called: &Reference,
    limits: &SourceLimits,
    progress: &dyn Progress,
) -> Result<Vec<TrustVerdict>> {
    let source = Remote::new(registries.places(reference)?, None, reference, limits);
    let FetchedManifest { bytes, digest, media_type } = source.top(reference, progress)?;
    let kind = media_type.as_deref().map_or(MediaKind::Unsaid, MediaKind::of);
    let all = choices(&source, Top { digest, kind, bytes })?;
    let (places, most) = (registries.places(reference)?, limits.document_bytes);
    let mut verdicts = Vec::new();
    for manifest in all {
        let judged = judge_registry(trust, registries, &places, called, most, Some(manifest));
        verdicts.extend(judged.map_err(|why| match manifest == digest {
            true => Error::Trust(why),
            false => Error::TrustOfOne { manifest, source: Box::new(why) },
        })?);
    }
    Ok(verdicts)
}
