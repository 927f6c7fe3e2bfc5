//! Images out of the store, as one archive.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>...   what OCI tools read
//! manifest.json                                   what docker and podman load
//! ```
//!
//! Layers are plain tars, byte for byte as they came in, so their digests are their diff ids.
//!
//! Invariants: the same images under the same names give the same bytes; a blob is written once,
//! however many images have it; nothing is held in memory but documents.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use serde_json::{Value, json};
use strata_layer::{ImageRecord, LeasedLayer, Store};
use strata_registry::Reference;
use strata_tree::{BlobDigest, DiffId};
use tar::{EntryType, Header};

use crate::derive::manifest_of;
use crate::error::{Error, Result};
use crate::media::OCI_MANIFEST;
use crate::pack::write_checked;

/// Bytes of a tar's block.
const BLOCK: usize = 512;

/// An image to save, and the names that the archive gives it.
pub struct Saved {
    /// The image.
    pub image: ImageRecord,
    /// Its names; none is fine.
    pub names: Vec<Reference>,
}

/// Writes images as an archive that is an OCI archive and a docker archive in one, as docker 25
/// does. `out` gets large writes and is not flushed.
///
/// # Errors
/// `Store` for what is missing or damaged, `Io` if `out` refuses.
pub fn save(store: &Store, images: &[Saved], out: &mut dyn Write) -> Result<()> {
    let mut archive = ImageTar::begin(out)?;
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    for saved in images {
        let (_, leased) = store.lease_image(&saved.image.id)?;
        let config = store.blob(&BlobDigest::from(saved.image.id))?;
        let manifest = manifest_of(store, &config, &leased)?;
        for layer in &leased {
            archive.layer(store, layer)?;
        }
        archive.blob(&BlobDigest::from(saved.image.id), &config)?;
        let digest = crate::digest::sha256(&manifest);
        archive.blob(&digest, &manifest)?;
        index.extend(descriptors(&digest, manifest.len(), &saved.names));
        let tags = saved.names.iter().filter_map(Reference::store_tag);
        let tags = tags.map(|tag| tag.parse::<Reference>().map_or(tag, |name| name.familiar()));
        docker.push(json!({
            "Config": blob_path(&BlobDigest::from(saved.image.id)),
            "RepoTags": tags.collect::<Vec<_>>(),
            "Layers": leased.iter().map(|layer| layer_path(layer.diff_id())).collect::<Vec<_>>(),
        }));
    }
    archive.lists(&index, Some(&docker))
}

/// The image in an OCI index: once for each of its names, or once without.
fn descriptors(digest: &BlobDigest, size: usize, names: &[Reference]) -> Vec<Value> {
    let plain = json!({ "mediaType": OCI_MANIFEST, "digest": digest.to_string(), "size": size });
    let named = names.iter().map(|name| {
        let mut one = plain.clone();
        let mut annotations = json!({ "io.containerd.image.name": name.to_string() });
        if let Some(tag) = name.tag() {
            annotations["org.opencontainers.image.ref.name"] = json!(tag.as_str());
        }
        one["annotations"] = annotations;
        one
    });
    if names.is_empty() { vec![plain] } else { named.collect() }
}

fn blob_path(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn layer_path(diff_id: &DiffId) -> String {
    format!("blobs/sha256/{}", diff_id.hex())
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::io("writing an index", e))
}

/// An archive that is being written.
pub(crate) struct ImageTar<'a> {
    out: &'a mut dyn Write,
    there: BTreeSet<String>,
}

impl<'a> ImageTar<'a> {
    /// Writes what every layout begins with.
    pub(crate) fn begin(out: &'a mut dyn Write) -> Result<Self> {
        let mut archive = Self { out, there: BTreeSet::new() };
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        Ok(archive)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("writing the archive", e))
    }

    /// Nothing in a header depends on when or by whom it is written.
    fn header(&mut self, path: &str, kind: EntryType, size: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path).map_err(|e| Error::io("writing the archive", e))?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.write(&[0; BLOCK][over..]) }
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        self.header(path, EntryType::Directory, 0)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.header(path, EntryType::Regular, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// A document, unless it is there.
    pub(crate) fn blob(&mut self, digest: &BlobDigest, bytes: &[u8]) -> Result<()> {
        let path = blob_path(digest);
        if self.there.insert(path.clone()) { self.file(&path, bytes) } else { Ok(()) }
    }

    fn layer(&mut self, store: &Store, layer: &LeasedLayer) -> Result<()> {
        let diff_id = *layer.diff_id();
        let path = layer_path(&diff_id);
        if !self.there.insert(path.clone()) {
            return Ok(());
        }
        let size = store.layer(&diff_id)?.ok_or(strata_layer::Error::NoLayer(diff_id))?.diff_size;
        self.header(&path, EntryType::Regular, size)?;
        let written = write_checked(layer, self.out)?;
        if written != size {
            let what = format!("layer {diff_id} has {written} bytes, the index says {size}");
            return Err(Error::io("writing the archive", std::io::Error::other(what)));
        }
        self.pad(size)
    }

    /// A blob of `size` bytes that is opened and read, unless it is there; `told` hears how many
    /// bytes have been written. Says whether it was not there.
    pub(crate) fn stream<'r>(
        &mut self,
        digest: &BlobDigest,
        size: u64,
        open: &dyn Fn() -> Result<Box<dyn Read + Send + 'r>>,
        told: &dyn Fn(u64),
    ) -> Result<bool> {
        let path = blob_path(digest);
        if !self.there.insert(path.clone()) {
            return Ok(false);
        }
        let mut reader = open()?;
        self.header(&path, EntryType::Regular, size)?;
        let reading = |error| Error::io(format!("reading blob {digest}"), error);
        let (mut buffer, mut written) = (vec![0; 256 << 10], 0);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(reading(error)),
            };
            written += count as u64;
            if written > size {
                break;
            }
            self.write(&buffer[..count])?;
            told(written);
        }
        if written != size {
            let what = format!("it has not the {size} bytes that its descriptor says");
            return Err(reading(std::io::Error::other(what)));
        }
        self.pad(size)?;
        Ok(true)
    }

    /// The lists of images, and the end.
    pub(crate) fn lists(&mut self, index: &[Value], docker: Option<&[Value]>) -> Result<()> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": index,
        });
        self.file("index.json", &bytes(&index)?)?;
        if let Some(docker) = docker {
            self.file("manifest.json", &bytes(&json!(docker))?)?;
        }
        self.write(&[0; 2 * BLOCK])
    }
}
