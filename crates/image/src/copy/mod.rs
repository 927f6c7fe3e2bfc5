//! Images from one place to another, without a way through the store unless it is one of them.
//!
//! ```text
//! registry   ---+                  +--> registry     blobs streamed, mounted where they are
//! OCI layout ---+--> Outbound -----+--> OCI layout   blobs/, then index.json
//! archives   ---+   (outbound.rs)  +--> archives     one tar for all images that go into it
//! store      ---+                  +--> store        what pull and load do
//! ```
//!
//! Invariants: where the source has a manifest and the destination keeps blobs, every byte and
//! every digest stays; else layers are the diffs themselves, checked against their diff ids, or
//! for a registry packed the same way every time. What names the image comes last, so a
//! destination never names what is not there. If the source is an index, the image for one platform
//! is copied.

mod archive;
mod layout;
mod outbound;
mod registry;

pub use archive::ArchiveWriter;

use std::path::PathBuf;

use strata_layer::{Progress, Store};
use strata_registry::{Reference, Registries};
use strata_tree::{BlobDigest, ImageId};
use strata_trust::TrustPolicy;

use crate::beside::{Beside, LayoutSide, admit_files, companions};
use crate::checked_store::CheckedStore;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::find;
use crate::found::{FoundImage, Wanted};
use crate::limits::SourceLimits;
use crate::load::{LoadOptions, load_one};
use crate::location::Location;
use crate::pack::LayerPacking;
use crate::platform::Platform;
use crate::pull::Remote;
use crate::push::{PushListener, PushOptions, push};
use crate::resolve::resolve_image;
use crate::source::{Blobs, ImageSource};
use outbound::{LayerForm, Outbound};

/// How to copy.
#[derive(Default)]
pub struct CopyOptions<'a> {
    /// Which image of an index is copied: the one for this platform; without it the host's.
    pub platform: Option<Platform>,
    /// How layers are packed for a registry; without it as they are, else gzip.
    pub packing: Option<LayerPacking>,
    /// What sources may make us read.
    pub limits: SourceLimits,
    /// Whom images are accepted from; without it from anybody. What is in the store is not asked
    /// about again.
    pub trust: Option<&'a TrustPolicy>,
    /// Whether signatures, and whatever else stands beside the image, go along.
    pub with_signatures: bool,
}

/// Where an image goes.
pub enum Target<'a, 'w> {
    /// To a registry, under this name.
    Registry(Reference),
    /// Into an OCI layout directory, made if it is not there; an image of that name is replaced.
    Layout {
        /// The directory.
        path: PathBuf,
        /// What the image is called there; without it as in the source.
        name: Option<String>,
    },
    /// Into an archive that is being written.
    Archive {
        /// The archive.
        archive: &'a mut ArchiveWriter<'w>,
        /// What the image is called there; without it as in the source.
        name: Option<String>,
    },
    /// Into the store, under this name, or as in the source.
    Store(Option<Reference>),
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedImage {
    /// The image's id.
    pub id: ImageId,
    /// Its manifest at the destination, if there is one.
    pub manifest: Option<BlobDigest>,
}

/// The listeners to the progress of a copy.
pub struct Listeners<'a> {
    /// What comes into the store.
    pub pulling: &'a dyn Progress,
    /// What goes elsewhere.
    pub pushing: &'a PushListener<'a>,
}

/// Copies one image.
///
/// # Errors
/// Those of reading the source and of writing the destination, which then does not name the image.
/// `Several` if the source does not say which image.
pub fn copy(
    into: CheckedStore<'_>,
    registries: &Registries,
    from: &Location,
    to: Target<'_, '_>,
    options: &CopyOptions<'_>,
    listeners: &Listeners<'_>,
) -> Result<CopiedImage> {
    let store = into.store;
    match from {
        Location::Registry(reference) => {
            let places = registries.places(reference)?;
            let source = Remote::new(places, Some(store), reference, &options.limits);
            let top = source.top(reference, listeners.pulling)?;
            let mut found = source.image(top, options.platform.as_ref())?;
            source.admit(options.trust, registries, reference, &mut found)?;
            if reference.digest().is_none() {
                found.names.push(reference.clone());
            }
            let copy = Copy { into, registries, options, listeners, home: Some(reference) };
            copy.found(&source, found, to, &|| Ok(Box::new(source.beside())))
        }
        Location::Files { format, path, name } => {
            let spec = Location::source(*format, path, name.as_deref());
            let scratch = || Ok(store.scratch_file()?);
            let source = ImageSource::open(&spec, &scratch, &options.limits)?;
            let wanted = Wanted { spec: &spec, platform: options.platform.as_ref() };
            let mut found = find::one(&source, &wanted)?;
            admit_files(options.trust, &source, &spec, &mut found)?;
            let copy = Copy { into, registries, options, listeners, home: None };
            copy.found(&source, found, to, &|| Ok(Box::new(LayoutSide::new(&source)?)))
        }
        Location::Stored(text) => stored(store, registries, text, to, options, listeners),
    }
}

/// An image of the store.
fn stored(
    store: &Store,
    registries: &Registries,
    text: &str,
    to: Target<'_, '_>,
    options: &CopyOptions<'_>,
    listeners: &Listeners<'_>,
) -> Result<CopiedImage> {
    if options.with_signatures {
        return Err(Error::Signatures { image: text.to_owned(), why: NOT_KEPT.to_owned() });
    }
    let image = resolve_image(store, text)?;
    match to {
        Target::Registry(reference) => {
            let how = PushOptions { packing: options.packing, ..PushOptions::default() };
            let pushed = push(store, registries, &image, &reference, &how, listeners.pushing)?;
            Ok(CopiedImage { id: image.id, manifest: Some(pushed.digest) })
        }
        Target::Store(name) => {
            if let Some(name) = name {
                let tag = name.store_tag().filter(|_| name.digest().is_none());
                let tag = tag.ok_or_else(|| Error::NameWithDigest(name.to_string()))?;
                store.images().tag(&tag, &image.id)?;
            }
            Ok(CopiedImage { id: image.id, manifest: image.manifest })
        }
        to => {
            let outbound = outbound::of_store(store, &image, text)?;
            written(&outbound, to, listeners)
        }
    }
}

/// Writes an image into files.
fn written(
    outbound: &Outbound<'_>,
    to: Target<'_, '_>,
    listeners: &Listeners<'_>,
) -> Result<CopiedImage> {
    match to {
        Target::Layout { path, name } => {
            layout::write(&path, outbound, name.as_deref(), listeners.pushing)?;
        }
        Target::Archive { archive, name } => {
            archive.image(outbound, name.as_deref(), listeners.pushing)?;
        }
        Target::Registry(_) | Target::Store(_) => {}
    }
    Ok(CopiedImage { id: outbound.id, manifest: Some(sha256(&outbound.manifest)) })
}

struct Copy<'a> {
    into: CheckedStore<'a>,
    registries: &'a Registries,
    options: &'a CopyOptions<'a>,
    listeners: &'a Listeners<'a>,
    /// The registry that it comes from.
    home: Option<&'a Reference>,
}

/// Gives what stands beside the image.
type BesideIt<'a> = dyn Fn() -> Result<Box<dyn Beside + 'a>> + 'a;

const NOT_KEPT: &str = "the store keeps images alone";

impl Copy<'_> {
    fn found<'s>(
        &self,
        source: &'s dyn Blobs,
        mut found: FoundImage,
        to: Target<'_, '_>,
        beside: &BesideIt<'s>,
    ) -> Result<CopiedImage> {
        let no_use = |why: &str| {
            let named = found.names.first().or(found.pin.as_ref());
            let image = named.map_or_else(|| source.label().to_owned(), Reference::familiar);
            Err(Error::Signatures { image, why: why.to_owned() })
        };
        if self.options.with_signatures && matches!(to, Target::Store(_)) {
            return no_use(NOT_KEPT);
        }
        let form = match &to {
            Target::Store(_) => return self.to_store(source, found, to),
            Target::Registry(_) => match self.options.packing {
                None if outbound::is_whole(&found) => LayerForm::AsItIs,
                packing => LayerForm::Packed(packing.unwrap_or_default()),
            },
            Target::Archive { archive, .. } if archive.wants_plain() => LayerForm::Plain,
            Target::Layout { .. } | Target::Archive { .. } => match outbound::is_whole(&found) {
                true => LayerForm::AsItIs,
                false => LayerForm::Plain,
            },
        };
        if self.options.with_signatures && form != LayerForm::AsItIs {
            return no_use("it gets another manifest there, which they do not sign");
        }
        let names = std::mem::take(&mut found.names);
        let limits = &self.options.limits;
        let mut outbound =
            outbound::of_found(self.into.store, source, &found, names, form, limits)?;
        if self.options.with_signatures {
            outbound.beside = Some(companions(beside()?, sha256(&outbound.manifest))?);
        }
        let Target::Registry(reference) = &to else {
            return written(&outbound, to, self.listeners);
        };
        let pushing = self.listeners.pushing;
        let digest = registry::put(self.registries, &outbound, reference, self.home, pushing)?;
        Ok(CopiedImage { id: outbound.id, manifest: Some(digest) })
    }

    fn to_store(
        &self,
        source: &dyn Blobs,
        mut found: FoundImage,
        to: Target<'_, '_>,
    ) -> Result<CopiedImage> {
        if let Target::Store(Some(name)) = to {
            if name.digest().is_some() {
                return Err(Error::NameWithDigest(name.to_string()));
            }
            found.names = vec![name];
        }
        let options = LoadOptions { limits: self.options.limits.clone(), ..LoadOptions::default() };
        let manifest = found.manifest.as_deref().map(sha256);
        let loaded = load_one(self.into, source, &found, &options, self.listeners.pulling)?;
        Ok(CopiedImage { id: loaded.id, manifest })
    }
}
