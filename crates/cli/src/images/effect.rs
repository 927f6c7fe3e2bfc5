//! What an argument of `rmi` asks for, by name or by id.
//!
//! Invariants: a name goes alone as long as the image has others, and the last tag of a repository
//! takes the digests along that the image was pulled as from there; an image that an upper needs
//! stays.

use anyhow::{Result, bail};
use strata_image::resolve_image;
use strata_layer::Store;
use strata_registry::Reference;
use strata_tree::ImageId;

use super::{familiar, is_pin, split, users};
use crate::context::Context;

/// What an argument asks for.
pub(super) enum RmiEffect {
    /// That these names of the image go; it has others.
    Untag(ImageId, Vec<String>),
    /// That the image goes, with all its names.
    Remove(ImageId),
}

/// By name: the name goes, and the image if it was its last of `tags`. By id: the image, if it
/// has one name at most.
pub(super) fn asked(
    context: &Context,
    store: &Store,
    tags: &[(String, ImageId)],
    text: &str,
    force: bool,
) -> Result<RmiEffect> {
    let image = resolve_image(store, text)?;
    let names = names_of(tags, &image.id);
    let gone = named(&names, text).map(|name| gone_with(&names, name));
    let short = image.id.short();
    let tags_of_it = || names.iter().filter(|name| !is_pin(name));
    match &gone {
        // The image stays, used or not: what uses it need not be known.
        Some(gone) if gone.len() < names.len() => {
            return Ok(RmiEffect::Untag(image.id, gone.clone()));
        }
        Some(_) => {}
        None if tags_of_it().count() > 1 && !force => bail!(
            "unable to delete {short} (must be forced): it is named {}; remove those names, or \
             use --force",
            tags_of_it().map(|name| familiar(name)).collect::<Vec<_>>().join(", ")
        ),
        None => {}
    }
    // Asked for each image: the one before it may have taken long to go.
    match (users::upper_on(context, &image.id)?, gone) {
        (None, _) => Ok(RmiEffect::Remove(image.id)),
        // As docker does it: the image stays, without a name, as long as an upper needs it.
        (Some(_), Some(gone)) if force => Ok(RmiEffect::Untag(image.id, gone)),
        (Some(how), _) => bail!("unable to delete {}: {how}", shown(tags, &image.id, text)),
    }
}

/// Whether the store has no such image.
pub(super) fn is_absent(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(strata_image::Error::NoImage { .. }))
}

/// The image as it was asked for: by the name that it has, else as the text has it.
pub(super) fn shown(tags: &[(String, ImageId)], id: &ImageId, text: &str) -> String {
    named(&names_of(tags, id), text).map_or_else(|| text.to_owned(), familiar)
}

/// What goes with a name: itself, and with a repository's last tag the digests of the repository.
fn gone_with(names: &[&str], name: &str) -> Vec<String> {
    let own = split(name).0;
    let of_repository = |other: &&&str| **other != name && split(other).0 == own;
    let mut gone = vec![name.to_owned()];
    if !is_pin(name) && names.iter().filter(of_repository).all(|other| is_pin(other)) {
        gone.extend(names.iter().filter(of_repository).map(|pin| (*pin).to_owned()));
    }
    gone
}

/// The names that go with the one that the text is.
pub(super) fn gone_by_name(
    tags: &[(String, ImageId)],
    id: &ImageId,
    text: &str,
) -> Option<Vec<String>> {
    let names = names_of(tags, id);
    named(&names, text).map(|name| gone_with(&names, name))
}

/// Which of the names the text is.
fn named<'a>(names: &[&'a str], text: &str) -> Option<&'a str> {
    let reference = text.parse::<Reference>().ok()?;
    let tag = reference.store_pin().or_else(|| reference.store_tag())?;
    names.iter().copied().find(|name| *name == tag)
}

pub(super) fn names_of<'a>(tags: &'a [(String, ImageId)], id: &ImageId) -> Vec<&'a str> {
    tags.iter().filter(|(_, image)| image == id).map(|(name, _)| &name[..]).collect()
}
