//! Into a tar: an OCI archive, or what docker loads.
//!
//! Invariants: each blob is in it once, however many images have it; the lists come last. The
//! docker archive is an OCI archive too, as docker's own are since version 25; its layers are
//! plain diffs, for old loaders read no others.

use std::io::Write;

use serde_json::{Value, json};

use super::layout::descriptors;
use super::outbound::{Outbound, blob_name, prepare};
use crate::digest::sha256;
use crate::error::Result;
use crate::push::{PushEvent, PushListener};
use crate::save::ImageTar;
use strata_registry::Reference;

/// An archive that is being written.
pub struct ArchiveWriter<'w> {
    archive: ImageTar<'w>,
    index: Vec<Value>,
    /// Docker's list, if it is one of docker's.
    docker: Option<Vec<Value>>,
}

impl<'w> ArchiveWriter<'w> {
    /// Begins an OCI archive.
    ///
    /// # Errors
    /// `Io` if `out` refuses.
    pub fn oci(out: &'w mut dyn Write) -> Result<Self> {
        Ok(Self { archive: ImageTar::begin(out)?, index: Vec::new(), docker: None })
    }

    /// Begins an archive that docker loads.
    ///
    /// # Errors
    /// `Io` if `out` refuses.
    pub fn docker(out: &'w mut dyn Write) -> Result<Self> {
        Ok(Self { archive: ImageTar::begin(out)?, index: Vec::new(), docker: Some(Vec::new()) })
    }

    pub(crate) fn wants_plain(&self) -> bool {
        self.docker.is_some()
    }

    pub(crate) fn image(
        &mut self,
        image: &Outbound<'_>,
        name: Option<&str>,
        listen: &PushListener<'_>,
    ) -> Result<()> {
        for layer in prepare(image, listen) {
            let label = layer.digest.short();
            if layer.foreign {
                listen(&label, PushEvent::Skipped);
                continue;
            }
            let total = layer.size;
            let told = |bytes| listen(&label, PushEvent::Sending { bytes, total });
            match self.archive.stream(&layer.digest, total, &*layer.open, &told)? {
                true => listen(&label, PushEvent::Pushed),
                false => listen(&label, PushEvent::Exists),
            }
        }
        let digest = sha256(&image.manifest);
        self.archive.blob(&image.id.into(), &image.config)?;
        self.archive.blob(&digest, &image.manifest)?;
        if let Some(beside) = &image.beside {
            beside.each(&mut |digest, bytes| self.archive.blob(digest, bytes))?;
        }
        self.index.extend(descriptors(image, &digest, name));
        if let Some(docker) = &mut self.docker {
            let tags: Vec<_> = match name {
                Some(name) => vec![name.parse::<Reference>()?.familiar()],
                None => image.names.iter().map(Reference::familiar).collect(),
            };
            let layers: Vec<_> = image.layers.iter().map(|one| blob_name(&one.digest)).collect();
            docker.push(json!({
                "Config": blob_name(&image.id.into()),
                "RepoTags": tags,
                "Layers": layers,
            }));
        }
        Ok(())
    }

    /// Writes the lists and the end.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(mut self) -> Result<()> {
        self.archive.lists(&self.index, self.docker.as_deref())
    }
}
