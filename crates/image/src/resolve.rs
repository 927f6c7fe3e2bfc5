//! From what a person types to the image that is meant.
//!
//! Invariant: as with docker, a whole id wins, then a name, then the beginning of an id; an
//! ambiguous beginning is an error that lists the candidates, never a guess.

use strata_layer::{ImageRecord, Store};
use strata_registry::Reference;
use strata_tree::ImageId;

use crate::error::{Error, Result};

/// The shortest beginning of an id that is taken for one, in hex digits.
const PREFIX_MIN: usize = 2;

/// Finds an image by reference (`python`, `python:3.12`, `python@sha256:...`, the digest being
/// the manifest's), by id, or by the beginning of its id, with or without `sha256:`.
///
/// # Errors
/// `NoImage`, `Ambiguous`, `Store`.
pub fn resolve_image(store: &Store, text: &str) -> Result<ImageRecord> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if let Ok(id) = ImageId::from_hex(hex)
        && let Some(image) = store.images().get(&id)?
    {
        return Ok(image);
    }
    let tags = store.images().tags()?;
    let reference = text.parse::<Reference>().ok();
    if let Some(reference) = &reference
        && let Some(image) = by_reference(store, &tags, reference)?
    {
        return Ok(image);
    }
    let images = store.images().all()?;
    let mut matching = by_prefix(images.iter().map(|image| image.id), hex);
    match (matching.pop(), matching.is_empty()) {
        (Some(id), true) => store.images().get(&id)?.ok_or_else(|| no_image(text, &tags, None)),
        (Some(id), false) => {
            matching.push(id);
            Err(Error::Ambiguous { text: text.to_owned(), candidates: matching })
        }
        (None, _) => Err(no_image(text, &tags, reference.as_ref())),
    }
}

fn by_reference(
    store: &Store,
    tags: &[(String, ImageId)],
    reference: &Reference,
) -> Result<Option<ImageRecord>> {
    if let Some(digest) = reference.digest() {
        // Pulled by this very digest, which may be that of an index.
        let pin = reference.store_pin();
        if let Some((_, id)) = tags.iter().find(|(tag, _)| Some(tag) == pin.as_ref()) {
            return Ok(store.images().get(id)?);
        }
        // A pinned manifest must belong to an image of that repository.
        let ids = of_repository(tags, reference).map(|(_, id)| id);
        for id in ids {
            if let Some(image) = store.images().get(id)?
                && image.manifest == Some(digest)
            {
                return Ok(Some(image));
            }
        }
        return Ok(None);
    }
    let wanted = reference.store_tag();
    match tags.iter().find(|(tag, _)| Some(tag) == wanted.as_ref()) {
        Some((_, id)) => Ok(store.images().get(id)?),
        None => Ok(None),
    }
}

fn of_repository<'a>(
    tags: &'a [(String, ImageId)],
    reference: &'a Reference,
) -> impl Iterator<Item = (Reference, &'a ImageId)> {
    tags.iter().filter_map(|(tag, id)| Some((tag.parse::<Reference>().ok()?, id))).filter(
        |(own, _)| own.domain() == reference.domain() && own.repository() == reference.repository(),
    )
}

fn by_prefix(ids: impl Iterator<Item = ImageId>, hex: &str) -> Vec<ImageId> {
    let is_prefix = hex.len() >= PREFIX_MIN
        && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    ids.filter(|id| is_prefix && id.hex().starts_with(hex)).collect()
}

fn no_image(text: &str, tags: &[(String, ImageId)], reference: Option<&Reference>) -> Error {
    let similar = reference
        .map(|reference| of_repository(tags, reference).map(|(own, _)| own.familiar()).collect())
        .unwrap_or_default();
    Error::NoImage { text: text.to_owned(), similar }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_select_ids() {
        let ids = [[0xab; 32], [0xac; 32], [0x12; 32]].map(ImageId::from_bytes);
        let matching = |hex: &str| by_prefix(ids.iter().copied(), hex).len();
        for (hex, count) in [("ab", 1), ("aba", 1), ("a", 0), ("", 0), ("12", 1), ("AB", 0)] {
            assert_eq!(matching(hex), count, "{hex}");
        }
        assert_eq!(by_prefix([ids[0], ids[0]].into_iter(), "ab").len(), 2);
    }

    #[test]
    fn other_tags_of_the_repository_are_offered() {
        let id = ImageId::from_bytes([1; 32]);
        let tags = [
            ("docker.io/library/python:3.12".to_owned(), id),
            ("quay.io/library/python:3.13".to_owned(), id),
        ];
        let wanted = "python".parse().unwrap();
        let error = no_image("python", &tags, Some(&wanted)).to_string();
        assert!(error.ends_with("of that repository it has python:3.12"), "{error}");
        let other = "node".parse().unwrap();
        assert!(no_image("node", &tags, Some(&other)).to_string().contains("strata images"));
    }
}
