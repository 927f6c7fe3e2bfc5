//! An image copied to a registry as it is, blob by blob.
//!
//! Invariants: the manifest is put last; a blob that the registry has, here or in the repository
//! that the image comes from, is not sent; a blob whose transfer breaks is sent again as a whole,
//! for its source may not have it in parts.

use std::io::{self, Read};

use strata_registry::{Client, ManifestName, Mount, Outgoing, Reference, Registries, Tag};
use strata_tree::BlobDigest;

use super::outbound::{OutLayer, Outbound, prepare};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::push::{LAYERS_AT_ONCE, PushEvent, PushListener, at_once, said};

/// Puts an image under a name with a tag; gives its manifest's digest.
///
/// # Errors
/// `NameWithDigest`, `Registry`, and those of reading the image.
pub(super) fn put(
    registries: &Registries,
    image: &Outbound<'_>,
    reference: &Reference,
    home: Option<&Reference>,
    listen: &PushListener<'_>,
) -> Result<BlobDigest> {
    let tag = reference.tag().filter(|_| reference.digest().is_none()).map(Tag::as_str);
    let Some(tag) = tag else { return Err(Error::NameWithDigest(reference.to_string())) };
    let client = registries.to_push(reference)?;
    let told = |why| said(reference, &client, why);
    let near = home.filter(|home| home.domain() == reference.domain());
    let near = near.map(|home| home.repository().as_str());
    let put = Put { client: &client, reference, near, listen };
    let todo = prepare(image, listen);
    at_once(LAYERS_AT_ONCE, &todo, |layer| put.layer(layer))?;
    client.put_small(image.id.into(), &image.config).map_err(told)?;
    if let Some(beside) = &image.beside {
        beside.push(&client, &told)?;
    }
    let name = ManifestName::Tag(tag.to_owned());
    client.put_manifest(&name, &image.media_type, &image.manifest).map_err(told)?;
    Ok(sha256(&image.manifest))
}

struct Put<'a> {
    client: &'a Client,
    reference: &'a Reference,
    /// The repository on the same registry that has the image.
    near: Option<&'a str>,
    listen: &'a PushListener<'a>,
}

impl Put<'_> {
    fn layer(&self, layer: &OutLayer<'_>) -> Result<()> {
        let label = layer.digest.short();
        let told = |why| said(self.reference, self.client, why);
        if layer.foreign {
            (self.listen)(&label, PushEvent::Skipped);
            return Ok(());
        }
        if self.client.has(layer.digest).map_err(told)? {
            (self.listen)(&label, PushEvent::Exists);
            return Ok(());
        }
        let mut begun = None;
        if let Some(near) = self.near {
            match self.client.mount(layer.digest, near) {
                Some(Mount::Done) => {
                    (self.listen)(&label, PushEvent::Mounted(near));
                    return Ok(());
                }
                Some(Mount::Upload(at)) => begun = Some(at),
                None => {}
            }
        }
        let total = layer.size;
        let sent = |bytes| (self.listen)(&label, PushEvent::Sending { bytes, total });
        let open = |offset: u64| {
            let mut reader = (layer.open)().map_err(io::Error::other)?;
            io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
            Ok(reader as Box<dyn Read>)
        };
        let outgoing = Outgoing { digest: layer.digest, size: total, open: &open, sent: &sent };
        self.client.upload(&outgoing, begun).map_err(told)?;
        (self.listen)(&label, PushEvent::Pushed);
        Ok(())
    }
}
