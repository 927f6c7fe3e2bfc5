//! A registry as a source of documents and layers, for the code that loads.
//!
//! Invariants: what a mirror gives has the digest that the user or the origin named; only where the
//! origin does not answer is a mirror trusted for a tag, with a warning; what the store has is not
//! fetched again.

use std::io::Read;

use strata_diff::stream::ReadThrough;
use strata_layer::{Ledger, Progress, Store};
use strata_registry::{
    EndpointError, FetchedManifest, ManifestName, Places, Reference, Registries, RegistryError, Tag,
};
use strata_tree::{BlobDigest, DiffId};
use strata_trust::TrustPolicy;

use crate::beside::{RegistrySide, admit_registry};
use crate::error::{Error, Result};
use crate::found::{FoundImage, FoundLayer};
use crate::limits::SourceLimits;
use crate::media::MediaKind;
use crate::oci::{Top, image_of, media_type_of};
use crate::platform::Platform;
use crate::source::{Blob, Blobs, check_digest, check_size};

/// Documents that need not be fetched again.
pub trait KnownDocuments: Sync {
    /// The bytes with that digest.
    ///
    /// # Errors
    /// `NoBlob` or `Damaged` where they are not there.
    fn document(&self, digest: &BlobDigest) -> strata_layer::Result<Vec<u8>>;
}

impl KnownDocuments for Store {
    fn document(&self, digest: &BlobDigest) -> strata_layer::Result<Vec<u8>> {
        self.blob(digest)
    }
}

impl KnownDocuments for Ledger {
    fn document(&self, digest: &BlobDigest) -> strata_layer::Result<Vec<u8>> {
        Self::document(self, digest)
    }
}

/// The places of one image as a source of documents and layers.
pub(crate) struct Remote<'a> {
    places: Places,
    known: Option<&'a dyn KnownDocuments>,
    label: String,
    limits: SourceLimits,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(
        places: Places,
        known: Option<&'a dyn KnownDocuments>,
        reference: &Reference,
        limits: &SourceLimits,
    ) -> Self {
        Self { places, known, label: reference.familiar(), limits: limits.clone() }
    }

    /// The document that the name stands for.
    pub(crate) fn top(
        &self,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<FetchedManifest> {
        let what = self.label.as_str();
        let most = self.limits.document_bytes;
        let by_digest = |digest| {
            let name = ManifestName::Digest(digest);
            self.places.first(what, |client| client.manifest(&name, most))
        };
        if let Some(digest) = reference.digest() {
            return Ok(by_digest(digest)?);
        }
        let tag = reference.tag().map_or("latest", Tag::as_str);
        let name = ManifestName::Tag(tag.to_owned());
        let origin = self.places.origin().filter(|_| self.places.has_mirrors());
        if let Some(origin) = origin.filter(|origin| !self.places.is_down(origin)) {
            match self.places.ask(origin, |client| client.manifest_head(&name)) {
                Ok(head) => {
                    if let Some(digest) = head.digest {
                        return Ok(by_digest(digest)?);
                    }
                    // It does not say; then the document itself has to come from there.
                    let found = self.places.ask(origin, |client| client.manifest(&name, most));
                    return found.map_err(|why| self.only(origin.label(), why));
                }
                Err(why @ EndpointError::NotFound(_)) => return Err(self.only(origin.label(), why)),
                // One that does not answer HEAD may well answer GET.
                Err(EndpointError::Denied(_) | EndpointError::Failed(_)) => {
                    match self.places.ask(origin, |client| client.manifest(&name, most)) {
                        Ok(found) => return Ok(found),
                        Err(why @ (EndpointError::NotFound(_) | EndpointError::Denied(_))) => {
                            return Err(self.only(origin.label(), why));
                        }
                        Err(why) => tracing::debug!("{what}: {}: {why}", origin.label()),
                    }
                }
                Err(why) => tracing::debug!("{what}: {}: {why}", origin.label()),
            }
        }
        self.places
            .first(what, |client| {
                let found = client.manifest(&name, most)?;
                if !client.is_origin() {
                    let text = format!(
                        "{what}: the registry itself did not answer lately; {} says that the tag \
                         is {}",
                        client.host(),
                        found.digest
                    );
                    progress.warning("", &text);
                }
                Ok(found)
            })
            .map_err(Error::from)
    }

    /// The image that a document leads to: of an index the one for the platform given, else for
    /// the host's.
    ///
    /// # Errors
    /// `Platform`, and everything that documents are refused for.
    pub(crate) fn image(
        &self,
        top: FetchedManifest,
        wanted: Option<&Platform>,
    ) -> Result<FoundImage> {
        let kind = MediaKind::of(&media_type(&top));
        let FetchedManifest { bytes, digest, .. } = top;
        let host = Platform::host();
        let found = image_of(self, wanted.or(Some(&host)), Top { digest, kind, bytes })?;
        // An image without an index says in its config alone what it is for.
        let own = found.config.platform();
        match wanted.filter(|wanted| !own.os.is_empty() && own.may_serve(wanted).is_none()) {
            Some(wanted) => Err(Error::Platform {
                label: self.label.clone(),
                wanted: wanted.to_string(),
                available: own.to_string(),
            }),
            None => Ok(found),
        }
    }

    /// Asks the policy whether the image may come in.
    ///
    /// # Errors
    /// `Trust`.
    pub(crate) fn admit(
        &self,
        trust: Option<&TrustPolicy>,
        registries: &Registries,
        reference: &Reference,
        found: &mut FoundImage,
    ) -> Result<()> {
        let most = self.limits.document_bytes;
        admit_registry(trust, registries, &self.places, reference, most, found)
    }

    /// What stands beside the image of a manifest.
    pub(crate) fn beside(&self) -> RegistrySide<'_> {
        RegistrySide::new(&self.places, &self.label, self.limits.document_bytes)
    }

    fn only(&self, endpoint: String, why: EndpointError) -> Error {
        RegistryError::one(self.label.as_str(), endpoint, why).into()
    }

    /// What is known under that digest.
    fn known(&self, digest: BlobDigest) -> Result<Option<Vec<u8>>> {
        let Some(known) = self.known else { return Ok(None) };
        match known.document(&digest) {
            Ok(bytes) => Ok(Some(bytes)),
            // Fetched again; a damaged one is replaced when the image is committed, or by fsck.
            Err(strata_layer::Error::NoBlob(_) | strata_layer::Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn within_limit(&self, what: &str, size: i64) -> Result<u64> {
        match u64::try_from(size) {
            Ok(size) if size <= self.limits.document_bytes => Ok(size),
            _ => Err(Error::Limit {
                label: self.label.clone(),
                what: format!("the size of {what}, {size} bytes,"),
                limit: self.limits.document_bytes,
                option: "--max-manifest-bytes",
            }),
        }
    }
}

/// What a document is: as the registry says, else as the document itself does.
pub(super) fn media_type(top: &FetchedManifest) -> String {
    top.media_type.clone().or_else(|| media_type_of(&top.bytes)).unwrap_or_default()
}

impl Blobs for Remote<'_> {
    fn label(&self) -> &str {
        &self.label
    }

    fn offers(&self, _: BlobDigest) -> Result<bool> {
        // What an index lists is taken to be there until it is asked for.
        Ok(true)
    }

    fn manifest(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>> {
        let most = self.within_limit(what, size)?;
        let bytes = match self.known(digest)? {
            Some(bytes) => bytes,
            None => {
                let name = ManifestName::Digest(digest);
                let what = format!("{}: {what}", self.label);
                self.places.first(&what, |client| client.manifest(&name, most))?.bytes
            }
        };
        check_size(&self.label, what, size, bytes.len() as u64)?;
        Ok(Some(bytes))
    }

    fn config(&self, what: &str, digest: BlobDigest, size: i64) -> Result<Option<Vec<u8>>> {
        let most = self.within_limit(what, size)?;
        if let Some(bytes) = self.known(digest)? {
            check_size(&self.label, what, size, bytes.len() as u64)?;
            return Ok(Some(bytes));
        }
        loop {
            let mut bytes = Vec::new();
            if self.places.blob(digest, most).read_to_end(&mut bytes).is_err() {
                let mut error = self.places.failures(digest);
                error.what = format!("{}: {what}", self.label);
                return Err(error.into());
            }
            match check_digest(&self.label, what, digest, &bytes) {
                Ok(()) => return Ok(Some(bytes)),
                Err(error) if self.places.wrong(digest, "its digest is another") => {
                    tracing::debug!("{error}; another place is asked");
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn layer(&self, layer: &FoundLayer) -> Result<Option<Blob<'_>>> {
        let Some((digest, Some(size))) = layer.blob else { return Ok(None) };
        let size = size.unsigned_abs();
        if layer.kind == MediaKind::ForeignLayer {
            // Registries may have it all the same.
            let head = self.places.first(&self.label, |client| client.blob_head(digest));
            match head {
                Ok(_) => {}
                Err(error) if matches!(error.decisive(), Some(EndpointError::NotFound(_))) => {
                    return Ok(None);
                }
                // Where HEAD is refused, GET tells.
                Err(error) if matches!(error.decisive(), Some(EndpointError::Failed(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if size == 0 {
            // Nobody is asked for nothing, and only one digest is that of nothing.
            check_digest(&self.label, &format!("layer {digest}"), digest, &[])?;
        }
        Ok(Some(Blob::new(size, Box::new(ReadThrough(self.places.blob(digest, size))))))
    }

    fn layer_label(&self, layer: &FoundLayer, diff_id: &DiffId) -> String {
        layer.blob.map_or_else(|| diff_id.short(), |(digest, _)| digest.short())
    }

    fn refused(&self, layer: &FoundLayer, error: Error) -> Result<()> {
        use strata_layer::Error as Layer;
        let Error::Layer { source, .. } = &error else { return Err(error) };
        // With the right blob and the wrong diff id it is the image that is wrong.
        let by_content = matches!(**source, Layer::Diff(_) | Layer::WrongBlob { .. });
        let Some((digest, _)) = layer.blob.filter(|_| by_content) else { return Err(error) };
        if self.places.wrong(digest, &source.to_string()) {
            tracing::debug!("{error}; another place is asked");
            return Ok(());
        }
        let mut all = self.places.failures(digest);
        if !self.places.has_mirrors() || all.attempts.is_empty() {
            return Err(error);
        }
        all.what = format!("{}: layer {digest}", self.label);
        Err(all.into())
    }
}

#[cfg(test)]
mod tests {
    use strata_layer::Event;
    use strata_registry::RegistryOptions;
    use strata_testkit::layout::{LAYER, Layout, tar_of, with};
    use strata_testkit::registry::Registry;

    use super::*;
    use crate::checked_store::CheckedStore;
    use crate::pull::{PullOptions, pull};

    struct Unheard;

    impl Progress for Unheard {
        fn event(&self, _: &str, _: Event) {}

        fn warning(&self, _: &str, _: &str) {}
    }

    #[test]
    fn what_a_manifest_says_is_empty_is_refused_unless_it_is() {
        for part in ["config", "layer"] {
            let layout = Layout::new("x");
            let tar = tar_of(&[("a", "b")]);
            let (mut config, mut layer) =
                (layout.config(&[&tar], "linux/amd64"), layout.blob(LAYER, &tar));
            let empty = if part == "config" { &mut config } else { &mut layer };
            *empty = with(empty, "size", 0.into());
            let blob = empty["digest"].as_str().unwrap().to_owned();
            layout.index(&[layout.manifest(&config, &[layer])]);
            let registry = Registry::new();
            registry.layout(layout.root(), "team/x", "1");
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let name: Reference = format!("{}/team/x:1", registry.host()).parse().unwrap();
            let registries = Registries::new(RegistryOptions::default());
            let into = CheckedStore::unchecked(&store);
            let pulled = pull(into, &registries, &name, &PullOptions::default(), &Unheard);
            let error = pulled.unwrap_err();
            assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
            assert!(error.to_string().contains(&blob[7..]), "{error}");
            assert_eq!(registry.count("GET", &blob), 0);
        }
    }
}
